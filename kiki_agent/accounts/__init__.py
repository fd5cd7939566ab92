"""What the ad platforms state about campaigns, budgets, bids, spend and performance, each fact with its age.

Pollers read, screens sort out nonsense, columns hold what is known now and tables what a restarted agent still knows.
No decision is made here and no call goes out that changes anything at a platform.
"""

from kiki_agent.accounts.accounts import Accounts
from kiki_agent.accounts.facts import Account, PlatformTotals, mismatch
from kiki_agent.accounts.levers import KIND_OF, LEVER_OF, Lever, LeverKey, OutsideEdit, entity_of, value_of
from kiki_agent.accounts.poller import Poller, Reader
from kiki_agent.accounts.table import CampaignTable

__all__ = [
    "KIND_OF",
    "LEVER_OF",
    "Account",
    "Accounts",
    "CampaignTable",
    "Lever",
    "LeverKey",
    "OutsideEdit",
    "PlatformTotals",
    "Poller",
    "Reader",
    "entity_of",
    "mismatch",
    "value_of",
]
