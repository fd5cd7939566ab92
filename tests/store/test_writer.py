"""The single writer: order, batches, isolation of one function from another, cancellation."""

import asyncio
import sqlite3
from collections.abc import Callable

import pytest

from kiki_agent.errors import Fault, StoreError
from kiki_agent.store import Store
from kiki_agent.store.writer import HIGH_WATER


def note(number: int) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO notes VALUES (?)", (number,))
        return number

    return work


async def notes(store: Store) -> list[int]:
    return await store.read(
        lambda connection: [n for (n,) in connection.execute("SELECT n FROM notes ORDER BY rowid").fetchall()]
    )


async def test_functions_run_in_the_order_of_submission_and_many_share_one_commit(store: Store) -> None:
    before = store.commits
    futures = [store.submit(note(number)) for number in range(500)]
    assert store.queue_depth == 500
    assert await asyncio.gather(*futures) == list(range(500))
    assert store.commits == before + 1
    assert store.queue_depth == 0
    assert await notes(store) == list(range(500))


async def test_one_that_raises_takes_only_its_own_changes_with_it(store: Store) -> None:
    def bad(connection: sqlite3.Connection) -> None:
        note(2)(connection)
        raise KeyError("mine")

    first, middle, last = store.submit(note(1)), store.submit(bad), store.submit(note(3))
    with pytest.raises(KeyError, match="mine"):
        await middle
    assert (await first, await last) == (1, 3)
    assert await notes(store) == [1, 3]
    assert store.failure is None


async def test_errors_of_the_data_stay_with_their_caller(store: Store) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        await store.write(lambda connection: connection.execute("INSERT INTO notes VALUES (NULL)"))
    assert store.failure is None


@pytest.mark.parametrize("raised", [StopIteration, SystemExit, KeyboardInterrupt])
async def test_what_a_future_cannot_carry_becomes_a_fault(store: Store, raised: type[BaseException]) -> None:
    def bad(connection: sqlite3.Connection) -> None:
        raise raised

    with pytest.raises(Fault, match=raised.__name__):
        await store.write(bad)
    assert await store.write(note(1)) == 1


async def test_a_function_may_neither_commit_nor_roll_back(store: Store) -> None:
    for bad in (lambda connection: connection.commit(), lambda connection: connection.rollback()):
        with pytest.raises(StoreError, match="a function handed to the store never"):
            await store.write(bad)
    good = store.submit(note(1))
    ended = store.submit(lambda connection: connection.execute("COMMIT"))
    for future in (good, ended):
        with pytest.raises(StoreError, match="ended the transaction"):
            await future
    assert await store.write(note(2)) == 2


async def test_cancelled_callers_do_not_reach_the_transaction(store: Store) -> None:
    tasks = [asyncio.create_task(store.write(note(number))) for number in range(200)]
    for number, task in enumerate(tasks):
        if number % 7 == 0:
            await asyncio.sleep(0)
        if number % 2 == 0:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    started = [number for number, task in enumerate(tasks) if not task.cancelled()]
    await store.drain()
    found = await notes(store)
    assert set(started) <= set(found)
    assert len(found) == len(set(found))
    # Nothing holds the write lock: another connection can take it at once.
    other = sqlite3.connect(store.path, isolation_level=None, timeout=0)
    other.execute("BEGIN IMMEDIATE")
    other.execute("ROLLBACK")
    other.close()


async def test_a_cancelled_function_that_was_submitted_still_runs(store: Store) -> None:
    future = store.submit(note(7))
    future.cancel()
    await store.drain()
    assert await notes(store) == [7]


async def test_what_is_written_is_seen_by_readers_as_soon_as_write_returns(store: Store) -> None:
    for number in range(20):
        await store.write(note(number))
        assert await notes(store) == list(range(number + 1))


async def test_room_waits_while_the_queue_is_above_the_high_water_mark(store: Store) -> None:
    await store.room()
    for number in range(HIGH_WATER):
        store.submit(note(number))
    assert store.queue_depth == HIGH_WATER
    await store.room()
    assert store.queue_depth == 0
    assert len(await notes(store)) == HIGH_WATER


async def test_the_owner_of_the_last_waiting_function_may_add_to_it(store: Store) -> None:
    rows = [1]

    def work(connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT INTO notes VALUES (?)", [(row,) for row in rows])

    mine = store.submit(work)
    assert store.join(mine)
    rows.append(2)
    assert store.queue_depth == 2
    other = store.submit(note(9))
    assert not store.join(mine)
    assert store.join(other)
    await store.drain()
    assert not store.join(other)
    assert await notes(store) == [1, 2, 9]


async def test_hooks_see_the_open_transaction_the_commit_and_the_rollback(store: Store) -> None:
    seen: list[str] = []
    store.before_commit.append(lambda connection: seen.append(f"before {connection.in_transaction}"))
    store.after_commit.append(lambda: seen.append("after"))
    store.on_rollback.append(lambda: seen.append("undone"))
    await store.write(note(1))

    def bad(connection: sqlite3.Connection) -> None:
        raise ValueError

    with pytest.raises(ValueError):
        await store.write(bad)
    assert seen == ["before True", "after", "undone", "before True", "after"]


async def test_a_hook_that_fails_undoes_the_whole_batch(store: Store) -> None:
    undone: list[bool] = []
    store.on_rollback.append(lambda: undone.append(True))

    def fail(connection: sqlite3.Connection) -> None:
        raise StoreError("not now")

    store.before_commit.append(fail)
    futures = [store.submit(note(number)) for number in range(3)]
    for future in futures:
        with pytest.raises(StoreError, match="not now"):
            await future
    assert store.failure == "not now"
    assert undone == [True]
    store.before_commit.clear()
    assert await store.write(note(1)) == 1
    assert store.failure is None
    assert await notes(store) == [1]


async def test_a_closed_store_commits_what_waits_and_takes_nothing_more(store: Store) -> None:
    future = store.submit(note(1))
    await store.close()
    assert await future == 1
    with pytest.raises(StoreError, match="closed"):
        await store.write(note(2))
    with pytest.raises(StoreError, match="closed"):
        await store.read(lambda connection: None)
    await store.close()


async def test_the_wal_stays_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store._writer, "_wal_limit", 200_000)
    wal = 0
    for _ in range(300):
        for number in range(40):
            store.submit(note(number))
        await store.drain()
        wal = max(wal, store.sizes()["wal"])
    assert 0 < wal < 64 * 50_000
    assert store.sizes()["wal"] < 64 * 50_000
    assert store.sizes()["db"] > 0
