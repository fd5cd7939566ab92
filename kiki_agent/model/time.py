"""Instants and account days.

An instant is an integer: microseconds since 1970-01-01 UTC. A day is text, `YYYY-MM-DD`, in an ad account's time zone.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NewType
from zoneinfo import ZoneInfo

Instant = NewType("Instant", int)
"""Microseconds since 1970-01-01T00:00:00 UTC."""

MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
"""A span of 24 hours in microseconds; an account's calendar day may last 23 or 25 hours, see `day_bounds`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso(instant: int) -> str:
    """ISO 8601 in UTC with microseconds, `2026-01-31T12:00:00.000000Z`; fixed width, so text order is time order."""
    moment = _EPOCH + timedelta(microseconds=instant)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


def parse_iso(text: str) -> Instant:
    """The instant named by an ISO 8601 text; a text without offset is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    span = moment - _EPOCH
    return Instant((span.days * 86_400 + span.seconds) * SECOND + span.microseconds)


@lru_cache(maxsize=4096)
def day_bounds(day: str, timezone: str) -> tuple[Instant, Instant]:
    """First instant of an account day and of the next one; 23 to 25 hours apart. Raises ValueError on a bad day."""
    zone = ZoneInfo(timezone)
    first = date.fromisoformat(day)
    start = datetime(first.year, first.month, first.day, tzinfo=zone)
    after = first + timedelta(days=1)
    end = datetime(after.year, after.month, after.day, tzinfo=zone)
    return (
        Instant(round(start.timestamp()) * SECOND),
        Instant(round(end.timestamp()) * SECOND),
    )


_last_day: dict[str, tuple[int, int, str]] = {}


def local_day(instant: int, timezone: str) -> str:
    """The account day, `YYYY-MM-DD`, an instant falls on."""
    cached = _last_day.get(timezone)
    if cached is not None and cached[0] <= instant < cached[1]:
        return cached[2]
    moment = (_EPOCH + timedelta(microseconds=instant)).astimezone(ZoneInfo(timezone))
    day = moment.strftime("%Y-%m-%d")
    start, end = day_bounds(day, timezone)
    _last_day[timezone] = (start, end, day)
    return day
