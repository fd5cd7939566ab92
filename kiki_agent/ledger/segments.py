"""Sealed parts of the chain: old entries in files beside the database, and how they are read back.

A segment is one file of links (number, instant, kind and hash of every entry) and one file of bodies for each class of
kinds, all of them gzipped JSON lines. A class is dropped by removing its file: the hashes stay.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import msgspec

LINKS = "links"
CHAIN, MONEY, DECISION, PERSONAL = "chain", "money", "decision", "personal"
CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "genesis": CHAIN,
        "epoch": CHAIN,
        "sealed": CHAIN,
        "dropped": CHAIN,
        "intent": MONEY,
        "receipt": MONEY,
        "reallocation": MONEY,
        "spend": MONEY,
        "lease": MONEY,
        "permit": MONEY,
        "control": MONEY,
        "order": MONEY,
        "external": MONEY,
        "decision": DECISION,
        "suggestion": DECISION,
        "would_have": DECISION,
        "alert": DECISION,
        "consent": PERSONAL,
        "privacy": PERSONAL,
        "conversion": PERSONAL,
    }
)
"""Class of every kind of entry; entries of one class are dropped together. Those of `chain` are never dropped.

A kind stays in its class for ever: files that were written once are read by it.
"""

_LENGTH = 4
"""Bytes at the end of a gzip file that say how long its text is (RFC 1952, ISIZE)."""

Row = tuple[int, int, bytes, bytes | None, bytes]
"""Number, instant, kind, body (None when it was dropped), hash."""


class BadSegment(Exception):
    """A file of a segment is missing or is not the one that was written."""

    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(problem)
        self.seq = seq
        """Number of the first entry that it makes unreadable."""


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A file of a segment, as the database has it on record."""

    name: str
    sha256: str
    """Of its text before it was packed, hexadecimal."""
    size: int
    """Bytes of that text."""
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """Entries that left the table, as the database has them on record."""

    first: int
    last: int
    last_hash: bytes
    files: Mapping[str, SegmentFile]
    """By class; `LINKS` among them."""

    @property
    def digests(self) -> dict[str, str]:
        """What the ledger's own entry about the segment says of its files: class -> SHA-256."""
        return {kind: file.sha256 for kind, file in self.files.items()}

    def __str__(self) -> str:
        return f"the segment of entries {self.first} to {self.last}"


class Link(msgspec.Struct, gc=False):
    """A line of the file of links."""

    seq: int
    at: int
    kind: str
    hash: str


class Line(msgspec.Struct, gc=False):
    """A line of a file of bodies."""

    seq: int
    body: msgspec.Raw


_links = msgspec.json.Decoder(Link)
_lines = msgspec.json.Decoder(Line)


def class_of(kind: str) -> str:
    """The class of a kind; of one that is not known, the one that is kept longest."""
    return CLASSES.get(kind, MONEY)


def own_folder(database: Path) -> Path:
    """Where a database in use keeps its segments."""
    return database.with_suffix(".segments")


def shared_folder(database: Path) -> Path:
    """Where the backups of one folder keep their segments together; a file's name tells what it holds."""
    return database.parent / "segments"


def folder_of(connection: sqlite3.Connection) -> Path:
    """Where the segments of an open database are."""
    return find_folder(Path(text(connection.execute("PRAGMA database_list").fetchone()[2])))


def find_folder(database: Path) -> Path:
    """Where the segments of a database file are: one in use, one that was set aside (`x.db.before-1`), or a backup."""
    stem, _, ending = database.name.partition(".db")
    aside, own = database.with_name(f"{stem}.segments{ending}"), database.with_name(f"{stem}.segments")
    return next((each for each in (aside, own, shared_folder(database)) if each.is_dir()), own)


def text(value: str | bytes) -> str:
    """Text, also from a connection that hands it out as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def segments(connection: sqlite3.Connection, covering: int | None = None) -> list[Segment]:
    """What was sealed, oldest first; or only the segment that holds an entry. Of an older schema: none."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'ledger_segment_files'").fetchone() is None:
        return []
    where, arguments = "", tuple[int, ...]()
    if covering is not None:
        where, arguments = " WHERE first_seq <= ? AND last_seq >= ?", (covering, covering)
    rows = connection.execute(
        f"SELECT first_seq, last_seq, last_hash FROM ledger_segments{where} ORDER BY first_seq", arguments
    ).fetchall()
    found = []
    for first, last, last_hash in rows:
        files = connection.execute(
            "SELECT class, name, sha256, size, dropped_at FROM ledger_segment_files WHERE first_seq = ?", (first,)
        ).fetchall()
        named = {
            text(kind): SegmentFile(text(name), text(digest), size, dropped_at is not None)
            for kind, name, digest, size, dropped_at in files
        }
        found.append(Segment(first, last, last_hash, named))
    return found


