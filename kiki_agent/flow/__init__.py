"""The two-second loop: what each campaign bids, why, and how its platform gets to know.

Pure rules (`rule`, `pacing`) stand apart from the loops that carry them out: the bidder decides on every tick, a
writer per connector sends what changed, rarely and only with the shield's consent. No budgets are moved here.
"""

from kiki_agent.flow.bidder import Bidder
from kiki_agent.flow.patience import Patience
from kiki_agent.flow.settlement import PlacedSettler
from kiki_agent.flow.status import Flow, FlowStatus
from kiki_agent.flow.writer import BidWriter

__all__ = ["BidWriter", "Bidder", "Flow", "FlowStatus", "Patience", "PlacedSettler"]
