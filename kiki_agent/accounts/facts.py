"""What is handed out about accounts: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

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


@lru_cache(maxsize=64)
def same_days(one: str, other: str) -> bool:
    """Whether two time zones, by their IANA names, always begin their days together. False for unknown names."""
    if one == other:
        return True
    try:
        first, second = ZoneInfo(one), ZoneInfo(other)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    start = datetime(2020, 1, 1, tzinfo=UTC)
    moments = (start + timedelta(days=number) for number in range(20 * 366))
    return all(moment.astimezone(first).utcoffset() == moment.astimezone(second).utcoffset() for moment in moments)
