"""Kills a process that permits, journals, calls and confirms, at random points, thousands of times.

`python -m kiki_agent.testing.forks --kills 10000`. The child is the store, the ledger, the shield and the outbox as the
agent has them; its platform is a pipe to the parent, which sees every effect and every acknowledgement up to the kill.
After each kill the parent asks the database: nothing acknowledged may be missing, nothing may be above a cap, no effect
may be unmeant or double, and the chain must be whole.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
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
from pathlib import Path
from typing import cast

from kiki_agent.config import Settings
from kiki_agent.errors import Denied, UnknownOutcome
from kiki_agent.flow import PlacedSettler
from kiki_agent.ledger import Ledger, Outbox, Records, verify_file
from kiki_agent.model import MINUTE, Instant, Intent, IntentKind, Outcome, Receipt, intent_key, parse_iso
from kiki_agent.runtime.clock import Stopwatch
from kiki_agent.sandbox.noise import seed_key, unit
from kiki_agent.shield import Caps, Permit, Shield
from kiki_agent.store import Store
from kiki_agent.testing import report
from kiki_agent.testing.audit import Audit, check_permits

BEGIN = parse_iso("2026-03-28T00:00:00Z")
UNIT = 1_000_000
CAPS = {"meta": (20_000 * UNIT, 1_000 * UNIT), "tiktok": (1_500 * UNIT, 600 * UNIT)}
"""Daily and window cap; the second one's day is full after a while."""
STEP = 2 * MINUTE
"""Time between two lives, so that windows empty, days end, and permits of the dead are old enough to be settled."""
PER_DATABASE = 100
"""Kills after which a new database begins: each check reads all of it."""
LANES = 8
MOST_LINES = 160


# -- the child ------------------------------------------------------------------------------------------------------


class _Platform:
    """What the child calls: an effect is a line in the pipe, so it outlives the child."""

    def __init__(self, pipe: int, made: set[str], key: int) -> None:
        self._pipe, self._made, self._key = pipe, made, key
        self._number = 0

    async def call(self, connector: str, verb: str, arguments: tuple[object, ...]) -> object:
        """Make, refuse or lose a change; or say what is in force."""
        intents = cast("Sequence[Intent]", arguments[0])
        await asyncio.to_thread(len, intents)  # a call takes a while, and other lanes go on
        if verb == "reconcile":
            return [
                Receipt(each.key, Outcome.ACCEPTED if each.key in self._made else Outcome.REJECTED) for each in intents
            ]
        receipts = []
        for each in intents:
            self._number += 1
            chance = unit(self._key, self._number)
            if chance < 0.1:
                receipts.append(Receipt(each.key, Outcome.REJECTED, "NO"))
                continue
            if chance < 0.9:
                tell(self._pipe, "fx", each.key)
                self._made.add(each.key)
            if chance > 0.8:
                raise UnknownOutcome("no answer", (each.key,))
            receipts.append(Receipt(each.key, Outcome.ACCEPTED))
        return receipts


def tell(pipe: int, what: str, fact: str) -> None:
    """One line to the parent, whole or not at all (it is shorter than PIPE_BUF)."""
    os.write(pipe, f"{what} {fact}\n".encode())


