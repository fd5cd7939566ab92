"""What a platform's own change history says about one change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kiki_agent.model import Instant

LEVERS: Final = frozenset({"budget", "bid", "status"})
AUTHORS: Final = frozenset({"person", "vendor", "tool", "unknown"})
"""A person by hand, the platform's own automation, a program of the customer or of others, or not said."""
LONGEST_THROUGH: Final = 80


@dataclass(frozen=True, slots=True)
class AccountEdit:
    """One change of a budget, a bid or a status at a platform, whoever made it; ours are among them."""

    campaign_ids: tuple[str, ...]
    """The campaigns it moves: several where they share a budget."""
    lever: str
    """`budget`, `bid` or `status`."""
    after: int | None
    """Micros, or 1 and 0 for a status; None where the platform does not say, or in units that are not micros."""
    at: Instant
    """When it was made."""
    made_by: str
    """`person`, `vendor`, `tool` or `unknown`, see `AUTHORS`."""
    through: str = ""
    """The platform's own word for the program it was made with. Never a name or an address of a person."""
