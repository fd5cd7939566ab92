"""One decision of the two-second loop about one campaign."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DecisionSource(StrEnum):
    """Where the customer value behind a bid came from."""

    AI = "ai"
    FALLBACK = "fallback"
    MANUAL = "manual"


class DecisionOutcome(StrEnum):
    """What became of the wish to bid."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    REDUCED = "REDUCED"
    """Permitted at a lower level than wanted."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and everything that makes two decisions equal or different."""

    connector: str
    campaign_id: str
    platform: str
    bid_micros: int
    """Quantised bid in force after the decision; 0 = not bidding."""
    outcome: DecisionOutcome
    reason: str
    """Stable code: `ON_PLAN`, `AHEAD_OF_PLAN`, `BEHIND_PLAN`, `DAILY_CAP`, `WINDOW_CAP`, `KILL_SWITCH`, ..."""
    source: DecisionSource
    model_version: str
    ltv_micros: int
    """Inputs that are recorded but do not make a decision new."""
    basis: str = "not_personal"
    """Legal basis: `not_personal`, `consent:<id>` or `denied`."""

    @property
    def identity(self) -> tuple[int, str, str, str, str]:
        """Two decisions of one campaign are the same decision when this is equal."""
        return (self.bid_micros, self.outcome.value, self.reason, self.source.value, self.model_version)
