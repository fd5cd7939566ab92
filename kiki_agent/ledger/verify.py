"""Walking the chains: every stored row hashed again, from the text as it is stored, in segments and in the table."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from kiki_agent.ledger import segments
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
    segments: int = 0
    """Sealed segments that were walked."""
    sealed: int = 0
    """Number of the last entry that was read from a segment, 0 when none was."""
    dropped: int = 0
    """Entries whose bodies were dropped by age: of these the chain knows the hash alone."""


class Walk:
    """A walk along the entries, chunk by chunk; it stops at the first that is wrong.

    `anchors` are numbers of entries, each with the hash (hexadecimal) the chain must have there. Entries that were
    sealed are read from their segment's files. A body that was dropped by age cannot be hashed again: its entry's hash
    is taken from the links, which the chain's own entry about the segment covers, and the next entry is chained to it.
    """

    def __init__(self, seq: int = 0, digest: bytes = GENESIS, anchors: Mapping[int, str] | None = None) -> None:
        self.seq = seq
        self.digest = digest
        self.first_bad: int | None = None
        self.problem = ""
        self._anchors = {number: known for number, known in (anchors or {}).items() if number > seq}
        self._passed: list[segments.Segment] = []
        self._stated: dict[tuple[int, int], dict[str, str]] = {}
        self._given_up: set[tuple[int, int, str]] = set()
        self._dropped = 0

    def chunk(self, connection: sqlite3.Connection) -> bool:
        """Walk a segment, or up to `CHUNK` rows; True while there may be more. Raises sqlite3.DatabaseError.

        A connection in autocommit mode may see rows leave for a segment between two questions; it is then asked again.
        """
        for segment in segments.segments(connection, covering=self.seq + 1):
            return self._walk_segment(connection, segment)
        rows = _stored(connection, "seq > ? ORDER BY seq LIMIT ?", (self.seq, CHUNK))
        if rows and rows[0][0] != self.seq + 1 and segments.segments(connection, covering=self.seq + 1):
            return True
        return self.walk(rows) and len(rows) == CHUNK

    def _walk_segment(self, connection: sqlite3.Connection, segment: segments.Segment) -> bool:
        try:
            rows = segments.rows_of(segments.folder_of(connection), segment)
        except segments.BadSegment as bad:
            return self._stop(max(bad.seq, self.seq + 1), str(bad))
        if rows[-1][4] != segment.last_hash:
            return self._stop(segment.last, f"{segment} does not end with the hash that is on record")
        if segment.first == 1 and not _belongs(rows[0], segments.owner_of(connection)):
            return self._stop(1, f"{segment} does not begin with the ledger of the client that is on record")
        for row in _stored(connection, "seq BETWEEN ? AND ?", (segment.first, segment.last)):
            if rows[row[0] - segment.first] != row:
                return self._stop(row[0], f"entry {row[0]} is another one in the table than in {segment}")
        if not self.walk([row for row in rows if row[0] > self.seq]):
            return False
        self._passed.append(segment)
        return True

    def walk(self, rows: Sequence[segments.Row]) -> bool:
        """Walk rows that follow the last one; False when one of them is wrong."""
        seq, digest = self.seq, self.digest
        anchors = self._anchors
        for found, at, kind, body, stored in rows:
            seq += 1
            if body is None:
                digest = stored
                self._dropped += 1
            else:
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
            if (kind == b"sealed" or kind == b"dropped") and not self._note(kind, body):
                return self._stop(seq, f"entry {seq} speaks of a segment, and not in the form it was written in")
            self.seq, self.digest = seq, digest
        return True

    def _note(self, kind: bytes, body: bytes | None) -> bool:
        """Keep what the chain itself says of its segments; False when it cannot be understood."""
        try:
            said = msgspec.json.decode(body or b"", type=Statement)
        except msgspec.DecodeError:
            return False
        if kind == b"sealed":
            self._stated[said.first, said.last] = said.files
        else:
            self._given_up.add((said.first, said.last, said.dropped))
        return True

    def finish(self) -> None:
        """After the last chunk: every anchor must have been passed."""
        for segment in self._passed if not self.problem else ():
            if self._stated.get((segment.first, segment.last)) != segment.digests:
                self._stop(segment.first, f"{segment} is not of the files that the ledger's own entry about it names")
                return
            for kind, file in segment.files.items():
                if file.dropped and (segment.first, segment.last, kind) not in self._given_up:
                    self._stop(segment.first, f"{segment} lost its bodies of {kind}, and no entry says that they went")
                    return
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
            segments=len(self._passed),
            sealed=self._passed[-1].last if self._passed else 0,
            dropped=self._dropped,
        )


class Statement(msgspec.Struct):
    """The body of an entry about a segment: what it was made of, or the class whose bodies were given up."""

    first: int
    last: int
    files: dict[str, str] = {}
    """SHA-256 of each file's text, by class."""
    dropped: str = ""


def _stored(connection: sqlite3.Connection, where: str, arguments: tuple[int, ...]) -> list[segments.Row]:
    before = connection.text_factory
    connection.text_factory = bytes
    try:
        return connection.execute(
            f"SELECT seq, at, kind, body, hash FROM ledger_entries WHERE {where}", arguments
        ).fetchall()
    finally:
        connection.text_factory = before


def _belongs(first: segments.Row, owner: str | None) -> bool:
    try:
        return first[2] == b"genesis" and msgspec.json.decode(first[3] or b"", type=dict).get("client_id") == owner
    except msgspec.DecodeError:
        return False


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
