"""Takes the database away from a running agent, and moves its clock: spending stops, the process lives, and goes on.

`python -m kiki_agent.testing.holds --seconds 60`. Somebody places bids all the time; platforms keep their log of
effects. A tick is two seconds: the hold must be there within one, and over within two of the cure.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from kiki_agent.errors import KikiError
from kiki_agent.model import SECOND
from kiki_agent.runtime.clock import Stopwatch, SystemClock
from kiki_agent.runtime.tasks import cancel_all
from kiki_agent.testing import report, shifted
from kiki_agent.testing.audit import Audit, audit, name_open_intents, open_intents
from kiki_agent.testing.processes import AGENT, AgentProcess, MarketProcess, ProcessFailed

TICK_S = 2.0
PLATFORMS = ("meta", "google_ads", "tiktok", "linkedin", "amazon", "microsoft")
CAMPAIGNS = 24
MICROS = 1_000_000
DAILY, WINDOW = 60, 40
"""Caps of the connectors that the clock's scenario fills, in units."""
FULL_MB = 48
"""Size of the disk that is filled up."""
SETTLE_S = 30.0
"""What is unknown after a cure is read back within this."""
SLACK_S = 1.2
"""What the machine may add to a limit of seconds, unless told: a commit waits one second for a lock and gives up."""

SETTINGS: dict[str, object] = {
    "demo.campaigns": CAMPAIGNS,
    "demo.history_days": 8,
    "demo.fault_rate": 0,
    "demo.speed": 1,
    "bidding.write_interval_s": 2,
    "bidding.min_write_gap_s": 2,
    "bidding.min_change_percent": 0.1,
    "ledger.settle_s": 0.5,
    "optimizer.enabled": "false",
    **{f"connector.{name}.daily_cap": 3_000 for name in PLATFORMS},
    **{f"connector.{name}.window_cap": 1_500 for name in PLATFORMS},
}
CAPS = dict.fromkeys(PLATFORMS, (3000 * MICROS, 1500 * MICROS))


@dataclass
class Scene:
    """What one scenario showed."""

    name: str
    skipped: str = ""
    in_s: float = 0.0
    """From the trouble to the first refusal with the hold as its reason."""
    out_s: float = 0.0
    """From the cure to the first permitted bid."""
    raises_in_hold: int = 0
    """Effects that raise spend, between the first refusal and the cure."""
    refused: int = 0
    """Bids refused meanwhile."""
    why: str = ""
    problems: list[str] = field(default_factory=list)
    key: str = ""
    """Its name among the scenarios."""

    def rows(self, slack: float = SLACK_S) -> list[report.Row]:
        """The table's part; `slack` in seconds is what the machine may add to a limit."""
        if self.skipped:
            return [(f"{self.key}: skipped", self.skipped, None)]
        rows: list[report.Row] = [
            (f"{self.key}: {self.name}", "violations" if self.problems else "done", not self.problems)
        ]
        if self.why:
            key, into, out = self.key, TICK_S + slack, 2 * TICK_S + slack
            rows += [
                (f"  {key}: into hold, s (at most one tick of 2)", round(self.in_s, 2), self.in_s <= into),
                (f"  {key}: out of hold, s (at most two ticks)", round(self.out_s, 2), self.out_s <= out),
                (f"  {key}: bids refused in hold", self.refused, self.refused > 0),
                (f"  {key}: effects that raise spend in hold", self.raises_in_hold, self.raises_in_hold == 0),
            ]
        return rows


