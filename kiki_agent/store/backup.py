"""Copies of a live database, made by SQLite's own backup API."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from kiki_agent.errors import StoreError
from kiki_agent.store.durable import sync_folder
from kiki_agent.store.trouble import world_error


def copy_to(connection: sqlite3.Connection, target: Path) -> None:
    """Copy the open database to `target`, checked and durable; what stood there is replaced. Raises StoreError.

    The copy grows under another name and is renamed when it is whole.
    """
    growing = target.with_name(target.name + ".partial")
    for leftover in (growing, growing.with_name(growing.name + "-journal")):
        leftover.unlink(missing_ok=True)
    copy = sqlite3.connect(growing, isolation_level=None)
    try:
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        verdict = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise world_error(error) or StoreError(str(error)) from error
    finally:
        copy.close()
    if verdict != "ok":
        raise StoreError(f"the copy {growing} is not sound: {verdict}")
    descriptor = os.open(growing, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(growing, target)
    sync_folder(target.parent)
