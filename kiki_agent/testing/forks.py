"""Kills a process that permits, journals, calls and confirms, at random points, thousands of times.

`python -m kiki_agent.testing.forks --kills 10000`. The child (`spender.py`) is store, ledger, shield and outbox as the
agent has them; its platform is a pipe to the parent, which sees every effect and every acknowledgement up to the kill.
After each kill the parent asks the database: nothing acknowledged may be missing, nothing may be above a cap, no effect
may be unmeant or double, and the chain must be whole.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kiki_agent.ledger import verify_file
from kiki_agent.runtime.clock import Stopwatch
from kiki_agent.sandbox.noise import seed_key, unit
from kiki_agent.testing import report
from kiki_agent.testing.audit import Audit, check_permits
from kiki_agent.testing.spender import CAPS, Known, live

PER_DATABASE = 100
"""Kills after which a new database begins: each check reads all of it."""
MOST_LINES = 160


# -- the parent -----------------------------------------------------------------------------------------------------


@dataclass
class Forks:
    """What a loop of kills counted."""

    kills: int = 0
    acknowledged: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    between: int = 0
    effects: int = 0
    double: int = 0
    foreign: int = 0
    lost: int = 0
    over_cap_micros: int = 0
    broken_chains: int = 0
    databases: int = 0
    problems: list[str] = field(default_factory=list)

    def rows(self) -> list[report.Row]:
        """The table."""
        return [
            ("kills", self.kills, None),
            ("databases", self.databases, None),
            ("kills between journal and confirm", self.between, None),
            ("acknowledged permits", self.acknowledged["permit"], self.acknowledged["permit"] > 0),
            ("  refused at a cap", self.acknowledged["denied"], None),
            ("acknowledged receipts", self.acknowledged["accepted"] + self.acknowledged["rejected"], None),
            ("acknowledged settlements", self.acknowledged["spent"] + self.acknowledged["released"], None),
            ("effects", self.effects, self.effects > 0),
            ("acknowledged rows missing", self.missing, self.missing == 0),
            ("lost effects", self.lost, self.lost == 0),
            ("double effects", self.double, self.double == 0),
            ("effects nobody meant", self.foreign, self.foreign == 0),
            ("micros permitted over a cap", self.over_cap_micros, self.over_cap_micros == 0),
            ("broken chains", self.broken_chains, self.broken_chains == 0),
            ("other violations", len(self.problems), not self.problems),
        ]


def run(folder: Path, kills: int, seed: int = 1, *, quiet: bool = False) -> Forks:
    """Kill that often. The parent must have no threads: it forks."""
    tally = Forks()
    key = seed_key(seed, 930_000)
    known = Known()
    place = folder
    watch = Stopwatch()
    for number in range(kills):
        if number % PER_DATABASE == 0:
            shutil.rmtree(place, ignore_errors=True)
            place, known = folder / f"db-{number // PER_DATABASE}", Known()
            place.mkdir(parents=True)
            tally.databases += 1
        chance = unit(key, number * 2)
        lines = int(chance * chance * MOST_LINES)
        _one(place, number % PER_DATABASE, lines, known, tally, seed * 1_000_003 + number)
        _check(place, known, tally, number)
        if not quiet and (number + 1) % 100 == 0:
            report.say(
                f"fork kill {number + 1}/{kills}  {watch.seconds():.0f} s  effects {tally.effects}"
                f"  missing {tally.missing}  violations {len(tally.problems)}"
            )
    shutil.rmtree(place, ignore_errors=True)
    return tally


def _tell(pipe: int, what: str, fact: str) -> None:
    """One line to the parent, whole or not at all (it is shorter than PIPE_BUF)."""
    os.write(pipe, f"{what} {fact}\n".encode())


def _one(folder: Path, number: int, lines: int, known: Known, tally: Forks, seed: int) -> None:
    """Fork, listen for so many lines, kill, hear the rest."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            asyncio.run(live(folder, number, partial(_tell, writing), set(known.effects), seed))
        except BaseException as error:
            _tell(writing, "raised", f"{type(error).__name__}: {error}"[:200].replace("\n", " "))
        finally:
            os._exit(4)
    os.close(writing)
    heard = b""
    while heard.count(b"\n") < lines:
        piece = os.read(reading, 65_536)
        if not piece:
            break
        heard += piece
    os.kill(child, signal.SIGKILL)
    while piece := os.read(reading, 65_536):
        heard += piece
    os.close(reading)
    _, status = os.waitpid(child, 0)
    tally.kills += 1
    for line in heard.decode().split("\n")[:-1]:
        what, _, fact = line.partition(" ")
        known.take(what, fact)
        tally.acknowledged[what] += 1
    if not os.WIFSIGNALED(status):
        tally.problems.append(f"life {number} ended by itself: {heard[-300:]!r}")


def _check(folder: Path, known: Known, tally: Forks, number: int) -> None:
    database = folder / "agent.db"
    if not database.exists():
        return
    uri = f"{database.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'intents'").fetchone() == (0,):
            return
        states = dict(connection.execute("SELECT key, state FROM intents"))
        permits = dict(connection.execute("SELECT reservation_id, state FROM reservations"))
        found = Audit()
        check_permits(connection, CAPS, found)
    tally.between += "pending" in states.values()
    missing = known.missing(states, permits)
    tally.missing += len(missing)
    doubles = [key for key, times in known.effects.items() if times > 1]
    foreign = [key for key in known.effects if states.get(key) in (None, "rejected")]
    lost = [key for key, state in states.items() if state == "accepted" and key not in known.effects]
    tally.double, tally.foreign, tally.lost = (
        tally.double + len(doubles),
        tally.foreign + len(foreign),
        tally.lost + len(lost),
    )
    tally.over_cap_micros = max(tally.over_cap_micros, found.over_cap_micros)
    tally.effects += len(known.effects) if (number + 1) % PER_DATABASE == 0 else 0
    checked = verify_file(database, folder / "agent.head")
    if not checked.ok and checked.entries:
        tally.broken_chains += 1
        tally.problems.append(f"after kill {number + 1}: {checked.problem}")
    for what, bad in (("missing", missing), ("double", doubles), ("foreign", foreign), ("lost", lost)):
        if bad:
            tally.problems.append(f"after kill {number + 1}: {what}: {', '.join(bad[:3])}")
    tally.problems += [f"after kill {number + 1}: {each}" for each in found.problems]


def main(arguments: Sequence[str]) -> int:
    """0 when nothing is missing, double or above a cap; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m kiki_agent.testing.forks", description=__doc__)
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(prefix="kiki-forks-") as folder:
        tally = run(Path(folder) / "disk", options.kills, options.seed)
    rows = tally.rows()
    title = f"Fork kills: {tally.kills} in {watch.seconds():.0f} s on {report.machine()}"
    report.write(
        report.as_json(title, rows, {"problems": tally.problems}) if options.json else report.table(title, rows)
    )
    for problem in tally.problems[:20]:
        report.say(f"VIOLATION: {problem}")
    return 0 if report.sound(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
