"""The book of decisions: changed ones are entries, equal ones a count, whatever the order, failures and restarts."""

import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki_agent.errors import StoreError
from kiki_agent.ledger import DecisionBook, Ledger
from kiki_agent.model import SECOND, Decision, DecisionOutcome, DecisionSource, Instant
from kiki_agent.store import Store

Agent = tuple[Store, Ledger]
OpenAgent = Callable[..., Awaitable[Agent]]
TICK = 2 * SECOND


def decision(campaign: str = "c-1", bid: int = 1_000_000, **changes: object) -> Decision:
    made = Decision(
        "meta", campaign, "meta", bid, DecisionOutcome.ACCEPTED, "ON_PLAN", DecisionSource.AI, "v1", 300_000_000
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def bodies(store: Store) -> list[str]:
    rows = await store.read(
        lambda connection: connection.execute(
            "SELECT body FROM ledger_entries WHERE kind = 'decision' ORDER BY seq"
        ).fetchall()
    )
    return [body for (body,) in rows]


async def test_equal_decisions_are_counted_and_the_count_enters_with_the_one_that_ends_them(agent: Agent) -> None:
    store, ledger = agent
    book = DecisionBook(store, ledger)
    for number in range(10):
        now = Instant(number * TICK)
        book.record(now, [decision(bid=1_000_000 if number < 7 else 1_050_000, ltv_micros=300_000_000 + number)])
        book.tick(now)
    await book.flush(Instant(20 * SECOND))
    assert book.changes == 2
    found, total = await book.decisions()
    assert total == 2
    new, old = found
    assert (new.decision.bid_micros, new.ticks, new.current) == (1_050_000, 3, True)
    assert (new.first_at, new.last_at) == (7 * TICK, 9 * TICK)
    assert (old.decision, old.ticks, old.current) == (decision(), 7, False)
    assert (old.first_at, old.last_at) == (0, 7 * TICK)
    assert '"ended_ticks":7' in (await bodies(store))[1]
    assert (await ledger.verify()).ok


@pytest.mark.parametrize(
    "change",
    [
        {"bid_micros": 2},
        {"outcome": DecisionOutcome.REDUCED},
        {"reason": "DAILY_CAP"},
        {"source": DecisionSource.FALLBACK},
        {"model_version": "v2"},
    ],
)
async def test_each_part_of_the_identity_makes_a_decision_new(agent: Agent, change: dict[str, object]) -> None:
    store, ledger = agent
    book = DecisionBook(store, ledger)
    book.record(Instant(1), [decision()])
    book.record(Instant(2), [decision(ltv_micros=5)])
    assert book.changes == 1
    book.record(Instant(3), [decision(**change)])
    assert book.changes == 2
    await store.drain()
    assert len(await bodies(store)) == 2


SCRIPT = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 2)), max_size=3),
        st.booleans(),
        st.sampled_from(["", "", "", "restart", "refuse"]),
    ),
    max_size=25,
)


@given(SCRIPT, st.booleans())
@settings(max_examples=30, deadline=None)
def test_runs_are_the_run_lengths_of_what_was_decided(
    script: list[tuple[list[tuple[str, int]], bool, str]], record_first: bool
) -> None:
    async def run(folder: Path) -> None:
        refusing = False

        def hook(connection: sqlite3.Connection) -> None:
            if refusing:
                raise StoreError("no")

        async def start() -> tuple[Store, DecisionBook]:
            store = await Store.open(folder / "a.db", now=Instant(0), synchronous="OFF", readers=1)
            ledger = await Ledger.open(store, folder / "head", client_id="demo", now=Instant(0))
            store.before_commit.append(hook)
            book = DecisionBook(store, ledger)
            await book.load()
            return store, book

        in_force: dict[str, int] = {}
        expected: dict[str, list[list[int]]] = {name: [] for name in "abc"}
        store, book = await start()
        for number, (changes, wait, event) in enumerate(script, start=1):
            now = Instant(number * TICK)
            refusing = event == "refuse"
            decisions = []
            for name, bid in dict(changes).items():
                decisions.append(decision(name, bid))
                if in_force.get(name) != bid:
                    in_force[name] = bid
                    expected[name].append([bid, 0])
            for name in in_force:
                expected[name][-1][1] += 1
            for step in ("record", "tick") if record_first else ("tick", "record"):
                if step == "tick":
                    book.tick(now)
                else:
                    book.record(now, decisions)
            if wait or event:
                await store.drain()
                await asyncio.sleep(0)
            refusing = False
            if event == "restart":
                await book.flush(now)
                await store.close()
                store, book = await start()
        await book.flush(Instant((len(script) + 1) * TICK))
        for name, runs in expected.items():
            found, total = await book.decisions(campaign_id=name)
            assert total == len(runs)
            assert [[each.decision.bid_micros, each.ticks] for each in reversed(found)] == runs
        assert book.failure is None
        await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


