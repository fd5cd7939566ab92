"""The journal: the chain, its head inside transactions, the head outside, and what a start finds."""

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki_agent.errors import Fault, StoreError
from kiki_agent.ledger import DecisionBook, Ledger
from kiki_agent.ledger.canonical import GENESIS, canonical, entry_hash
from kiki_agent.ledger.upkeep import HeadLoop, VerifyLoop
from kiki_agent.model import Instant
from kiki_agent.store import Damaged, Store
from kiki_agent.store.writer import HIGH_WATER

Agent = tuple[Store, Ledger]
OpenAgent = Callable[..., Awaitable[Agent]]


def entries(connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
    return connection.execute("SELECT seq, kind, body FROM ledger_entries ORDER BY seq").fetchall()


def add(ledger: Ledger, at: int, number: int) -> Callable[[sqlite3.Connection], int]:
    return lambda connection: ledger.append(connection, Instant(at), "control", {"number": number})


async def test_a_new_ledger_begins_with_its_client_and_the_epoch(agent: Agent) -> None:
    store, ledger = agent
    assert await store.read(entries) == [
        (1, "genesis", '{"client_id":"demo","format":1}'),
        (2, "epoch", '{"epoch":1}'),
    ]
    assert ledger.hold_reason is None
    assert ledger.head[0] == 2


async def test_each_hash_covers_the_one_before_and_the_text_as_stored(agent: Agent) -> None:
    store, ledger = agent
    await store.write(add(ledger, 7, 1))
    rows = await store.read(
        lambda connection: connection.execute("SELECT seq, at, kind, body, hash FROM ledger_entries").fetchall()
    )
    digest = GENESIS
    for seq, at, kind, body, stored in rows:
        digest = entry_hash(digest, seq, at, kind.encode(), body.encode())
        assert stored == digest
    assert ledger.head == (3, digest.hex())


def test_the_form_that_is_hashed_never_changes() -> None:
    """Ledgers written by any earlier version must verify: these two values are for ever."""
    assert (
        canonical({"b": [1, None, True], "a": {"z": "é\n", "y": -2}})
        == '{"a":{"y":-2,"z":"é\\n"},"b":[1,null,true]}'.encode()
    )
    digest = entry_hash(GENESIS, 1, 1_700_000_000_000_000, b"genesis", b'{"client_id":"demo","format":1}')
    assert digest.hex() == "cc044017d7cc4650716c7b68c0c9283e9374c7e96009779aeaa9a0c2d3c86d50"


@pytest.mark.parametrize("body", [{"x": 1.5}, {"x": [1, 2.0]}, {"x": {"y": 0.1}}, {"x": b"raw"}, {"x": {1: 2}}])
async def test_floats_and_foreign_values_are_refused(agent: Agent, body: dict[str, object]) -> None:
    store, ledger = agent
    with pytest.raises(ValueError, match="ledger body"):
        await store.write(lambda connection: ledger.append(connection, Instant(1), "control", body))
    assert (await ledger.verify()).ok


async def test_unknown_kinds_and_appends_outside_a_transaction_are_refused(agent: Agent) -> None:
    store, ledger = agent
    with pytest.raises(ValueError, match="not a kind"):
        await store.write(lambda connection: ledger.append(connection, Instant(1), "other", {}))
    loose = sqlite3.connect(":memory:")
    with pytest.raises(RuntimeError, match="inside a function"):
        ledger.append(loose, Instant(1), "control", {})
    loose.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_entries SET body = '{}' WHERE seq = 1",
        "DELETE FROM ledger_entries WHERE seq = 2",
        "INSERT OR REPLACE INTO ledger_entries (seq, at, kind, body, hash) VALUES (1, 1, 'x', '{}', zeroblob(32))",
        "INSERT INTO ledger_entries (seq, at, kind, body, hash) VALUES (9, 1, 'x', '{}', zeroblob(32))",
        "INSERT INTO ledger_entries (at, kind, body, hash) VALUES (1, 'x', '{}', zeroblob(32))",
    ],
)
async def test_the_database_refuses_what_is_not_an_append(agent: Agent, statement: str) -> None:
    store, ledger = agent
    before = await store.read(entries)
    with pytest.raises(sqlite3.IntegrityError):
        await store.write(lambda connection: connection.execute(statement))
    assert await store.read(entries) == before
    await store.write(add(ledger, 3, 3))
    assert (await ledger.verify()).ok


async def test_a_function_that_raises_takes_its_entries_out_of_the_chain(agent: Agent) -> None:
    store, ledger = agent

    def bad(connection: sqlite3.Connection) -> None:
        add(ledger, 5, 5)(connection)
        raise KeyError

    first, middle, last = store.submit(add(ledger, 4, 4)), store.submit(bad), store.submit(add(ledger, 6, 6))
    with pytest.raises(KeyError):
        await middle
    assert (await first, await last) == (3, 4)
    assert (await ledger.verify()).entries == 4
    assert ledger.head[0] == 4


