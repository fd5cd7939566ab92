"""Which errors of SQLite are the world's fault, and what each one means to a person."""

from __future__ import annotations

import sqlite3

from kiki_agent.errors import StoreError


class Damaged(StoreError):
    """The database file is not what SQLite wrote; it is left untouched, and a person restores a backup."""


_WORLD = {
    sqlite3.SQLITE_BUSY: "another process holds the database",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_NOTADB: "the file is not a database, or is damaged",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened",
    sqlite3.SQLITE_NOMEM: "memory ran out",
    sqlite3.SQLITE_PROTOCOL: "the database's lock protocol failed",
    sqlite3.SQLITE_INTERRUPT: "the statement was interrupted",
    sqlite3.SQLITE_PERM: "access to the database is not permitted",
}
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def world_error(error: BaseException) -> StoreError | None:
    """The `StoreError` for an error of disk, locks or memory; None when the error is the caller's own.

    Extended result codes count as their primary code (https://www.sqlite.org/rescode.html).
    """
    if not isinstance(error, sqlite3.Error):
        return None
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    if primary not in _WORLD:
        return None
    text = f"{_WORLD[primary]} ({error})"
    return Damaged(text) if primary in _DAMAGE else StoreError(text)
