"""Runs the agent over the sandbox market under simulated time, beside the same market with nobody acting on it."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kiki_agent.agent import KERNEL_MODULES, Agent, World
from kiki_agent.config import Loaded, Mode, Settings
from kiki_agent.errors import ConfigError, Fault, Finding
from kiki_agent.hooks.http import InProcessHttp
from kiki_agent.kernels import load_compiled
from kiki_agent.model import DAY, Instant, decimal_text, iso, parse_iso
from kiki_agent.optimizer import Shift
from kiki_agent.runtime import log, tasks
from kiki_agent.runtime.clock import SimClock, Stopwatch
from kiki_agent.runtime.driver import SimDriver
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.purity import simulated_world
from kiki_agent.runtime.signals import Signals
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.effects import EffectsLog
from kiki_agent.sandbox.faults import Faults
from kiki_agent.sandbox.market import Market
from kiki_agent.sandbox.service import CLIENT_ID, CLIENT_SECRET, SandboxService
from kiki_agent.sandbox.wiring import vendor_offers, with_sandbox

START = parse_iso("2026-01-05T00:00:00Z")
"""First instant of every market backtest: a Monday."""
MOST_DAYS = 90
"""The market remembers 128 account days and 100 days of new customers; its history takes 30 of them."""
_BASE_URL = "http://sandbox.internal"

OnProgress = Callable[[float], None]
"""Told the share done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class DayTotals:
    """One account day of a market, all platforms together."""

    spend_micros: int
    clicks: int
    conversions: int
    revenue_micros: int
    """First purchases, as the platforms will have reported them."""
    value_micros: int
    """Everything the customers won on this day have bought until the end of the run."""