async def test_the_committed_head_is_known_when_the_last_function_of_a_batch_failed(agent: Agent) -> None:
    store, ledger = agent

    def bad(connection: sqlite3.Connection) -> None:
        raise KeyError

    store.submit(add(ledger, 4, 4))
    with pytest.raises(KeyError):
        await store.submit(bad)
    assert ledger.head[0] == 3


async def test_a_failed_commit_restores_the_head(agent: Agent) -> None:
    store, ledger = agent
    before = ledger.head

    def fail(connection: sqlite3.Connection) -> None:
        raise StoreError("the disk says no")

    store.before_commit.append(fail)
    for number in range(3):
        with pytest.raises(StoreError, match="the disk says no"):
            await store.write(add(ledger, number, number))
    assert ledger.head == before
    store.before_commit.remove(fail)
    assert await store.write(add(ledger, 9, 9)) == before[0] + 1
    assert (await ledger.verify()).ok


ACTIONS = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=5).map(tuple)
    | st.just("fail the commit")
    | st.just("restart"),
    max_size=8,
)


@given(ACTIONS)
@settings(max_examples=25, deadline=None)
def test_whatever_fails_the_chain_holds_exactly_what_was_committed(
    actions: list[tuple[tuple[int, bool], ...] | str],
) -> None:
    """Each number is how many entries a function appends; the flag says whether it raises afterwards."""

    async def run(folder: Path) -> None:
        expected: list[int] = []
        failing = False
        number = 0

        def hook(connection: sqlite3.Connection) -> None:
            if failing:
                raise StoreError("no")

        async def start() -> Agent:
            store = await Store.open(folder / "agent.db", now=Instant(1), synchronous="OFF", readers=1)
            ledger = await Ledger.open(store, folder / "head", client_id="demo", now=Instant(1))
            assert ledger.hold_reason is None
            store.before_commit.append(hook)
            return store, ledger

        def work(ledger: Ledger, numbers: list[int], raises: bool) -> Callable[[sqlite3.Connection], None]:
            def work(connection: sqlite3.Connection) -> None:
                for each in numbers:
                    ledger.append(connection, Instant(2), "control", {"number": each})
                if raises:
                    raise KeyError

            return work

        store, ledger = await start()
        for action in actions:
            if action == "restart":
                await store.close()
                store, ledger = await start()
                continue
            failing = action == "fail the commit"
            futures = []
            for count, raises in [(2, False), (1, True)] if isinstance(action, str) else action:
                numbers = list(range(number, number + count))
                number += count
                futures.append(store.submit(work(ledger, numbers, raises)))
                if not raises and not failing:
                    expected += numbers
            await asyncio.gather(*futures, return_exceptions=True)
        failing = False
        found = await store.read(
            lambda connection: connection.execute(
                "SELECT json_extract(body, '$.number') FROM ledger_entries WHERE kind = 'control' ORDER BY seq"
            ).fetchall()
        )
        assert [each for (each,) in found] == expected
        verification = await ledger.verify()
        assert verification.ok
        assert (verification.entries, verification.head_hash) == ledger.head
        await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


async def test_the_same_facts_give_the_same_chain_wherever_and_however_they_are_batched(tmp_path: Path) -> None:
    heads = []
    for name, together in (("a", True), ("b", False)):
        os.mkdir(tmp_path / name)
        store = await Store.open(tmp_path / name / "x.db", now=Instant(1))
        ledger = await Ledger.open(store, tmp_path / name / "head", client_id="demo", now=Instant(1))
        for number in range(20):
            future = store.submit(add(ledger, number, number))
            if not together:
                await future
        await store.drain()
        heads.append(ledger.head)
        await store.close()
    assert heads[0] == heads[1]


# -- starts -------------------------------------------------------------------------------------------------------


async def test_rows_after_the_known_head_are_fine(open_agent: OpenAgent) -> None:
    store, ledger = await open_agent()
    await ledger.write_head()
    for number in range(5):
        await store.write(add(ledger, number, number))
    await store.close()
    store, ledger = await open_agent()
    assert ledger.hold_reason is None
    assert ledger.head[0] == 8  # genesis, epoch, five, epoch


async def test_an_emptied_database_with_a_known_head_holds_at_every_start(
    open_agent: OpenAgent, tmp_path: Path
) -> None:
    store, ledger = await open_agent()
    await store.close()
    os.unlink(tmp_path / "agent.db")
    for start in range(2):
        store, ledger = await open_agent(now=2_000_000 + start)
        assert ledger.hold_reason is not None
        assert "known to have been written" in ledger.hold_reason or "not the one known" in ledger.hold_reason
        await store.write(add(ledger, 1, 1))
        await ledger.write_head()
        await store.close()


