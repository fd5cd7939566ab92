"""Cuts while the database takes no writes: written down before they are sent, in the ledger once, never sent twice."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from kiki_agent.errors import StoreError, UnknownOutcome
from kiki_agent.ledger import Ledger, Outbox, verify_file
from kiki_agent.ledger.fallback import Fallback
from kiki_agent.model import SECOND, Instant, Intent, IntentKind, Outcome, Receipt
from kiki_agent.store import Store

Agent = tuple[Store, Ledger]
OpenAgent = Callable[..., Awaitable[Agent]]
T0 = Instant(100 * SECOND)
LATER = Instant(200 * SECOND)
KIND = IntentKind.SET_STATUS


def cut(number: int = 1, before: int = 1, after: int = 0) -> Intent:
    return Intent(f"key-{number}", KIND, "meta", f"c-{number}", before, after, "USD", "SAFE_HOLD", T0)


class Vendor:
    """Does what it is asked, and remembers."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.lose = False

    async def __call__(self, instance: str, verb: str, arguments: tuple[object, ...]) -> object:
        (intents,) = arguments
        assert isinstance(intents, Sequence)
        if verb == "reconcile":
            return [
                Receipt(each.key, Outcome.ACCEPTED if each.key in self.effects else Outcome.REJECTED, "READ_BACK")
                for each in intents
            ]
        self.effects += [each.key for each in intents]
        if self.lose:
            raise UnknownOutcome("lost")
        return [Receipt(each.key, Outcome.ACCEPTED) for each in intents]


class Desk:
    """An outbox with a fallback, over a database that can be shut."""

    def __init__(self, agent: Agent, folder: Path, vendor: Vendor) -> None:
        self.store, self.ledger = agent
        self.fallback = Fallback(folder / "agent.cuts", 64 * 1024)
        self.outbox = Outbox(self.store, self.ledger, vendor, settle=SECOND)
        self.outbox.fallback = self.fallback
        self.confirmed: list[tuple[str, Outcome]] = []
        self.outbox.confirm_handlers.append(lambda connection, intent, receipt: self._note(intent, receipt))

    def _note(self, intent: Intent, receipt: Receipt) -> None:
        self.confirmed.append((intent.key, receipt.outcome))

    async def shut(self, closed: bool = True) -> None:
        switch = "ON" if closed else "OFF"
        await self.store._seat.run(lambda connection: connection.execute(f"PRAGMA query_only = {switch}").fetchall())

    async def states(self) -> dict[str, str]:
        def read(connection: sqlite3.Connection) -> dict[str, str]:
            return dict(connection.execute("SELECT key, state FROM intents ORDER BY key").fetchall())

        return await self.store.read(read)


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
async def desk(open_agent: OpenAgent, tmp_path: Path, vendor: Vendor) -> Desk:
    desk = Desk(await open_agent(), tmp_path, vendor)
    await desk.outbox.load(T0)
    return desk


async def test_a_cut_goes_out_and_enters_the_ledger_when_it_can(desk: Desk, vendor: Vendor) -> None:
    await desk.shut()
    (receipt,) = await desk.outbox.send(T0, "meta", KIND, [cut()])
    assert receipt.outcome is Outcome.ACCEPTED
    assert await desk.states() == {}
    assert desk.fallback.pending == 1
    assert desk.outbox.unsettled("meta", "c-1"), "nothing more is meant for it before"
    assert await desk.outbox.reconcile(LATER) == 0, "the database still takes nothing"
    assert desk.fallback.pending == 1
    await desk.shut(False)
    await desk.outbox.reconcile(LATER)
    assert await desk.states() == {"key-1": "accepted"}
    assert desk.confirmed == [("key-1", Outcome.ACCEPTED)]
    assert desk.fallback.pending == 0
    assert not desk.outbox.unsettled("meta", "c-1")
    assert vendor.effects == ["key-1"]
    assert (await desk.ledger.verify()).ok


async def test_a_raise_never_goes_out(desk: Desk, vendor: Vendor) -> None:
    await desk.shut()
    with pytest.raises(StoreError):
        await desk.outbox.send(T0, "meta", KIND, [cut(1), cut(2, before=0, after=1)])
    assert vendor.effects == []
    assert desk.fallback.pending == 0


