"""Builds the one snapshot the page shows, at most once a second however many pages watch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from kiki_agent.governor.kill import SUBJECT as STOP
from kiki_agent.ledger import IntentRow
from kiki_agent.model import (
    DAY,
    MINUTE,
    SECOND,
    Instant,
    IntentKind,
    Platform,
    day_bounds,
    decimal_text,
    iso,
    local_day,
)
from kiki_agent.model.money import minor_exponent
from kiki_agent.notify.news import FROZEN, HOLD
from kiki_agent.runtime.clock import Stopwatch
from kiki_agent.runtime.supervisor import LoopState
from kiki_agent.web import words
from kiki_agent.web.actions import actions_of, in_flight
from kiki_agent.web.governance import governor_needs, governor_state
from kiki_agent.web.handlers.health import next_cycle
from kiki_agent.web.protocols import EfficiencyDetail, StoredAlert
from kiki_agent.web.sentence import AlertFact, Facts, PlatformFact, needs, status_line
from kiki_agent.web.services import Services, spent_today
from kiki_agent.web.shapes.overview import (
    ActionItem,
    BiddingState,
    DayState,
    LedgerState,
    OptimizerState,
    OverviewAnswer,
    PlatformState,
    StopState,
    Totals,
    WindowUse,
)
from kiki_agent.web.stopping import unstopped

FRESH_S = 1.0
"""Real seconds a snapshot is served before a new one is built."""
HISTORY = 72
"""Cycles kept for the small curves: six hours at five minutes."""
ACTIONS = 60
_UNKNOWN_AFTER = 5 * MINUTE
_RARE = (IntentKind.SET_BUDGET, IntentKind.SET_STATUS)
_FREQUENT = (IntentKind.ADJUST_BID, IntentKind.PLACE_BID)
"""Read apart, so that many bids never push a budget move out of sight."""


class Overview:
    """Keeps the snapshot and the short history behind its curves."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = asyncio.Lock()
        self._body: bytes | None = None
        self._age = Stopwatch()
        self._generation = 0
        self._last_cycle: Instant | None = None
        self._average: deque[float | None] = deque(maxlen=HISTORY)
        self._efficiency: dict[str, deque[float | None]] = {}

    def forget(self) -> None:
        """The next reader gets a new snapshot: a person just changed something."""
        self._generation += 1
        self._body = None

    async def body(self) -> bytes:
        """The snapshot as JSON, at most a second old."""
        async with self._lock:
            if self._body is None or self._age.seconds() >= FRESH_S:
                generation = self._generation
                built = (await self.build()).model_dump_json().encode("utf-8", "replace")
                self._age.restart()
                if generation != self._generation:
                    return built
                self._body = built
            return self._body

    def note_cycle(self) -> None:
        """Remember the efficiencies of a new optimizer cycle for the curves."""
        optimizer = self._services.optimizer
        snapshot = None if optimizer is None else optimizer.snapshot
        if snapshot is None or snapshot.timestamp == self._last_cycle:
            return
        self._last_cycle = snapshot.timestamp
        self._average.append(_ratio(snapshot.average_efficiency))
        for each in snapshot.details:
            known = self._efficiency.setdefault(each.connector, deque(maxlen=HISTORY))
            known.append(_ratio(each.efficiency))

    async def build(self) -> OverviewAnswer:
        """Gather the present state."""
        self.note_cycle()
        services = self._services
        now = services.clock.now()
        zone = services.settings.timezone
        date = local_day(now, zone)
        start, end = day_bounds(date, zone)
        intents: list[IntentRow] = []
        counts: Mapping[IntentKind, int] = {}
        if services.records is not None:
            intents = list(await services.records.intents(since=start, kinds=_RARE, limit=ACTIONS * 8))
            intents += await services.records.intents(since=start, kinds=_FREQUENT, limit=ACTIONS)
            counts = await services.records.counts(since=start)
        alerts: list[StoredAlert] = []
        if services.alerts is not None:
            alerts = list(await services.alerts.latest(limit=50))
        platforms = self._platforms(now)
        facts = self._facts(now, platforms, alerts, intents)
        waiting = [*needs(facts), *governor_needs(services)]
        shifts = [] if services.optimizer is None else list(services.optimizer.recent_shifts)
        done = actions_of(shifts, intents, self.name, since=start)
        bids = sum(1 for each in done if each.kind == "bid")
        shield = services.shield
        return OverviewAnswer(
            at=iso(now),
            client_id=services.settings.client_id,
            currency=services.settings.currency,
            decimals=minor_exponent(services.settings.currency),
            mode=services.settings.mode.value,
            mode_label=words.MODES[services.settings.mode],
            speed=services.clock.speed,
            version=services.version,
            signed_in=services.settings.http.token is not None,
            status=status_line(facts, waiting),
            needs=waiting,
            stop=StopState(
                on=shield is not None and shield.killed,
                available=shield is not None,
                reason=shield.kill_reason if shield is not None and shield.killed else None,
                since=None if shield is None or shield.kill_at is None else iso(shield.kill_at),
            ),
            day=DayState(date=date, timezone=zone, elapsed=round((now - start) / max(1, end - start), 4)),
            totals=_totals(services, platforms, now),
            platforms=platforms,
            optimizer=self._optimizer(sum(1 for each in done if each.kind == "shift")),
            bidding=_bidding(services, counts.get(IntentKind.ADJUST_BID, 0)),
            actions=[*_first(done, ACTIONS)],
            actions_today=len(done) + max(0, counts.get(IntentKind.ADJUST_BID, 0) - bids),
            ledger=None
            if services.ledger is None
            else LedgerState(
                entries=services.ledger.head[0], head=services.ledger.head[1], hold=services.ledger.hold_reason
            ),
            governor=await governor_state(services, self.name),
        )

    def name(self, connector: str, campaign_id: str) -> str:
        """The name people know a campaign by, and its platform."""
        settings = self._services.settings.connector.get(connector)
        label = connector if settings is None else Platform.parse(settings.platform).label
        table = None if self._services.accounts is None else self._services.accounts.table
        row = None if table is None else table.index.get((connector, campaign_id))
        name = campaign_id if table is None or row is None else table.rows[row].name or campaign_id
        return f"“{name}” at {label}"

    # -- parts ---------------------------------------------------------------------------------------------------

    def _platforms(self, now: Instant) -> list[PlatformState]:
        services = self._services
        accounts = services.accounts
        if accounts is None:
            return []
        snapshot = None if services.optimizer is None else services.optimizer.snapshot
        details = {} if snapshot is None else {each.connector: each for each in snapshot.details}
        average = None if snapshot is None else snapshot.average_efficiency
        names = [services.settings.connector[each].platform for each in accounts.connectors]
        found = []
        for connector in accounts.connectors:
            platform = Platform.parse(services.settings.connector[connector].platform)
            label = platform.label if names.count(platform.value) <= 1 else f"{platform.label} ({connector})"
            found.append(self._platform(connector, platform, label, details.get(connector), average, now))
        return found

    def _platform(
        self,
        connector: str,
        platform: Platform,
        label: str,
        detail: EfficiencyDetail | None,
        average: float | None,
        now: Instant,
    ) -> PlatformState:
        services = self._services
        assert services.accounts is not None
        currency = services.settings.currency
        instance = None if services.plugins is None else services.plugins.instances.get(connector)
        lost = services.accounts.lost.get(connector)
        low, high = services.accounts.table.bounds[connector]
        age = services.accounts.spend_age(connector, now)
        spent = spent_today(services, connector, now)
        budget = services.accounts.budget_micros(connector)
        stats = None if services.shield is None else services.shield.status(connector, now)
        cap = None if stats is None else stats.daily_cap_micros
        efficiency = None if detail is None else _ratio(detail.efficiency)
        snapshot = None if services.optimizer is None else services.optimizer.snapshot
        return PlatformState(
            connector=connector,
            platform=platform.value,
            label=label,
            state=_state(instance.state if instance is not None else "ok", lost),
            note=(instance.error if instance is not None else "") or lost,
            campaigns=high - low,
            active_campaigns=int(services.accounts.table.active[low:high].sum()),
            spent_today=None if spent is None else decimal_text(spent, currency),
            spend_as_of=None if age is None else iso(now - age),
            spend_cannot_say=None if spent is not None else "this platform has not reported spend yet",
            budget=decimal_text(budget, currency),
            share=round(spent / budget, 4) if spent is not None and budget > 0 else None,
            cap=None if cap is None else decimal_text(cap, currency),
            overshoot=decimal_text(stats.overshoot_micros, currency) if stats and stats.overshoot_micros > 0 else None,
            window=None
            if stats is None
            else WindowUse(
                spent=decimal_text(stats.current_spend_micros, currency),
                limit=decimal_text(stats.max_budget_micros, currency) if stats.max_budget_micros > 0 else None,
                share=round(stats.current_spend_micros / stats.max_budget_micros, 4)
                if stats.max_budget_micros > 0
                else None,
                window_s=stats.window_s,
                records=stats.record_count,
            ),
            efficiency=efficiency,
            efficiency_cannot_say=None if efficiency is not None else _cannot_say(services, detail),
            against_average=round((detail.efficiency - average) / average, 4)
            if detail is not None and detail.efficiency is not None and average
            else None,
            best=snapshot is not None and snapshot.best_platform == platform.rpc_name and efficiency is not None,
            held_by=words.HELD_BY.get(detail.note) if detail is not None else None,
            ltv=decimal_text(detail.ltv_micros, currency) if detail and detail.ltv_micros is not None else None,
            cac=decimal_text(detail.cac_micros, currency) if detail and detail.cac_micros is not None else None,
            efficiency_as_of=iso(detail.as_of) if detail and detail.as_of is not None else None,
            efficiency_history=list(self._efficiency.get(connector, ())),
        )

    def _optimizer(self, shifts_today: int) -> OptimizerState:
        services = self._services
        optimizer, options = services.optimizer, services.settings.optimizer
        snapshot = None if optimizer is None else optimizer.snapshot
        due = next_cycle(services) if options.enabled else None
        return OptimizerState(
            enabled=options.enabled,
            interval_s=options.interval_s,
            threshold=options.threshold,
            step_share=options.step_share,
            last_run=iso(optimizer.last_run) if optimizer is not None and optimizer.last_run is not None else None,
            last_result=optimizer.last_result or None if optimizer is not None else None,
            next_run=None if due is None else iso(due),
            last_words=_last_words(services),
            average_efficiency=None if snapshot is None else _ratio(snapshot.average_efficiency),
            best_platform=_label(snapshot.best_platform) if snapshot is not None else None,
            shifts_today=shifts_today,
            average_history=list(self._average),
        )

    def _facts(
        self, now: Instant, platforms: list[PlatformState], alerts: list[StoredAlert], intents: list[IntentRow]
    ) -> Facts:
        services = self._services
        healths = [] if services.supervisor is None else list(services.supervisor.health.values())
        faulted = [each for each in healths if each.state is LoopState.FAULTED]
        frozen = services.supervisor is not None and services.supervisor.frozen
        hold = services.not_ready() if services.starting is None and not frozen else None
        settings = services.settings
        told = {f"poll:{each.connector}" for each in platforms if each.state == "lost"}
        return Facts(
            now=now,
            starting=None if services.starting is None else services.starting.removeprefix("starting: "),
            hold=None if hold is None else hold.removeprefix("safe hold: "),
            frozen=tuple(each.name for each in faulted if each.essential),
            troubled=tuple(
                (each.name, each.last_error) for each in faulted if not each.essential and each.name not in told
            ),
            killed=services.shield is not None and services.shield.killed,
            kill_reason=None if services.shield is None else services.shield.kill_reason,
            killed_at=None if services.shield is None else services.shield.kill_at,
            unstopped=unstopped(services),
            platforms=tuple(_platform_fact(services, each, now) for each in platforms),
            alerts=tuple(
                AlertFact(each.notification_id, each.severity == "CRITICAL", each.title, each.message, each.created_at)
                for each in alerts
                if each.severity != "INFO" and each.read_at is None and now - each.created_at < DAY
                if each.metadata.get("subject") not in told and not _said_anyway(each)
            ),
            unknown=in_flight(intents, {each.connector: each.label for each in platforms}, now - _UNKNOWN_AFTER),
            spend_period=round(settings.bidding.poll_interval_s * SECOND),
        )


