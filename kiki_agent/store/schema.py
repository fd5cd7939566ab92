"""Numbered changes of the schema: each applied once, in order, in one transaction, and remembered with its checksum."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kiki_agent.errors import StoreError
from kiki_agent.model.time import Instant
from kiki_agent.store.backup import copy_to
from kiki_agent.store.lock import LockFile
from kiki_agent.store.seat import uri
from kiki_agent.store.trouble import world_error

FOLDER = Path(__file__).parent / "migrations"
_NAME = re.compile(r"(\d{4})_([a-z][a-z0-9_]*)\.sql")
_TABLE = """CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL
) STRICT"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of the folder."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class MigrationState:
    """One migration as a database sees it."""

    version: int
    name: str
    state: Literal["applied", "pending", "changed", "unknown"]
    """`changed`: applied from another text. `unknown`: applied by a program that is newer than this one."""
    applied_at: Instant | None


def known_migrations(folder: Path = FOLDER) -> list[Migration]:
    """The migrations this program brings, by number. Raises StoreError for a misnamed file or a number used twice."""
    found: dict[int, Migration] = {}
    for file in sorted(folder.glob("*.sql")):
        match = _NAME.fullmatch(file.name)
        if match is None:
            raise StoreError(f"{file.name} is not named like 0001_core.sql")
        version = int(match[1])
        if version in found:
            raise StoreError(f"migration {version} exists twice: {found[version].name} and {match[2]}")
        found[version] = Migration(version, match[2], file.read_text(encoding="utf-8"))
    return [found[version] for version in sorted(found)]


def compare(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> list[MigrationState]:
    """What is applied, pending or out of step, by number."""
    known = {migration.version: migration for migration in migrations}
    states = {each.version: MigrationState(each.version, each.name, "pending", None) for each in migrations}
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'schema_migrations'").fetchone():
        for version, name, checksum, applied_at in connection.execute(
            "SELECT version, name, checksum, applied_at FROM schema_migrations"
        ):
            state: Literal["applied", "changed", "unknown"] = "unknown"
            if version in known:
                state = "applied" if known[version].checksum == checksum else "changed"
            states[version] = MigrationState(version, name, state, Instant(applied_at))
    return [states[version] for version in sorted(states)]


Keep = Callable[[sqlite3.Connection, Path, int, int], None]
"""`keep(connection, path, newest applied, newest pending)` saves a database before its schema changes."""


def keep_copy(connection: sqlite3.Connection, path: Path, applied: int, pending: int) -> None:
    """A copy beside the database."""
    copy_to(connection, path.with_name(f"{path.name}.v{applied:04}-before-v{pending:04}.backup"))


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    now: Instant,
    *,
    folder: Path = FOLDER,
    apply: bool = True,
    keep: Keep = keep_copy,
) -> list[int]:
    """Bring the open database at `path` up to date, after `keep` when it is not new; the numbers applied.

    `connection` is in autocommit mode. Raises StoreError when the database is newer than the program, when an applied
    migration was edited afterwards, or when something is pending and `apply` is off.
    """
    migrations = known_migrations(folder)
    states = compare(connection, migrations)
    for each in states:
        if each.state == "unknown":
            raise StoreError(
                f"{path} was written by a newer version: it has migration {each.version} ({each.name}),"
                " which this one does not know"
            )
        if each.state == "changed":
            raise StoreError(
                f"migration {each.version} ({each.name}) was changed after it was applied to {path};"
                " changes of the schema go into a new migration"
            )
    pending = {each.version for each in states if each.state == "pending"}
    if not pending:
        return []
    if not apply:
        numbers = ", ".join(str(version) for version in sorted(pending))
        raise StoreError(f"{path} lacks migrations {numbers}; apply them with `kiki-agent migrate up`")
    applied = [each.version for each in states if each.state == "applied"]
    if applied:
        keep(connection, path, max(applied), max(pending))
    for migration in migrations:
        if migration.version in pending:
            _apply(connection, migration, now)
    return sorted(pending)


def _apply(connection: sqlite3.Connection, migration: Migration, now: Instant) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_TABLE)
        for statement in statements(migration.sql):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
            (migration.version, migration.name, migration.checksum, now),
        )
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error) and world_error(error) is None:
            raise StoreError(f"migration {migration.version} ({migration.name}) failed: {error}") from error
        raise


def statements(sql: str) -> Iterator[str]:
    """The statements of a script, whole triggers included."""
    collected = ""
    for line in sql.splitlines(keepends=True):
        collected += line
        if sqlite3.complete_statement(collected):
            yield collected
            collected = ""
    if collected.strip() and not all(line.startswith("--") or not line.strip() for line in collected.splitlines()):
        raise StoreError(f"a migration ends in the middle of a statement: {collected.strip()[:60]!r}")


def status(path: Path, *, folder: Path = FOLDER) -> list[MigrationState]:
    """What is applied to the database file at `path`; a file that does not exist has everything pending."""
    if not path.exists():
        return [MigrationState(each.version, each.name, "pending", None) for each in known_migrations(folder)]
    try:
        connection = sqlite3.connect(uri(path, read_only=True), uri=True, isolation_level=None)
        try:
            return compare(connection, known_migrations(folder))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise world_error(error) or StoreError(f"{path}: {error}") from error


def up(path: Path, now: Instant, *, folder: Path = FOLDER, keep: Keep = keep_copy) -> list[int]:
    """Apply what is pending to the file at `path`, which no agent may be using; the numbers applied."""
    lock = LockFile.take(lock_path(path))
    try:
        connection = sqlite3.connect(uri(path, read_only=False), uri=True, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return migrate(connection, path, now, folder=folder, keep=keep)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise world_error(error) or StoreError(f"{path}: {error}") from error
    finally:
        lock.release()


def lock_path(path: Path) -> Path:
    """The lock file of a database."""
    return path.with_name(path.name + ".lock")
