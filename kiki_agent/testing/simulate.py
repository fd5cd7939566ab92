"""Whole agents under simulated time with faults at every seam, one seed after the other; a seed that fails is named.

`python -m kiki_agent.testing.simulate --seeds 20`. What goes wrong follows from the seed alone: requests (500, garbage,
lost answers, 200s that failed), calls of plugins (refused, cut off before or after they acted), the database (minutes
in which nothing can be written), and ends of the process with a start on what was left. The same seed gives the same
ledger, hash for hash, so a failure can be looked at again: `--seed 17`.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec

from kiki_agent.agent import Agent, World
from kiki_agent.config import Mode, Settings, load
from kiki_agent.errors import KikiError, PluginError, StoreError, Temporary, UnknownOutcome
from kiki_agent.hooks.http import InProcessHttp
from kiki_agent.model import HOUR, MINUTE, Instant, parse_iso
from kiki_agent.runtime import log
from kiki_agent.runtime.clock import SimClock, Stopwatch
from kiki_agent.runtime.driver import SimDriver
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.purity import simulated_world
from kiki_agent.runtime.signals import Signals
from kiki_agent.sandbox.effects import Effect, EffectsLog
from kiki_agent.sandbox.faults import Faults
from kiki_agent.sandbox.market import Market
from kiki_agent.sandbox.noise import seed_key, unit
from kiki_agent.sandbox.service import CLIENT_ID, CLIENT_SECRET, SandboxService
from kiki_agent.sandbox.wiring import vendor_offers, with_sandbox
from kiki_agent.store.writer import Writer
from kiki_agent.testing import report
from kiki_agent.testing.audit import Audit, audit
from kiki_agent.testing.processes import environment

START = parse_iso("2026-03-27T21:00:00Z")
"""Three hours before midnight: a longer run crosses a day."""
BASE_URL = "http://sandbox.internal"
CAMPAIGNS, HISTORY_DAYS = 24, 8
MICROS = 1_000_000
PLATFORMS = ("meta", "google_ads", "tiktok", "linkedin", "amazon", "microsoft")
CAPS = dict.fromkeys(PLATFORMS, (3000 * MICROS, 750 * MICROS))
SETTINGS: dict[str, object] = {
    "demo.campaigns": CAMPAIGNS,
    "demo.history_days": HISTORY_DAYS,
    "bidding.interval_s": 20,
    "bidding.min_write_gap_s": 120,
    "bidding.min_change_percent": 1,
    "ledger.head_interval_s": 600,
    "ledger.verify_interval_s": 3_600,
    "optimizer.interval_s": 300,
    "optimizer.cooldown_s": 0,
    "optimizer.consume_evidence": "false",
    "optimizer.floor_share": 0.05,
    "optimizer.threshold": 0.1,
    **{f"connector.{name}.daily_cap": 3_000 for name in PLATFORMS},
    **{f"connector.{name}.window_cap": 750 for name in PLATFORMS},
}
REQUESTS, CALLS, OUTAGES, RESTARTS = 0.05, 0.02, 0.15, 0.1
"""Shares: of requests that fail, of plugin calls that do, of slots without a database, of those with a restart."""
SLOT = 10 * MINUTE
"""The database goes away for a part of a slot; a restart is at the end of one."""


class _KeptEffects(EffectsLog):
    """A log of effects that forgets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Effect] = []

    def append(self, effects: Sequence[Effect]) -> None:
        super().append(effects)
        self.all.extend(effects)