def _said_anyway(alert: StoredAlert) -> bool:
    """The page says itself whether spending is stopped, held or frozen, and nothing of it once that is over."""
    return alert.metadata.get("subject", "").partition(":")[0] in (STOP, HOLD, FROZEN)


def _platform_fact(services: Services, each: PlatformState, now: Instant) -> PlatformFact:
    age = None if services.accounts is None else services.accounts.spend_age(each.connector, now)
    guard = None if services.resilience is None else services.resilience.guards.get(each.connector)
    asked = each.state != "off" and (guard is None or guard.enabled)
    return PlatformFact(
        connector=each.connector,
        label=each.label,
        quarantined=(each.note or "no reason known") if each.state == "quarantined" else None,
        lost=each.note if each.state == "lost" and asked else None,
        has_cap=services.shield is None or each.cap is not None,
        overshoot=None if each.overshoot is None else f"{each.overshoot} {services.settings.currency}",
        spend_as_of=None if age is None else Instant(now - age),
        silent_for=services.accounts.silence(each.connector, now) if services.accounts is not None and asked else 0,
    )


def _totals(services: Services, platforms: list[PlatformState], now: Instant) -> Totals:
    currency = services.settings.currency
    accounts = services.accounts
    if accounts is None or not platforms:
        return Totals(
            spent_today=None, budget_today=None, share=None, as_of=None, cannot_say="no platform is connected yet"
        )
    budget = sum(accounts.budget_micros(each.connector) for each in platforms)
    silent = [each.label for each in platforms if each.spend_as_of is None]
    if silent:
        all_silent = len(silent) == len(platforms)
        who = "no platform has" if all_silent else f"{', '.join(silent)} {'has' if len(silent) == 1 else 'have'} not"
        reason = f"{who} reported spend yet"
        return Totals(
            spent_today=None, budget_today=decimal_text(budget, currency), share=None, as_of=None, cannot_say=reason
        )
    spent = sum(spent_today(services, each.connector, now) or 0 for each in platforms)
    return Totals(
        spent_today=decimal_text(spent, currency),
        budget_today=decimal_text(budget, currency),
        share=round(spent / budget, 4) if budget > 0 else None,
        as_of=min(each.spend_as_of for each in platforms if each.spend_as_of is not None),
        cannot_say=None,
    )


