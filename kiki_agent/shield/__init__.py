"""May this money move? Permits, sliding windows, account days, leases, allocations, the change gate, the kill switch.

The shield decides and books; it never talks to a platform, chooses a bid or tells a person. Whatever it cannot check
is refused, and whatever a platform reports is booked.
"""

from kiki_agent.shield.allocations import AllocationView, CheckAnswer
from kiki_agent.shield.book import Caps, WindowStats
from kiki_agent.shield.bounds import Bound, Exceeded
from kiki_agent.shield.levels import LevelAnswer, LevelRequest
from kiki_agent.shield.permit import Permit
from kiki_agent.shield.reasons import LevelReason, Refusal
from kiki_agent.shield.shield import Shield
from kiki_agent.shield.window import SlidingWindow

__all__ = [
    "AllocationView",
    "Bound",
    "Caps",
    "CheckAnswer",
    "Exceeded",
    "LevelAnswer",
    "LevelReason",
    "LevelRequest",
    "Permit",
    "Refusal",
    "Shield",
    "SlidingWindow",
    "WindowStats",
]
