"""Real faults of disk and database under a whole agent: spending stops, and goes on when they are cured (M13).

In hold there are no reservations and no call that can raise spend; running campaigns are paused, and every pause is in
the ledger afterwards, also those made while the database took no writes.
"""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kiki_agent.errors import Denied, StoreError
from kiki_agent.ledger import verify_file
from kiki_agent.store import set_meta

from .town import Event, Town, raises_spend

BEGIN, CURE, END = 30, 60, 100
"""Seconds of simulated time at which a fault begins and is cured, and the run ends."""


FILE_LIMIT = 96 * 1024


@dataclass
class Trouble:
    """A fault that can be cured."""

    begin: Event
    cure: Event
    words: str
    """What the reason says."""
    falls_back: bool = True
    """Whether the database takes no writes, so that cuts are written down beside it."""


async def _pragma(town: Town, text: str) -> None:
    await town.agent.store._seat.run(lambda connection: connection.execute(text).fetchall())


def no_pages_left() -> Trouble:
    """SQLite's own bound on the size of the file."""

    async def begin(town: Town) -> None:
        await _pragma(town, "PRAGMA max_page_count = 1")  # SQLite takes the present size for it
        with pytest.raises(StoreError):
            await town.agent.store.write(lambda connection: set_meta(connection, "much", " " * 1_000_000))

    async def cure(town: Town) -> None:
        await _pragma(town, "PRAGMA max_page_count = 1000000")

    return Trouble(begin, cure, "disk is full")


