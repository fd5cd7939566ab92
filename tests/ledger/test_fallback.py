"""Cuts that are written down beside the database: none is forgotten while others enter the ledger."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.ledger import Ledger, Outbox
from kiki_agent.ledger.fallback import Fallback
from kiki_agent.model import SECOND, Instant, Intent, IntentKind, Outcome, Receipt, intent_key
from kiki_agent.store import Store

Agent = tuple[Store, Ledger]
NOW = Instant(100 * SECOND)
KIND = IntentKind.ADJUST_BID


def cut(campaign: str) -> Intent:
    key = intent_key("meta", campaign, KIND, NOW)
    return Intent(key, KIND, "meta", campaign, 2_000_000, 1_000_000, "USD", "SAFE_HOLD", NOW)


async def accept(instance_id: str, verb: str, args: tuple[Any, ...]) -> object:
    return [Receipt(each.key, Outcome.ACCEPTED) for each in args[0]]


def states(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT campaign_id, state FROM intents"))


class Disk:
    """Stands before a store's `write`: full for the next so many writes; or tells that one was begun."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = 0
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self._write = store.write
        monkeypatch.setattr(store, "write", self.write)

    async def write(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        if self.full:
            self.full -= 1
            raise StoreError("the disk is full")
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await self._write(work)


async def test_a_cut_made_while_others_enter_the_ledger_is_not_forgotten(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ledger = agent
    outbox = Outbox(store, ledger, accept)
    outbox.fallback = Fallback(tmp_path / "agent.cuts")
    await outbox.load(NOW)
    disk = Disk(store, monkeypatch)
    disk.full = 1
    assert (await outbox.send(NOW, "meta", KIND, [cut("one")]))[0].outcome is Outcome.ACCEPTED
    assert outbox.fallback.pending == 1
    second: list[asyncio.Task[list[Receipt]]] = []

    async def another_cut() -> None:
        disk.full = 1
        second.append(asyncio.create_task(outbox.send(NOW, "meta", KIND, [cut("two")])))
        await asyncio.wait(second, timeout=0.1)

    disk.meanwhile = another_cut
    await outbox.reconcile(NOW)
    assert (await second[0])[0].outcome is Outcome.ACCEPTED
    await outbox.reconcile(NOW)
    assert await store.read(states) == {"one": "accepted", "two": "accepted"}
    assert outbox.fallback.pending == 0
    assert outbox.unsettled_count == 0
    assert (await ledger.verify()).ok
