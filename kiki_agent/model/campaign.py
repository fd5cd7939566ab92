"""A campaign as its platform states it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CampaignStatus(StrEnum):
    """Whether a campaign may spend."""

    ACTIVE = "active"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Campaign:
    """One campaign of one connector, read from the platform."""

    connector: str
    """Id of the connector instance, for example `meta`."""
    campaign_id: str
    """The platform's own id, unique within the connector."""
    platform: str
    """Canonical platform id, see `Platform`."""
    name: str
    status: CampaignStatus
    daily_budget_micros: int
    bid_micros: int
    """Bid per click (CPC) now set at the platform."""
    currency: str = "USD"
    bid_step_micros: int = 10_000
    """The smallest bid step the platform accepts."""
    min_bid_micros: int = 10_000
    min_budget_micros: int = 1_000_000
    budget_step_micros: int = 10_000
    budget_id: str = ""
    """The platform's id of the budget this campaign spends from; campaigns of a connector with the same id share it,
    and each states the whole of it. Empty: a budget of its own."""
    steers_bid: bool = True
    """False where the platform sets bids by itself; `bid_micros` is then what a click costs there, as far as known."""
    steers_budget: bool = True
    """False where there is no daily budget to set: a lifetime budget, or one that belongs to somebody else."""
    learning: bool = False
    """True while the platform says it is learning how to deliver; big edits would make it start over."""
