"""Sealed segments of the ledger in backups: copied once, shared by the backups that name them, gone with the last."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from kiki_agent.errors import StoreError
from kiki_agent.ledger.segments import BadSegment, load, segments
from kiki_agent.store.durable import replace_file, sync_folder
from kiki_agent.store.seat import uri


def bring_segments(database: Path, source: Path, target: Path) -> None:
    """Copy what a database names of its segments from one folder to another, unless it is there and whole.

    A file that is missing at its source is left out: whoever walks the chain there names it. Raises OSError,
    sqlite3.Error.
    """
    connection = sqlite3.connect(uri(database, read_only=True), uri=True, isolation_level=None)
    try:
        named = segments(connection)
    finally:
        connection.close()
    for segment in named:
        for kind, file in segment.files.items():
            if file.dropped:
                continue
            try:
                load(target, segment, kind)
            except BadSegment:
                if (source / file.name).exists() and source != target:
                    _make(target)
                    replace_file(target / file.name, (source / file.name).read_bytes())


def size_to_bring(source: Path, target: Path) -> int:
    """Bytes of the segments in one folder that another does not have yet. Raises StoreError."""
    try:
        return sum(path.stat().st_size for path in source.glob("*.jsonl.gz") if not (target / path.name).exists())
    except OSError as error:
        raise StoreError(f"the segments in {source} cannot be looked at: {error.strerror}") from error


def prune_segments(folder: Path) -> None:
    """Remove the segments that no backup in the folder names any more; none while one of them cannot be asked."""
    kept: set[str] = set()
    for database in folder.glob("*.db"):
        try:
            connection = sqlite3.connect(uri(database, read_only=True), uri=True, isolation_level=None)
            try:
                named = segments(connection)
            finally:
                connection.close()
        except sqlite3.Error:
            return  # what it names is not known, so nothing may go
        kept |= {file.name for segment in named for file in segment.files.values() if not file.dropped}
    for path in (folder / "segments").glob("*.jsonl.gz"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True)
        sync_folder(folder.parent)
