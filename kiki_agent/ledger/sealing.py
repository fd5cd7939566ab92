"""Retention: old entries leave the table for segments, and bodies of a segment go when their class is old enough.

A file is written and durable before it is on record, its name noted before that; what is on record is deleted from the
table afterwards, a few rows at a time. So a crash leaves the rows, or a recorded segment, or both.
"""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

import msgspec

from kiki_agent.errors import Fault, StoreError
from kiki_agent.ledger.canonical import GENESIS
from kiki_agent.ledger.ledger import Ledger
from kiki_agent.ledger.segments import (
    CHAIN,
    LINKS,
    Line,
    Link,
    Segment,
    SegmentFile,
    class_of,
    own_folder,
    sealed_to,
)
from kiki_agent.ledger.verify import Walk
from kiki_agent.model.time import Instant
from kiki_agent.store import Store
from kiki_agent.store.durable import remove_files, replace_file, sync_folder

ROWS = 4_096
"""Most entries of a segment: what a reader can hash and pack in a fraction of a second."""
BATCH = 200
"""Rows deleted in one transaction, so that other writers wait for milliseconds only."""
PATIENCE = 4
"""A segment that is not full is sealed once its oldest entry is older than the hot time by this part of it."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one run did."""

    entries: int = 0
    """Entries that left the table."""
    segments: int = 0
    dropped: int = 0
    """Files whose bodies were given up by age."""
    removed: int = 0
    """Files removed: of what was given up in an earlier run, and what a crash left."""


@dataclass(frozen=True, slots=True)
class _Draft:
    segment: Segment
    first_at: int
    last_at: int
    packed: Mapping[str, bytes]
    """Bytes of the files, by name."""


