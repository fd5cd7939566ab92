"""A real agent behind its real HTTP interface, and platforms behind real sockets that misbehave to order."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from kiki_agent.agent import Agent, World
from kiki_agent.config import Settings
from kiki_agent.hooks.http_aiohttp import AiohttpHttp
from kiki_agent.model import Instant
from kiki_agent.runtime.clock import SystemClock
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.web import Services, create_app

PLUGIN = '''
"""A connector of a vendor with one path for everything; each call is one request."""
import json
from kiki_agent import Capabilities, NoAnswer, PluginConfig, RateLimit, hookimpl
from kiki_agent.errors import RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.model import Campaign, CampaignStatus, Outcome, PerformanceReport, Receipt, SpendReport

class Config(PluginConfig):
    url: str
    timeout_s: float = 10

class Vendor:
    def __init__(self, context):
        self.context = context

    async def ask(self, verb, body=None):
        config = self.context.config
        try:
            answer = await self.context.http.request(
                "POST", f"{config.url}/{verb}", body=json.dumps(body).encode(), timeout_s=config.timeout_s
            )
        except NoAnswer as error:
            if body is None:
                raise
            if not error.sent:
                raise Rejected(str(error), "NOT_SENT") from None
            raise UnknownOutcome(str(error)) from None
        if answer.status == 429:
            raise RateLimited("the vendor says 429", answer.retry_at(self.context.clock.now()) or 0)
        if answer.status == 422:
            raise Rejected("the vendor says no", "NO")
        if answer.status != 200:
            raise (Temporary if body is None else UnknownOutcome)(f"the vendor says {answer.status}")
        try:
            return answer.json()
        except Temporary as error:
            if body is None:
                raise
            raise UnknownOutcome(str(error)) from None

    async def write(self, verb, intents):
        receipts = []
        for intent in intents:
            said = {"key": intent.key, "after": intent.after, "ltv": intent.ltv_micros, "note": intent.note,
                    "confidence": intent.confidence_permille}
            await self.ask(verb, said)
            receipts.append(Receipt(intent.key, Outcome.ACCEPTED))
        return receipts

    @hookimpl
    async def place_bid(self, intents):
        return await self.write("place_bid", intents)

    @hookimpl
    async def set_status(self, intents):
        return await self.write("set_status", intents)

    @hookimpl
    async def set_budget(self, intents):
        return await self.write("set_budget", intents)

    @hookimpl
    async def capabilities(self):
        await self.ask("capabilities")
        return Capabilities(api_version="v7", sunset="2031-05-01")

    @hookimpl
    async def fetch_campaigns(self):
        await self.ask("fetch_campaigns")
        return [Campaign(self.context.instance_id, "c1", self.context.platform, "One", CampaignStatus.ACTIVE,
                         10_000_000, 1_000_000)]

    @hookimpl
    async def fetch_spend(self, since):
        await self.ask("fetch_spend")
        return SpendReport((), self.context.clock.now())

    @hookimpl
    async def fetch_performance(self, window, cursor):
        await self.ask("fetch_performance")
        return PerformanceReport((), self.context.clock.now(), window.first_day)

class Wrapping(Vendor):
    async def write(self, verb, intents):
        try:
            return await Vendor.write(self, verb, intents)
        except Temporary as error:
            raise Rejected(str(error), "NOT_SENT") from None

def register(api):
    api.connector("vendor_wrapping", Wrapping, config=Config)
    limits = {"google_ads": RateLimit(100, 60), "meta": RateLimit(200, 3_600), "tradedesk": RateLimit(300, 60)}
    api.connector("vendor", Vendor, config=Config)
    for name, limit in limits.items():
        api.connector(f"vendor_{name}", Vendor, config=Config, rate_limit=limit)
'''


@dataclass
class Vendor:
    """The platform's side: what it was asked, how long it takes, and what it does instead of answering."""

    delay_s: float = 0.0
    fault: str = ""
    """`500`, `422`, `429`, `garbage`, `reset`, `hang`; empty: well."""
    only: str = ""
    """Only this verb has the fault; empty: all."""
    retry_after: str = "30"
    asked: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets those go that hang."""

    @property
    def bids(self) -> list[int]:
        """Micros of the bids that arrived."""
        return [each["after"] for each in self.bodies]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        verb = request.path.rpartition("/")[2]
        self.asked.append(verb)
        said = json.loads(await request.read())
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        match self.fault if self.only in ("", verb) else "":
            case "500" | "422" as status:
                return web.Response(status=int(status))
            case "429":
                return web.Response(status=429, headers={"Retry-After": self.retry_after})
            case "garbage":
                return web.Response(body=b'{"half": ')
            case "reset":
                assert request.transport is not None
                request.transport.abort()
            case "hang":
                await self.released.wait()
        if isinstance(said, dict):
            self.bodies.append(said)
        return web.json_response({})


class TunedClock(SystemClock):
    """The real time, which a test may move ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0

    def now(self) -> Instant:
        return Instant(super().now() + self.ahead)