async def live(folder: Path, number: int, pipe: int, made: set[str], seed: int) -> None:
    """Open what is there, settle what the dead left open, and spend until killed."""
    now = Instant(BEGIN + number * STEP)
    names = {name: {"plugin": "sandbox", "platform": name} for name in CAPS}
    store = await Store.open(folder / "agent.db", now=now, readers=1)
    ledger = await Ledger.open(store, folder / "agent.head", client_id="forks", now=now)
    if ledger.hold_reason is not None:
        tell(pipe, "held", ledger.hold_reason)
        os._exit(3)
    caps = {name: Caps(*amounts) for name, amounts in CAPS.items()}
    shield = await Shield.open(store, ledger, Settings.model_validate({"connector": names}), caps, now)
    platform = _Platform(pipe, made, seed_key(seed, number))
    outbox = Outbox(store, ledger, platform.call, settle=0)
    await outbox.load(now)
    await outbox.reconcile(now)
    await _end_orphans(shield, store, now)
    await PlacedSettler(shield, Records(store)).tick(now)
    tell(pipe, "open", str(len(shield.open_permits())))

    moments = itertools.count(now, 10_000)

    async def lane(which: int) -> None:
        for turn in range(1_000_000):
            at = Instant(next(moments))
            name = "meta" if (which + turn) % 3 else "tiktok"
            amount = (5 + (which * 7 + turn * 13) % 20) * UNIT
            try:
                permit = await shield.place(name, f"c{which}", amount, at)
            except Denied:
                tell(pipe, "denied", name)
                await ledger.write_head()
                continue
            tell(pipe, "permit", permit.reservation_id)
            key = intent_key(name, permit.campaign_id, IntentKind.PLACE_BID, at, f"{number}.{which}.{turn}")
            receipt = (await outbox.send(at, name, IntentKind.PLACE_BID, [_intent(key, permit, at)]))[0]
            tell(pipe, receipt.outcome.value, key)
            at = Instant(next(moments))
            if receipt.outcome is Outcome.ACCEPTED:
                await shield.commit(permit, at)
                tell(pipe, "spent", permit.reservation_id)
            elif receipt.outcome is Outcome.REJECTED:
                await shield.release(permit, at)
                tell(pipe, "released", permit.reservation_id)

    await asyncio.gather(*(lane(which) for which in range(LANES)))


def _intent(key: str, permit: Permit, at: Instant) -> Intent:
    return Intent(
        key=key,
        kind=IntentKind.PLACE_BID,
        connector=permit.connector,
        campaign_id=permit.campaign_id,
        before=0,
        after=permit.amount_micros,
        currency="USD",
        reason="PROOF",
        at=at,
        cause=permit.reservation_id,
    )


async def _end_orphans(shield: Shield, store: Store, now: Instant) -> None:
    """Permits whose holder died before it meant anything: nobody can have spent them."""
    known = {
        cause
        for (cause,) in await store.read(lambda connection: connection.execute("SELECT cause FROM intents").fetchall())
    }
    for permit in shield.open_permits():
        if permit.reservation_id not in known:
            await shield.release(permit, now)


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


@dataclass
class _Known:
    """What the parent has heard about one database."""

    heard: dict[str, set[str]] = field(default_factory=dict)
    effects: Counter[str] = field(default_factory=Counter)

    def take(self, line: str) -> None:
        what, _, fact = line.partition(" ")
        if what == "fx":
            self.effects[fact] += 1
        else:
            self.heard.setdefault(what, set()).add(fact)


def run(folder: Path, kills: int, seed: int = 1, *, quiet: bool = False) -> Forks:
    """Kill that often. The parent must have no threads: it forks."""
    tally = Forks()
    key = seed_key(seed, 930_000)
    known = _Known()
    place = folder
    watch = Stopwatch()
    for number in range(kills):
        if number % PER_DATABASE == 0:
            shutil.rmtree(place, ignore_errors=True)
            place, known = folder / f"db-{number // PER_DATABASE}", _Known()
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


def _one(folder: Path, number: int, lines: int, known: _Known, tally: Forks, seed: int) -> None:
    """Fork, listen for so many lines, kill, hear the rest."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            asyncio.run(live(folder, number, writing, set(known.effects), seed))
        except BaseException as error:
            tell(writing, "raised", f"{type(error).__name__}: {error}"[:200].replace("\n", " "))
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
        known.take(line)
        tally.acknowledged[line.partition(" ")[0]] += 1
    if not os.WIFSIGNALED(status):
        tally.problems.append(f"life {number} ended by itself: {heard[-300:]!r}")


def _check(folder: Path, known: _Known, tally: Forks, number: int) -> None:
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
    missing = _missing(known, states, permits)
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
    tally.problems += [f"after kill {number + 1}: {each}" for each in known.heard.pop("held", ())]


def _missing(known: _Known, states: dict[str, str], permits: dict[str, str]) -> list[str]:
    """What was acknowledged and is not on record as it was acknowledged."""
    heard = known.heard
    missing = [key for key in heard.get("permit", ()) if key not in permits]
    for what, state in (("spent", "committed"), ("released", "released")):
        missing += [key for key in heard.get(what, ()) if permits.get(key) != state]
    for what in ("accepted", "rejected"):
        missing += [key for key in heard.get(what, ()) if states.get(key) != what]
    return missing + [key for key in heard.get("unknown", ()) if key not in states]


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
