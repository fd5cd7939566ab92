"""A small market at the plugin seam: clicks follow bid, hour of day and appetite; spend is reported, never limited.

It does not enforce daily budgets: if more than a budget is spent, the agent let it happen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kiki_agent.errors import PluginError
from kiki_agent.hooks.capabilities import Capabilities
from kiki_agent.model import (
    DAY,
    SECOND,
    Campaign,
    CampaignStatus,
    DayWindow,
    Instant,
    Intent,
    IntentKind,
    Outcome,
    PerformanceReport,
    PerformanceRow,
    Receipt,
    SpendReport,
    SpendRow,
    local_day,
    parse_iso,
)

MIDNIGHT = parse_iso("2026-03-10T00:00:00Z")
TODAY = "2026-03-10"
STEP = 5 * SECOND


@dataclass
class Entity:
    """A campaign of the market, and how it behaves."""

    campaign: Campaign
    clicks_per_hour: float
    """Clicks an hour at a bid of 1, at mean traffic."""
    elasticity: float = 1.3
    carried: float = 0.0


def campaign(name: str, connector: str = "meta", **changes: object) -> Campaign:
    """A campaign with 100 a day and a bid of 0.30."""
    facts: dict[str, object] = {
        "platform": connector,
        "name": name,
        "status": CampaignStatus.ACTIVE,
        "daily_budget_micros": 100_000_000,
        "bid_micros": 300_000,
    }
    return Campaign(connector=connector, campaign_id=name, **(facts | changes))  # type: ignore[arg-type]


class Market:
    """Several connectors' accounts; stands in the place of the plugin caller."""

    def __init__(self, entities: Sequence[Entity], start: Instant = MIDNIGHT) -> None:
        self.now = start
        self.entities = {(each.campaign.connector, each.campaign.campaign_id): each for each in entities}
        self.spend: dict[tuple[str, str, str], int] = {}
        self.clicks: dict[tuple[str, str, str], int] = {}
        self.traffic = [1.0] * 24
        self.fails: dict[str, list[PluginError | tuple[Outcome, str]]] = {}
        self.done: dict[str, Intent] = {}
        """Effects, by the key of their intent."""
        self.writes: list[tuple[int, Intent]] = []
        self.history_rate = 0.02

    async def to(self, instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
        """The plugin seam."""
        fault = self.fails[verb].pop(0) if self.fails.get(verb) else None
        if isinstance(fault, PluginError):
            raise fault
        if verb == "capabilities":
            return Capabilities()
        if verb == "fetch_campaigns":
            return [each.campaign for (connector, _), each in self.entities.items() if connector == instance_id]
        if verb == "fetch_spend":
            rows = [
                SpendRow(name, day, spent)
                for (connector, name, day), spent in sorted(self.spend.items())
                if connector == instance_id
            ]
            return SpendReport(tuple(rows), self.now)
        if verb == "fetch_performance":
            return self._performance(instance_id, args[0])
        intents = args[0]
        assert isinstance(intents, tuple)
        if verb == "reconcile":
            return [
                Receipt(each.key, Outcome.ACCEPTED if each.key in self.done else Outcome.REJECTED) for each in intents
            ]
        if fault is not None:
            return [Receipt(each.key, fault[0], fault[1]) for each in intents]
        return [self._carry_out(each) for each in intents]

    async def call(self, instance_id: str, verb: str, args: tuple[object, ...]) -> object:
        """The seam as the outbox calls it."""
        return await self.to(instance_id, verb, *args)

    def _carry_out(self, intent: Intent) -> Receipt:
        entity = self.entities[intent.connector, intent.campaign_id]
        match intent.kind:
            case IntentKind.ADJUST_BID:
                entity.campaign = replace(entity.campaign, bid_micros=intent.after)
            case IntentKind.SET_BUDGET:
                entity.campaign = replace(entity.campaign, daily_budget_micros=intent.after)
            case IntentKind.SET_STATUS:
                status = CampaignStatus.ACTIVE if intent.after else CampaignStatus.PAUSED
                entity.campaign = replace(entity.campaign, status=status)
        self.done[intent.key] = intent
        self.writes.append((self.now, intent))
        return Receipt(intent.key, Outcome.ACCEPTED)

    def advance(self, until: int) -> None:
        """Let people click until then."""
        while self.now < until:
            span = min(STEP, until - self.now)
            hour = (self.now - MIDNIGHT) % DAY * 24 // DAY
            day = local_day(self.now, "UTC")
            for (connector, name), each in self.entities.items():
                if each.campaign.status is not CampaignStatus.ACTIVE or each.campaign.bid_micros <= 0:
                    continue
                bid = each.campaign.bid_micros / 1e6
                each.carried += (
                    each.clicks_per_hour * self.traffic[hour] * bid**each.elasticity * span / (3600 * SECOND)
                )
                clicks = math.floor(each.carried)
                each.carried -= clicks
                key = (connector, name, day)
                self.spend[key] = self.spend.get(key, 0) + clicks * int(each.campaign.bid_micros * 0.8)
                self.clicks[key] = self.clicks.get(key, 0) + clicks
            self.now = Instant(self.now + span)

    def _performance(self, instance_id: str, window: object) -> PerformanceReport:
        assert isinstance(window, DayWindow)
        rows = []
        days = [local_day(self.now - back * DAY, "UTC") for back in range(1, 15)]
        for connector, name in self.entities:
            for day in days:
                if connector == instance_id and window.first_day <= day <= window.last_day:
                    clicks = self.clicks.get((connector, name, day), 500)
                    conversions = int(clicks * self.history_rate)
                    rows.append(PerformanceRow(name, day, clicks * 40, clicks, conversions, clicks * 400_000, 0))
        return PerformanceReport(tuple(rows), self.now, days[0])
