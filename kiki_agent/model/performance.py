"""What a platform reports, and how old it is."""

from __future__ import annotations

from dataclasses import dataclass

from kiki_agent.model.time import Instant


@dataclass(frozen=True, slots=True)
class DayWindow:
    """Account days, both ends included."""

    first_day: str
    last_day: str


@dataclass(frozen=True, slots=True)
class PerformanceRow:
    """One campaign on one account day, as known now; conversions belong to the day of their click."""

    campaign_id: str
    day: str
    impressions: int
    clicks: int
    conversions: int
    spend_micros: int
    revenue_micros: int


@dataclass(frozen=True, slots=True)
class PerformanceReport:
    """One page of performance rows."""

    rows: tuple[PerformanceRow, ...]
    as_of: Instant
    """The data covers everything up to here; now minus this is its age."""
    final_before: str
    """Account days before this one no longer restate."""
    cursor: str | None = None
    """Pass it back for the next page; None on the last."""


@dataclass(frozen=True, slots=True)
class SpendRow:
    """Cumulated spend of one campaign on one account day."""

    campaign_id: str
    day: str
    spend_micros: int


@dataclass(frozen=True, slots=True)
class SpendReport:
    """Spend so far, one row per campaign and day."""

    rows: tuple[SpendRow, ...]
    as_of: Instant
