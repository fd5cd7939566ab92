"""Copies of a live database, made by SQLite's own backup API."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from kiki_agent.errors import StoreError
from kiki_agent.store.durable import sync_folder
from kiki_agent.store.trouble import world_error

PAGES_A_STEP = 256
"""Pages copied in one go, 1 MiB; between two goes the file is given up, and a copy nobody wants any more ends."""

OnProgress = Callable[[float], None]
"""Hears the share done, from 0 to 1; what it raises ends the copy, and nothing of it stays."""


def copy_to(connection: sqlite3.Connection, target: Path, on_progress: OnProgress | None = None) -> None:
    """Copy the open database to `target`, checked and durable; what stood there is replaced. Raises StoreError.

    The copy is of one instant: the connection holds its snapshot while the pages are copied step by step, and a writer
    on another connection goes on meanwhile. It grows under another name and is renamed when it is whole; nobody but
    the owner may read it.
    """
    growing = target.with_name(target.name + ".partial")
    leftovers = (growing, growing.with_name(growing.name + "-journal"))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    try:
        os.close(os.open(growing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        verdict = _copy(connection, growing, on_progress)
        if verdict != "ok":
            raise StoreError(f"the copy {growing} is not sound: {verdict}")
        sync_file(growing)
        os.replace(growing, target)
        sync_folder(target.parent)
    except BaseException as error:
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StoreError(f"the copy {target} cannot be written: {error.strerror}") from error
        raise


def _copy(connection: sqlite3.Connection, growing: Path, on_progress: OnProgress | None) -> str:
    def progress(status: int, remaining: int, total: int) -> None:
        if on_progress is not None and total:
            on_progress((total - remaining) / total)

    copy = sqlite3.connect(growing, isolation_level=None)
    own_snapshot = not connection.in_transaction
    try:
        copy.execute("PRAGMA journal_mode = OFF")  # a copy that is not whole is thrown away
        copy.execute("PRAGMA synchronous = OFF")  # made durable in one go at its end
        if own_snapshot:
            connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        connection.backup(copy, pages=PAGES_A_STEP, progress=progress)
        copy.execute("PRAGMA journal_mode = DELETE")
        return str(copy.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        raise world_error(error) or StoreError(str(error)) from error
    finally:
        copy.close()
        if own_snapshot and connection.in_transaction:
            connection.execute("ROLLBACK")


def sync_file(path: Path) -> None:
    """Make a closed file durable. Never the database of a running agent: closing would drop SQLite's locks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
