"""A real store, the accounts on it, and a poller reading a scripted platform."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from kiki_agent.accounts import Account, Accounts, Poller
from kiki_agent.model import MINUTE, Instant, SpendReport
from kiki_agent.store import Store

from .platform import NOON, ScriptedPlatform, campaign

ACCOUNTS = (Account("google", "google_ads"), Account("meta", "meta"))


class Desk:
    """Everything one test needs."""

    def __init__(self, store: Store, accounts: Accounts, platform: ScriptedPlatform) -> None:
        self.store = store
        self.accounts = accounts
        self.platform = platform
        self.booked: list[tuple[str, SpendReport, Instant]] = []
        self.poller = self.make_poller()

    def make_poller(self, accounts: Accounts | None = None) -> Poller:
        """A poller of `meta`, every minute, reports every five."""
        return Poller(
            accounts or self.accounts,
            "meta",
            self.platform,
            self.book,
            poll_interval=MINUTE,
            report_interval=5 * MINUTE,
            history_days=7,
        )

    async def book(self, connector: str, report: SpendReport, now: Instant) -> None:
        self.booked.append((connector, report, now))

    async def poll(self, now: int) -> str | None:
        """One tick, with the platform's data up to the minute."""
        self.platform.as_of = Instant(now)
        return await self.poller.tick(Instant(now))


Open = Callable[[], Awaitable[Store]]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = await Store.open(tmp_path / "a.db", synchronous="OFF", now=NOON)
    accounts = await Accounts.open(store, ACCOUNTS, lookback_days=7, now=NOON)
    made = Desk(store, accounts, ScriptedPlatform([campaign("b"), campaign("a")]))
    yield made
    await made.store.close()
