"""Every single bit of a small ledger flipped, one at a time: each flip that changes a value is seen (M7)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from kiki_agent.ledger import Ledger, Reallocation, record_reallocation
from kiki_agent.ledger.head import KnownHead, read_head
from kiki_agent.ledger.reallocations import ReallocationWalk
from kiki_agent.ledger.verify import Walk
from kiki_agent.model import Instant
from kiki_agent.store import Store

ENTRIES = "SELECT seq, at, kind, body, hash FROM ledger_entries ORDER BY seq"
SHIFTS = "SELECT * FROM budget_reallocation_log ORDER BY id"
PAGE = 4096


async def small_ledger(folder: Path) -> tuple[bytearray, KnownHead]:
    """A closed database of five entries and two shifts, and the head outside it."""
    path, head = folder / "agent.db", folder / "agent.head"
    store = await Store.open(path, now=Instant(1))
    ledger = await Ledger.open(store, head, client_id="demo", now=Instant(1))

    def write(connection: sqlite3.Connection) -> None:
        for number in range(3):
            ledger.append(connection, Instant(number), "control", {"amount_micros": 100 + number, "why": "ON_PLAN"})
        for number in range(2):
            shift = Reallocation("demo", "PLATFORM_META", "PLATFORM_X", 5 + number, "USD", 1.25, 2.5, "test", number)
            record_reallocation(connection, shift)

    await store.write(write)
    await ledger.write_head()
    await store.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = DELETE")  # a database in memory has no WAL
    connection.execute("PRAGMA foreign_keys = OFF")
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        if name not in ("ledger_entries", "budget_reallocation_log"):
            connection.execute(f"DROP TABLE {name}")  # what is opened thousands of times is better small
    connection.execute("VACUUM")
    connection.close()
    known = read_head(head)
    assert known is not None
    return bytearray(path.read_bytes()), known


def used_bytes(data: bytearray, table: str) -> list[int]:
    """Places of the page that holds a table's rows, without the free room between its pointers and its rows.

    A page is a header of 8 bytes, two for each row, and the rows at its end:
    https://www.sqlite.org/fileformat2.html#b_tree_pages
    """
    connection = opened(data)
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
    connection.close()
    begin = (root - 1) * PAGE
    assert data[begin] == 0x0D, "a leaf: all rows of the small table lie on its root page"
    cells = int.from_bytes(data[begin + 3 : begin + 5])
    content = int.from_bytes(data[begin + 5 : begin + 7])
    return [*range(begin, begin + 8 + 2 * cells), *range(begin + content, begin + PAGE)]


def opened(data: bytearray | bytes) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(bytes(data))
    return connection


def rows(connection: sqlite3.Connection, sql: str) -> list[tuple[object, ...]] | None:
    """What is stored, as bytes, so that text that is none any more can be compared too; None when it is unreadable.

    Efficiencies of shifts are numbers of six decimals, as they are hashed; a float has more.
    """
    connection.text_factory = bytes
    try:
        found = connection.execute(sql).fetchall()
        return [tuple(f"{each:.6f}" if isinstance(each, float) else each for each in row) for row in found]
    except sqlite3.Error:
        return None
    finally:
        connection.text_factory = str


def entries_verify(connection: sqlite3.Connection, known: KnownHead) -> bool:
    walk = Walk(anchors={known.seq: known.hash})
    try:
        while walk.chunk(connection):
            pass
        walk.finish()
    except sqlite3.Error:
        return False
    return not walk.problem


def shifts_verify(connection: sqlite3.Connection, known: KnownHead) -> bool:
    walk = ReallocationWalk(anchor=(known.reallocation_id, known.reallocation_hash))
    try:
        walk.walk(connection)
    except (sqlite3.Error, ValueError, TypeError):
        return False
    return not walk.problem


async def test_every_flip_that_changes_a_value_is_seen(tmp_path: Path) -> None:
    data, known = await small_ledger(tmp_path)
    for table, sql, verify in (
        ("ledger_entries", ENTRIES, entries_verify),
        ("budget_reallocation_log", SHIFTS, shifts_verify),
    ):
        connection = opened(data)
        before = rows(connection, sql)
        assert before
        assert verify(connection, known)
        connection.close()
        changes = flips = 0
        for place in used_bytes(data, table):
            for bit in range(8):
                data[place] ^= 1 << bit
                connection = opened(data)
                changed = rows(connection, sql) != before
                seen = not verify(connection, known)
                connection.close()
                data[place] ^= 1 << bit
                flips, changes = flips + 1, changes + changed
                assert seen or not changed, f"{table}: bit {bit} of byte {place} changes a value and is not seen"
        assert flips > changes > flips * 0.9, "nearly every bit of a row is part of a value"
