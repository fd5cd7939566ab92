"""Migrations: in order, once, in one transaction each, after a copy; refusals in one sentence."""

import os
import sqlite3
from pathlib import Path

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.model import Instant
from kiki_agent.store import AlreadyRunning, Store
from kiki_agent.store.schema import FOLDER, known_migrations, statements, status, up

NOW = Instant(5)
CORE = (FOLDER / "0001_core.sql").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_core.sql").write_text(CORE)
    return folder


def states(path: Path, folder: Path) -> list[tuple[int, str]]:
    return [(each.version, each.state) for each in status(path, folder=folder)]


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_every_migration_of_the_program_applies_to_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    assert {each.state for each in status(path)} == {"pending"}
    assert not path.exists()
    applied = up(path, NOW)
    assert applied == [each.version for each in known_migrations()]
    assert up(path, NOW) == []
    assert {each.state for each in status(path)} == {"applied"}
    assert list(tmp_path.glob("*.backup")) == []


def test_every_table_of_the_program_is_strict(tmp_path: Path) -> None:
    up(tmp_path / "agent.db", NOW)
    loose = rows(
        tmp_path / "agent.db",
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND NOT strict AND name NOT LIKE 'sqlite_%'",
    )
    assert loose == []


def test_an_upgrade_keeps_the_rows_and_a_copy_from_before(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "agent.db"
    up(path, NOW, folder=folder)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO meta VALUES ('kept', 'yes')")
    connection.commit()
    connection.close()
    (folder / "0007_more.sql").write_text("CREATE TABLE more (n INTEGER) STRICT;\nINSERT INTO more VALUES (1);\n")
    assert states(path, folder) == [(1, "applied"), (7, "pending")]
    assert up(path, Instant(6), folder=folder) == [7]
    assert rows(path, "SELECT value FROM meta WHERE key = 'kept'") == [("yes",)]
    assert rows(path, "SELECT version, applied_at FROM schema_migrations ORDER BY version") == [(1, 5), (7, 6)]
    copy = tmp_path / "agent.db.v0001-before-v0007.backup"
    assert rows(copy, "SELECT value FROM meta WHERE key = 'kept'") == [("yes",)]
    assert rows(copy, "SELECT name FROM sqlite_schema WHERE name = 'more'") == []


def test_a_migration_that_fails_leaves_nothing_of_itself(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "agent.db"
    (folder / "0002_bad.sql").write_text("CREATE TABLE half (n INTEGER) STRICT;\nINSERT INTO nowhere VALUES (1);\n")
    with pytest.raises(StoreError, match=r"migration 2 \(bad\) failed: no such table: nowhere"):
        up(path, NOW, folder=folder)
    assert states(path, folder) == [(1, "applied"), (2, "pending")]
    assert rows(path, "SELECT name FROM sqlite_schema WHERE name = 'half'") == []


def test_an_edited_migration_and_a_newer_database_are_refused(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "agent.db"
    (folder / "0002_more.sql").write_text("CREATE TABLE more (n INTEGER) STRICT;\n")
    up(path, NOW, folder=folder)
    (folder / "0002_more.sql").write_text("CREATE TABLE more (m INTEGER) STRICT;\n")
    assert states(path, folder) == [(1, "applied"), (2, "changed")]
    with pytest.raises(StoreError, match="was changed after it was applied"):
        up(path, NOW, folder=folder)
    (folder / "0002_more.sql").unlink()
    assert states(path, folder) == [(1, "applied"), (2, "unknown")]
    with pytest.raises(StoreError, match="newer version"):
        up(path, NOW, folder=folder)


@pytest.mark.parametrize("name", ["core.sql", "01_core.sql", "0003_Core.sql", "0001_again.sql"])
def test_names_are_checked(folder: Path, name: str) -> None:
    (folder / name).write_text("SELECT 1;")
    with pytest.raises(StoreError):
        known_migrations(folder)


def test_statements_keep_triggers_whole_and_comments_harmless() -> None:
    script = (
        "-- a; comment\nCREATE TABLE a (n);\nCREATE TRIGGER t BEFORE UPDATE ON a\nBEGIN\n  SELECT 1;\nEND;\n-- end\n"
    )
    assert len(list(statements(script))) == 2
    with pytest.raises(StoreError, match="middle of a statement"):
        list(statements("CREATE TABLE a (n)"))


async def test_a_store_without_leave_to_migrate_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="kiki-agent migrate up"):
        await Store.open(tmp_path / "agent.db", now=NOW, migrate=False)
    up(tmp_path / "agent.db", NOW)
    store = await Store.open(tmp_path / "agent.db", now=NOW, migrate=False)
    with pytest.raises(AlreadyRunning):
        up(tmp_path / "agent.db", NOW)
    assert {each.state for each in status(tmp_path / "agent.db")} == {"applied"}
    await store.close()


async def test_a_backup_under_load_holds_a_consistent_state(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "agent.db", now=NOW)
    await store.write(lambda connection: connection.execute("CREATE TABLE pairs (n INTEGER) STRICT"))

    def pair(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO pairs VALUES (1)")
        connection.execute("INSERT INTO pairs VALUES (-1)")

    for _ in range(500):
        store.submit(pair)
    await store.backup(tmp_path / "copy.db")
    await store.drain()
    await store.close()
    assert rows(tmp_path / "copy.db", "SELECT coalesce(sum(n), 0) FROM pairs") == [(0,)]
    assert not [name for name in os.listdir(tmp_path) if "partial" in name]
