"""Disk full, locked, read-only, damaged, taken over: callers hear of it, the reason is told, and a cure is noticed."""

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.model import Instant
from kiki_agent.store import Damaged, Store

OpenStore = Callable[..., Awaitable[Store]]


def big(connection: sqlite3.Connection) -> None:
    connection.executemany("INSERT INTO notes VALUES (?)", [(number,) for number in range(20_000)])


def small(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO notes VALUES (1)")


async def count(store: Store) -> int:
    return await store.read(lambda connection: connection.execute("SELECT count(*) FROM notes").fetchone()[0])


async def limit_pages(store: Store, pages: int) -> None:
    await store.write(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}"))


async def test_a_full_disk_fails_the_batch_and_is_over_when_there_is_room_again(store: Store) -> None:
    await limit_pages(store, 80)
    innocent, guilty = store.submit(small), store.submit(big)
    for future in (innocent, guilty):
        with pytest.raises(StoreError, match="disk is full"):
            await future
    assert store.failure is not None
    assert "disk is full" in store.failure
    assert await count(store) == 0
    await limit_pages(store, 1_000_000)
    await store.write(big)
    assert store.failure is None
    assert await count(store) == 20_000


async def test_a_lock_held_by_another_process_fails_writes_but_not_reads(store: Store) -> None:
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another process holds the database"):
        await store.write(small)
    assert store.failure is not None
    assert await store.probe() == store.failure
    assert await count(store) == 0
    other.execute("ROLLBACK")
    other.close()
    assert await store.probe() is None
    assert store.failure is None
    await store.write(small)


async def test_a_read_only_database_is_named(store: Store) -> None:
    await store.write(lambda connection: connection.execute("PRAGMA query_only = ON"))
    with pytest.raises(StoreError, match="read-only"):
        await store.write(small)
    assert store.failure is not None
    assert "read-only" in store.failure


async def test_nobody_hears_of_an_error_twice(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Functions nobody waits for fail in silence: `failure` tells the reason."""
    await limit_pages(store, 20)
    for _ in range(3):
        store.submit(big)
    await store.drain()
    assert store.failure is not None
    assert caplog.records == []


async def test_a_file_that_is_not_a_database_is_refused_and_left_alone(open_store: OpenStore, tmp_path: Path) -> None:
    (tmp_path / "agent.db").write_bytes(b"not a database at all " * 500)
    before = (tmp_path / "agent.db").read_bytes()
    with pytest.raises(Damaged, match="not a database"):
        await open_store()
    assert (tmp_path / "agent.db").read_bytes() == before
    with pytest.raises(Damaged):  # the lock was given back
        await open_store()


async def test_damage_found_by_a_reader_seals_the_store(open_store: OpenStore, tmp_path: Path) -> None:
    store = await open_store()
    await store.write(lambda connection: connection.execute("CREATE TABLE notes (n INTEGER NOT NULL) STRICT"))
    await store.write(big)
    await store.close()
    path = tmp_path / "agent.db"
    data = bytearray(path.read_bytes())
    spoiled = 4096 * 20  # the end of the file holds rows of the table, its beginning the schema
    data[-spoiled:] = b"\xff" * spoiled
    path.write_bytes(bytes(data))
    store = await open_store()
    with pytest.raises(Damaged):
        await count(store)
    assert store.failure is not None
    with pytest.raises(Damaged):
        await store.write(lambda connection: None)
    assert await store.probe() is not None


async def test_an_agent_that_was_taken_over_writes_no_more(store: Store) -> None:
    other = sqlite3.connect(store.path)
    other.execute("UPDATE meta SET value = '99' WHERE key = 'epoch'")
    other.commit()
    other.close()
    with pytest.raises(StoreError, match="another agent took over"):
        await store.write(small)
    assert await count(store) == 0
    with pytest.raises(StoreError, match="another agent took over"):
        await store.write(small)
    assert store.failure is not None


async def test_the_epoch_grows_with_every_open(open_store: OpenStore) -> None:
    epochs = []
    for _ in range(3):
        store = await open_store()
        epochs.append(store.epoch)
        await store.close()
    assert epochs == [1, 2, 3]


async def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="lock file"):
        await Store.open(tmp_path / "file" / "agent.db", now=Instant(1))


async def test_a_probe_is_a_write_and_not_just_a_commit(store: Store) -> None:
    """Where nothing changes SQLite writes nothing, and an empty commit succeeds on any disk."""
    before = store.sizes()["wal"]
    for number in range(1, 4):
        assert await store.probe() is None
        assert store.sizes()["wal"] >= before + number * 4096


async def test_a_database_that_takes_a_little_is_not_cured(store: Store) -> None:
    await limit_pages(store, 1)
    with pytest.raises(StoreError, match="disk is full"):
        await store.write(big)
    await store.write(lambda connection: connection.execute("UPDATE meta SET value = 'x' WHERE key = 'probe'"))
    assert store.failure is not None, "a small change still fits"
    assert await store.probe() is not None
    await limit_pages(store, 1_000_000)
    assert await store.probe() is None
    assert store.failure is None
