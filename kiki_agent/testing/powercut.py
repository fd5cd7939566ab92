"""Takes the power away: disks are rebuilt as they may look afterwards, and the product opens each of them.

`python -m kiki_agent.testing.powercut --disks 300`. A spender is recorded operation by operation, or with `--sealing`
an agent that moves old entries into segments; a disk is what was synced up to some operation, and any part of what was
written and not synced: all, nothing, the first so many, any of them, or sectors of them. Names (created, renamed,
removed files) keep their order, as journals of file systems do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from kiki_agent.errors import KikiError
from kiki_agent.ledger import Ledger, verify_file
from kiki_agent.model import DAY, Instant
from kiki_agent.runtime.clock import Stopwatch
from kiki_agent.sandbox.noise import seed_key, unit
from kiki_agent.store import Store
from kiki_agent.store.store import Synchronous
from kiki_agent.testing import report, sealer
from kiki_agent.testing.audit import Audit, check_permits
from kiki_agent.testing.diskrecord import (
    Create,
    Operation,
    Recorder,
    Remove,
    Rename,
    Sync,
    SyncFolder,
    Told,
    Truncate,
    Write,
)
from kiki_agent.testing.spender import BEGIN, CAPS, Held, Known, live

SECTOR = 512
"""What a disk writes as a whole or not at all."""
MODES = ("all", "nothing", "the first", "any", "sectors")
CHECKPOINT_PAGES = 60
"""Pages after which the recorded store folds its WAL back: far fewer than usual, so that cuts meet that too."""


@dataclass
class _File:
    """One file: what is on the disk, and what was asked for since."""

    synced: bytearray = field(default_factory=bytearray)
    waiting: list[Write | Truncate] = field(default_factory=list)

    def sync(self) -> None:
        for each in self.waiting:
            _apply(self.synced, each)
        self.waiting.clear()

    def after_cut(self, mode: str, chance: Iterator[float]) -> bytes:
        """What may be found after the power is back."""
        content = bytearray(self.synced)
        first = int(next(chance) * (len(self.waiting) + 1))
        for number, each in enumerate(self.waiting):
            if mode == "nothing" or (mode == "the first" and number >= first) or (mode == "any" and next(chance) < 0.5):
                continue
            if mode == "sectors" and isinstance(each, Write):
                for begin, piece in _sectors(each):
                    if next(chance) < 0.6:
                        _apply(content, Write(each.path, begin, piece))
                continue
            _apply(content, each)
        return bytes(content)


def _sectors(write: Write) -> Iterator[tuple[int, bytes]]:
    """A write cut at the borders of sectors."""
    begin, end = write.offset, write.offset + len(write.data)
    while begin < end:
        border = min(end, (begin // SECTOR + 1) * SECTOR)
        yield begin, write.data[begin - write.offset : border - write.offset]
        begin = border


def _apply(content: bytearray, operation: Write | Truncate) -> None:
    if isinstance(operation, Truncate):
        del content[operation.size :]
        content.extend(bytes(operation.size - len(content)))
        return
    end = operation.offset + len(operation.data)
    content.extend(bytes(max(0, end - len(content))))
    content[operation.offset : end] = operation.data


class Disk:
    """A disk that is told operation by operation what programs asked for."""

    def __init__(self) -> None:
        self._names: dict[str, _File] = {}
        self._durable: dict[str, _File] = {}
        self._renamed: list[Create | Rename | Remove] = []
        """Changes of names that are not on the disk yet, oldest first."""
        self._made: dict[int, _File] = {}

    def do(self, operation: Operation) -> None:
        """One more operation."""
        match operation:
            case Create(path):
                self._made[id(operation)] = self._names[path] = _File()
                self._renamed.append(operation)
            case Write(path) | Truncate(path):
                self._names[path].waiting.append(operation)
            case Sync(path):
                self._names[path].sync()
                own = [n for n, each in enumerate(self._renamed) if isinstance(each, Create) and each.path == path]
                self._settle(own[-1] + 1 if own else 0)
            case Rename(path, to):
                self._names[to] = self._names.pop(path)
                self._renamed.append(operation)
            case Remove(path):
                self._names.pop(path, None)
                self._renamed.append(operation)
            case SyncFolder():
                self._settle(len(self._renamed))
            case Told():
                pass

    def _settle(self, count: int) -> None:
        self._durable = self._with_names(count)
        del self._renamed[:count]

    def _with_names(self, count: int) -> dict[str, _File]:
        names = dict(self._durable)
        for each in self._renamed[:count]:
            match each:
                case Create(path):
                    names[path] = self._made[id(each)]
                case Rename(path, to) if path in names:
                    names[to] = names.pop(path)
                case Remove(path):
                    names.pop(path, None)
        return names

    def after_cut(self, mode: str, chance: Iterator[float]) -> dict[str, bytes]:
        """Files as they may be found after the power is back."""
        kept = {"all": len(self._renamed), "nothing": 0}.get(mode, int(next(chance) * (len(self._renamed) + 1)))
        return {path: file.after_cut(mode, chance) for path, file in sorted(self._with_names(kept).items())}


# -- recording and cutting ------------------------------------------------------------------------------------------


def record(folder: Path, *, turns: int, seed: int, synchronous: str = "FULL", sealing: bool = False) -> list[Operation]:
    """Let a spender (or a sealer) live, orderly end included; all it asked of its disk. Raises NoSqlite."""
    recorder = Recorder(folder)

    async def often(store: Store) -> None:
        await store.write(lambda connection: connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}"))

    folder.mkdir(parents=True, exist_ok=True)
    made: set[str] = set()
    mode: Synchronous = synchronous  # type: ignore[assignment]
    with recorder.recording():
        if sealing:
            asyncio.run(sealer.live(folder, recorder.tell, seed, turns=turns, synchronous=mode, prepare=often))
            return recorder.operations
        asyncio.run(live(folder, 0, recorder.tell, made, seed, turns=turns, synchronous=mode, prepare=often))
    return recorder.operations


@dataclass
class Cuts:
    """What a number of cuts counted."""

    disks: int = 0
    operations: int = 0
    syncs: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    """Acknowledged facts before the cut, over all disks."""
    lost: int = 0
    """Of those, how many a disk did not have."""
    bad_disks: int = 0
    over_cap_micros: int = 0
    held: int = 0
    problems: list[str] = field(default_factory=list)

    def rows(self) -> list[report.Row]:
        """The table."""
        return [
            ("disks rebuilt", self.disks, None),
            *((f"  un-synced: {mode}", count, None) for mode, count in sorted(self.modes.items())),
            ("operations recorded", self.operations, None),
            ("  syncs among them", self.syncs, None),
            ("acknowledged facts asked for", self.acknowledged, self.acknowledged > 0),
            ("acknowledged facts lost", self.lost, self.lost == 0),
            ("disks that lost any", self.bad_disks, self.bad_disks == 0),
            ("disks that were held for tampering", self.held, self.held == 0),
            ("micros permitted over a cap", self.over_cap_micros, self.over_cap_micros == 0),
            ("other violations", len(self.problems), not self.problems),
        ]


Open = Callable[[Path, Known, Cuts, str], Coroutine[None, None, None]]


def cut(
    operations: Sequence[Operation],
    source: Path,
    work: Path,
    disks: int,
    seed: int = 1,
    *,
    sealing: bool = False,
) -> Cuts:
    """Rebuild and open so many disks, at cuts spread over the whole recording."""
    opened: Open = _open_sealed if sealing else _open
    tally = Cuts(operations=len(operations), syncs=sum(isinstance(each, Sync) for each in operations))
    key = seed_key(seed, 940_000)
    places = sorted(
        (int((number + unit(key, number)) * len(operations) / disks) + 1, number) for number in range(disks)
    )
    disk, known, done = Disk(), Known(), 0
    for place, number in places:
        for operation in operations[done:place]:
            disk.do(operation)
            if isinstance(operation, Told):
                known.take(operation.what, operation.fact)
        done = min(place, len(operations))
        mode = MODES[number % len(MODES)]
        chance = (unit(key, 1_000_000 + number * 1_000_000 + step) for step in range(1_000_000))
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        for path, content in disk.after_cut(mode, chance).items():
            file = work / os.path.relpath(path, source)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        tally.disks += 1
        tally.modes[mode] += 1
        asyncio.run(opened(work, known, tally, f"disk {number} (operation {done}, {mode})"))
    shutil.rmtree(work, ignore_errors=True)
    return tally


async def _open(folder: Path, known: Known, tally: Cuts, name: str) -> None:
    """The product opens the disk; then nothing may be missing."""
    tally.acknowledged += sum(len(facts) for facts in known.heard.values()) + len(known.effects)
    database = folder / "agent.db"
    try:
        store = await Store.open(database, now=BEGIN, readers=1, synchronous="OFF")
    except KikiError as error:
        tally.bad_disks += 1
        tally.problems.append(f"{name}: it cannot be opened: {error}")
        return
    try:
        ledger = await Ledger.open(store, folder / "agent.head", client_id="forks", now=Instant(BEGIN))
        if ledger.hold_reason is not None:
            tally.held += 1
            tally.problems.append(f"{name}: {ledger.hold_reason}")
    finally:
        await store.close()
    try:
        _ask(database, known, tally, name)
    except sqlite3.Error as error:
        tally.bad_disks += 1
        tally.problems.append(f"{name}: {error}")


async def _open_sealed(folder: Path, known: Known, tally: Cuts, name: str) -> None:
    """The same for an agent that seals: found as it was told, and again after the next runs of the sealer."""
    rows = known.heard.get("row", set())
    tally.acknowledged += len(rows)
    database, later = folder / "agent.db", Instant(BEGIN + DAY)
    try:
        store, _ = await sealer.open_record(folder, Instant(BEGIN), "OFF")
        await store.close()
        for clean in (False, True):
            if clean:
                await sealer.clean_up(folder, later)
            with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
                lost = sealer.missing(connection, rows)
            tally.lost += len(lost)
            tally.bad_disks += bool(lost)
            checked = verify_file(database)
            if not checked.ok:
                tally.problems.append(f"{name}: {checked.problem}")
        tally.problems += [f"{name}: {each}" for each in sealer.disorder(folder)]
    except Held as held:
        tally.held += 1
        tally.problems.append(f"{name}: {held}")
    except (KikiError, sqlite3.Error) as error:
        tally.bad_disks += 1
        tally.problems.append(f"{name}: it cannot be opened: {error}")


def _ask(database: Path, known: Known, tally: Cuts, name: str) -> None:
    checked = verify_file(database)
    if not checked.ok:
        tally.problems.append(f"{name}: {checked.problem}")
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        states = dict(connection.execute("SELECT key, state FROM intents"))
        permits = dict(connection.execute("SELECT reservation_id, state FROM reservations"))
        found = Audit()
        check_permits(connection, CAPS, found)
    lost = [*known.missing(states, permits), *(key for key in known.effects if key not in states)]
    tally.lost += len(lost)
    tally.bad_disks += bool(lost)
    tally.over_cap_micros = max(tally.over_cap_micros, found.over_cap_micros)
    tally.problems += [f"{name}: {each}" for each in found.problems]


def main(arguments: Sequence[str]) -> int:
    """0 when no disk lost anything; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m kiki_agent.testing.powercut", description=__doc__)
    parser.add_argument("--disks", type=int, default=300)
    parser.add_argument(
        "--turns", type=int, default=30, help="bids of each of the spender's eight lanes; of --sealing its turns"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--synchronous", default="FULL", choices=("FULL", "NORMAL", "OFF"), help="OFF must be seen")
    parser.add_argument("--sealing", action="store_true", help="cut an agent that seals its ledger, not a spender")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(prefix="kiki-power-") as spare:
        source = Path(spare) / "disk"
        how = options.sealing
        operations = record(
            source, turns=options.turns, seed=options.seed, synchronous=options.synchronous, sealing=how
        )
        tally = cut(operations, source, Path(spare) / "rebuilt", options.disks, options.seed, sealing=how)
    rows = tally.rows()
    what = "Power cuts while sealing" if how else "Power cuts"
    title = f"{what} at synchronous={options.synchronous}: {watch.seconds():.0f} s on {report.machine()}"
    report.write(
        report.as_json(title, rows, {"problems": tally.problems}) if options.json else report.table(title, rows)
    )
    for problem in tally.problems[:20]:
        report.say(f"VIOLATION: {problem}")
    return 0 if report.sound(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
