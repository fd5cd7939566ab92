"""The loop around the rule: gathers facts, judges, carries shifts out, and keeps the answer of the last cycle."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from fractions import Fraction

import msgspec

from kiki_agent.accounts import Accounts, Lever
from kiki_agent.config import Settings
from kiki_agent.governor import Governor
from kiki_agent.ledger import Ledger, Outbox
from kiki_agent.ledger.reallocations import Reallocation, record_reallocation
from kiki_agent.model import SECOND, Alert, Campaign, Instant, Platform, Severity, decimal_text, local_day
from kiki_agent.model.money import MICROS
from kiki_agent.notify import Alerts
from kiki_agent.optimizer.plan import spending
from kiki_agent.optimizer.rule import Guards, LastShift, PlatformFacts, Underperformer, Verdict, judge
from kiki_agent.optimizer.shifts import Shift, Shifts, ShiftState, shift_id
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.loop import Loop
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.shield import Shield
from kiki_agent.store import Store
from kiki_agent.value import Value

_log = get_logger("optimizer")


@dataclass(frozen=True, slots=True)
class EfficiencyDetail:
    """One platform in the last cycle."""

    connector: str
    platform: str
    ltv_micros: int | None
    cac_micros: int | None
    efficiency: float | None
    """LTV / CAC; None when it cannot be said, see `note`."""
    daily_budget_micros: int
    as_of: Instant | None
    note: str
    """Why it was left out or held; empty when nothing stands against it."""


@dataclass(frozen=True, slots=True)
class EfficiencySnapshot:
    """Answer of one cycle; every screen shows these numbers."""

    timestamp: Instant
    average_efficiency: float | None
    best_platform: str | None
    best_efficiency: float | None
    details: tuple[EfficiencyDetail, ...]


class Optimizer(Loop):
    """Every five minutes: who earns least per unit spent gives to who earns most (GBO-01 to GBO-06)."""

    def __init__(
        self,
        settings: Settings,
        platforms: Mapping[str, Platform],
        *,
        store: Store,
        ledger: Ledger,
        outbox: Outbox,
        accounts: Accounts,
        value: Value,
        shield: Shield,
        alerts: Alerts,
        signals: Signals,
        metrics: Metrics,
        governor: Governor | None = None,
    ) -> None:
        """Without a governor the shield alone says what may be changed."""
        options = settings.optimizer
        period = round(options.interval_s * SECOND)
        self.name = "optimizer"
        self.period = period
        self.deadline = min(period, 60 * SECOND)
        self.essential = True
        self.first_due_at_start = options.run_at_start
        self._settings = settings
        self._platforms = dict(platforms)
        """Connector id -> platform."""
        self._store = store
        self._ledger = ledger
        self._accounts = accounts
        self._value = value
        self._governor = governor
        self._alerts = alerts
        self._signals = signals
        self._metrics = metrics
        self._shifts = Shifts(store, outbox, accounts, governor or shield, self._record, left_alone=self._left_alone)
        self._guards = Guards(
            threshold=Fraction(str(options.threshold)),
            step_share=Fraction(str(options.step_share)),
            cooldown=round(options.cooldown_s * SECOND),
            floor_share=Fraction(str(options.floor_share)),
            consume_evidence=options.consume_evidence,
            min_conversions=options.min_conversions,
        )
        self._start_budgets: dict[str, int] = {}
        self._last: dict[str, LastShift] = {}
        self._open: list[Shift] = []
        self._restored = False
        self.snapshot: EfficiencySnapshot | None = None
        self.runs = 0
        self.shifts_done = 0
        self.last_run: Instant | None = None
        self.last_result = ""
        self.recent_shifts: tuple[Shift, ...] = ()
        """Up to 50 shifts, newest first."""

    @property
    def next_run(self) -> Instant | None:
        """Due time of the next cycle; None before the first."""
        return None if self.last_run is None else Instant(self.last_run + self.period)

    async def history(self) -> list[Shift]:
        """All shifts on record, newest first."""
        return await self._shifts.recent(limit=1_000_000)

    async def tick(self, now: Instant) -> str | None:
        """Run one cycle; returns why nothing was shifted, None when something was."""
        if not self._restored:
            await self._restore()
        carried = await self._carry_on(now)
        carried |= await self._take_approved(now)
        facts = self._facts(now)
        await self._note_start_budgets(facts, now)
        busy = frozenset(name for shift in self._open for name in (shift.from_connector, shift.to_connector))
        verdict = judge(facts, self._guards, self._last, busy, now)
        plans, verdict = self._plans(verdict, facts, now)
        self._log_verdict(verdict)
        done = await self._carry_out(plans, now)
        self._publish(verdict, self._facts(now) if done or carried else facts, now)
        reason = _reason(verdict, done)
        self._remember(verdict, done, reason, now)
        return reason

    # -- one cycle ---------------------------------------------------------------------------------------------

    def _facts(self, now: Instant) -> list[PlatformFacts]:
        last_day = local_day(now, self._settings.timezone)
        first_day = (
            date.fromisoformat(last_day) - timedelta(days=self._settings.optimizer.lookback_days - 1)
        ).isoformat()
        found = []
        for connector, platform in self._platforms.items():
            totals = self._accounts.totals(connector, first_day, last_day)
            value = self._value.platform_value(platform.value, now)
            budget = self._accounts.budget_micros(connector)
            found.append(
                PlatformFacts(
                    connector=connector,
                    platform=platform.value,
                    ltv_micros=value.average_ltv_micros,
                    spend_micros=totals.spend_micros,
                    conversions=totals.conversions,
                    daily_budget_micros=budget,
                    start_budget_micros=self._start_budgets.get(connector, budget),
                    as_of=totals.as_of,
                    movable_micros=self._movable(connector, budget),
                )
            )
        return found

    def _left_alone(self, campaign: Campaign) -> bool:
        """Whether a budget stays as it is: somebody else set it, or its campaign is learning."""
        if self._governor is None:
            return False
        return campaign.learning or self._governor.left_alone(campaign, Lever.BUDGET) is not None

    def _movable(self, connector: str, budget_micros: int) -> int | None:
        """The connector's budget without what stays as it is, which counts as given."""
        if self._governor is None:
            return None
        campaigns = spending(self._accounts.campaigns(connector))
        given = sum(each.daily_budget_micros for each in campaigns if self._left_alone(each))
        return max(0, budget_micros - given)

    def _plans(self, verdict: Verdict, facts: Sequence[PlatformFacts], now: Instant) -> tuple[list[Shift], Verdict]:
        """The shifts the verdict asks for, and the verdict with what stands against the others.

        What cannot be carried out is not begun: it would only be another row that says so, every cycle.
        """
        by_connector = {each.connector: each for each in facts}
        plans: list[Shift] = []
        judged: list[Underperformer] = []
        for under in verdict.underperformers:
            held_by = under.held_by
            if under.amount_micros > 0 and verdict.best is not None:
                shift = self._plan(under, by_connector[under.connector], by_connector[verdict.best], now)
                held_by = self._shifts.obstacle(shift, now)
                if not held_by:
                    plans.append(shift)
                elif self._governor is not None:
                    changes = self._shifts.changes(shift, now)
                    self._governor.denied(changes, held_by, shift.reason, now, facts=_facts_of(shift))
            judged.append(replace(under, held_by=held_by))
        return plans, replace(verdict, underperformers=tuple(judged))

    async def _carry_out(self, plans: Sequence[Shift], now: Instant) -> list[Shift]:
        """Open and carry out the planned shifts; those that began."""
        done: list[Shift] = []
        for number, shift in enumerate(plans):
            busy = {name for each in self._open for name in (each.from_connector, each.to_connector)}
            if number and busy & {shift.from_connector, shift.to_connector}:
                continue  # an earlier one of this cycle is on its way there
            if number and self._shifts.obstacle(shift, now):  # or stands in its way
                continue
            await self._shifts.open(shift)
            shift = self._announce(await self._shifts.advance(shift, now))
            if shift.is_open:
                self._open.append(shift)
            if shift.state is not ShiftState.FAILED:
                self._last[shift.from_connector] = LastShift(shift.at, shift.evidence_as_of)
                done.append(shift)
        return done

    def _plan(self, under: Underperformer, giver: PlatformFacts, taker: PlatformFacts, now: Instant) -> Shift:
        assert giver.efficiency is not None
        assert taker.efficiency is not None
        assert giver.as_of is not None
        percent = _percent(under.deviation)
        return Shift(
            shift_id=shift_id(self._settings.client_id, giver.connector, taker.connector, now),
            run_id=_run_id(self._settings.client_id, now),
            at=now,
            from_connector=giver.connector,
            to_connector=taker.connector,
            from_platform=giver.platform,
            to_platform=taker.platform,
            wanted_micros=under.amount_micros,
            currency=self._settings.currency,
            from_efficiency=_decimal(giver.efficiency),
            to_efficiency=_decimal(taker.efficiency),
            reason=f"{Platform(giver.platform).label} earns {percent} against the average of all platforms",
            evidence_as_of=giver.as_of,
        )

    async def _carry_on(self, now: Instant) -> bool:
        """Move on shifts that waited for an answer; True when one moved."""
        if not self._open:
            return False
        before = self._open
        after = [self._announce(await self._shifts.advance(shift, now)) for shift in before]
        self._open = [shift for shift in after if shift.is_open]
        return after != before

    async def _take_approved(self, now: Instant) -> bool:
        """Begin the shifts that people approved; True when there was one."""
        if self._governor is None or not self._governor.desk.approved_shifts:
            return False
        approved, self._governor.desk.approved_shifts = self._governor.desk.approved_shifts, []
        for each in approved:
            shift = replace(msgspec.json.decode(each.facts, type=Shift), at=now)
            await self._carry_out([shift], now)
        return True

    # -- what is remembered -------------------------------------------------------------------------------------

    async def abandon_open(self, now: Instant) -> int:
        """Close every shift that is open, before the first cycle: the record is older than the world. How many."""
        shifts = await self._shifts.open_ones()
        for shift in shifts:
            await self._shifts.abandon(shift, now)
        return len(shifts)

    async def _restore(self) -> None:
        """Take up where the last process stopped."""

        def read(connection: sqlite3.Connection) -> dict[str, int]:
            return dict(connection.execute("SELECT connector, budget_micros FROM start_budgets").fetchall())

        self._start_budgets = await self._store.read(read)
        self._open = await self._shifts.open_ones()
        for shift in await self._shifts.last_givers():
            self._last[shift.from_connector] = LastShift(shift.at, shift.evidence_as_of)
        self.recent_shifts = tuple(await self._shifts.recent())
        self._restored = True

    async def _note_start_budgets(self, facts: Sequence[PlatformFacts], now: Instant) -> None:
        """Remember the budget a connector had when it was first seen; its floor is a share of that."""
        new = [
            (each.connector, each.daily_budget_micros, now)
            for each in facts
            if each.connector not in self._start_budgets and each.as_of is not None and each.daily_budget_micros > 0
        ]
        if not new:
            return

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT INTO start_budgets VALUES (?, ?, ?) ON CONFLICT DO NOTHING", new)

        await self._store.write(write)
        self._start_budgets.update((connector, budget) for connector, budget, _ in new)

    def _record(self, connection: sqlite3.Connection, shift: Shift) -> None:
        """Write a closed shift to the ledger and tell people, in the closing transaction (GBO-05, GBO-06, M5)."""
        body = {
            "shift_id": shift.shift_id,
            "from_connector": shift.from_connector,
            "to_connector": shift.to_connector,
            "wanted_micros": shift.wanted_micros,
            "moved_micros": shift.moved_micros,
            "currency": shift.currency,
            "from_efficiency": shift.from_efficiency,
            "to_efficiency": shift.to_efficiency,
            "reason": shift.reason,
            "evidence_as_of": shift.evidence_as_of,
            "decided_at": shift.at,
            "outcome": shift.state.value,
        }
        at = shift.closed_at if shift.closed_at is not None else shift.at
        self._ledger.append(connection, at, "reallocation", body)
        if shift.moved_micros > 0:
            alert = self._alert(shift, at)
            self._alerts.record(connection, alert)
            record_reallocation(
                connection,
                Reallocation(
                    client_id=self._settings.client_id,
                    from_platform=Platform(shift.from_platform).rpc_name,
                    to_platform=Platform(shift.to_platform).rpc_name,
                    amount_shifted_micros=shift.moved_micros,
                    currency=shift.currency,
                    from_efficiency=float(shift.from_efficiency),
                    to_efficiency=float(shift.to_efficiency),
                    reason=shift.reason,
                    timestamp=at // SECOND,
                    run_id=shift.run_id,
                    notification_id=alert.notification_id,
                ),
            )

    def _alert(self, shift: Shift, at: Instant) -> Alert:
        amount = decimal_text(shift.moved_micros, shift.currency)
        source, target = Platform(shift.from_platform), Platform(shift.to_platform)
        return Alert(
            notification_id=f"shift-{shift.shift_id}",
            severity=Severity.INFO,
            title=f"{amount} {shift.currency} a day moved from {source.label} to {target.label}",
            message=f"{shift.reason}; {target.label} earns the most per unit spent.",
            at=at,
            metadata={
                "from_platform": source.rpc_name,
                "to_platform": target.rpc_name,
                "amount_shifted": amount,
                "currency": shift.currency,
                "from_efficiency": shift.from_efficiency,
                "to_efficiency": shift.to_efficiency,
            },
        )

    def _remember(self, verdict: Verdict, done: Sequence[Shift], reason: str | None, now: Instant) -> None:
        self.runs += 1
        self.last_run = now
        self.last_result = reason or f"{len(done)} shift{'s' if len(done) != 1 else ''}"
        status = "shifted" if done else "cannot_say" if verdict.mean is None else "on_plan"
        details = {
            "left_out": dict(verdict.left_out),
            "underperformers": {each.connector: each.held_by or "GIVES" for each in verdict.underperformers},
        }
        row = (
            _run_id(self._settings.client_id, now),
            now,
            None if verdict.mean is None else float(verdict.mean),
            None if verdict.best is None else self._platforms[verdict.best].rpc_name,
            msgspec.json.encode(details, order="sorted").decode(),
            len(done),
            status,
        )
        self._store.submit(
            lambda connection: connection.execute(
                "INSERT INTO optimizer_runs (run_id, started_at, average_efficiency, best_platform, details, shifts,"
                " status) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                row,
            )
        )

    # -- what is told -------------------------------------------------------------------------------------------

    def _publish(self, verdict: Verdict, facts: Sequence[PlatformFacts], now: Instant) -> None:
        notes = dict(verdict.left_out) | {each.connector: each.held_by for each in verdict.underperformers}
        details = []
        best: PlatformFacts | None = None
        for each in facts:
            efficiency = each.efficiency if each.connector not in verdict.left_out else None
            details.append(
                EfficiencyDetail(
                    connector=each.connector,
                    platform=self._platforms[each.connector].rpc_name,
                    ltv_micros=each.ltv_micros,
                    cac_micros=each.cac_micros,
                    efficiency=None if efficiency is None else float(efficiency),
                    daily_budget_micros=each.daily_budget_micros,
                    as_of=each.as_of,
                    note=notes.get(each.connector, ""),
                )
            )
            if each.connector == verdict.best:
                best = each
            name = self._platforms[each.connector].rpc_name
            self._metrics.platform_efficiency(name).set(math.nan if efficiency is None else float(efficiency))
            self._metrics.platform_daily_budget(name).set(each.daily_budget_micros / MICROS)
        self.snapshot = EfficiencySnapshot(
            timestamp=now,
            average_efficiency=None if verdict.mean is None else float(verdict.mean),
            best_platform=None if verdict.best is None else self._platforms[verdict.best].rpc_name,
            best_efficiency=None if best is None or best.efficiency is None else float(best.efficiency),
            details=tuple(details),
        )
        self._signals.publish("optimizer", {"at": now, "average_efficiency": self.snapshot.average_efficiency})

    def _announce(self, shift: Shift) -> Shift:
        """Tell everybody of a shift's new state; returns it."""
        others = tuple(each for each in self.recent_shifts if each.shift_id != shift.shift_id)
        self.recent_shifts = (shift, *others)[:50]
        _log.info(
            "shift",
            shift_id=shift.shift_id,
            state=shift.state.value,
            amount_micros=shift.moved_micros or shift.wanted_micros,
            from_connector=shift.from_connector,
            to_connector=shift.to_connector,
            from_efficiency=shift.from_efficiency,
            to_efficiency=shift.to_efficiency,
        )
        if shift.state is ShiftState.DONE:
            self.shifts_done += 1
            source, target = Platform(shift.from_platform).rpc_name, Platform(shift.to_platform).rpc_name
            self._metrics.budget_shifts(source, target).inc()
        self._signals.publish("reallocation", {"shift_id": shift.shift_id, "state": shift.state.value})
        return shift

    def _log_verdict(self, verdict: Verdict) -> None:
        """Cycle start, the average, and each underperformer with its deviation in percent (GBO-11)."""
        _log.info("cycle_started", run=self.runs + 1)
        if verdict.mean is None:
            _log.info("average_efficiency", average=None, left_out=dict(verdict.left_out))
            return
        _log.info("average_efficiency", average=round(float(verdict.mean), 4), best=verdict.best)
        for each in verdict.underperformers:
            _log.info(
                "underperformer",
                connector=each.connector,
                deviation_percent=round(float(each.deviation * 100), 1),
                held_by=each.held_by,
            )


def _facts_of(shift: Shift) -> str:
    return msgspec.json.encode(shift, order="sorted").decode()


def _reason(verdict: Verdict, done: Sequence[Shift]) -> str | None:
    if done:
        return None
    if verdict.mean is None:
        return "no platform can be compared yet"
    if not verdict.underperformers:
        return "no platform is below the threshold"
    held = ", ".join(f"{each.connector} {each.held_by or 'not permitted'}" for each in verdict.underperformers)
    return f"held by guards: {held}"


def _run_id(client_id: str, now: int) -> str:
    return hashlib.sha256(f"run\x1f{client_id}\x1f{now}".encode()).hexdigest()[:24]


def _decimal(value: Fraction) -> str:
    """Six decimals, rounded half to even, without passing through a float."""
    scaled = round(value * 1_000_000)
    return f"{scaled // 1_000_000}.{scaled % 1_000_000:06d}"


def _percent(deviation: Fraction) -> str:
    tenths = round(deviation * 1_000)
    sign = "-" if tenths < 0 else "+"
    return f"{sign}{abs(tenths) // 10}.{abs(tenths) % 10} %"
