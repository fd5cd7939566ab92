"""A store with a ledger, closed when the test ends, and a way to damage what is closed."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from kiki_agent.ledger import Ledger
from kiki_agent.model import Instant
from kiki_agent.store import Store

Agent = tuple[Store, Ledger]
OpenAgent = Callable[..., Awaitable[Agent]]
Tamper = Callable[..., None]


@pytest.fixture
async def open_agent(tmp_path: Path) -> AsyncIterator[OpenAgent]:
    stores: list[Store] = []

    async def open_agent(now: int = 1_000_000, client_id: str = "demo") -> Agent:
        store = await Store.open(tmp_path / "agent.db", now=Instant(now))
        stores.append(store)
        return store, await Ledger.open(store, tmp_path / "ledger.head", client_id=client_id, now=Instant(now))

    yield open_agent
    for store in stores:
        await store.close()


@pytest.fixture
async def agent(open_agent: OpenAgent) -> Agent:
    return await open_agent()


@pytest.fixture
def tamper(tmp_path: Path) -> Tamper:
    """Run SQL on the closed database as a forger would: without triggers and checks."""

    def tamper(*statements: str) -> None:
        connection = sqlite3.connect(tmp_path / "agent.db")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return tamper