def _bidding(services: Services, changed: int) -> BiddingState:
    loop = None if services.supervisor is None else services.supervisor.health.get("bidding")
    return BiddingState(
        interval_s=services.settings.bidding.interval_s,
        ticks=0 if loop is None else loop.ticks,
        last_success=None if loop is None or loop.last_success is None else iso(loop.last_success),
        last_reason=None if loop is None else loop.last_reason,
        state="off" if loop is None else loop.state.value,
        bids_changed_today=changed,
    )


def _cannot_say(services: Services, detail: EfficiencyDetail | None) -> str:
    if detail is not None:
        return words.cannot_say(detail.note)
    return (
        "the optimizer is off" if not services.settings.optimizer.enabled else "the first comparison is still to come"
    )


def _last_words(services: Services) -> str:
    optimizer = services.optimizer
    if optimizer is None or optimizer.snapshot is None:
        return "no cycle yet"
    snapshot = optimizer.snapshot
    moved = any(shift.at == optimizer.last_run for shift in optimizer.recent_shifts)
    held = [(_label(each.platform) or each.connector, each.note) for each in snapshot.details]
    return words.last_cycle(moved, snapshot.average_efficiency is not None, held)


def _first(items: Sequence[ActionItem], limit: int) -> Iterator[ActionItem]:
    """The newest bids and, counted apart, the newest of everything else: many bids never hide a budget move."""
    left = {True: limit, False: limit}
    for item in items:
        is_bid = item.kind == "bid"
        if left[is_bid] > 0:
            left[is_bid] -= 1
            yield item


def _state(text: str, lost: str | None) -> Literal["ok", "lost", "quarantined", "off"]:
    if text in ("quarantined", "off"):
        return "quarantined" if text == "quarantined" else "off"
    return "ok" if lost is None else "lost"


def _ratio(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _label(rpc_name: str | None) -> str | None:
    return None if rpc_name is None else Platform.parse(rpc_name).label