@dataclass(frozen=True, slots=True)
class ShiftLine:
    """One shift as the report shows it."""

    at: Instant
    from_platform: str
    to_platform: str
    moved_micros: int
    from_efficiency: str
    to_efficiency: str
    state: str

    @property
    def at_text(self) -> str:
        """Day and minute."""
        return iso(self.at)[:16].replace("T", " ")


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """Everything one run says about itself."""

    days: int
    seed: int
    currency: str
    days_with: tuple[DayTotals, ...]
    days_without: tuple[DayTotals, ...]
    efficiency_by_day: dict[str, list[float | None]]
    """Platform -> efficiency of the last optimizer cycle of each day."""
    shifts: tuple[ShiftLine, ...]
    ledger_hash: str
    ledger_rows: int
    verified: bool
    ticks: int
    cycles: int
    decisions: int
    """Changed decisions."""
    intents: int
    calls: int
    """Requests the market answered."""
    failed_calls: int
    """Of these, how many failed or lost their answer."""
    errors: int
    """Ticks that failed."""
    wall_seconds: float
    speed: float
    """Simulated seconds per wall second."""
    busy_seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by loop; empty unless asked for."""
    memory: tuple[tuple[float, float], ...] = ()
    """(share done, resident MB) over the run."""
    peak_mb: float = 0.0

    @property
    def with_agent(self) -> DayTotals:
        """Totals of the run."""
        return _total(self.days_with)

    @property
    def without(self) -> DayTotals:
        """Totals of the same market left alone."""
        return _total(self.days_without)

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        acted, idle = self.with_agent, self.without
        if not acted.spend_micros or not idle.spend_micros or not idle.value_micros:
            return "Cannot say what the agent was worth: nothing was spent or earned."
        ratio = (acted.value_micros / acted.spend_micros) / (idle.value_micros / idle.spend_micros) - 1
        return (
            f"The agent spent {decimal_text(acted.spend_micros, self.currency)} {self.currency} and won customers who "
            f"bought for {decimal_text(acted.value_micros, self.currency)}; each unit spent earned "
            f"{abs(ratio):.1%} {'more' if ratio >= 0 else 'less'} than in the same market left alone."
        )

    def to_json(self) -> dict[str, object]:
        """The result as JSON values; money as decimal text."""
        return {
            "days": self.days,
            "seed": self.seed,
            "currency": self.currency,
            "sentence": self.sentence,
            "totals": self._totals_json(self.with_agent),
            "totals_without_agent": self._totals_json(self.without),
            "shifts": len([shift for shift in self.shifts if shift.state == "done"]),
            "shift_list": [
                {
                    "at": iso(shift.at),
                    "from_platform": shift.from_platform,
                    "to_platform": shift.to_platform,
                    "amount": decimal_text(shift.moved_micros, self.currency),
                    "from_efficiency": shift.from_efficiency,
                    "to_efficiency": shift.to_efficiency,
                    "state": shift.state,
                }
                for shift in self.shifts
            ],
            "efficiency_by_day": self.efficiency_by_day,
            "spend_by_day": [decimal_text(day.spend_micros, self.currency) for day in self.days_with],
            "value_by_day": [decimal_text(day.value_micros, self.currency) for day in self.days_with],
            "ledger_hash": self.ledger_hash,
            "ledger_rows": self.ledger_rows,
            "ledger_verified": self.verified,
            "bidding_ticks": self.ticks,
            "optimizer_cycles": self.cycles,
            "changed_decisions": self.decisions,
            "intents": self.intents,
            "vendor_calls": self.calls,
            "failed_vendor_calls": self.failed_calls,
            "errors": self.errors,
            "wall_seconds": round(self.wall_seconds, 3),
            "speed": round(self.speed, 1),
            "peak_mb": round(self.peak_mb, 1),
        }

    def _totals_json(self, total: DayTotals) -> dict[str, object]:
        return {
            "spend": decimal_text(total.spend_micros, self.currency),
            "clicks": total.clicks,
            "conversions": total.conversions,
            "revenue": decimal_text(total.revenue_micros, self.currency),
            "customer_value": decimal_text(total.value_micros, self.currency),
        }


def run_market(
    loaded: Loaded,
    days: int,
    seed: int | None = None,
    report: Path | None = None,
    on_progress: OnProgress | None = None,
    *,
    timed: bool = False,
    database: Path | None = None,
) -> BacktestResult:
    """Run `days` of the sandbox market under the agent. `report` writes the HTML page, `timed` measures each loop.

    Without `database` the record lives in a temporary folder and is gone afterwards. Raises ConfigError.
    """
    if not 1 <= days <= MOST_DAYS:
        raise ConfigError([Finding("command line", "--days", f"must be 1 to {MOST_DAYS}, was {days}")])
    demo = loaded.settings.demo if seed is None else loaded.settings.demo.model_copy(update={"seed": seed})
    settings = loaded.settings.model_copy(
        update={
            "mode": Mode.BACKTEST,
            "demo": demo,
            "ledger": loaded.settings.ledger.model_copy(update={"head_interval_s": 3_600.0}),
        }
    )
    log.configure("error", settings.log.format)
    loop = tasks.new_event_loop()
    try:
        with tempfile.TemporaryDirectory(prefix="kiki-backtest-") as folder:
            place = database or Path(folder) / f"backtest-{demo.seed}.db"
            result = loop.run_until_complete(_Run(settings, days, place, on_progress, timed).run())
    finally:
        loop.close()
    if report is not None:
        from kiki_agent.backtest.report import render

        report.write_text(render(result), encoding="utf-8")
    return result


class _Run:
    """One backtest under way."""

    def __init__(
        self, settings: Settings, days: int, database: Path, on_progress: OnProgress | None, timed: bool
    ) -> None:
        demo = settings.demo
        vendors = vendor_offers(settings)
        self.settings = with_sandbox(settings, _BASE_URL, CLIENT_ID, CLIENT_SECRET, vendors)
        self.days = days
        self.database = database
        self.end = Instant(START + days * DAY)
        self.on_progress = on_progress
        self.timed = timed
        load_compiled(KERNEL_MODULES)
        self.market = Market(demo.seed, START, demo.campaigns, demo.history_days)
        self.faults = Faults(demo.fault_rate, demo.seed)
        self.service = SandboxService(self.market, EffectsLog(), self.faults, vendors=vendors)
        self.clock = SimClock(START)
        self.efficiency: dict[str, list[float | None]] = {}
        self.memory: list[tuple[float, float]] = []
        self._day = 0

    async def run(self) -> BacktestResult:
        """Build, tick to the end, close, and add up."""
        world = World(
            self.clock,
            self.database,
            lambda instance: InProcessHttp(self.service.handle, self.clock),
            synchronous="OFF",
            simulated=True,
        )
        agent = await Agent.build(self.settings, world, metrics=Metrics(process=False), signals=Signals())
        driver = SimDriver(lambda now, ticks: self._progress(agent, now), timed=self.timed)
        watch = Stopwatch()
        try:
            with simulated_world():
                await agent.start()
                await driver.run(agent.supervisor, self.clock, self.end)
            self._progress(agent, self.end)
            await agent.decisions.flush(self.end)
            await agent.store.drain()
            seconds = watch.seconds()
            verification = await agent.ledger.verify(whole=True)
            shifts = await self._shifts(agent)
        finally:
            await agent.close()
        self.market.advance_to(self.end)
        return self._result(agent, driver, seconds, verification.ok, shifts)

    async def _shifts(self, agent: Agent) -> list[Shift]:
        return sorted(await agent.optimizer.history(), key=lambda shift: (shift.at, shift.shift_id))

    def _progress(self, agent: Agent, now: Instant) -> None:
        day = (now - START) // DAY
        if day > self._day and agent.optimizer.snapshot is not None:
            for detail in agent.optimizer.snapshot.details:
                platform = agent.platforms[detail.connector].value
                self.efficiency.setdefault(platform, []).extend([detail.efficiency] * (day - self._day))
            self._day = day
        share = (now - START) / (self.end - START)
        if not self.memory or share - self.memory[-1][0] >= 0.01:
            self.memory.append((share, _resident_mb()))
            if self.on_progress is not None:
                self.on_progress(share)

    def _result(
        self, agent: Agent, driver: SimDriver, seconds: float, verified: bool, shifts: list[Shift]
    ) -> BacktestResult:
        demo = self.settings.demo
        idle = Market(demo.seed, START, demo.campaigns, demo.history_days)
        idle.advance_to(self.end)
        health = agent.supervisor.health
        faults = [name for name, each in health.items() if each.faulted]
        if faults:
            raise Fault(f"the backtest ended with faulted loops: {', '.join(faults)}")
        seq, digest = agent.ledger.head
        return BacktestResult(
            days=self.days,
            seed=demo.seed,
            currency=self.settings.currency,
            days_with=_by_day(self.market, self.days),
            days_without=_by_day(idle, self.days),
            efficiency_by_day=self.efficiency,
            shifts=tuple(
                ShiftLine(
                    each.at,
                    each.from_platform,
                    each.to_platform,
                    each.moved_micros,
                    each.from_efficiency,
                    each.to_efficiency,
                    each.state.value,
                )
                for each in shifts
            ),
            ledger_hash=digest,
            ledger_rows=seq,
            verified=verified,
            ticks=health["bidding"].ticks,
            cycles=agent.optimizer.runs,
            decisions=agent.decisions.changes,
            intents=sum(writer.sent for writer in agent.flow.writers),
            calls=self.faults.requests,
            failed_calls=self.faults.injected,
            errors=sum(each.failures for each in health.values()),
            wall_seconds=seconds,
            speed=self.days * 86_400 / seconds,
            busy_seconds={name: each.busy_seconds for name, each in health.items()} if self.timed else {},
            memory=tuple(self.memory),
            peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )


def _by_day(market: Market, days: int) -> tuple[DayTotals, ...]:
    """What the market itself knows, day by day: the truth, not a report."""
    first = START // DAY
    acquired = market.people[at.ACQUIRED] * at.STEP // DAY - first
    won = (market.people[at.STATE] == at.CUSTOMER) & (acquired >= 0) & (acquired < days)
    value = np.bincount(acquired[won], market.people[at.EARNED][won].astype(np.float64), days)
    found = []
    for day in range(days):
        sums = market.days[:, (first + day) % at.RING_DAYS].sum(axis=1)
        found.append(
            DayTotals(
                spend_micros=int(sums[at.SPEND]),
                clicks=int(sums[at.CLICKS]),
                conversions=int(sums[at.CONVERSIONS]),
                revenue_micros=int(sums[at.REVENUE]),
                value_micros=round(float(value[day])),
            )
        )
    return tuple(found)


def _total(days: tuple[DayTotals, ...]) -> DayTotals:
    return DayTotals(
        spend_micros=sum(day.spend_micros for day in days),
        clicks=sum(day.clicks for day in days),
        conversions=sum(day.conversions for day in days),
        revenue_micros=sum(day.revenue_micros for day in days),
        value_micros=sum(day.value_micros for day in days),
    )


def _resident_mb() -> float:
    """Resident memory now, in MB; 0 where /proc is not there."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError):
        return 0.0
    return pages * resource.getpagesize() / 1_048_576
