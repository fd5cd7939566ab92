"""Kills an agent again and again while it works, most often between journal and confirm, and audits what it left.

`python -m kiki_agent.testing.crash --kills 100`: a market as a process of its own, the fault proxy before it, a demo at
speed behind that. The proxy holds an answer that the platform has already given back, and the agent is killed then.
After each kill the platforms' log of effects is compared with the ledger, and the next start must be ready in time.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median

from kiki_agent.model import SECOND
from kiki_agent.runtime.clock import Stopwatch, SystemClock
from kiki_agent.runtime.tasks import cancel_all
from kiki_agent.sandbox.noise import seed_key, unit
from kiki_agent.testing import broken, report
from kiki_agent.testing.audit import Audit, audit, open_intents
from kiki_agent.testing.processes import AGENT, AgentProcess, MarketProcess, ProcessFailed
from kiki_agent.testing.proxy import Dropped, Exchange, FaultProxy
from kiki_agent.testing.trouble import WRITES, Rule, Trouble

READY_S = 5.0
"""Wall seconds within which a killed agent must be ready again."""
CAMPAIGNS = 24
PLATFORMS = ("meta", "google_ads", "tiktok", "linkedin", "amazon", "microsoft")
OWN_API = PLATFORMS[2:]
"""Platforms behind the market's own API, where bids can be placed at a fixed amount."""
ASKED = ("amazon", "meta")
"""Connectors that stay at level `suggest`: what happens there a person has approved."""
MICROS = 1_000_000
DAILY, WINDOW = 300, 60
"""Caps of a connector in units: so low that placed bids and levels fight for them."""

SETTINGS: dict[str, object] = {
    "demo.campaigns": CAMPAIGNS,
    "demo.history_days": 8,
    "demo.fault_rate": 0,
    "bidding.min_write_gap_s": 60,
    "bidding.min_change_percent": 1,
    "bidding.write_interval_s": 10,
    "ledger.settle_s": 0.5,
    "optimizer.interval_s": 60,
    "optimizer.cooldown_s": 0,
    "optimizer.consume_evidence": "false",
    "optimizer.floor_share": 0.05,
    "optimizer.threshold": 0.1,
    **{f"connector.{name}.daily_cap": 3_000 for name in PLATFORMS},
    **{f"connector.{name}.window_cap": 750 for name in PLATFORMS},
    "connector.linkedin.daily_cap": DAILY,
    "connector.linkedin.window_cap": WINDOW,
    "connector.tiktok.window_cap": WINDOW,
}
CAPS = {
    name: (
        (DAILY if name == "linkedin" else 3_000) * MICROS,
        (WINDOW if name in ("linkedin", "tiktok") else 750) * MICROS,
    )
    for name in PLATFORMS
}

WEATHER = (
    Rule(Trouble.LOST, 0.05, WRITES),
    Rule(Trouble.TRUNCATED, 0.02),
    Rule(Trouble.RESET, 0.02),
    Rule(Trouble.BROKEN, 0.01, burst=3),
    Rule(Trouble.THROTTLED, 0.005, seconds=2),
    Rule(Trouble.THROTTLED_DATE, 0.005, seconds=2),
    Rule(Trouble.WRONG_TYPE, 0.01),
    Rule(Trouble.REDIRECT, 0.005),
    Rule(Trouble.SLOW, 0.01, seconds=0.2),
    Rule(Trouble.TWICE, 0.01, ("GET",)),
    Rule(Trouble.LATENCY, 0.1, seconds=0.03),
)
"""A bad network; a request is delivered twice only where that is no second effect."""
_CHANGES = r"/(bids|budgets|status|placements)$|:mutate|/v\d+\.\d+/\d*(\?|$)"


class Moment(StrEnum):
    """When the agent is killed."""

    PROCESSED = "answer held, change made"
    UNSENT = "request held, change not made"
    TRAVELLING = "request held, change made after the kill"
    ANY = "any moment"
    START = "during the start"


@dataclass(slots=True)
class _Trap:
    """Waits in the proxy for the next change of a platform, and holds it until the agent is dead."""

    moment: Moment
    caught: asyncio.Event = field(default_factory=asyncio.Event)
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    held: Exchange | None = None

    def takes(self, exchange: Exchange) -> bool:
        """The first change that comes by is taken."""
        if self.held is not None or exchange.method != "POST" or re.search(_CHANGES, exchange.path) is None:
            return False
        self.held = exchange
        return True


