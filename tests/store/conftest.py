"""Stores that are closed when the test ends."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.model import Instant
from kiki_agent.store import Store

OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture
async def open_store(tmp_path: Path) -> AsyncIterator[OpenStore]:
    stores: list[Store] = []

    async def open_store(name: str = "agent.db", **options: Any) -> Store:
        options.setdefault("busy_seconds", 0.05)
        store = await Store.open(tmp_path / name, now=Instant(1), **options)
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    """A store with a table `notes` to write into."""
    store = await open_store()
    await store.write(lambda connection: connection.execute("CREATE TABLE notes (n INTEGER NOT NULL) STRICT"))
    return store
