"""Services with believable data, so that pages and answers can be tested without a market."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kiki_agent.config import ConnectorSettings, Settings
from kiki_agent.errors import Denied
from kiki_agent.hooks.capabilities import Capabilities
from kiki_agent.ledger import DecisionRun, IntentRow, ReallocationRow, Verification
from kiki_agent.model import (
    HOUR,
    MINUTE,
    SECOND,
    Campaign,
    CampaignStatus,
    Decision,
    DecisionOutcome,
    DecisionSource,
    Instant,
    Intent,
    IntentKind,
    Outcome,
    Platform,
    PlatformValue,
    Receipt,
    intent_key,
    parse_iso,
)
from kiki_agent.runtime.clock import Clock, SystemClock
from kiki_agent.runtime.loop import Loop
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.runtime.supervisor import Supervisor
from kiki_agent.shield import AllocationView, Bound, CheckAnswer, Permit, WindowStats
from kiki_agent.web import Services

NOON = parse_iso("2026-03-10T14:20:00Z")
UNIT = 1_000_000
PLATFORMS = {
    # connector: (ltv, cac, budget a day, spent share, campaigns)
    "meta": (450, 180, 500, 0.58, 24),
    "google_ads": (420, 150, 700, 0.61, 30),
    "tiktok": (380, 95, 400, 0.72, 18),
    "linkedin": (550, 250, 300, 0.44, 12),
    "amazon": (390, 130, 450, 0.63, 20),
    "microsoft": (410, 152, 250, 0.51, 16),
}


class FixedClock:
    """A clock that stands until it is moved; sleepers wait for real."""

    speed = 1.0

    def __init__(self, instant: Instant = NOON) -> None:
        self.instant = instant
        self._real = SystemClock()

    def now(self) -> Instant:
        return self.instant

    async def sleep_until(self, due: Instant, order: int = 0) -> None:
        await self._real.sleep_for(due - self.instant)


class RunningClock(FixedClock):
    """Starts at an instant and goes on with real time, `speed` times as fast."""

    def __init__(self, instant: Instant = NOON, speed: float = 1.0) -> None:
        super().__init__(instant)
        self.speed = speed
        self._begun = self._real.now()

    def now(self) -> Instant:
        return Instant(self.instant + int((self._real.now() - self._begun) * self.speed))

    async def sleep_until(self, due: Instant, order: int = 0) -> None:
        await self._real.sleep_for((due - self.now()) / self.speed)


class FakeStore:
    epoch = 3
    queue_depth = 2
    failure: str | None = None

    def sizes(self) -> Mapping[str, int]:
        return {"db": 40_960, "wal": 4_152}


class FakeLedger:
    def __init__(self) -> None:
        self.head = (184_203, "9f2c" * 16)
        self.hold_reason: str | None = None

    async def verify(self, *, whole: bool = True) -> Verification:
        return Verification(ok=True, entries=self.head[0], head_hash=self.head[1], first_bad=None, problem="")


class FakeDecisions:
    def __init__(self, now: Instant) -> None:
        decision = Decision(
            "meta",
            "meta-001",
            "meta",
            1_350_000,
            DecisionOutcome.ACCEPTED,
            "ON_PLAN",
            DecisionSource.AI,
            "m1",
            450 * UNIT,
        )
        self.runs = [
            DecisionRun(9, decision, Instant(now - MINUTE), now, 30, current=True),
            DecisionRun(
                7,
                replace(decision, bid_micros=1_280_000),
                Instant(now - HOUR),
                Instant(now - MINUTE),
                99,
                current=False,
            ),
        ]
        self.asked: dict[str, object] = {}

    async def decisions(self, **wanted: object) -> tuple[Sequence[DecisionRun], int]:
        self.asked = wanted
        return self.runs, len(self.runs)


class FakeOutbox:
    def __init__(self) -> None:
        self.sent: list[Intent] = []
        self.outcome = Outcome.ACCEPTED
        self.reason = ""
        self.error: Exception | None = None

    async def send(self, now: Instant, connector: str, verb: IntentKind, intents: Sequence[Intent]) -> list[Receipt]:
        self.sent += intents
        if self.error is not None:
            raise self.error
        return [Receipt(each.key, self.outcome, self.reason) for each in intents]


class FakeRecords:
    def __init__(self, now: Instant) -> None:
        self.rows = _intents(now)

    async def reallocations(
        self, *, client_id: str | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[Sequence[ReallocationRow], int]:
        row = ReallocationRow(
            "demo", "PLATFORM_LINKEDIN", "PLATFORM_TIKTOK", 60 * UNIT, "USD", 2.2, 4.0, "below the mean", 1_773_000_000,
            "run-1", "shift-1", 1, "ab" * 32,
        )  # fmt: skip
        return [row], 1

    async def intents(
        self, *, since: Instant, kinds: Sequence[IntentKind] = (), limit: int = 50
    ) -> Sequence[IntentRow]:
        rows = [row for row in self.rows if row.sent_at >= since and (not kinds or row.intent.kind in kinds)]
        return rows[:limit]

    async def receipt(self, key: str) -> Receipt | None:
        return None

    async def counts(self, *, since: Instant) -> Mapping[IntentKind, int]:
        return Counter(row.intent.kind for row in self.rows if row.sent_at >= since)


def _intents(now: Instant) -> list[IntentRow]:
    def row(
        connector: str, campaign: str, kind: IntentKind, before: int, after: int, reason: str, ago: int,
        cause: str = "", state: str = "accepted",
    ) -> IntentRow:  # fmt: skip
        at = Instant(now - ago)
        key = intent_key(connector, campaign, kind, at, cause)
        intent = Intent(key, kind, connector, campaign, before, after, "USD", reason, at, cause)
        return IntentRow(intent, at, state, "", "", at)

    bid, budget = IntentKind.ADJUST_BID, IntentKind.SET_BUDGET
    rows = [
        row("tiktok", "tt-0412", bid, 1_150_000, 1_210_000, "BEHIND_PLAN", 3 * MINUTE),
        row("meta", "me-0107", bid, 1_420_000, 1_350_000, "AHEAD_OF_PLAN", 11 * MINUTE),
        row("google_ads", "go-0231", bid, 2_050_000, 1_950_000, "AHEAD_OF_PLAN", 12 * MINUTE, state="pending"),
        row("amazon", "am-0019", bid, 880_000, 930_000, "ON_PLAN", 26 * MINUTE),
        row("microsoft", "ms-0006", bid, 1_240_000, 1_180_000, "AHEAD_OF_PLAN", 41 * MINUTE),
        row("linkedin", "li-0009", bid, 5_100_000, 4_850_000, "DAILY_BUDGET", 55 * MINUTE, state="rejected"),
        row("linkedin", "li-0004", IntentKind.SET_STATUS, 1, 0, "WINDOW_CAP", 80 * MINUTE),
    ]
    for number in range(3):
        rows.append(row("linkedin", f"li-{number}", budget, 120 * UNIT, 100 * UNIT, "", 95 * MINUTE, "shift-1"))
        rows.append(row("tiktok", f"tt-{number}", budget, 120 * UNIT, 140 * UNIT, "", 95 * MINUTE, "shift-1"))
    return rows


class FakeShield:
    """Keeps the promises of the real one in memory: a permit is never granted past the window."""

    def __init__(self) -> None:
        self.killed = False
        self.kill_reason = ""
        self.kill_at: Instant | None = None
        self.kill_by = ""
        self.hold_reason: str | None = None
        self.allocations: dict[str, AllocationView] = {}
        self.window = {name: UNIT * budget // 4 for name, (_, _, budget, _, _) in PLATFORMS.items()}
        self.used = {name: int(limit * 0.4) for name, limit in self.window.items()}
        self.reserved: dict[str, tuple[str, int]] = {}
        self.overshoot = 0
        self.capless: set[str] = set()
        self.calls: list[str] = []

    def status(self, connector: str, now: Instant) -> WindowStats:
        _, _, budget, spent, _ = PLATFORMS[connector]
        limit, used = self.window[connector], self.used[connector]
        reserved = sum(amount for name, amount in self.reserved.values() if name == connector)
        return WindowStats(
            connector=connector, currency="USD", current_spend_micros=used, max_budget_micros=limit,
            remaining_micros=max(0, limit - used - reserved), utilization=used / limit, record_count=12,
            oldest_record=Instant(now - 9 * MINUTE), window_s=600.0, day="2026-03-10",
            spent_today_micros=int(budget * spent * UNIT), reserved_micros=reserved, exposure_micros=0,
            window_exposure_micros=0, placed_micros=0,
            daily_cap_micros=None if connector in self.capless else budget * 2 * UNIT,
            daily_remaining_micros=budget * UNIT, overshoot_micros=self.overshoot if connector == "meta" else 0,
            lease_micros=0, presumed_micros=0,
        )  # fmt: skip

    def tightest(self, connector: str, campaign_id: str, now: Instant) -> Bound:
        stats = self.status(connector, now)
        held = stats.reserved_micros
        return Bound("window", connector, stats.max_budget_micros, stats.current_spend_micros, held, "USD")

    async def kill(self, on: bool, reason: str, now: Instant, by: str = "") -> None:
        self.calls.append(f"kill {on} {reason}")
        self.killed = on
        self.kill_reason, self.kill_at, self.kill_by = reason, now, by

    async def place(
        self, connector: str, campaign_id: str, amount_micros: int, now: Instant, *, basis: str = "not_personal"
    ) -> Permit:
        if self.killed:
            raise Denied("KILL_SWITCH", "spending is stopped")
        if basis == "denied":
            raise Denied("CONSENT", "no legal basis")
        if amount_micros > self.status(connector, now).remaining_micros:
            raise Denied("BUDGET_EXCEEDED", "the window has not enough left")
        name = f"r{len(self.calls)}"
        self.calls.append("place")
        self.reserved[name] = (connector, amount_micros)
        return Permit(name, len(self.calls), connector, campaign_id, amount_micros, now, basis, allocated=False)

    async def commit(self, permit: Permit, now: Instant) -> None:
        self.calls.append("commit")
        connector, amount = self.reserved.pop(permit.reservation_id)
        self.used[connector] += amount

    async def release(self, permit: Permit, now: Instant) -> None:
        self.calls.append("release")
        del self.reserved[permit.reservation_id]

    async def allocate(
        self,
        campaign_id: str,
        budget_micros: int,
        currency: str,
        now: Instant,
        *,
        pacing: str = "even",
        start_at: Instant | None = None,
        end_at: Instant | None = None,
    ) -> AllocationView:
        known = self.allocations.get(campaign_id)
        spent = 0 if known is None else known.spent_micros
        if budget_micros < spent:
            raise Denied("CONFLICT", "more is spent already")
        view = _view(campaign_id, budget_micros, currency, spent, 0, now)
        self.allocations[campaign_id] = view
        return view

    async def budget(self, campaign_id: str, now: Instant | None = None) -> AllocationView | None:
        return self.allocations.get(campaign_id)

    def check_worth(self, ltv_micros: int | None) -> None:
        if ltv_micros == 13_130_000:
            raise Denied("COMPLIANCE", "a predicted value of 13.13 is outside its bounds")

    async def check(
        self,
        campaign_id: str,
        amount_micros: int,
        platform: str,
        reserve: bool,
        now: Instant,
        *,
        basis: str = "not_personal",
        ltv_micros: int | None = None,
    ) -> CheckAnswer:
        known = self.allocations.get(campaign_id)
        if known is None:
            raise Denied("NOT_FOUND", f"{campaign_id} has no allocation")
        allowed = amount_micros <= known.remaining_micros
        if allowed and reserve:
            self.allocations[campaign_id] = _view(
                campaign_id, known.budget_micros, known.currency, known.spent_micros, amount_micros, now
            )
        reason = None if allowed else "BUDGET_EXCEEDED"
        return CheckAnswer(allowed, reason, known.remaining_micros, "res-1" if allowed and reserve else None)

    async def spend(
        self, campaign_id: str, amount_micros: int | None, reservation_id: str | None, platform: str, now: Instant
    ) -> AllocationView:
        known = self.allocations.get(campaign_id)
        if known is None:
            raise Denied("NOT_FOUND", f"{campaign_id} has no allocation")
        amount = known.reserved_micros if amount_micros is None else amount_micros
        if amount_micros is not None and amount > known.remaining_micros:
            raise Denied("BUDGET_EXCEEDED", "not enough left")
        view = _view(campaign_id, known.budget_micros, known.currency, known.spent_micros + amount, 0, now)
        self.allocations[campaign_id] = view
        return view

    async def release_reservation(self, reservation_id: str, now: Instant) -> None:
        if reservation_id != "res-1":
            raise Denied("NOT_FOUND", f"there is no reservation {reservation_id}")


def _view(campaign_id: str, budget: int, currency: str, spent: int, reserved: int, now: Instant) -> AllocationView:
    return AllocationView(
        campaign_id, budget, currency, spent, reserved, max(0, budget - spent - reserved), spent / budget, 0,
        "exhausted" if spent >= budget else "active", "even", None, None, None, now,
    )  # fmt: skip


class FakeTable:
    def __init__(self) -> None:
        self.bounds: dict[str, tuple[int, int]] = {}
        active: list[int] = []
        spend: list[int] = []
        for name in sorted(PLATFORMS):
            _, _, budget, share, count = PLATFORMS[name]
            self.bounds[name] = (len(active), len(active) + count)
            active += [1] * (count - 1) + [0]
            whole = int(budget * share * UNIT)
            spend += [whole // count] * (count - 1) + [whole - whole // count * (count - 1)]
        self.rows: list[Campaign] = []
        self.index: dict[tuple[str, str], int] = {}
        self.active = np.array(active, dtype=np.uint8)
        self.spend_today_micros = np.array(spend, dtype=np.int64)


class FakeAccounts:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.connectors = sorted(PLATFORMS)
        self.table = FakeTable()
        self.stated: dict[str, Capabilities] = {}
        self.lost: dict[str, str] = {}
        self.silent: dict[str, int] = {}
        self.as_of: dict[str, Instant | None] = {
            name: Instant(clock.now() - (20 + 7 * index) * SECOND) for index, name in enumerate(self.connectors)
        }

    def campaigns(self, connector: str | None = None) -> Sequence[Campaign]:
        low, high = self.table.bounds[connector or "meta"]
        return [
            Campaign(connector or "meta", f"c{n}", "meta", f"Campaign {n}", CampaignStatus.ACTIVE, UNIT, UNIT)
            for n in range(low, high)
        ]

    def budget_micros(self, connector: str) -> int:
        return PLATFORMS[connector][2] * UNIT

    def spend_age(self, connector: str, now: Instant) -> int | None:
        as_of = self.as_of[connector]
        return None if as_of is None else now - as_of

    def silence(self, connector: str, now: Instant) -> int:
        return self.silent.get(connector, 20 * SECOND)


class FakeValue:
    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def platform_ltv(self, platform: str, lookback_days: int, now: Instant) -> PlatformValue:
        self.asked.append((platform, lookback_days))
        if platform == "x":
            return PlatformValue("x", None, None, None, 0, "")
        return PlatformValue(platform, 450 * UNIT, 320 * UNIT, 580 * UNIT, 1_247, "m1")


@dataclass(frozen=True)
class FakeDetail:
    connector: str
    platform: str
    ltv_micros: int | None
    cac_micros: int | None
    efficiency: float | None
    daily_budget_micros: int
    as_of: Instant | None
    note: str = ""


@dataclass(frozen=True)
class FakeSnapshot:
    timestamp: Instant
    average_efficiency: float | None
    best_platform: str | None
    best_efficiency: float | None
    details: tuple[FakeDetail, ...]


@dataclass(frozen=True)
class FakeShift:
    shift_id: str
    at: Instant
    from_connector: str
    to_connector: str
    from_platform: str
    to_platform: str
    wanted_micros: int
    moved_micros: int
    currency: str
    from_efficiency: str
    to_efficiency: str
    reason: str
    state: str


def snapshot(at: Instant, wobble: float = 0.0) -> FakeSnapshot:
    details = tuple(
        FakeDetail(
            connector=name,
            platform=Platform(name).rpc_name,
            ltv_micros=ltv * UNIT,
            cac_micros=cac * UNIT,
            efficiency=ltv / cac + wobble * (index - 1.5),
            daily_budget_micros=budget * UNIT,
            as_of=Instant(at - 22 * MINUTE),
            note="COOLDOWN" if name == "linkedin" else "",
        )
        for index, (name, (ltv, cac, budget, _, _)) in enumerate(PLATFORMS.items())
    )
    average = sum(each.efficiency or 0 for each in details) / len(details)
    return FakeSnapshot(at, average, "PLATFORM_TIKTOK", 4.0 + wobble * -0.5, details)


class FakeOptimizer:
    def __init__(self, now: Instant) -> None:
        self.snapshot: FakeSnapshot | None = snapshot(Instant(now - 108 * SECOND))
        self.next_run: Instant | None = Instant(now + 192 * SECOND)
        self.runs = 172
        self.last_run: Instant | None = Instant(now - 108 * SECOND)
        self.last_result = "held by guards: linkedin COOLDOWN"
        self.recent_shifts = [
            FakeShift(
                "shift-1", Instant(now - 95 * MINUTE), "linkedin", "tiktok", "linkedin", "tiktok", 60 * UNIT, 60 * UNIT,
                "USD", "2.200000", "4.000000", "LinkedIn earns -22.4 % against the average of all platforms", "done",
            )
        ]  # fmt: skip


@dataclass(frozen=True)
class FakeAlert:
    notification_id: str
    severity: str
    title: str
    message: str
    created_at: Instant
    read_at: Instant | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass
class FakeAlerts:
    items: list[FakeAlert] = field(default_factory=list)

    async def latest(self, limit: int = 50, offset: int = 0) -> Sequence[FakeAlert]:
        return self.items[offset : offset + limit]


@dataclass
class FakeInstance:
    id: str
    kind: str = "connector"
    plugin: str = "sandbox"
    version: str = "0.1.0"
    platform: str = ""
    state: str = "ok"
    error: str = ""


class FakePlugins:
    def __init__(self) -> None:
        self.instances = {name: FakeInstance(name, platform=name) for name in PLATFORMS}

    def describe(self) -> list[dict[str, object]]:
        return [
            {
                "name": each.id, "kind": each.kind, "plugin": each.plugin, "version": each.version,
                "platform": each.platform, "state": each.state, "error": each.error, "hooks": ["check", "set_budget"],
            }
            for each in self.instances.values()
        ]  # fmt: skip


class Idle(Loop):
    """A loop that does nothing."""

    def __init__(self, name: str, period: int, essential: bool) -> None:
        self.name, self.period, self.essential = name, period, essential

    async def tick(self, now: Instant) -> str | None:
        return "nothing to do"


def settings(**http: object) -> Settings:
    """Settings of six connectors."""
    connectors = {
        name: ConnectorSettings(plugin="sandbox", platform=name, daily_cap=str(budget * 2), window_cap=str(budget / 4))
        for name, (_, _, budget, _, _) in PLATFORMS.items()
    }
    return Settings.model_validate({"client_id": "demo", "connector": connectors, "http": http})


def services(clock: Clock | None = None, **http: object) -> Services:
    """All services, up and well."""
    clock = clock or FixedClock()
    now = clock.now()
    signals = Signals()
    supervisor = Supervisor([Idle("bidding", 2 * SECOND, True), Idle("optimizer", 300 * SECOND, True)], clock, signals)
    bidding = supervisor.health["bidding"]
    bidding.ticks, bidding.last_success = 51_600, now
    supervisor.health["optimizer"].next_due = Instant(now + 192 * SECOND)
    return Services(
        settings=settings(**http),
        clock=clock,
        version="0.1.0",
        started_at=Instant(now - 14 * HOUR),
        metrics=Metrics(process=False),
        signals=signals,
        starting=None,
        store=FakeStore(),
        ledger=FakeLedger(),
        decisions=FakeDecisions(now),
        outbox=FakeOutbox(),
        records=FakeRecords(now),
        shield=FakeShield(),
        accounts=FakeAccounts(clock),
        value=FakeValue(),
        optimizer=FakeOptimizer(now),
        alerts=FakeAlerts(),
        plugins=FakePlugins(),
        supervisor=supervisor,
    )