def mark(ledger: Ledger, at: Instant, connection: sqlite3.Connection) -> None:
    ledger.append(connection, at, "control", {"at": at})


async def test_the_order_of_the_ledger_is_that_of_the_calls_however_the_batches_fall(tmp_path: Path) -> None:
    heads = set()
    for name, pauses in (("a", 0), ("b", 1), ("c", 3)):
        store = await Store.open(tmp_path / f"{name}.db", now=Instant(0))
        ledger = await Ledger.open(store, tmp_path / f"{name}.head", client_id="demo", now=Instant(0))
        book = DecisionBook(store, ledger)
        for number in range(60):
            now = Instant(number * TICK)
            book.record(now, [decision(bid=number), decision("c-2", number // 2)])
            book.tick(now)
            if number % 5 == 0:
                store.submit(partial(mark, ledger, now))
            if pauses and number % pauses == 0:
                await store.drain()
        await store.drain()
        heads.add(ledger.head)
        await store.close()
    assert len(heads) == 1


async def test_decisions_made_while_the_database_refuses_are_written_when_it_is_cured(agent: Agent) -> None:
    store, ledger = agent
    book = DecisionBook(store, ledger)

    def fail(connection: sqlite3.Connection) -> None:
        raise StoreError("the disk is full")

    store.before_commit.append(fail)
    for number in range(5):
        book.record(Instant(number * TICK), [decision(bid=number + 1)])
        book.tick(Instant(number * TICK))
        await store.drain()
        await asyncio.sleep(0)
    assert store.failure == "the disk is full"
    assert await bodies(store) == []
    store.before_commit.remove(fail)
    book.tick(Instant(5 * TICK))  # nothing changed: the tick alone tries again
    await store.drain()
    assert store.failure is None
    assert len(await bodies(store)) == 5
    found, _ = await book.decisions()
    assert [each.decision.bid_micros for each in found] == [5, 4, 3, 2, 1]
    assert [each.ticks for each in found] == [2, 1, 1, 1, 1]


async def test_too_many_unwritten_decisions_stop_the_loop_that_makes_them(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ledger = agent
    monkeypatch.setattr("kiki_agent.ledger.decisions.MOST_LOST", 3)
    book = DecisionBook(store, ledger)

    def fail(connection: sqlite3.Connection) -> None:
        raise StoreError("no")

    store.before_commit.append(fail)
    for number in range(4):
        book.record(Instant(number), [decision(bid=number + 1)])
        await store.drain()
        await asyncio.sleep(0)
    with pytest.raises(StoreError, match="4 decisions wait"):
        book.record(Instant(9), [decision(bid=9)])


async def test_decisions_can_be_asked_for_by_campaign_platform_source_and_time(agent: Agent) -> None:
    store, ledger = agent
    book = DecisionBook(store, ledger)
    for number in range(30):
        now = Instant(number * TICK)
        platform = ("meta", "x", "tiktok")[number % 3]
        source = DecisionSource.FALLBACK if number % 10 == 0 else DecisionSource.AI
        book.record(now, [decision(f"c-{number % 5}", number + 1, platform=platform, source=source)])
        book.tick(now)
    await store.drain()

    async def asked(**wanted: object) -> tuple[list[int], int]:
        found, total = await book.decisions(**wanted)  # type: ignore[arg-type]
        return [each.decision.bid_micros for each in found], total

    assert await asked() == (list(range(30, 0, -1)), 30)
    assert await asked(limit=3, offset=2) == ([28, 27, 26], 30)
    assert await asked(campaign_id="c-1") == ([27, 22, 17, 12, 7, 2], 6)
    assert await asked(platform="x", campaign_id="c-1") == ([17, 2], 2)
    assert await asked(source="fallback") == ([21, 11, 1], 3)
    assert await asked(since=Instant(27 * TICK)) == ([30, 29, 28], 3)
    assert await asked(since=Instant(27 * TICK - 1), source="ai", limit=2) == ([30, 29], 3)
    assert await asked(since=Instant(999 * TICK)) == ([], 0)
    assert await asked(campaign_id="none") == ([], 0)
