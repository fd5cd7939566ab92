"""A real agent on the sandbox market in process, in pieces, with somebody else at its accounts, over HTTP."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from kiki_agent.agent import Agent, World
from kiki_agent.config import Mode
from kiki_agent.hooks.http import InProcessHttp
from kiki_agent.model import MINUTE, Campaign, Instant
from kiki_agent.runtime.clock import SimClock
from kiki_agent.runtime.driver import SimDriver
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.purity import simulated_world
from kiki_agent.runtime.signals import Signals
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.faults import Faults
from kiki_agent.sandbox.market import Market
from kiki_agent.sandbox.service import SandboxService
from kiki_agent.sandbox.wiring import vendor_offers
from kiki_agent.web import Services, create_app
from tests.agent.world import CAMPAIGNS, HISTORY_DAYS, START, KeptEffects, settings_for

KEY = bytes(range(32))
CONNECTORS = ("meta", "google_ads", "tiktok", "linkedin", "amazon", "microsoft")


def only(*names: str) -> dict[str, str]:
    """Flags that switch the other connectors off, where a test needs few."""
    return {f"connector__{name}__enabled": "false" for name in CONNECTORS if name not in names}


class House:
    """One agent, its market, and a client of its interface."""

    agent: Agent
    client: TestClient[web.Request, web.Application]

    def __init__(self, folder: Path, *, mode: Mode = Mode.BACKTEST, seed: int = 1, **flags: str) -> None:
        given = {"store.folder": str(folder)} | {key.replace("__", "."): value for key, value in flags.items()}
        self.settings = settings_for(folder, seed, given, hop=False).model_copy(update={"mode": mode})
        self.database = folder / "agent.db"
        self.folder = folder
        self.market = Market(seed, START, CAMPAIGNS, HISTORY_DAYS)
        self.effects = KeptEffects()
        self.faults = Faults(0.0, seed)
        self.service = SandboxService(self.market, self.effects, self.faults, vendors=vendor_offers(self.settings))
        self.clock = SimClock(START)
        self.budgets: Any = None
        """What stood before the agent did anything, after the vendors made some campaigns share a budget."""
        self.metrics = Metrics(process=False)
        self.wires: list[InProcessHttp] = []
        """The way to the market of each plugin of each process so far."""

    async def open(self) -> House:
        """Start a process of the agent."""
        signals = Signals()
        self.services = Services(
            settings=self.settings,
            clock=self.clock,
            version="0",
            started_at=self.clock.now(),
            metrics=self.metrics,
            signals=signals,
            approval_key=KEY,
        )
        world = World(
            self.clock,
            self.database,
            self._wire,
            synchronous="OFF",
            simulated=True,
            kill_folder=self.folder,
        )
        self.agent = await Agent.build(
            self.settings, world, metrics=self.metrics, signals=signals, services=self.services
        )
        self.services.starting = None
        with simulated_world():
            await self.agent.start()
        if self.budgets is None:
            self.budgets = self.market.control[at.BUDGET].copy()
        self.client = TestClient(TestServer(create_app(self.services)))
        await self.client.start_server()
        return self

    def _wire(self, instance: str) -> InProcessHttp:
        self.wires.append(InProcessHttp(self.service.handle, self.clock))
        return self.wires[-1]

    async def close(self) -> None:
        """End the process; the market lives on."""
        await self.client.close()
        await self.agent.store.drain()
        assert (await self.agent.ledger.verify(whole=True)).ok
        await self.agent.close()

    async def again(self) -> House:
        """Another process on the same database."""
        await self.close()
        self.metrics = Metrics(process=False)
        return await self.open()

    async def run(self, minutes: float) -> None:
        """Let simulated time pass."""
        until = Instant(self.clock.now() + round(minutes * MINUTE))
        with simulated_world():
            await SimDriver().run(self.agent.supervisor, self.clock, until)
        await self.agent.store.drain()
        await asyncio.sleep(0)

    async def reread(self, connector: str) -> None:
        """Let the agent read a platform's campaigns now."""
        poller = next(each for each in self.agent.pollers if each.connector == connector)
        poller._campaigns_at = None
        with simulated_world():
            await poller.tick(self.clock.now())

    async def get(self, path: str) -> Any:
        """The JSON of a GET that succeeds."""
        answer = await self.client.get(path)
        assert answer.status == 200, await answer.text()
        return await answer.json()

    async def post(self, path: str, status: int = 200, **body: object) -> Any:
        """The JSON of a POST with an expected status."""
        answer = await self.client.post(path, json=body)
        assert answer.status == status, await answer.text()
        return await answer.json()

    def campaign(self, connector: str, number: int = 0) -> Campaign:
        """A campaign as the agent knows it."""
        return self.agent.accounts.campaigns(connector)[number]

    def index(self, campaign: Campaign) -> int:
        """Its place in the market: budgets of the market are all different enough to find it by."""
        low, high = self.agent.accounts.table.bounds[campaign.connector]
        homes = [i for i in range(CAMPAIGNS) if int(self.market.homes[i]) == CONNECTORS.index(campaign.connector)]
        assert len(homes) == high - low
        found = [i for i in homes if int(self.market.control[at.BUDGET, i]) == campaign.daily_budget_micros]
        found = [i for i in found if int(self.market.control[at.BID, i]) == campaign.bid_micros]
        assert len(found) == 1, found
        return found[0]

    def edit(self, index: int, row: int, value: int) -> None:
        """Somebody else changes a campaign at its platform."""
        self.market.control[row, index] = value

    def rows(self, sql: str, *given: object) -> list[tuple[Any, ...]]:
        """Ask the database."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            return connection.execute(sql, given).fetchall()
        finally:
            connection.close()


Flags = Mapping[str, str]
