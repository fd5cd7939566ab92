"""A scripted platform: answers what a test put in, raises what a test put in, remembers what was asked."""

from __future__ import annotations

from collections.abc import Sequence

from kiki_agent.errors import PluginError
from kiki_agent.hooks.capabilities import Capabilities
from kiki_agent.model import (
    DAY,
    Campaign,
    CampaignStatus,
    DayWindow,
    Instant,
    PerformanceReport,
    PerformanceRow,
    SpendReport,
    SpendRow,
    local_day,
    parse_iso,
)

NOON = parse_iso("2026-03-10T12:00:00Z")
TODAY = "2026-03-10"


def campaign(name: str, connector: str = "meta", **changes: object) -> Campaign:
    """A campaign with 100 a day and a bid of 1."""
    facts: dict[str, object] = {
        "platform": connector,
        "name": name,
        "status": CampaignStatus.ACTIVE,
        "daily_budget_micros": 100_000_000,
        "bid_micros": 1_000_000,
    }
    return Campaign(connector=connector, campaign_id=name, **(facts | changes))  # type: ignore[arg-type]


def row(name: str, day: str = TODAY, clicks: int = 10, conversions: int = 1, spend: int = 5_000_000) -> PerformanceRow:
    """A day of a campaign."""
    return PerformanceRow(name, day, clicks * 50, clicks, conversions, spend, conversions * 80_000_000)


class ScriptedPlatform:
    """Stands at the plugin seam, in the place of the caller."""

    def __init__(self, campaigns: Sequence[Campaign]) -> None:
        self.campaigns = list(campaigns)
        self.spend: dict[tuple[str, str], int] = {}
        self.pages: list[list[PerformanceRow]] = [[]]
        self.as_of: Instant = NOON
        self.final_before = "2026-03-07"
        self.fails: dict[str, list[PluginError]] = {}
        self.asked: list[tuple[str, tuple[object, ...]]] = []
        self.before_answer: object = None
        self.stated = Capabilities()

    async def to(self, instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
        self.asked.append((verb, args))
        if self.fails.get(verb):
            raise self.fails[verb].pop(0)
        if verb == "capabilities":
            return self.stated
        if verb == "fetch_campaigns":
            return list(self.campaigns)
        if verb == "fetch_spend":
            rows = [SpendRow(name, day, spent) for (name, day), spent in sorted(self.spend.items())]
            return SpendReport(tuple(rows), self.as_of)
        assert verb == "fetch_performance"
        window, cursor = args
        assert isinstance(window, DayWindow)
        page = int(cursor) if isinstance(cursor, str) else 0
        rows_in = [each for each in self.pages[page] if window.first_day <= each.day <= window.last_day]
        following = str(page + 1) if page + 1 < len(self.pages) else None
        return PerformanceReport(tuple(rows_in), self.as_of, self.final_before, following)

    def windows(self) -> list[DayWindow]:
        """The performance windows asked for, in order."""
        return [args[0] for verb, args in self.asked if verb == "fetch_performance"]  # type: ignore[misc]


def days_before(days: int, now: int = NOON) -> str:
    """The day so many days before a moment."""
    return local_day(now - days * DAY, "UTC")