class Seams:
    """Where faults get in, and how many did."""

    def __init__(self, seed: int, clock: SimClock) -> None:
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._calls_key, self._slots_key = seed_key(seed, 950_000), seed_key(seed, 950_001)
        self._calls = 0

    def without_database(self) -> str | None:
        """Why nothing can be written now; None when it can."""
        slot, inside = divmod(self._clock.now() - START, SLOT)
        if slot == 0 or unit(self._slots_key, slot * 4) >= OUTAGES:
            return None
        begin = int(unit(self._slots_key, slot * 4 + 1) * SLOT * 0.5)
        return "the disk is full (simulated)" if begin <= inside < begin + SLOT * 0.3 else None

    def ends(self, span: int) -> list[Instant]:
        """When the process ends, and starts again at once."""
        slots = range(1, span // SLOT)
        return [Instant(START + slot * SLOT) for slot in slots if unit(self._slots_key, slot * 4 + 2) < RESTARTS]

    def open(self, agent: Agent) -> None:
        """Let faults into a freshly built agent."""
        self._open_calls(agent)
        writer = agent.store._writer
        writer.__class__ = _TroubledWriter
        troubled = cast("_TroubledWriter", writer)
        troubled.seams = self

    def _open_calls(self, agent: Agent) -> None:
        call = agent.plugins.caller.to

        async def to(instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
            self._calls += 1
            chance = unit(self._calls_key, self._calls)
            if chance < CALLS / 2:
                self.counts["calls refused"] += 1
                raise Temporary("cut off before it was begun (simulated)")
            answer = await call(instance_id, verb, *args, deadline_s=deadline_s)
            if chance < CALLS:
                self.counts["calls cut off after they acted"] += 1
                raise UnknownOutcome("cut off (simulated)") if _writes(verb) else Temporary("cut off (simulated)")
            return answer

        setattr(agent.plugins.caller, "to", to)  # noqa: B010


def _writes(verb: str) -> bool:
    return verb in ("set_budget", "adjust_bid", "place_bid", "set_status")


class _TroubledWriter(Writer):
    """A writer whose disk is full for minutes: every function handed to it fails at once, and the reason stands."""

    seams: Seams

    @property
    def failure(self) -> str | None:
        """The outage while it lasts, else what the writer itself says."""
        return self.seams.without_database() or self.__dict__.get("failure")

    @failure.setter
    def failure(self, reason: str | None) -> None:
        self.__dict__["failure"] = reason

    def submit(self, work: Any, weight: int) -> asyncio.Future[Any]:
        """Refused while the outage lasts."""
        reason = self.seams.without_database()
        if reason is None:
            return super().submit(work, weight)
        self.seams.counts["writes refused"] += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(StoreError(reason))
        future.exception()
        return future

    def join(self, future: asyncio.Future[Any], weight: int) -> bool:
        """Refused while the outage lasts, like `submit`: else it would depend on how quick the disk was."""
        return self.seams.without_database() is None and super().join(future, weight)


@dataclass
class Ran:
    """What one seed left."""

    seed: int
    head: tuple[int, str] = (0, "")
    restarts: int = 0
    requests: int = 0
    failed_requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    audit: Audit = field(default_factory=Audit)
    stopped_loops: list[str] = field(default_factory=list)
    shifts: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and self.audit.sound


async def run(folder: Path, seed: int, span: int) -> Ran:
    """One agent for a span of simulated time, from an empty database."""
    settings = _settings(seed)
    vendors = vendor_offers(settings)
    settings = with_sandbox(settings, BASE_URL, CLIENT_ID, CLIENT_SECRET, vendors)
    clock, effects, faults = SimClock(START), _KeptEffects(), Faults(REQUESTS, seed)
    market = Market(seed, START, CAMPAIGNS, HISTORY_DAYS)
    service = SandboxService(market, effects, faults, vendors=vendors)
    database = folder / "agent.db"
    seams = Seams(seed, clock)
    ran = Ran(seed)
    world = World(
        clock, database, lambda instance: InProcessHttp(service.handle, clock), synchronous="OFF", simulated=True
    )
    end = Instant(START + span)
    for until in [*seams.ends(span), end]:
        if seams.without_database() is not None:
            continue
        agent = await Agent.build(settings, world, metrics=Metrics(process=False), signals=Signals())
        try:
            seams.open(agent)
            with simulated_world():
                await agent.start()
                await SimDriver().run(agent.supervisor, clock, until)
            if until == end:
                await _settle(agent, clock)
                ran.stopped_loops = [each.name for each in agent.supervisor.report(end) if each.state == "faulted"]
        finally:
            await agent.close()
        clock.instant = until
        ran.restarts += until != end
    ran.requests, ran.failed_requests, ran.faults = faults.requests, faults.injected, seams.counts
    lines = [{**msgspec.to_builtins(each), "key": each.key} for each in effects.all]
    ran.audit = audit(database, [{"members": (), **line} for line in lines], CAPS, CAMPAIGNS)
    _look(database, ran)
    return ran


async def _settle(agent: Agent, clock: SimClock) -> None:
    """Everything durable; the end of a run falls into no outage, or the run ends as it is."""
    try:
        await agent.decisions.flush(clock.now())
        await agent.store.drain()
    except KikiError:
        return


def _look(database: Path, ran: Ran) -> None:
    """Each closed shift that moved money has one row in the ledger and one in the log (M5)."""
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        seq, digest = connection.execute("SELECT seq, hash FROM ledger_entries ORDER BY seq DESC LIMIT 1").fetchone()
        ran.head = (seq, digest.hex())
        rows = [
            json.loads(body)
            for (body,) in connection.execute("SELECT body FROM ledger_entries WHERE kind = 'reallocation'")
        ]
        logged = connection.execute("SELECT count(*) FROM budget_reallocation_log").fetchone()[0]
        closed = connection.execute("SELECT count(*) FROM shifts WHERE closed_at IS NOT NULL").fetchone()[0]
    finally:
        connection.close()
    ran.shifts = len(rows)
    if len({row["shift_id"] for row in rows}) != len(rows):
        ran.problems.append("a shift is recorded twice")
    if len(rows) != closed:
        ran.problems.append(f"{closed} shifts were closed, {len(rows)} are in the ledger")
    if sum(bool(row["moved_micros"]) for row in rows) != logged:
        ran.problems.append(f"{logged} shifts are in the reallocation log, the ledger says otherwise")
    if ran.stopped_loops:
        ran.problems.append(f"loops were given up: {', '.join(ran.stopped_loops)}")


def _settings(seed: int) -> Settings:
    loaded = load(None, environment({**SETTINGS, "demo.seed": seed}), {})
    return loaded.settings.model_copy(update={"mode": Mode.BACKTEST})


def try_seed(seed: int, span: int, *, twice: bool = False) -> Ran:
    """Run one seed in a folder of its own; any exception is a problem of that seed."""
    ran = Ran(seed)
    heads = []
    for _ in range(2 if twice else 1):
        with tempfile.TemporaryDirectory(prefix="kiki-simulate-") as folder:
            try:
                ran = asyncio.run(run(Path(folder), seed, span))
            except (KikiError, PluginError, sqlite3.Error, AssertionError, LookupError, ValueError) as error:
                ran.problems.append(f"{type(error).__name__}: {error}")
        heads.append(ran.head)
    if len(set(heads)) > 1:
        ran.problems.append(f"two runs of the seed left different ledgers: {heads}")
    return ran


def rows_of(runs: Sequence[Ran], hours: float) -> list[report.Row]:
    """The table over many seeds."""
    failed = [each.seed for each in runs if not each.sound]
    faults: Counter[str] = Counter()
    for each in runs:
        faults += each.faults
    return [
        ("seeds", len(runs), None),
        ("simulated hours of each", hours, None),
        ("restarts", sum(each.restarts for each in runs), None),
        ("requests", sum(each.requests for each in runs), None),
        ("  that failed", sum(each.failed_requests for each in runs), None),
        *((name, count, None) for name, count in sorted(faults.items())),
        ("intents", sum(each.audit.intents for each in runs), None),
        ("shifts", sum(each.shifts for each in runs), None),
        ("lost effects", sum(each.audit.lost for each in runs), not any(each.audit.lost for each in runs)),
        ("double effects", sum(each.audit.double for each in runs), not any(each.audit.double for each in runs)),
        (
            "effects nobody meant",
            sum(each.audit.foreign for each in runs),
            not any(each.audit.foreign for each in runs),
        ),
        (
            "micros permitted over a cap",
            max((each.audit.over_cap_micros for each in runs), default=0),
            not any(each.audit.over_cap_micros for each in runs),
        ),
        (
            "micros of budget made by shifts",
            max((each.audit.over_total_micros for each in runs), default=0),
            not any(each.audit.over_total_micros for each in runs),
        ),
        ("seeds that failed", ", ".join(map(str, failed)) or 0, not failed),
    ]


class _Nowhere(io.StringIO):
    """Where log lines go: the faults are wanted, and the table says what came of them."""

    def write(self, text: str) -> int:
        """Forget it."""
        return len(text)


def main(arguments: Sequence[str]) -> int:
    """0 when every seed was sound; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m kiki_agent.testing.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many, from the first on")
    parser.add_argument("--seed", type=int, default=1, help="the first; alone with --seeds 1 to look at one again")
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--once", action="store_true", help="do not run each seed a second time to compare")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    log.configure("error", "text", stream=_Nowhere())
    watch = Stopwatch()
    runs = []
    for seed in range(options.seed, options.seed + options.seeds):
        ran = try_seed(seed, round(options.hours * HOUR), twice=not options.once)
        runs.append(ran)
        state = "sound" if ran.sound else "FAILED"
        report.say(f"seed {seed}: {state}, {ran.audit.intents} intents, {ran.shifts} shifts, head {ran.head[1][:12]}")
        if not ran.sound:
            for problem in [*ran.problems, *ran.audit.problems][:5]:
                report.say(f"  {problem}")
            report.say(
                f"  again: python -m kiki_agent.testing.simulate --seeds 1 --seed {seed} --hours {options.hours:g}"
            )
    rows = rows_of(runs, options.hours)
    title = f"Simulation by seed: {watch.seconds():.0f} s on {report.machine()}"
    problems = [f"seed {each.seed}: {text}" for each in runs for text in [*each.problems, *each.audit.problems]]
    report.write(report.as_json(title, rows, {"problems": problems}) if options.json else report.table(title, rows))
    return 0 if report.sound(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