@pytest.mark.parametrize("content", [b"", b"{", b'{"seq":"x"}', b"\xff\xfe"])
async def test_an_unreadable_head_holds(open_agent: OpenAgent, tmp_path: Path, content: bytes) -> None:
    store, ledger = await open_agent()
    await store.close()
    (tmp_path / "ledger.head").write_bytes(content)
    store, ledger = await open_agent()
    assert ledger.hold_reason is not None
    assert "unreadable" in ledger.hold_reason
    assert (tmp_path / "ledger.head").read_bytes() == content


async def test_a_missing_head_beside_a_grown_ledger_holds(open_agent: OpenAgent, tmp_path: Path) -> None:
    store, ledger = await open_agent()
    await store.close()
    os.unlink(tmp_path / "ledger.head")
    store, ledger = await open_agent()  # nothing but its birth: a crash before the first head was written
    assert ledger.hold_reason is None
    await store.write(add(ledger, 1, 1))
    await store.close()
    os.unlink(tmp_path / "ledger.head")
    store, ledger = await open_agent()
    assert ledger.hold_reason is not None
    assert "missing" in ledger.hold_reason


async def test_another_clients_ledger_holds(open_agent: OpenAgent) -> None:
    store, ledger = await open_agent()
    await store.close()
    store, ledger = await open_agent(client_id="other")
    assert ledger.hold_reason is not None
    assert "belongs to client 'demo'" in ledger.hold_reason


async def test_an_empty_store_can_stand_in_for_a_damaged_one_and_holds(tmp_path: Path) -> None:
    (tmp_path / "agent.db").write_bytes(b"rotten" * 1000)
    with pytest.raises(Damaged) as damage:
        await Store.open(tmp_path / "agent.db", now=Instant(1))
    store = await Store.open(tmp_path / "agent.hold.db", now=Instant(1))
    head = tmp_path / "ledger.head"
    ledger = await Ledger.open(store, head, client_id="demo", now=Instant(1), hold=str(damage.value))
    assert ledger.hold_reason == str(damage.value)
    await store.write(add(ledger, 1, 1))
    await ledger.write_head()
    await store.close()
    assert "ledger.head" not in os.listdir(tmp_path)


async def test_the_upkeep_writes_the_head_and_notices_a_cure(agent: Agent, tmp_path: Path) -> None:
    store, ledger = agent
    book = DecisionBook(store, ledger)
    loop = HeadLoop(ledger, book, store, 1.0)

    def fail(connection: sqlite3.Connection) -> None:
        raise StoreError("the disk is full")

    store.before_commit.append(fail)
    with pytest.raises(StoreError):
        await store.write(add(ledger, 1, 1))
    assert await loop.tick(Instant(1)) == "the database cannot be written: the disk is full"
    store.before_commit.remove(fail)
    await store.write(add(ledger, 1, 1))
    assert await loop.tick(Instant(2)) is None
    assert '"seq":3' in (tmp_path / "ledger.head").read_text()
    assert await VerifyLoop(ledger, 60.0).tick(Instant(3)) is None
    for number in range(HIGH_WATER):
        store.submit(add(ledger, number, number))
    assert store.queue_depth >= HIGH_WATER
    assert await loop.tick(Instant(3)) is None
    assert store.queue_depth < HIGH_WATER
    ledger.hold_reason = "forged"
    assert await loop.tick(Instant(4)) == "the chain is not trusted: forged"
    book.failure = "3 decisions could not be written"
    with pytest.raises(Fault, match="3 decisions"):
        await loop.tick(Instant(5))


async def test_the_head_outside_follows_the_committed_one(agent: Agent, tmp_path: Path) -> None:
    store, ledger = agent
    await store.write(add(ledger, 1, 1))
    await asyncio.gather(*[ledger.write_head() for _ in range(5)])
    text = (tmp_path / "ledger.head").read_text()
    assert ledger.head[1] in text
    assert '"seq":3' in text


async def test_verification_goes_on_from_the_checkpoint(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ledger = agent
    for number in range(50):
        store.submit(add(ledger, number, number))
    await store.drain()
    assert (await ledger.verify()).entries == 52
    monkeypatch.setattr("kiki_agent.ledger.verify.CHUNK", 7)
    asked: list[int] = []
    from kiki_agent.ledger.verify import Walk

    plain = Walk.chunk

    def counting(self: Walk, connection: sqlite3.Connection) -> bool:
        asked.append(self.seq)
        return plain(self, connection)

    monkeypatch.setattr(Walk, "chunk", counting)
    await store.write(add(ledger, 60, 60))
    assert (await ledger.verify(whole=False)).entries == 53
    assert asked == [52]
    asked.clear()
    assert (await ledger.verify(whole=True)).entries == 53
    assert asked[0] == 0
    assert len(asked) == 8
