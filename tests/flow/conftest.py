"""The two-second loop between a real store, ledger and shield and a small market."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from kiki_agent.accounts import Account, Accounts, Poller
from kiki_agent.config import BiddingSettings, Settings
from kiki_agent.flow import Bidder, BidWriter, Flow
from kiki_agent.flow.pacing import EVEN, Pace
from kiki_agent.ledger import DecisionBook, Ledger, Outbox
from kiki_agent.model import SECOND, Decision, DecisionSource, Instant
from kiki_agent.runtime import log
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.shield import Caps, Shield
from kiki_agent.store import Store

from .market import MIDNIGHT, Entity, Market


class Priced:
    """A value service with one answer per platform."""

    def __init__(self) -> None:
        self.ltv = 300_000_000
        self.source = DecisionSource.AI
        self.version = "m1"

    def ltv_micros(self, platform: str) -> tuple[int, DecisionSource, str]:
        return self.ltv, self.source, self.version


class Rig:
    """One agent's flow, ticked by hand in the order a driver would."""

    def __init__(self, path: Path, market: Market, caps: dict[str, Caps], bidding: BiddingSettings) -> None:
        self.path = path
        self.market = market
        self.caps = caps
        self.settings = Settings(bidding=bidding)
        self.value = Priced()
        self.decided: list[tuple[int, list[Decision]]] = []

    async def start(self, now: Instant = MIDNIGHT, *, pace: Pace | None = None, weights: Sequence[int] = EVEN) -> Rig:
        bidding = self.settings.bidding
        self.store = await Store.open(self.path / "flow.db", synchronous="OFF", now=now)
        self.ledger = await Ledger.open(self.store, self.path / "head", client_id="demo", now=now)
        self.outbox = Outbox(self.store, self.ledger, self.market.call)
        await self.outbox.load(now)
        self.shield = await Shield.open(self.store, self.ledger, self.settings, self.caps, now)
        self.accounts = await Accounts.open(
            self.store, [Account(name, name) for name in self.caps], lookback_days=7, now=now
        )
        self.outbox.confirm_handlers.append(self.accounts.confirm)
        self.book = DecisionBook(self.store, self.ledger)
        await self.book.load()
        self.signals = Signals()
        self.bidder = Bidder(
            bidding,
            self.accounts,
            self.value,
            self.shield,
            self.book,
            signals=self.signals,
            metrics=Metrics(process=False),
            pace=pace,
            hour_weights=weights,
        )
        self.pollers = [
            Poller(
                self.accounts,
                name,
                self.market,
                self.shield.book,
                poll_interval=round(bidding.poll_interval_s * SECOND),
                report_interval=round(bidding.report_interval_s * SECOND),
                history_days=7,
            )
            for name in self.caps
        ]
        self.writers = [BidWriter(bidding, name, self.bidder, self.shield, self.outbox) for name in self.caps]
        self.flow = Flow(self.bidder, self.writers)
        self.heard = self.signals.subscribe(["decision"], maxsize=100_000)
        self.now = now
        self._due = {loop.name: now for loop in (*self.pollers, self.bidder, *self.writers)}
        return self

    async def run(self, until: int, each_tick: Callable[[int], None] | None = None) -> None:
        """Tick everything that is due, in order, until a moment."""
        loops = (*self.pollers, self.bidder, *self.writers)
        while self.now < until:
            self.market.advance(self.now)
            for loop in loops:
                if self._due[loop.name] <= self.now:
                    await loop.tick(self.now)
                    self._due[loop.name] = Instant(self.now + loop.period)
            if each_tick is not None:
                each_tick(self.now)
            self.now = Instant(min(self._due.values()))

    def changes(self) -> list[tuple[int, Decision]]:
        """Changed decisions published since the last call."""
        found = []
        for signal in self.heard.drain():
            at, decisions = signal.data["at"], signal.data["decisions"]
            assert isinstance(at, int)
            assert isinstance(decisions, list)
            found += [(at, each) for each in decisions]
        return found

    async def stop(self) -> None:
        await self.book.flush(self.now)
        await self.store.close()


Make = Callable[..., Rig]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of decisions a test: their log lines only hide what a failing test says."""
    monkeypatch.setattr(log._output, "rank", 40)


@pytest.fixture
async def make_rig(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Rig] = []

    def make(
        entities: Sequence[Entity],
        *,
        daily_cap: int | None = 10_000_000_000,
        window_cap: int | None = None,
        market: Market | None = None,
        **bidding: object,
    ) -> Rig:
        market = market or Market(entities)
        connectors = sorted({connector for connector, _ in market.entities})
        caps = {name: Caps(daily_cap, window_cap) for name in connectors}
        made.append(Rig(tmp_path, market, caps, BiddingSettings(**bidding)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for rig in made:
        await rig.stop()