def files_may_not_grow() -> Trouble:
    """RLIMIT_FSIZE below the end of the WAL, while a reader keeps it from beginning anew: writes fail with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    readers: list[sqlite3.Connection] = []

    async def begin(town: Town) -> None:
        reader = sqlite3.connect(town.database, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT 1 FROM meta").fetchone()
        readers.append(reader)
        await town.agent.store.write(lambda connection: set_meta(connection, "much", " " * 2 * FILE_LIMIT))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, before[1]))

    async def cure(town: Town) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        readers[0].close()

    return Trouble(begin, cure, "disk")


def lock_held() -> Trouble:
    """Another connection holds the write lock."""
    others: list[sqlite3.Connection] = []

    async def begin(town: Town) -> None:
        await _pragma(town, "PRAGMA busy_timeout = 5")
        other = sqlite3.connect(town.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        others.append(other)

    async def cure(town: Town) -> None:
        others[0].execute("ROLLBACK")
        others[0].close()

    return Trouble(begin, cure, "another process holds the database")


def read_only_connection() -> Trouble:
    """SQLite refuses every write."""

    async def begin(town: Town) -> None:
        await _pragma(town, "PRAGMA query_only = ON")

    async def cure(town: Town) -> None:
        await _pragma(town, "PRAGMA query_only = OFF")

    return Trouble(begin, cure, "read-only")


def disk_filled() -> Trouble:
    """A file takes all the room of the (small) disk."""

    async def begin(town: Town) -> None:
        with (town.folder / "filler").open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(1 << 16)):
                    pass
            except OSError:
                pass

    async def cure(town: Town) -> None:
        (town.folder / "filler").unlink()

    return Trouble(begin, cure, "disk is full")


EVERYWHERE: dict[str, Callable[[], Trouble]] = {
    "no pages left": no_pages_left,
    "files may not grow": files_may_not_grow,
    "lock held": lock_held,
    "read-only connection": read_only_connection,
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MB of its own; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def assert_holds_and_goes_on(town: Town, trouble: Trouble) -> None:
    refused: list[str] = []

    async def ask(town: Town) -> None:
        await trouble.begin(town)

    async def place(town: Town) -> None:
        shield = town.agent.shield
        try:
            await shield.place("meta", "c-1", 1_000_000, town.clock.now())
        except Denied as denied:
            refused.append(denied.reason)

    script: dict[int, Event] = {BEGIN: ask, CURE: trouble.cure}
    script |= dict.fromkeys(range(BEGIN + 3, CURE, 5), place)
    async with town:
        await town.start()
        seen = await town.live(END, script)
        now = town.clock.now()
        assert seen.held(0, BEGIN) == [False] * (BEGIN + 1)
        assert seen.held(BEGIN + 2, CURE) == [True] * (CURE - BEGIN - 1), "in within one tick of two seconds"
        assert not any(seen.held(CURE + 4, END - 1)), f"out within two: {seen.holds[CURE + 4]}"
        reasons = {reason for reason in seen.holds[BEGIN + 2 : CURE] if reason}
        assert any(word in reason for reason in reasons for word in trouble.words.split("|")), reasons
        assert set(refused) == {"SAFE_HOLD"}
        assert len(refused) == 6
        assert set(seen.reserved) == {0}
        first, last = seen.effects[BEGIN + 2], seen.effects[CURE]
        meanwhile = town.done()[first:last]
        assert not [each for each in meanwhile if raises_spend(each)]
        assert last > seen.effects[BEGIN], "running campaigns were paused"
        assert seen.effects[-1] > last, "and go on when it is cured"
        assert {name: count for name, count in seen.failures.items() if count and name in ("bidding", "head")} == {}
        await town.agent.outbox.reconcile(now)
        assert town.agent.outbox.fallback is not None
        assert town.agent.outbox.fallback.pending == 0
        merged = town.rows('SELECT body FROM ledger_entries WHERE body LIKE \'%"control":"fallback"%\'')
        assert bool(merged) == trouble.falls_back
    assert_every_effect_is_on_record(town)


def assert_every_effect_is_on_record(town: Town) -> None:
    """Each effect once, under the key of an accepted intent, and the chain is whole (M3)."""
    effects = Counter((each.kind, each.after) for each in town.done())
    accepted = Counter(
        (str(kind), int(str(after)))
        for kind, after in town.rows("SELECT kind, after FROM intents WHERE state = 'accepted'")
    )
    assert effects == accepted
    assert verify_file(town.database, town.head).ok


@pytest.mark.parametrize("name", EVERYWHERE)
async def test_spending_stops_and_goes_on_by_itself(tmp_path: Path, name: str) -> None:
    await assert_holds_and_goes_on(Town(tmp_path), EVERYWHERE[name]())


async def test_a_full_disk(small_disk: Path) -> None:
    await assert_holds_and_goes_on(Town(small_disk), disk_filled())


SPOIL = """
import os, sys
size = os.path.getsize(sys.argv[1])
with open(sys.argv[1], "r+b") as file:
    file.seek(size // 2 // 4096 * 4096)
    file.write(b"\\xff" * (size // 2))
"""
"""Run by another process: closing the file in this one would drop SQLite's locks."""


def _in_another_process(program: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


async def test_damage_found_while_running_holds_for_good(tmp_path: Path) -> None:
    async def spoil(town: Town) -> None:
        await _pragma(town, "PRAGMA wal_checkpoint(TRUNCATE)")
        _in_another_process(SPOIL, town.database)

    async def look(town: Town) -> None:
        """As the daily walk along the chain does."""
        with pytest.raises(StoreError):
            await town.agent.ledger.verify()

    async with Town(tmp_path) as town:
        await town.start()
        await _pragma(town, "PRAGMA cache_size = 0")
        seen = await town.live(END, {BEGIN: spoil, BEGIN + 1: look})
        assert not any(seen.held(0, BEGIN))
        assert all(seen.held(BEGIN + 3, END - 1)), "and not out by itself"
        meanwhile = town.done(seen.effects[BEGIN + 3])
        assert not [each for each in meanwhile if raises_spend(each)]
        assert seen.effects[-1] > seen.effects[BEGIN], "running campaigns were paused"
        assert town.agent.store.damaged
        assert "damaged" in str(town.hold())