@dataclass
class Tally:
    """What a loop of kills counted."""

    kills: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    between: int = 0
    """Kills that left an intent with a journal entry and no receipt, by the database itself."""
    ready_s: list[float] = field(default_factory=list)
    ready_cpu_s: list[float] = field(default_factory=list)
    """CPU seconds of the same starts: what they would take on a machine with nothing else to do."""
    late: int = 0
    """Starts that took longer than they may."""
    stop_s: list[float] = field(default_factory=list)
    hung: int = 0
    placed: Counter[str] = field(default_factory=Counter)
    decided: Counter[str] = field(default_factory=Counter)
    """What a person asked for and was told to be done: approve, decline, roll back."""
    """Answers to bids placed by hand."""
    audit: Audit = field(default_factory=Audit)
    problems: list[str] = field(default_factory=list)

    def rows(self, troubles: Counter[str]) -> list[report.Row]:
        """The table."""
        found = self.audit
        share = self.between / self.kills if self.kills else 0.0
        troubled = sum(count for name, count in troubles.items() if name not in ("passed", "dropped"))
        return [
            ("kills", self.kills, None),
            *((f"  {name}", count, None) for name, count in sorted(self.moments.items())),
            *((f"  by {name}", count, None) for name, count in sorted(self.signals.items())),
            ("kills between journal and confirm", self.between, None),
            ("  share of all kills", round(share, 3), share >= 0.5),
            ("exchanges troubled by the proxy", troubled, None),
            ("intents", found.intents, found.intents > 0),
            ("effects at the platforms", found.effects, found.effects > 0),
            ("  where the vendor keeps no key of ours", found.keyless, None),
            ("  of budgets", found.budgets, None),
            ("accepted intents", found.accepted, found.accepted > 0),
            ("lost effects", found.lost, found.lost == 0),
            ("double effects", found.double, found.double == 0),
            ("effects nobody meant", found.foreign, found.foreign == 0),
            ("intents still shown as unknown at the end", found.unknown, None),
            ("intents left without a receipt at the end", found.pending, found.pending == 0),
            ("micros permitted over a cap", found.over_cap_micros, found.over_cap_micros == 0),
            ("micros of budget made by shifts", found.over_total_micros, found.over_total_micros == 0),
            ("bids placed by hand", sum(self.placed.values()), None),
            ("  of them refused at a cap", self.placed["BUDGET_EXCEEDED"], None),
            ("decisions of a person", sum(self.decided.values()), None),
            ("orders of a person", found.orders, None),
            ("  carried out twice, or approved and forgotten", found.disorders, found.disorders == 0),
            ("slowest start to ready, s", max(self.ready_s, default=0.0), self.late == 0),
            ("  half of all starts within, s", median(self.ready_s) if self.ready_s else 0.0, None),
            ("  most CPU seconds of a start", max(self.ready_cpu_s, default=0.0), None),
            ("slowest end after SIGTERM, s", max(self.stop_s, default=0.0), self.hung == 0),
            ("violations", len(found.problems) + len(self.problems), not found.problems and not self.problems),
        ]


