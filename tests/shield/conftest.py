"""A real store, a real ledger and a shield on top of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.config import Settings
from kiki_agent.errors import Denied
from kiki_agent.ledger import Ledger
from kiki_agent.model import Instant, parse_iso
from kiki_agent.shield import Caps, Shield
from kiki_agent.store import Store

NOON = parse_iso("2026-03-10T12:00:00")
UNIT = 1_000_000
SECOND = 1_000_000


def settings(**tables: Any) -> Settings:
    """Settings with two connectors of known platforms."""
    connectors = {
        "meta": {"plugin": "sandbox", "platform": "meta"},
        "google": {"plugin": "sandbox", "platform": "google_ads"},
    }
    return Settings.model_validate({"connector": connectors, **tables})


def caps(daily: int | None = 10_000, window: int | None = 1_000, timezone: str = "UTC") -> Caps:
    """Caps in whole units."""
    return Caps(None if daily is None else daily * UNIT, None if window is None else window * UNIT, timezone=timezone)


class House:
    """What a test has in hands: a shield and the store and ledger under it."""

    def __init__(self, store: Store, ledger: Ledger, shield: Shield, events: list[tuple[str, Mapping[str, object]]]):
        self.store = store
        self.ledger = ledger
        self.shield = shield
        self.events = events

    async def rows(self, sql: str, *args: object) -> list[Any]:
        await self.store.drain()
        return await self.store.read(lambda connection: connection.execute(sql, args).fetchall())


Opens = Callable[..., Any]


@pytest.fixture
def opens(tmp_path: Path) -> Opens:
    """Opens a house on this test's database; leaving it closes the store but not the shield, as a crash would."""

    @asynccontextmanager
    async def house(
        connectors: Mapping[str, Caps] | None = None, now: Instant = NOON, config: Settings | None = None
    ) -> AsyncIterator[House]:
        events: list[tuple[str, Mapping[str, object]]] = []
        store = await Store.open(tmp_path / "agent.db", synchronous="OFF", readers=1, now=now)
        try:
            ledger = await Ledger.open(store, tmp_path / "head", client_id="demo", now=now)
            shield = await Shield.open(
                store,
                ledger,
                config or settings(),
                connectors if connectors is not None else {"meta": caps()},
                now,
                on_event=lambda topic, data: events.append((topic, data)),
            )
            yield House(store, ledger, shield, events)
            assert (await ledger.verify()).ok
        finally:
            await store.close()

    return house


async def refused(wish: Awaitable[object]) -> str:
    """The reason code with which a wish was refused."""
    with pytest.raises(Denied) as denied:
        await wish
    return str(denied.value.reason)
