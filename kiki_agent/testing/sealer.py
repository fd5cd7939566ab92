"""A small agent that seals its ledger while it writes it, for power cuts: what it was told is written must be found.

Old entries leave the table for files of segments, and bodies are dropped by age (`ledger/sealing.py`). Wherever the
power goes, every acknowledged entry is in the table or in a segment, the chain verifies, and the next run cleans up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Set
from functools import partial
from pathlib import Path

from kiki_agent.ledger import Ledger, verify_file
from kiki_agent.ledger.sealing import Sealer
from kiki_agent.ledger.segments import DECISION, hash_at, own_folder, segments
from kiki_agent.model import MINUTE, Instant
from kiki_agent.sandbox.noise import seed_key, unit
from kiki_agent.store import Store
from kiki_agent.store.store import Synchronous
from kiki_agent.testing.spender import BEGIN, Held, Tell

KINDS = ("decision", "spend", "consent", "control", "intent")
ENTRIES = 24
"""Entries of one turn, at most."""
HOT, KEEP = 2 * MINUTE, 8 * MINUTE
"""How old entries are when they are sealed, and decisions when their bodies go; a turn takes a minute."""


async def live(
    folder: Path,
    tell: Tell,
    seed: int,
    *,
    turns: int,
    synchronous: Synchronous = "FULL",
    prepare: Callable[[Store], Awaitable[None]] | None = None,
) -> None:
    """Write and seal for so many turns, and end in order. Tells `row` with number and hash of what is acknowledged."""
    store, ledger = await open_record(folder, Instant(BEGIN), synchronous)
    if prepare is not None:
        await prepare(store)
    key = seed_key(seed, 17)
    for turn in range(turns):
        now = Instant(BEGIN + turn * MINUTE)
        count = 1 + int(unit(key, turn) * ENTRIES)
        for each in await store.write(partial(_append, ledger=ledger, now=now, count=count)):
            tell("row", each)
        await ledger.write_head()
        await _sealer(store, ledger).run(now)
    await ledger.write_head()
    await store.close()


async def open_record(folder: Path, now: Instant, synchronous: Synchronous) -> tuple[Store, Ledger]:
    """What is there, taken up as the agent does. Raises Held, StoreError."""
    store = await Store.open(folder / "agent.db", now=now, readers=1, synchronous=synchronous)
    ledger = await Ledger.open(store, folder / "agent.head", client_id="forks", now=now)
    if ledger.hold_reason is not None:
        await store.close()
        raise Held(ledger.hold_reason)
    return store, ledger


async def clean_up(folder: Path, now: Instant) -> None:
    """Open what a cut left and seal on, as the next hour would. Raises Held, StoreError."""
    store, ledger = await open_record(folder, now, "OFF")
    try:
        for later in (now, Instant(now + HOT)):
            await _sealer(store, ledger).run(later)
        await ledger.write_head()
    finally:
        await store.close()


def missing(connection: sqlite3.Connection, rows: Set[str]) -> list[str]:
    """Acknowledged entries that are not found as they were told."""
    gone = []
    for row in sorted(rows, key=lambda each: int(each.partition(":")[0])):
        seq, _, digest = row.partition(":")
        found = hash_at(connection, int(seq))
        if found is None or found.hex() != digest:
            gone.append(row)
    return gone


def disorder(folder: Path) -> list[str]:
    """What is wrong with a record after it was cleaned up: a chain that breaks, files that nothing names, or none."""
    database = folder / "agent.db"
    checked = verify_file(database, folder / "agent.head")
    said = [] if checked.ok else [checked.problem]
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        files = [file for segment in segments(connection) for file in segment.files.values()]
        sealed = connection.execute("SELECT coalesce(max(last_seq), 0) FROM ledger_segments").fetchone()[0]
        first = connection.execute("SELECT min(seq) FROM ledger_entries").fetchone()[0]
    finally:
        connection.close()
    named = {file.name for file in files if not file.dropped}
    lying = {path.name for path in own_folder(database).glob("*")}
    said += [f"{name} lies there and is on no record" for name in sorted(lying - named - {f.name for f in files})]
    if first <= sealed:
        said.append(f"entry {first} is in a segment and in the table still")
    return said


def _append(connection: sqlite3.Connection, *, ledger: Ledger, now: Instant, count: int) -> list[str]:
    before = connection.execute("SELECT max(seq) FROM ledger_entries").fetchone()[0]
    for number in range(count):
        ledger.append(connection, now, KINDS[number % len(KINDS)], {"n": number, "text": "x" * 40})
    rows = connection.execute("SELECT seq, hash FROM ledger_entries WHERE seq > ?", (before,))
    return [f"{seq}:{digest.hex()}" for seq, digest in rows]


def _sealer(store: Store, ledger: Ledger) -> Sealer:
    return Sealer(store, ledger, hot=HOT, keep={DECISION: KEEP}, rows=40, batch=16)