async def test_a_cut_is_not_sent_twice_even_by_another_process(
    desk: Desk, vendor: Vendor, open_agent: OpenAgent, tmp_path: Path
) -> None:
    await desk.shut()
    vendor.lose = True
    (receipt,) = await desk.outbox.send(T0, "meta", KIND, [cut()])
    assert receipt.outcome is Outcome.UNKNOWN
    (again,) = await desk.outbox.send(T0, "meta", KIND, [cut()])
    assert again.outcome is Outcome.UNKNOWN
    assert vendor.effects == ["key-1"]
    desk.fallback.close()
    await desk.store.close()  # as a crash would: nothing of it is in the database

    other = Desk(await open_agent(now=2_000_000), tmp_path, vendor)
    await other.outbox.load(T0)
    assert await other.states() == {"key-1": "unknown"}
    assert other.fallback.pending == 0
    (again,) = await other.outbox.send(T0, "meta", KIND, [cut()])
    assert again.outcome is Outcome.UNKNOWN
    assert await other.outbox.reconcile(LATER) == 1
    assert await other.states() == {"key-1": "accepted"}
    assert vendor.effects == ["key-1"], "read back, not sent again"
    other.fallback.close()


async def test_a_crash_between_the_ledger_and_the_file_enters_nothing_twice(
    desk: Desk, vendor: Vendor, open_agent: OpenAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.shut()
    await desk.outbox.send(T0, "meta", KIND, [cut(1), cut(2)])
    await desk.shut(False)
    await desk.store.probe()
    monkeypatch.setattr(desk.fallback, "clear", lambda: (_ for _ in ()).throw(StoreError("the power went")))
    with pytest.raises(StoreError, match="power"):
        await desk.outbox.reconcile(LATER)
    desk.fallback.close()
    await desk.store.close()
    other = Desk(await open_agent(now=2_000_000), tmp_path, vendor)
    await other.outbox.load(LATER)
    assert await other.states() == {"key-1": "accepted", "key-2": "accepted"}
    assert other.confirmed == []
    rows = await other.store.read(
        lambda connection: connection.execute(
            "SELECT kind, count(*) FROM ledger_entries WHERE kind IN ('intent', 'receipt') GROUP BY 1 ORDER BY 1"
        ).fetchall()
    )
    assert rows == [("intent", 2), ("receipt", 2)]
    other.fallback.close()
    await other.store.close()
    assert verify_file(tmp_path / "agent.db", tmp_path / "ledger.head").ok


def test_a_line_cut_off_while_it_was_written_led_to_no_call(tmp_path: Path) -> None:
    path = tmp_path / "cuts"
    file = Fallback(path, 8192)
    file.prepare()
    file.write_intents(T0, [cut(1)])
    end = file._end
    file.write_intents(T0, [cut(2)])
    file.close()
    data = bytearray(path.read_bytes())
    data[end + 40 :] = bytes(len(data) - end - 40)
    path.write_bytes(bytes(data))
    again = Fallback(path, 8192)
    again.prepare()
    assert [each.intent.key for each in again.read()] == ["key-1"]
    again.write_intents(T0, [cut(3)])
    assert [each.intent.key for each in again.read()] == ["key-1", "key-3"]
    again.close()


def test_the_room_is_taken_beforehand_and_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cuts"
    file = Fallback(path, 4096)
    file.prepare()
    assert path.stat().st_size == 4096
    assert path.stat().st_blocks * 512 >= 4096, "written, not only promised"
    with pytest.raises(StoreError, match="is full"):
        file.write_intents(T0, [cut(number) for number in range(40)])
    assert file.pending == 0
    file.write_intents(T0, [cut(1)])
    assert path.stat().st_size == 4096
    file.clear()
    assert file.pending == 0
    assert path.read_bytes() == bytes(4096)
    file.close()


def test_a_file_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="the file for cuts"):
        Fallback(tmp_path / "file" / "cuts").prepare()
    assert os.listdir(tmp_path) == ["file"]