@dataclass
class Rig:
    """A running agent without its loops: everything happens because a test asks for it."""

    folder: Path
    agent: Agent
    client: TestClient[Request, Application]
    clock: TunedClock
    vendors: dict[str, Vendor]
    signals: Signals

    async def bid(self, platform: str, amount: float, **more: object) -> dict[str, Any]:
        """One bid over HTTP."""
        body = {"campaign_id": "c1", "platform": platform, "bid_amount": amount, **more}
        answer = await self.client.post("/api/v1/bids", json=body)
        assert answer.status == 200, await answer.text()
        return dict(await answer.json())

    async def connector(self, name: str) -> dict[str, Any]:
        """One connector over HTTP."""
        answer = await self.client.get(f"/api/v1/connectors/{name}")
        assert answer.status == 200, await answer.text()
        return dict(await answer.json())

    async def put(self, path: str, status: int = 200, **body: object) -> dict[str, Any]:
        """Tune something over HTTP."""
        answer = await self.client.put(path, json=body)
        assert answer.status == status, await answer.text()
        return dict(await answer.json())

    def controls(self) -> list[dict[str, Any]]:
        """Ledger rows of orders, oldest first."""
        connection = sqlite3.connect(f"file:{self.agent.world.database}?mode=ro", uri=True)
        try:
            rows = connection.execute("SELECT body FROM ledger_entries WHERE kind = 'control' ORDER BY seq").fetchall()
        finally:
            connection.close()
        return [json.loads(str(body)) for (body,) in rows]


Tables = Mapping[str, Mapping[str, object]]


@asynccontextmanager
async def running(
    folder: Path,
    tables: Tables,
    *,
    resilience: Mapping[str, object] | None = None,
    bidding: Mapping[str, object] | None = None,
    currency: str = "USD",
) -> AsyncIterator[Rig]:
    """An agent with these connector tables, each with a vendor of its own; `plugin` defaults to `vendor`."""
    plugins = _plugins(folder)
    vendors = {name: Vendor() for name in tables}
    app = web.Application()
    for name, vendor in vendors.items():
        app.router.add_post(f"/{name}/{{verb}}", vendor.serve)
    async with TestServer(app, shutdown_timeout=0.1) as server:
        connector = {
            name: {
                "plugin": "vendor",
                "platform": name,
                "daily_cap": "5000",
                "window_cap": "1000",
                "url": str(server.make_url(f"/{name}")),
                **table,
            }
            for name, table in tables.items()
        }
        settings = Settings.model_validate(
            {
                "store": {"folder": str(folder / "data")},
                "plugins": {"allow": ["vendor"], "folder": str(plugins)},
                "connector": connector,
                "currency": currency,
                "resilience": resilience or {},
                "bidding": bidding or {},
                "optimizer": {"enabled": False},
            }
        )
        async with _agent(folder, settings, vendors) as rig:
            yield rig
            for vendor in vendors.values():
                vendor.released.set()


def _plugins(folder: Path) -> Path:
    plugins = folder / "plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    (plugins / "vendor.py").write_text(PLUGIN)
    (folder / "data").mkdir(exist_ok=True)
    return plugins


@asynccontextmanager
async def _agent(folder: Path, settings: Settings, vendors: dict[str, Vendor]) -> AsyncIterator[Rig]:
    clock = TunedClock()
    metrics, signals = Metrics(process=False), Signals()
    services = Services(
        settings=settings, clock=clock, version="0", started_at=clock.now(), metrics=metrics, signals=signals
    )
    world = World(clock, folder / "data" / "agent.db", lambda instance: AiohttpHttp(connections=32), synchronous="OFF")
    agent = await Agent.build(settings, world, metrics=metrics, signals=signals, services=services)
    services.starting = None
    try:
        async with TestClient(TestServer(create_app(services))) as client:
            yield Rig(folder, agent, client, clock, vendors, signals)
    finally:
        await agent.close()
