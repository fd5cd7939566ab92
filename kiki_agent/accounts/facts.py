"""What is handed out about accounts: plain values."""

from __future__ import annotations

from dataclasses import dataclass

from kiki_agent.model import Instant


@dataclass(frozen=True, slots=True)
class Account:
    """One connector's account, as configured."""

    connector: str
    platform: str
    """Canonical platform id."""
    timezone: str = "UTC"
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class PlatformTotals:
    """Sums over some account days of one connector."""

    spend_micros: int
    conversions: int
    revenue_micros: int
    clicks: int
    impressions: int
    as_of: Instant | None
    """What the platform reported covers everything up to here; None when it never reported."""
    newest_row_as_of: Instant | None
    """`as_of` of the last report that said anything new: the newest evidence."""