class Stage:
    """An agent at the speed of the wall, with a market of its own and somebody who places bids."""

    def __init__(self, folder: Path, *, command: Sequence[str] = AGENT, more: dict[str, object] | None = None) -> None:
        settings = {**SETTINGS, **(more or {})}
        self.market = MarketProcess(folder / "market", settings)
        self.agent = AgentProcess(folder / "agent", settings, command=command)
        self.clock = SystemClock()
        self.answers: list[tuple[float, str, str]] = []
        """(seconds on the watch, platform, status or reason) of every bid that was asked for."""
        self.watch = Stopwatch()
        self.amount = "1.00"
        self.names: tuple[str, ...] = PLATFORMS[2:]
        self._bidding: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[Stage]:
        """Start everything; end it hard."""
        try:
            await self.market.start()
            assert self.market.handle is not None
            self.market.show(self.agent.data / "sandbox", self.market.handle.port)
            self.agent.start()
            await self.agent.until_ready()
            self._bidding.add(asyncio.create_task(self._customer(), name="customer"))
            await self.until(lambda what: what == "ACCEPTED", 20)
            yield self
        finally:
            await cancel_all(self._bidding, 1.0)
            await self.agent.close()
            await self.market.close()

    async def _customer(self) -> None:
        number = 0
        while True:
            number += 1
            name = self.names[number % len(self.names)]
            first = 100_001 + PLATFORMS.index(name) * (CAMPAIGNS // len(PLATFORMS))
            body = {"campaign_id": str(first + number % 4), "platform": name, "bid_amount": self.amount}
            status, answer = await self.agent.post("/api/v1/bids", body, seconds=4)
            what = (answer["reason"] or answer["status"]) if status == 200 else f"HTTP {status}"
            self.answers.append((self.watch.seconds(), name, what))
            await self.clock.sleep_for(0.1 * SECOND)

    async def until(self, accept: Callable[[str], bool], seconds: float, since: float | None = None) -> float:
        """Wait for an answer to a bid asked for after `since`; seconds from `since`. Raises ProcessFailed."""
        begun = self.watch.seconds() if since is None else since
        while self.watch.seconds() < begun + seconds:
            for when, _, what in reversed(self.answers):
                if when <= begun:
                    break
                if accept(what):
                    return when - begun
            if not self.agent.runs:
                raise ProcessFailed(f"the agent ended: {self.agent.last_words()}")
            await self.clock.sleep_for(0.02 * SECOND)
        seen = Counter(what for when, _, what in self.answers if when > begun)
        raise ProcessFailed(f"no such answer within {seconds:g} s, but {dict(seen)}; {self.agent.last_words()[-900:]}")

    def raising(self) -> int:
        """Effects so far that let more money flow."""
        return sum(each["kind"] == "place_bid" or each["after"] > each["before"] for each in self.market.effects())

    async def end(self, caps: dict[str, tuple[int, int]]) -> Audit:
        """Ask for nothing more, let what is unknown settle, end in order, audit."""
        await cancel_all(self._bidding, 1.0)
        watch = Stopwatch()
        await self.clock.sleep_for(2 * SECOND)
        while watch.seconds() < SETTLE_S and open_intents(self.agent.database):
            await self.clock.sleep_for(0.2 * SECOND)
        await self.agent.end(signal.SIGTERM)
        return audit(self.agent.database, self.market.effects(), caps, CAMPAIGNS)


def held(what: str) -> bool:
    """Whether a bid was refused because the agent holds, or cannot write."""
    return what == "SAFE_HOLD" or what == "HTTP 503"


async def _run(*command: str) -> bool:
    """Run a command of the system; whether it is there and did it."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError:
        return False
    return await process.wait() == 0


def make_folder(folder: Path) -> None:
    """With all above it."""
    folder.mkdir(parents=True, exist_ok=True)


async def _trouble(
    stage: Stage, scene: Scene, seconds: float, begin: Callable[[], object], cure: Callable[[], object]
) -> None:
    """Begin the trouble, look while it lasts, cure it, and look again."""
    begun = stage.watch.seconds()
    await asyncio.to_thread(begin)
    try:
        scene.in_s = await stage.until(held, 15, begun)
        raised = stage.raising()
        status, body = await stage.agent.get("/ready")
        scene.why = str((body or {}).get("reason", ""))
        if status != 503 or not scene.why:
            scene.problems.append(f"/ready was {status} {body} in hold")
        if (await stage.agent.get("/health"))[0] != 200:
            scene.problems.append("/health did not answer 200 in hold")
        await stage.clock.sleep_for(max(0.0, begun + seconds - stage.watch.seconds()) * SECOND)
        scene.raises_in_hold = stage.raising() - raised
    finally:
        await asyncio.to_thread(cure)
    cured = stage.watch.seconds()
    since = begun + scene.in_s
    scene.refused = sum(held(what) for when, _, what in stage.answers if since <= when <= cured)
    permitted = [what for when, _, what in stage.answers if since < when < cured and what == "ACCEPTED"]
    if permitted:
        scene.problems.append(f"{len(permitted)} bids were placed in hold")
    scene.out_s = await stage.until(lambda what: what == "ACCEPTED", 20, cured)
    whole = stage.clock.now()
    found = await stage.end(CAPS)
    scene.problems += found.problems
    left = name_open_intents(stage.agent.database, whole)  # one that the end itself cut off may stay unknown
    if left:
        scene.problems.append(f"intents without an outcome long after the cure: {'; '.join(left)}")


# -- the database goes away -----------------------------------------------------------------------------------------


async def locked(folder: Path, seconds: float) -> Scene:
    """Another process holds the database's lock."""
    scene = Scene(f"database locked for {seconds:g} s")
    async with Stage(folder).playing() as stage:
        other: list[sqlite3.Connection] = []

        def lock() -> None:
            connection = sqlite3.connect(
                stage.agent.database, isolation_level=None, timeout=30, check_same_thread=False
            )
            connection.execute("BEGIN IMMEDIATE")
            other.append(connection)

        def unlock() -> None:
            for connection in other:
                connection.execute("ROLLBACK")
                connection.close()

        await _trouble(stage, scene, seconds, lock, unlock)
    return scene


async def no_growth(folder: Path, seconds: float) -> Scene:
    """Every write to a file of the agent fails, its log included: a limit on files, set while it runs."""
    scene = Scene(f"no file may grow for {seconds:g} s")
    async with Stage(folder).playing() as stage:
        await _trouble(stage, scene, seconds, lambda: stage.agent.limit_files(0), lambda: stage.agent.limit_files(-1))
    return scene


async def disk_full(folder: Path, seconds: float) -> Scene:
    """The disk under the data folder is full (a small one made for the purpose; needs the right to mount)."""
    scene = Scene(f"disk full for {seconds:g} s")
    stage = Stage(folder)
    data = stage.agent.data
    make_folder(data)
    if not await _run("mount", "-t", "tmpfs", "-o", f"size={FULL_MB}m", "tmpfs", str(data)):
        scene.skipped = "mounting is not permitted here"
        return scene
    ballast = data / "ballast"

    def fill() -> None:
        descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    os.write(descriptor, bytes(65_536))
                except OSError:
                    break
        finally:
            os.close(descriptor)

    try:
        async with stage.playing():
            await _trouble(stage, scene, seconds, fill, ballast.unlink)
    finally:
        await _run("umount", str(data))
    return scene


async def read_only(folder: Path, seconds: float) -> Scene:
    """Database, WAL and head become immutable under the running agent (needs a file system that can)."""
    scene = Scene(f"files read-only for {seconds:g} s")
    probe = folder / "probe"
    make_folder(folder)
    shifted.write_shift(probe, 0)
    able = await _run("chattr", "+i", str(probe))
    if not (await _run("chattr", "-i", str(probe)) and able):
        scene.skipped = "files cannot be made immutable here"
        return scene
    async with Stage(folder).playing() as stage:
        files = [str(stage.agent.database), f"{stage.agent.database}-wal"]

        def change(sign: str) -> None:
            subprocess.run(["chattr", f"{sign}i", *files], check=True)

        await _trouble(stage, scene, seconds, lambda: change("+"), lambda: change("-"))
    return scene


# -- the clock goes elsewhere ---------------------------------------------------------------------------------------

HOUR_S, DAY_S, YEAR_S = 3_600.0, 86_400.0, 365 * 86_400.0
SHIFTS = (-HOUR_S, 0.0, -DAY_S, 0.0, -YEAR_S, 0.0, 5 * 60.0, 0.0, HOUR_S, 0.0, DAY_S, 0.0, YEAR_S, 0.0)
"""Where the clock stands, in seconds from the true time, one after the other."""


async def clock_shifts(folder: Path, shifts: Sequence[float] = SHIFTS) -> Scene:
    """The wall clock jumps back and forth while caps are full: no cap is passed, no day repeats, loops tick on."""
    scene = Scene(f"{len(shifts)} jumps of the clock")
    make_folder(folder)
    file = folder / "shift"
    shifted.write_shift(file, 0)
    more: dict[str, object] = {"bidding.interval_s": 0.5, "bidding.deadline_s": 0.4, "bidding.value_share": 0.01}
    caps = dict(CAPS)
    for name in ("linkedin", "tiktok"):
        more |= {f"connector.{name}.daily_cap": DAILY, f"connector.{name}.window_cap": WINDOW}
        caps[name] = (DAILY * MICROS, WINDOW * MICROS)
    stage = Stage(folder, command=shifted.command(file), more=more)
    stage.names = ("linkedin", "tiktok")
    stage.amount = "2.50"
    async with stage.playing():
        await stage.until(lambda what: what == "BUDGET_EXCEEDED", 30)
        for seconds in shifts:
            ticks = await _ticks(stage)
            shifted.write_shift(file, seconds)
            watch = Stopwatch()
            while await _ticks(stage) < ticks + 2:
                await stage.clock.sleep_for(0.05 * SECOND)
                if watch.seconds() > 5 * TICK_S:
                    scene.problems.append(f"the bidding loop stood still after the clock went to {seconds:+g} s")
                    break
        found = await stage.end(caps)
    scene.problems += found.problems
    if found.accepted == 0:
        scene.problems.append("nothing was placed, so nothing was shown")
    days = _days(stage.agent.database)
    if any(later <= before for before, later in pairwise(days)):
        scene.problems.append(f"days began out of order: {days}")
    return scene


async def _ticks(stage: Stage) -> int:
    status, body = await stage.agent.get("/status")
    if status != 200:
        raise ProcessFailed(f"/status was {status}; {stage.agent.last_words()}")
    facts: dict[str, Any] = body
    return int(facts["bidding"]["ticks"])


def _days(database: Path) -> list[str]:
    """Days of one connector in the order in which the ledger first names them."""
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT json_extract(body, '$.day') AS day, min(seq) FROM ledger_entries WHERE kind IN ('spend', 'lease')"
            " AND json_extract(body, '$.connector') = 'linkedin' GROUP BY 1 ORDER BY 2"
        ).fetchall()
        return [day for day, _ in rows]
    finally:
        connection.close()


