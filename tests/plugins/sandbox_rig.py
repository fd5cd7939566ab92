"""The sandbox plugin as the agent runs it, in front of a small market: in process, or over a socket of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from kiki_agent.config import Settings
from kiki_agent.hooks.context import ContextFactory
from kiki_agent.hooks.http import InProcessHttp
from kiki_agent.hooks.http_aiohttp import AiohttpHttp
from kiki_agent.hooks.manager import Plugins
from kiki_agent.model import Instant, Intent, IntentKind, intent_key, parse_iso
from kiki_agent.runtime.clock import SimClock
from kiki_agent.sandbox import Faults, Market, SandboxServer, SandboxService
from kiki_agent.sandbox.wiring import with_sandbox

START = parse_iso("2026-01-05T00:00:00Z")
PLATFORMS = ("meta", "google_ads", "tiktok", "linkedin", "amazon", "microsoft")
Answer = tuple[int, Mapping[str, str], bytes]


@dataclass
class Vendor:
    """The service, with a record of what it was asked and a way to change what it answers."""

    service: SandboxService
    asked: list[tuple[str, str]] = field(default_factory=list)
    alter: Callable[[str, Answer], Answer] = lambda path, answer: answer

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: Instant) -> Answer:
        self.asked.append((method, path))
        return self.alter(path, self.service.handle(method, path, headers, body, now))


@dataclass
class Rig:
    """Six connectors and a CRM source."""

    market: Market
    vendor: Vendor
    clock: SimClock
    plugins: Plugins
    server: SandboxServer | None

    @property
    def faults(self) -> Faults:
        return self.vendor.service.faults

    @property
    def effects(self) -> int:
        """Changes the platforms made."""
        return self.vendor.service.effects.count

    def to(self, verb: str, *args: object, instance: str = "meta") -> Awaitable[Any]:
        return self.plugins.caller.to(instance, verb, *args)

    def asked(self, part: str) -> int:
        """Requests whose path contains this."""
        return sum(part in path for _, path in self.vendor.asked)

    def answer(self, part: str, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """From now on answer requests for such paths with this, whatever the service did."""

        def alter(path: str, answer: Answer) -> Answer:
            return (status, headers or {}, body) if part in path else answer

        self.vendor.alter = alter


@asynccontextmanager
async def running(
    over: str = "process",
    *,
    secret: str = "sandbox",
    page_size: int = 500,
    requests_per_minute: int = 10_000,
    history_days: int = 3,
    platforms: tuple[str, ...] = PLATFORMS,
) -> AsyncIterator[Rig]:
    """Plugins in front of a market of twelve campaigns; `over` is `process` or `socket`."""
    clock = SimClock(START)
    market = Market(1, START, 12, history_days)
    vendor = Vendor(SandboxService(market, faults=Faults(), requests_per_minute=requests_per_minute))
    server = None
    base_url = "http://sandbox.internal"
    if over == "socket":
        server = SandboxServer(clock.now, cast("SandboxService", vendor))
        await server.start()
        base_url = server.base_url
    tables = {each: {"plugin": "sandbox", "platform": each, "page_size": page_size} for each in platforms}
    crm = {"shop": {"plugin": "sandbox", "page_size": page_size}}
    settings = Settings.model_validate({"plugins": {"allow": ["sandbox"]}, "connector": tables, "crm": crm})
    factory = ContextFactory(
        clock=clock, make_http=lambda _: AiohttpHttp() if server is not None else InProcessHttp(vendor.handle, clock)
    )
    plugins = await Plugins.load(
        with_sandbox(settings, base_url, "sandbox", secret), make_context=factory, simulated=False
    )
    try:
        yield Rig(market, vendor, clock, plugins, server)
    finally:
        await plugins.close(seconds=1, grace_seconds=0.1)
        if server is not None:
            await server.close()


def intent(
    campaign: str,
    after: int,
    kind: IntentKind = IntentKind.ADJUST_BID,
    *,
    connector: str = "meta",
    at: Instant = START,
    cause: str = "",
) -> Intent:
    """A wanted change."""
    key = intent_key(connector, campaign, kind, at, cause)
    return Intent(key, kind, connector, campaign, 0, after, "USD", "TEST", at, cause)