def sealed_to(connection: sqlite3.Connection) -> tuple[int, bytes] | None:
    """Number and hash of the last sealed entry, None when nothing was sealed."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'ledger_segments'").fetchone() is None:
        return None
    row = connection.execute("SELECT last_seq, last_hash FROM ledger_segments ORDER BY last_seq DESC LIMIT 1")
    found: tuple[int, bytes] | None = row.fetchone()
    return found


def owner_of(connection: sqlite3.Connection) -> str | None:
    """Whose ledger it is, as its first entry says; None when it has none."""
    first = connection.execute("SELECT kind, body FROM ledger_entries WHERE seq = 1").fetchone()
    if first is not None:
        owner = msgspec.json.decode(first[1], type=dict).get("client_id") if first[0] == "genesis" else None
        return None if owner is None else str(owner)
    if sealed_to(connection) is None:
        return None
    sealed = connection.execute("SELECT owner FROM ledger_segments WHERE first_seq = 1").fetchone()
    return None if sealed is None else str(sealed[0])


def hash_at(connection: sqlite3.Connection, seq: int) -> bytes | None:
    """The hash of an entry, sealed or not; None when there is none, or it cannot be read."""
    row = connection.execute("SELECT hash FROM ledger_entries WHERE seq = ?", (seq,)).fetchone()
    if row is not None:
        return bytes(row[0])
    for segment in segments(connection, covering=seq):
        try:
            return bytes.fromhex(links_of(folder_of(connection), segment)[seq - segment.first].hash)
        except BadSegment:
            return None
    return None


def load(folder: Path, segment: Segment, kind: str) -> bytes:
    """The text of a segment's file, found to be the one that was written. Raises BadSegment."""
    file = segment.files.get(kind)
    if file is None:
        raise BadSegment(segment.first, f"{segment} has no file of {kind} on record")
    path = folder / Path(file.name).name
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise BadSegment(segment.first, f"{segment} cannot be read: {path}: {error.strerror}") from None
    unpack = zlib.decompressobj(wbits=31)
    try:
        found = unpack.decompress(packed, file.size + 1)
    except zlib.error:
        found = b""
    if not unpack.eof or unpack.unused_data or sha256(found).hexdigest() != file.sha256:
        raise BadSegment(segment.first, f"{segment} was changed: {path} is not the file that was written")
    return found


def look(connection: sqlite3.Connection) -> str | None:
    """Which file of a segment is missing or of another length than the one that was written; None when none is.

    Cheap, for a start: of each file the length at its end is read. That every byte is right, the walk along the chain
    finds out.
    """
    folder = folder_of(connection)
    for segment in segments(connection):
        for file in segment.files.values():
            if file.dropped:
                continue
            path = folder / Path(file.name).name
            try:
                with path.open("rb") as packed:
                    packed.seek(-min(_LENGTH, path.stat().st_size), 2)
                    end = packed.read()
            except OSError as error:
                return f"{segment} cannot be read: {path}: {error.strerror}"
            if end != (file.size % (1 << 32)).to_bytes(_LENGTH, "little"):
                return f"{segment} was changed: {path} is not as long as the file that was written"
    return None


def links_of(folder: Path, segment: Segment) -> list[Link]:
    """Number, instant, kind and hash of every entry of a segment, in order. Raises BadSegment."""
    try:
        links = _links.decode_lines(load(folder, segment, LINKS))
    except msgspec.DecodeError:
        links = []
    if [link.seq for link in links] != list(range(segment.first, segment.last + 1)):
        raise BadSegment(segment.first, f"{segment} does not hold these entries, one after the other")
    return links


def bodies_of(folder: Path, segment: Segment, kind: str) -> dict[int, bytes]:
    """Bodies of a class that was not dropped, by number. Raises BadSegment."""
    try:
        return {line.seq: bytes(line.body) for line in _lines.decode_lines(load(folder, segment, kind))}
    except msgspec.DecodeError:
        raise BadSegment(segment.first, f"{segment} has a file of {kind} that is not readable") from None


def sealed_entries(
    connection: sqlite3.Connection, kind: str, wanted: Collection[str]
) -> Iterator[tuple[int, int, str, bytes]]:
    """Number, instant, kind and body of the sealed entries of some kinds of one class, oldest first; not the dropped.

    Raises BadSegment.
    """
    folder = folder_of(connection)
    for segment in segments(connection):
        file = segment.files.get(kind)
        if file is None or file.dropped:
            continue
        links = links_of(folder, segment)
        for seq, body in bodies_of(folder, segment, kind).items():
            link = links[seq - segment.first]
            if link.kind in wanted:
                yield seq, link.at, link.kind, body


def rows_of(folder: Path, segment: Segment) -> list[Row]:
    """Every entry of a segment, in order; without a body only where the class was dropped. Raises BadSegment."""
    bodies: dict[int, bytes] = {}
    for kind, file in segment.files.items():
        if kind != LINKS and not file.dropped:
            bodies |= bodies_of(folder, segment, kind)
    gone = {kind for kind, file in segment.files.items() if file.dropped}
    rows: list[Row] = []
    for link in links_of(folder, segment):
        body = bodies.get(link.seq)
        if body is None and class_of(link.kind) not in gone:
            raise BadSegment(link.seq, f"{segment} lacks the body of entry {link.seq}")
        try:
            digest = bytes.fromhex(link.hash)
        except ValueError:
            raise BadSegment(link.seq, f"{segment} has no readable hash of entry {link.seq}") from None
        rows.append((link.seq, link.at, link.kind.encode(), body, digest))
    return rows
