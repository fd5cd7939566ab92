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


def mismatch(account: Account, currency: str, timezone: str) -> str:
    """Why an account that states these cannot be worked with as it is configured, or nothing.

    Money and days are counted as configured, so an account that keeps others is left alone until a person has decided
    which is right.
    """
    if currency != account.currency:
        return f"the account is in {currency}, the agent counts in {account.currency} (currency)"
    if not same_days(timezone, account.timezone):
        return (
            f"the account's days are those of {timezone}, the agent counts those of {account.timezone};"
            f' set connector.{account.connector}.timezone = "{timezone}"'
        )
    return ""


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
