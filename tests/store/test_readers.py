"""The pool of readers: read-only, one snapshot per call, free of what happens to callers."""

import asyncio
import sqlite3
import threading

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.store import Store


async def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(StoreError, match="read-only"):
        await store.read(lambda connection: connection.execute("INSERT INTO notes VALUES (1)"))


async def test_all_a_function_reads_is_one_snapshot(store: Store) -> None:
    reading, written = threading.Event(), threading.Event()

    def read(connection: sqlite3.Connection) -> tuple[int, int]:
        first = connection.execute("SELECT count(*) FROM notes").fetchone()[0]
        reading.set()
        assert written.wait(10)
        return first, connection.execute("SELECT count(*) FROM notes").fetchone()[0]

    task = asyncio.create_task(store.read(read))
    await asyncio.to_thread(reading.wait, 10)
    await store.write(lambda connection: connection.execute("INSERT INTO notes VALUES (1)"))
    written.set()
    assert await task == (0, 0)


async def test_readers_work_side_by_side_and_more_wait_their_turn(store: Store) -> None:
    both = threading.Barrier(2, timeout=10)
    await asyncio.gather(*[store.read(lambda connection: both.wait()) for _ in range(2)])
    answers = await asyncio.gather(
        *[
            store.read(lambda connection, n=number: connection.execute("SELECT ?", (n,)).fetchone()[0])
            for number in range(50)
        ]
    )
    assert answers == list(range(50))


async def test_a_cancelled_caller_costs_no_reader(store: Store) -> None:
    for _ in range(20):
        tasks = [asyncio.create_task(store.read(lambda connection: None)) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    answer = await store.read(lambda connection: connection.execute("SELECT 42").fetchone())
    assert answer == (42,)


async def test_errors_reach_the_caller_and_the_reader_lives_on(store: Store) -> None:
    def bad(connection: sqlite3.Connection) -> None:
        raise LookupError("nothing")

    for _ in range(3):
        with pytest.raises(LookupError):
            await store.read(bad)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await store.read(lambda connection: connection.execute("SELECT * FROM nowhere"))
    assert store.failure is None


async def test_closing_breaks_off_a_long_read(store: Store) -> None:
    started = threading.Event()

    def endless(connection: sqlite3.Connection) -> None:
        started.set()
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        ).fetchone()

    tasks = [asyncio.create_task(store.read(endless)) for _ in range(2)]
    waiting = asyncio.create_task(store.read(lambda connection: None))
    await asyncio.to_thread(started.wait, 10)
    await asyncio.sleep(0.05)
    await store.close()
    for task in (*tasks, waiting):
        with pytest.raises(StoreError, match=r"interrupted|closing"):
            await task
