"""The journal: every entry carries the hash of the one before it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from kiki_agent.errors import StoreError
from kiki_agent.ledger import segments
from kiki_agent.ledger.canonical import GENESIS, KINDS, canonical, entry_hash
from kiki_agent.ledger.head import KnownHead, UnreadableHead, read_head, write_head
from kiki_agent.ledger.reallocations import ReallocationWalk
from kiki_agent.ledger.verify import Verification, Walk
from kiki_agent.model.time import Instant
from kiki_agent.store import Damaged, Store, get_meta, set_meta

_INSERT = "INSERT INTO ledger_entries (seq, at, kind, body, hash) VALUES (?, ?, ?, ?, ?)"
_CHECKPOINT = "ledger_verified"


class Ledger:
    """Appends inside other people's transactions, and knows where the chain ends.

    The end of the chain lives in the database. What is kept of it in memory is forgotten whenever changes are undone,
    and read again inside the next transaction, so a failed commit can never leave it ahead of the rows.
    """

    def __init__(self, store: Store, head_path: Path, client_id: str) -> None:
        self._store = store
        self._head_path = head_path
        self._client_id = client_id
        self._tail: tuple[int, bytes] | None = None  # database thread only
        self._head: tuple[int, str] = (0, GENESIS.hex())
        self._known: KnownHead | None = None
        self._written = -1
        self._writing = asyncio.Lock()
        self.hold_reason: str | None = None
        """Why spending must not start: the chain is not the one that was known. A person decides; None when sound."""
        store.on_rollback.append(self._forget)
        store.before_commit.append(self._remember)
        store.after_commit.append(self._publish)

    @classmethod
    async def open(
        cls, store: Store, head_path: Path, *, client_id: str, now: Instant, hold: str | None = None
    ) -> Ledger:
        """Find the known head in the chain, verify from the last checkpoint, note the new epoch.

        `hold` is a reason to hold that is known already, for example that `store` stands in for a damaged one.

        Never raises for what it finds in the ledger: `hold_reason` tells it, and the head outside is then left alone,
        so that the next start finds the same. Raises StoreError when the database cannot be read or written now.
        """
        ledger = cls(store, head_path, client_id)
        try:
            ledger.hold_reason = hold or await ledger._examine()
            await store.write(lambda connection: ledger._begin(connection, now))
        except Damaged as error:
            ledger.hold_reason = ledger.hold_reason or str(error)
        await ledger.write_head()
        return ledger

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash (hexadecimal) of the last committed entry; (0, zeros) before the first."""
        return self._head

    @property
    def known_seq(self) -> int:
        """Number of the last entry that is known outside the database; 0 when none is."""
        return 0 if self._known is None else self._known.seq

    # -- on the database thread ---------------------------------------------------------------------------------

    def append(self, connection: sqlite3.Connection, at: Instant, kind: str, body: Mapping[str, object]) -> int:
        """Add an entry inside a function handed to the store; its number.

        `body` holds text, integers, booleans, None, and lists and mappings of them, see `canonical.JsonValue`. Raises
        ValueError for anything else, floats above all, and for an unknown kind.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not a kind of ledger entry; known are {', '.join(sorted(KINDS))}")
        return self.append_encoded(connection, kind, ((at, canonical(body)),))

    def append_encoded(
        self, connection: sqlite3.Connection, kind: str, entries: Iterable[tuple[Instant, bytes]]
    ) -> int:
        """Add many entries of one kind, bodies already canonical; the number of the last."""
        if not connection.in_transaction:
            raise RuntimeError("ledger entries are appended inside a function handed to the store")
        seq, digest = self._tail or _read_tail(connection)
        self._tail = None
        kind_bytes = kind.encode()
        rows = []
        for at, body in entries:
            seq += 1
            digest = entry_hash(digest, seq, at, kind_bytes, body)
            rows.append((seq, at, kind, body.decode(), digest))
        connection.executemany(_INSERT, rows)
        self._tail = (seq, digest)
        return seq

    def _forget(self) -> None:
        self._tail = None

    def _remember(self, connection: sqlite3.Connection) -> None:
        if self._tail is None:
            self._tail = _read_tail(connection)

    def _publish(self) -> None:
        if self._tail is not None:
            self._head = (self._tail[0], self._tail[1].hex())

    def _begin(self, connection: sqlite3.Connection, now: Instant) -> None:
        if _read_tail(connection)[0] == 0:
            self.append(connection, now, "genesis", {"client_id": self._client_id, "format": 1})
        self.append(connection, now, "epoch", {"epoch": self._store.epoch})

    # -- start --------------------------------------------------------------------------------------------------

    async def _examine(self) -> str | None:
        try:
            known = self._known = read_head(self._head_path)
        except UnreadableHead as error:
            return f"the known head is unreadable: {error}"
        last, digest = await self._store.read(_read_tail)
        if last == 0:
            if known is None:
                return None
            return f"the ledger is empty, but entry {known.seq} is known to have been written"
        self._head = (last, digest.hex())
        reason = await self._store.read(
            lambda connection: self._compare(connection, known, last) or segments.look(connection)
        )
        if reason is not None:
            return reason
        checked = await self.verify(whole=False)
        return None if checked.ok else checked.problem

    def _compare(self, connection: sqlite3.Connection, known: KnownHead | None, last: int) -> str | None:
        owner = segments.owner_of(connection)
        if owner != self._client_id:
            return f"the ledger belongs to client {owner!r}, not to {self._client_id!r}"
        if known is None:
            beyond = connection.execute("SELECT 1 FROM ledger_entries WHERE kind NOT IN ('genesis', 'epoch') LIMIT 1")
            if beyond.fetchone() is None:
                return None
            return f"the ledger has {last} entries, but the file with its known head, {self._head_path}, is missing"
        if known.client_id != self._client_id:
            return f"the known head belongs to client {known.client_id!r}, not to {self._client_id!r}"
        if known.seq > last:
            return f"the ledger ends at entry {last}, but entry {known.seq} is known to have been written"
        found = segments.hash_at(connection, known.seq)
        if found is None or found.hex() != known.hash:
            return f"entry {known.seq} is not the one known outside the ledger"
        log = connection.execute(
            "SELECT hash FROM budget_reallocation_log WHERE id = ?", (known.reallocation_id,)
        ).fetchone()
        if known.reallocation_id and (log is None or log[0] != known.reallocation_hash):
            return f"reallocation {known.reallocation_id} is not the one known outside the ledger"
        return None

    # -- head and verification ----------------------------------------------------------------------------------

    async def write_head(self) -> None:
        """Note the last committed entry outside the database, durably unless the store runs without syncs.

        Does nothing while there is a reason to hold: the file is then the evidence. Raises StoreError.
        """
        async with self._writing:
            if self.hold_reason is not None or self._written == self._head[0]:
                return
            seq, digest = self._head
            number, log_hash = await self._store.read(_last_reallocation)
            head = KnownHead(self._client_id, seq, digest, number, log_hash)
            sync = self._store.synchronous == "FULL"
            try:
                if sync:
                    await asyncio.to_thread(write_head, self._head_path, head, sync=True)
                else:
                    write_head(self._head_path, head, sync=False)
            except OSError as error:
                raise StoreError(f"the head of the ledger cannot be written: {error}") from error
            self._written, self._known = seq, head

    async def verify(self, *, whole: bool = True) -> Verification:
        """Walk the chain up to its end, from the beginning or from the last checkpoint, in a reader.

        It must hold the last committed entry and the one known outside.

        A sound walk becomes the new checkpoint. A broken one sets `hold_reason`. Raises StoreError when the database
        cannot be read.
        """
        known = self._known
        anchors = {self._head[0]: self._head[1]}
        if known is not None:
            anchors[known.seq] = known.hash
        start = (0, GENESIS) if whole else await self._store.read(_checkpoint)
        walk = Walk(*start, anchors=anchors)
        log: ReallocationWalk | None = None
        try:
            if whole or walk.seq == 0 or await self._store.read(lambda connection: _stands(connection, walk)):
                while await self._store.read(walk.chunk):
                    pass
                walk.finish()
            if whole:
                log = ReallocationWalk(None if known is None else (known.reallocation_id, known.reallocation_hash))
                await self._store.read(log.walk)
        except Damaged as error:
            self.hold_reason = self.hold_reason or str(error)
            raise
        found = walk.result(log)
        if not found.ok:
            self.hold_reason = self.hold_reason or found.problem
        elif self.hold_reason is None:
            mark = f"{walk.seq}:{walk.digest.hex()}"
            await self._store.write(lambda connection: set_meta(connection, _CHECKPOINT, mark))
        return found


def _read_tail(connection: sqlite3.Connection) -> tuple[int, bytes]:
    row = connection.execute("SELECT seq, hash FROM ledger_entries ORDER BY seq DESC LIMIT 1").fetchone()
    return (0, GENESIS) if row is None else (row[0], row[1])


def _last_reallocation(connection: sqlite3.Connection) -> tuple[int, str]:
    row = connection.execute("SELECT id, hash FROM budget_reallocation_log ORDER BY id DESC LIMIT 1").fetchone()
    return (0, "") if row is None else (row[0], row[1])


def _checkpoint(connection: sqlite3.Connection) -> tuple[int, bytes]:
    seq, _, digest = (get_meta(connection, _CHECKPOINT) or "").partition(":")
    try:
        return (int(seq), bytes.fromhex(digest)) if len(digest) == 64 else (0, GENESIS)
    except ValueError:
        return 0, GENESIS


def _stands(connection: sqlite3.Connection, walk: Walk) -> bool:
    """Whether the checkpoint the walk starts from is still what is stored there; once sealed, the segments' end is."""
    sealed = segments.sealed_to(connection)
    if sealed is not None and walk.seq <= sealed[0]:
        walk.seq, walk.digest = sealed
        return True
    row = connection.execute("SELECT hash FROM ledger_entries WHERE seq = ?", (walk.seq,)).fetchone()
    if row is not None and row[0] == walk.digest:
        return True
    walk.first_bad = walk.seq
    walk.problem = f"entry {walk.seq} is not the one that was verified last"
    return False