class Sealer:
    """Seals and drops; one at a time, and never while the chain is not trusted."""

    def __init__(
        self, store: Store, ledger: Ledger, *, hot: int, keep: Mapping[str, int], rows: int = ROWS, batch: int = BATCH
    ) -> None:
        """`hot`: microseconds an entry stays in the table, 0 for ever; `keep`: the same by class for sealed bodies."""
        if CHAIN in keep:
            raise ValueError("entries about the chain itself are never dropped")
        self._store = store
        self._ledger = ledger
        self._hot = hot
        self._keep = {kind: age for kind, age in keep.items() if age > 0}
        self._rows = rows
        self._batch = batch
        self._folder = own_folder(store.path)

    async def run(self, now: Instant, enough: Callable[[], bool] = lambda: False) -> Sealed:
        """Remove what the last run gave up, seal what is old, give up what is older; `enough()` cuts it short.

        Raises Fault when what is to be sealed does not verify, StoreError when it cannot be written.
        """
        removed = await self._remove_waste()
        await self._delete_sealed(enough)
        entries = made = 0
        while self._hot and not enough() and self._ledger.hold_reason is None:
            draft = await self._store.read(partial(self._draft, now))
            if draft is None:
                break
            await self._put(draft, now)
            await self._delete_sealed(enough)
            entries += draft.segment.last - draft.segment.first + 1
            made += 1
        dropped = 0 if self._ledger.hold_reason is not None else await self._drop(now)
        return Sealed(entries, made, dropped, removed)

    # -- sealing ------------------------------------------------------------------------------------------------

    def _draft(self, now: Instant, connection: sqlite3.Connection) -> _Draft | None:
        """The next segment, hashed again before it is believed; None when nothing is old enough."""
        end, digest = sealed_to(connection) or (0, GENESIS)
        last = connection.execute("SELECT max(seq) FROM ledger_entries").fetchone()[0]
        before = min(last, self._ledger.known_seq)
        rows = connection.execute(
            "SELECT seq, at, kind, body, hash FROM ledger_entries WHERE seq > ? AND seq < ? ORDER BY seq LIMIT ?",
            (end, before, self._rows),
        ).fetchall()
        due = next((place for place, row in enumerate(rows) if row[1] > now - self._hot), len(rows))
        rows = rows[:due]
        if not rows or (due < self._rows and rows[0][1] > now - self._hot - self._hot // PATIENCE):
            return None
        walk = Walk(end, digest)
        walk.walk([(seq, at, kind.encode(), body.encode(), stored) for seq, at, kind, body, stored in rows])
        if walk.problem:
            raise Fault(f"the ledger does not verify, so nothing is sealed: {walk.problem}")
        return _pack(self._folder.stem, rows)

    async def _put(self, draft: _Draft, now: Instant) -> None:
        names = [(name,) for name in draft.packed]
        await self._store.write(
            lambda connection: connection.executemany("INSERT OR IGNORE INTO ledger_segment_waste VALUES (?)", names)
        )
        await self._on_disk(partial(self._write_files, draft.packed))
        await self._store.write(partial(self._record, draft, now))

    def _write_files(self, packed: Mapping[str, bytes]) -> None:
        sync = self._store.synchronous == "FULL"
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700)
            if sync:
                sync_folder(self._folder.parent)
        for name, data in packed.items():
            replace_file(self._folder / name, data, sync=sync)

    def _record(self, draft: _Draft, now: Instant, connection: sqlite3.Connection) -> None:
        segment = draft.segment
        owner = connection.execute(
            "SELECT coalesce((SELECT owner FROM ledger_segments WHERE first_seq = 1),"
            " (SELECT json_extract(body, '$.client_id') FROM ledger_entries WHERE seq = 1))"
        ).fetchone()[0]
        connection.execute(
            "INSERT INTO ledger_segments VALUES (?, ?, ?, ?, ?, ?)",
            (segment.first, segment.last, draft.first_at, draft.last_at, segment.last_hash, owner),
        )
        connection.executemany(
            "INSERT INTO ledger_segment_files VALUES (?, ?, ?, ?, ?, NULL)",
            [(segment.first, kind, file.name, file.sha256, file.size) for kind, file in segment.files.items()],
        )
        connection.executemany(
            "DELETE FROM ledger_segment_waste WHERE name = ?", [(file.name,) for file in segment.files.values()]
        )
        body = {"first": segment.first, "last": segment.last, "files": segment.digests}
        self._ledger.append(connection, now, "sealed", {**body, "last_hash": segment.last_hash.hex()})

    async def _delete_sealed(self, enough: Callable[[], bool]) -> None:
        """Delete what is on record in a segment from the table, oldest first."""

        def delete(connection: sqlite3.Connection) -> int:
            first = connection.execute("SELECT min(seq) FROM ledger_entries").fetchone()[0]
            end = (sealed_to(connection) or (0, GENESIS))[0]
            through = min(end, first + self._batch - 1)
            return connection.execute("DELETE FROM ledger_entries WHERE seq <= ?", (through,)).rowcount

        while not enough() and await self._store.write(delete) > 0:
            await self._store.room()

    # -- dropping -----------------------------------------------------------------------------------------------

    async def _drop(self, now: Instant) -> int:
        """Give up bodies by age. The files go in the next run: what reads them now may finish."""

        def drop(connection: sqlite3.Connection) -> int:
            given_up = 0
            for kind, age in self._keep.items():
                rows = connection.execute(
                    "SELECT first_seq, last_seq, name FROM ledger_segments JOIN ledger_segment_files USING (first_seq)"
                    " WHERE class = ? AND dropped_at IS NULL AND last_at <= ?"
                    " AND last_seq < (SELECT min(seq) FROM ledger_entries) ORDER BY first_seq LIMIT 50",
                    (kind, now - max(age, self._hot)),
                ).fetchall()
                for first, last, name in rows:
                    connection.execute(
                        "UPDATE ledger_segment_files SET dropped_at = ? WHERE first_seq = ? AND class = ?",
                        (now, first, kind),
                    )
                    connection.execute("INSERT OR IGNORE INTO ledger_segment_waste VALUES (?)", (name,))
                    self._ledger.append(connection, now, "dropped", {"first": first, "last": last, "dropped": kind})
                given_up += len(rows)
            return given_up

        total = 0
        while given_up := await self._store.write(drop):
            total += given_up
        return total

    async def _remove_waste(self) -> int:
        names = [
            name
            for (name,) in await self._store.read(
                lambda connection: connection.execute(
                    "SELECT name FROM ledger_segment_waste WHERE name NOT IN"
                    " (SELECT name FROM ledger_segment_files WHERE dropped_at IS NULL)"
                ).fetchall()
            )
        ]
        if names:
            await self._on_disk(partial(self._unlink, names))
            await self._store.write(
                lambda connection: connection.executemany(
                    "DELETE FROM ledger_segment_waste WHERE name = ?", [(name,) for name in names]
                )
            )
        return len(names)

    def _unlink(self, names: list[str]) -> None:
        paths = [self._folder / f"{name}{ending}" for name in names for ending in ("", ".new")]
        remove_files(paths, sync=self._store.synchronous == "FULL")

    async def _on_disk(self, work: Callable[[], None]) -> None:
        try:
            if self._store.synchronous == "FULL":
                await asyncio.to_thread(work)
            else:
                work()
        except OSError as error:
            raise StoreError(f"the segments in {self._folder} cannot be written: {error}") from error


def _pack(stem: str, rows: list[tuple[int, int, str, str, bytes]]) -> _Draft:
    first, last = rows[0], rows[-1]
    encode = msgspec.json.Encoder().encode_lines
    texts = {LINKS: encode([Link(seq, at, kind, digest.hex()) for seq, at, kind, _, digest in rows])}
    bodies: dict[str, list[Line]] = {}
    for seq, _, kind, body, _ in rows:
        bodies.setdefault(class_of(kind), []).append(Line(seq, msgspec.Raw(body.encode())))
    texts |= {kind: encode(lines) for kind, lines in sorted(bodies.items())}
    files, packed = {}, {}
    for kind, text in texts.items():
        digest = sha256(text).hexdigest()
        name = f"{stem}-{first[0]}-{last[0]}-{kind}-{digest[:16]}.jsonl.gz"
        files[kind] = SegmentFile(name, digest, len(text))
        packed[name] = zlib.compress(text, level=6, wbits=31)
    return _Draft(Segment(first[0], last[0], last[4], files), first[1], max(row[1] for row in rows), packed)


__all__ = ["BATCH", "PATIENCE", "ROWS", "Sealed", "Sealer"]
