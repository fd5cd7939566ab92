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