async def play(folder: Path, seconds: float, only: Sequence[str] = (), *, together: bool = False) -> list[Scene]:
    """All scenarios, each in a folder of its own: one after the other, or all at once."""
    names = [name for name in SCENARIOS if not only or name in only]
    if together:
        return list(await asyncio.gather(*(_play_one(folder, name, seconds) for name in names)))
    return [await _play_one(folder, name, seconds) for name in names]


async def _play_one(folder: Path, name: str, seconds: float) -> Scene:
    try:
        scene = await SCENARIOS[name](folder / name, seconds)
    except (ProcessFailed, KikiError) as error:
        scene = Scene("not played to its end", problems=[str(error)])
    scene.key = name
    report.say(report.table(name, scene.rows()))
    for problem in scene.problems[:5]:
        report.say(f"VIOLATION in {name}: {problem}")
    return scene


async def _clock(folder: Path, _seconds: float) -> Scene:
    return await clock_shifts(folder)


SCENARIOS = {
    "locked": locked,
    "no-growth": no_growth,
    "disk-full": disk_full,
    "read-only": read_only,
    "clock": _clock,
}


def main(arguments: Sequence[str]) -> int:
    """0 when every scenario held; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m kiki_agent.testing.holds", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each trouble lasts")
    parser.add_argument("--only", nargs="*", choices=sorted(SCENARIOS), default=())
    parser.add_argument("--slack", type=float, default=SLACK_S, help="seconds that a busy machine may add to a limit")
    parser.add_argument("--together", action="store_true", help="all scenarios at once")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(prefix="kiki-holds-") as folder:
        scenes = asyncio.run(play(Path(folder), options.seconds, options.only, together=options.together))
    rows = [row for scene in scenes for row in scene.rows(options.slack)]
    title = f"Holds: {watch.seconds():.0f} s on {report.machine()}"
    problems = [problem for scene in scenes for problem in scene.problems]
    report.write(report.as_json(title, rows, {"problems": problems}) if options.json else report.table(title, rows))
    return 0 if report.sound(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
