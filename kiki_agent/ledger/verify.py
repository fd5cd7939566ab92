"""Walking the chains: every stored row hashed again, from the text as it is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from kiki_agent.ledger.canonical import GENESIS
from kiki_agent.ledger.head import KnownHead, UnreadableHead, read_head
from kiki_agent.ledger.reallocations import ReallocationWalk
from kiki_agent.store.seat import uri

CHUNK = 8_192
"""Rows walked in one go; between two goes other readers get their turn and the WAL can be folded back."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What walking the chain found."""

    ok: bool
    entries: int
    """Number of the last sound entry."""
    head_hash: str
    """Hash of that entry, hexadecimal."""
    first_bad: int | None = None
    """Number of the first entry that is wrong or missing."""
    problem: str = ""
    """What is wrong, in one sentence; empty when nothing is."""
    reallocations: int = 0
    """Sound rows of the reallocation log; 0 when it was not walked."""


class Walk:
    """A walk along the entries, chunk by chunk; it stops at the first that is wrong.

    `anchors` are numbers of entries, each with the hash (hexadecimal) the chain must have there.
    """

    def __init__(self, seq: int = 0, digest: bytes = GENESIS, anchors: Mapping[int, str] | None = None) -> None:
        self.seq = seq
        self.digest = digest
        self.first_bad: int | None = None
        self.problem = ""
        self._anchors = {number: known for number, known in (anchors or {}).items() if number > seq}

    def chunk(self, connection: sqlite3.Connection) -> bool:
        """Walk up to `CHUNK` rows; True while there may be more. Raises sqlite3.DatabaseError."""
        before = connection.text_factory
        connection.text_factory = bytes
        try:
            rows = connection.execute(
                "SELECT seq, at, kind, body, hash FROM ledger_entries WHERE seq > ? ORDER BY seq LIMIT ?",
                (self.seq, CHUNK),
            ).fetchall()
        finally:
            connection.text_factory = before
        seq, digest = self.seq, self.digest
        anchors = self._anchors
        for found, at, kind, body, stored in rows:
            seq += 1
            try:
                digest = sha256(digest + b"%d|%d|%b|%b" % (found, at, kind, body)).digest()
            except TypeError:
                return self._stop(seq, f"entry {seq} is not of the form it was written in")
            if found != seq:
                return self._stop(seq, f"entry {seq} is missing: {found} follows {seq - 1}")
            if digest != stored:
                return self._stop(seq, f"entry {seq} was changed: its hash does not fit its text and what went before")
            if seq in anchors and digest.hex() != anchors[seq]:
                return self._stop(seq, f"entry {seq} is not the one known outside the ledger: the chain was rewritten")
            self.seq, self.digest = seq, digest
        return len(rows) == CHUNK

    def finish(self) -> None:
        """After the last chunk: every anchor must have been passed."""
        last = max(self._anchors, default=0)
        if not self.problem and self.seq < last:
            self._stop(
                self.seq + 1, f"the ledger ends at entry {self.seq}, but entry {last} is known to have been written"
            )

    def _stop(self, seq: int, problem: str) -> bool:
        self.first_bad, self.problem = seq, problem
        return False

    def result(self, reallocations: ReallocationWalk | None = None) -> Verification:
        """What was found, on this chain and on the reallocation log's."""
        problem = self.problem or (reallocations.problem if reallocations is not None else "")
        return Verification(
            ok=not problem,
            entries=self.seq,
            head_hash=self.digest.hex(),
            first_bad=self.first_bad,
            problem=problem,
            reallocations=reallocations.id if reallocations is not None else 0,
        )


def verify_file(path: Path, head_path: Path | None = None) -> Verification:
    """Walk both chains of the database file at `path`, opened read-only by SQLite, and compare with the outside head.

    May run while an agent uses the database. Never raises for what it finds: the answer tells it.
    """
    known: KnownHead | None = None
    if head_path is not None:
        try:
            known = read_head(head_path)
        except UnreadableHead as error:
            return _bad(str(error))
    if not path.exists():
        return _bad(f"there is no database at {path}")
    walk = Walk(anchors=None if known is None else {known.seq: known.hash})
    log = ReallocationWalk(anchor=None if known is None else (known.reallocation_id, known.reallocation_hash))
    try:
        connection = sqlite3.connect(uri(path, read_only=True), uri=True, isolation_level=None, timeout=5.0)
        try:
            while walk.chunk(connection):
                pass
            walk.finish()
            log.walk(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        return Verification(False, walk.seq, walk.digest.hex(), walk.seq + 1, f"{path} cannot be read: {error}")
    return walk.result(log)


def _bad(problem: str) -> Verification:
    return Verification(ok=False, entries=0, head_hash=GENESIS.hex(), first_bad=None, problem=problem)