class CrashLoop:
    """One market, one proxy, one data folder, many agents one after the other."""

    def __init__(
        self,
        folder: Path,
        kills: int,
        *,
        seed: int = 1,
        speed: float = 60.0,
        way: str | None = None,
        ready_s: float = READY_S,
        quiet: bool = False,
    ) -> None:
        self.folder, self.kills, self.quiet, self._ready_s = folder, kills, quiet, ready_s
        self._key = seed_key(seed, 920_000)
        settings = {**SETTINGS, "demo.speed": speed, "demo.seed": seed}
        self.market = MarketProcess(folder / "market", settings)
        self.agent = AgentProcess(
            folder / "agent", dict(settings), command=AGENT if way is None else broken.command(way)
        )
        self.seed = seed
        self.tally = Tally()
        self._clock = SystemClock()
        self._trap: _Trap | None = None
        self._late: set[asyncio.Task[object]] = set()
        self._enough = False
        self.proxy: FaultProxy

    def enough(self) -> None:
        """Kill no more; the end, the audit and the table come as ever."""
        self._enough = True

    async def run(self) -> Tally:
        """Kill and start until it is enough, then end in order and audit once more."""
        for stop in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(stop, self.enough)
        self.folder.mkdir(parents=True, exist_ok=True)
        await self.market.start()
        self.proxy = await FaultProxy(self.market.base_url, WEATHER, seed=self.seed).start()
        self.proxy.before, self.proxy.after = self._before, self._after
        try:
            await self._start(first=True)
            for name in ASKED:
                status, answer = await self.agent.post(f"/api/v1/autonomy/{name}", {"level": "suggest"})
                if status != 200:
                    raise ProcessFailed(f"the level of {name} could not be set: {status} {answer}")
            for number in range(self.kills):
                if self._enough:
                    break
                await self._life(number)
            await self._settle_down()
        except ProcessFailed as error:
            text = str(error)
            self.tally.problems.append(text if len(text) < 900 else f"{text[:200]} ... {text[-600:]}")
        finally:
            await self.agent.close()
            await self.proxy.close()
            await self.market.close()
        return self.tally

    # -- one life -----------------------------------------------------------------------------------------------

    async def _life(self, number: int) -> None:
        chance = [unit(self._key, number * 8 + place) for place in range(4)]
        moment = _moment(chance[0])
        deed = signal.SIGTERM if moment is Moment.ANY and chance[1] < 0.35 else signal.SIGKILL
        people = {
            asyncio.create_task(self._customer(number), name="customer"),
            asyncio.create_task(self._person(number), name="person"),
        }
        try:
            if moment in (Moment.PROCESSED, Moment.UNSENT, Moment.TRAVELLING):
                await self._until_caught(moment, chance[2])
            elif moment is Moment.ANY:
                await self._clock.sleep_for(chance[2] * 1.5 * SECOND)
            await self._kill(deed, moment)
        finally:
            await cancel_all(people, 1.0)
        self._look(number)
        again = _moment(unit(self._key, number * 8 + 8)) is Moment.START and number + 1 < self.kills
        await self._start(wait=not again)
        if again:
            await self._clock.sleep_for(chance[3] * 1.2 * SECOND)
        if not self.quiet:
            tally = self.tally
            ready = (tally.ready_s or [0.0])[-1]
            report.say(
                f"kill {number + 1}/{self.kills}  {deed.name} {moment.value}  ready {ready:.2f} s"
                f"  between {tally.between}  effects {tally.audit.effects}  violations {len(tally.audit.problems)}"
            )

    async def _until_caught(self, moment: Moment, chance: float) -> None:
        """Let it live a little, then set the trap; bids by hand fill it when the loops have nothing to change."""
        await self._clock.sleep_for(chance * 0.6 * SECOND)
        trap = self._trap = _Trap(moment)
        watch = Stopwatch()
        while not trap.caught.is_set():
            await self._clock.sleep_for(0.005 * SECOND)
            if watch.seconds() > 20 or not self.agent.runs:
                raise ProcessFailed(f"no change was sent for {watch.seconds():.0f} s; {self.agent.last_words()}")

    async def _kill(self, deed: signal.Signals, moment: Moment) -> None:
        tally = self.tally
        code, seconds = await self.agent.end(deed)
        if self._trap is not None:
            self._trap.dead.set()
            self._trap = None
        tally.kills += 1
        tally.moments[moment.value] += 1
        tally.signals[deed.name] += 1
        if deed is signal.SIGTERM:
            tally.stop_s.append(seconds)
            if code != 0 or seconds > 10:
                tally.hung += 1
                tally.problems.append(f"SIGTERM: exit code {code} after {seconds:.1f} s")
        await self._clock.sleep_for(0.02 * SECOND)
        while self._late:  # what was still travelling arrives now
            await asyncio.wait(self._late)

    def _look(self, number: int) -> None:
        found = self._audit()
        self.tally.between += found.pending > 0
        fresh = [each for each in found.problems if each not in self.tally.audit.problems]
        for problem in fresh:
            report.say(f"VIOLATION after kill {number + 1}: {problem}")
        self.tally.audit.merge(found)

    def _audit(self) -> Audit:
        if not self.agent.database.exists():
            return Audit()
        return audit(self.agent.database, self.market.effects(), CAPS, CAMPAIGNS)

    async def _start(self, *, first: bool = False, wait: bool = True) -> None:
        self.market.show(self.agent.data / "sandbox", self.proxy.port)
        self.agent.start()
        if not wait:
            return
        seconds = await self.agent.until_ready()
        if first:
            return
        self.tally.ready_s.append(seconds)
        self.tally.ready_cpu_s.append(self.agent.cpu_seconds())
        if seconds > self._ready_s:
            self.tally.late += 1
            self.tally.problems.append(f"ready only after {seconds:.1f} s")

    async def _settle_down(self) -> None:
        """Let what is unknown be read back, end in order, and audit the whole life."""
        self.proxy.weather.rules.clear()
        watch = Stopwatch()
        while watch.seconds() < 20 and open_intents(self.agent.database):
            await self._clock.sleep_for(0.2 * SECOND)
        code, seconds = await self.agent.end(signal.SIGTERM)
        self.tally.stop_s.append(seconds)
        if code != 0 or seconds > 10:
            self.tally.hung += 1
            self.tally.problems.append(f"the last SIGTERM: exit code {code} after {seconds:.1f} s")
        self.tally.audit.merge(self._audit())

    # -- what the proxy asks, and who places bids --------------------------------------------------------------

    async def _before(self, exchange: Exchange) -> None:
        trap = self._trap
        if trap is None or trap.moment is Moment.PROCESSED or not trap.takes(exchange):
            return
        trap.caught.set()
        await trap.dead.wait()
        if trap.moment is Moment.UNSENT:
            raise Dropped
        task = asyncio.current_task()
        if task is not None:
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    async def _after(self, exchange: Exchange) -> None:
        trap = self._trap
        if trap is None or trap.moment is not Moment.PROCESSED or not trap.takes(exchange):
            return
        trap.caught.set()
        await trap.dead.wait()

    async def _customer(self, number: int) -> None:
        """Somebody who places bids by hand all the time, so that windows are fought for."""
        place = 0
        while True:
            place += 1
            chance = unit(self._key, (number * 1_000 + place) * 8 + 5)
            name = OWN_API[int(chance * 997) % 2 if chance < 0.8 else 2 + int(chance * 997) % 2]
            first = 100_001 + PLATFORMS.index(name) * (CAMPAIGNS // len(PLATFORMS))
            body = {
                "campaign_id": str(first + place % (CAMPAIGNS // len(PLATFORMS))),
                "platform": name,
                "bid_amount": f"{1 + int(chance * 1_400) / 100:.2f}",
            }
            status, answer = await self.agent.post("/api/v1/bids", body, seconds=3)
            if status == 200:
                self.tally.placed[answer["reason"] or answer["status"]] += 1
            elif status:
                self.tally.placed[f"HTTP {status}"] += 1
            await self._clock.sleep_for(0.1 * SECOND)

    async def _person(self, number: int) -> None:
        """Somebody who decides what the agent suggests, and now and then puts back what was done."""
        place = 0
        while True:
            _, answer = await self.agent.get("/api/v1/suggestions?state=open", seconds=3)
            for suggestion in (answer or {}).get("items", ()):
                place += 1
                chance = unit(self._key, (number * 1_000 + place) * 8 + 6)
                verb = "decline" if chance < 0.15 else "approve"
                path = f"/api/v1/suggestions/{suggestion['suggestion_id']}/{verb}"
                status, done = await self.agent.post(path, {}, seconds=3)
                self.tally.decided[verb] += status == 200
                if status == 200 and done["order"] and chance > 0.8:
                    batch = {"batch": done["order"]["order_id"]}
                    status, _ = await self.agent.post("/api/v1/rollback", batch, seconds=3)
                    self.tally.decided["roll back"] += status == 200
            await self._clock.sleep_for(0.15 * SECOND)


def _moment(chance: float) -> Moment:
    if chance < 0.42:
        return Moment.PROCESSED
    if chance < 0.55:
        return Moment.UNSENT
    if chance < 0.68:
        return Moment.TRAVELLING
    return Moment.ANY if chance < 0.94 else Moment.START


def main(arguments: Sequence[str]) -> int:
    """0 when nothing was lost, double or above a cap; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m kiki_agent.testing.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, help="where everything is kept; default: a folder that is removed")
    parser.add_argument("--break", dest="way", choices=sorted(broken.WAYS), help="show that a wrong agent is seen")
    parser.add_argument(
        "--ready-s", type=float, default=READY_S, help="seconds a start may take; more on a busy machine"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="kiki-crash-") as spare:
        loop = CrashLoop(
            options.folder or Path(spare),
            options.kills,
            seed=options.seed,
            speed=options.speed,
            way=options.way,
            ready_s=options.ready_s,
        )
        watch = Stopwatch()
        tally = asyncio.run(loop.run())
        rows = tally.rows(loop.proxy.counts)
        title = f"Crash loop: {tally.kills} kills in {watch.seconds():.0f} s on {report.machine()}"
        problems = [*tally.problems, *tally.audit.problems]
        more = {"troubles": dict(loop.proxy.counts), "placed": dict(tally.placed), "problems": problems}
        report.write(report.as_json(title, rows, more) if options.json else report.table(title, rows))
        for problem in problems[:20]:
            report.say(f"VIOLATION: {problem}")
        return 0 if report.sound(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
