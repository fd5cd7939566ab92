"""The whole ledger as text, what was sealed first: CSV for spreadsheets, JSON lines for programs."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Literal

import msgspec

from kiki_agent.errors import StoreError
from kiki_agent.ledger import segments
from kiki_agent.model.time import iso
from kiki_agent.store import Store
from kiki_agent.store.seat import uri
from kiki_agent.store.trouble import world_error

Format = Literal["csv", "jsonl"]
Write = Callable[[str], object]
CHUNK = 4_096
HEADER = ("seq", "at", "time", "kind", "body", "hash")


async def export(store: Store, fmt: Format, write: Write) -> int:
    """Hand the entries of an open store to `write` in pieces of text; how many there were."""
    write(_header(fmt))
    last = 0
    while True:
        after = last
        text, last = await store.read(lambda connection, after=after: _chunk(connection, fmt, after))  # type: ignore[misc]
        if last == after:
            return last
        write(text)


def export_file(path: Path, fmt: Format, write: Write) -> int:
    """The same from a database file, opened read-only by SQLite. Raises StoreError."""
    entries = 0
    for text, last in file_chunks(path, fmt):
        write(text)
        entries = last
    return entries


def file_chunks(path: Path, fmt: Format) -> Generator[tuple[str, int], None, None]:
    """The entries of a database file in pieces of text, each with the number of its last entry.

    Of a damaged file every entry up to the first unreadable one comes; then StoreError is raised. Each piece may be
    asked for on another thread.
    """
    if not path.exists():
        raise StoreError(f"there is no database at {path}")
    try:
        connection = sqlite3.connect(
            uri(path, read_only=True), uri=True, isolation_level=None, timeout=5.0, check_same_thread=False
        )
        try:
            yield _header(fmt), 0
            last, size = 0, CHUNK
            while True:
                try:
                    text, found = _chunk(connection, fmt, last, size)
                except sqlite3.DatabaseError:
                    if size == 1:
                        raise
                    size = 1
                    continue
                if found == last:
                    return
                yield text, found
                last = found
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise world_error(error) or StoreError(f"{path}: {error}") from error


def _header(fmt: Format) -> str:
    return ",".join(HEADER) + "\r\n" if fmt == "csv" else ""


def _chunk(connection: sqlite3.Connection, fmt: Format, after: int, size: int = CHUNK) -> tuple[str, int]:
    rows = _rows(connection, after, size)
    if not rows:
        return "", after
    if fmt == "csv":
        out = io.StringIO(newline="")
        csv.writer(out).writerows((seq, at, iso(at), kind, body, digest.hex()) for seq, at, kind, body, digest in rows)
        return out.getvalue(), rows[-1][0]
    lines = (
        msgspec.json.encode(
            {
                "seq": seq,
                "at": at,
                "time": iso(at),
                "kind": kind,
                "body": None if body is None else msgspec.Raw(body.encode()),
                "hash": digest.hex(),
            }
        ).decode()
        for seq, at, kind, body, digest in rows
    )
    return "\n".join(lines) + "\n", rows[-1][0]


def _rows(connection: sqlite3.Connection, after: int, size: int) -> list[tuple[int, int, str, str | None, bytes]]:
    """The next entries, a whole segment of them at once; the body of one that was dropped by age is None."""
    for segment in segments.segments(connection, covering=after + 1):
        try:
            sealed = segments.rows_of(segments.folder_of(connection), segment)
        except segments.BadSegment as bad:
            raise StoreError(str(bad)) from bad
        return [
            (seq, at, kind.decode(), None if body is None else body.decode(), digest)
            for seq, at, kind, body, digest in sealed
            if seq > after
        ]
    return connection.execute(
        "SELECT seq, at, kind, body, hash FROM ledger_entries WHERE seq > ? ORDER BY seq LIMIT ?", (after, size)
    ).fetchall()
