"""Meta over real sockets, as the demo runs it: every verb, then connections that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kiki_agent.config import Settings
from kiki_agent.errors import Rejected, Temporary, UnknownOutcome
from kiki_agent.hooks.context import ContextFactory
from kiki_agent.hooks.http_aiohttp import AiohttpHttp
from kiki_agent.hooks.manager import Plugins
from kiki_agent.model import DAY, DayWindow, Instant, IntentKind, Outcome
from kiki_agent.runtime.clock import SimClock
from kiki_agent.sandbox import Fault, Faults, Market, SandboxServer, SandboxService
from kiki_agent.sandbox.wiring import vendor_offers, with_sandbox
from tests.contracts.meta_drive import conversions
from tests.contracts.meta_rig import NOW, intent


@asynccontextmanager
async def over_sockets(base_url: str = "") -> AsyncIterator[tuple[Plugins, SandboxService, SandboxServer]]:
    clock = SimClock(NOW)
    table = {"plugin": "meta", "platform": "meta", "daily_cap": "100", "timeout_s": 2}
    settings = Settings.model_validate({"plugins": {"allow": ["meta"]}, "connector": {"m": table}})
    offers = vendor_offers(settings)
    service = SandboxService(Market(1, NOW, 36, 2), faults=Faults(), vendors=offers)
    server = SandboxServer(clock.now, service)
    await server.start()
    filled = with_sandbox(settings, base_url or server.base_url, "sandbox", "sandbox", offers)
    factory = ContextFactory(clock=clock, make_http=lambda _: AiohttpHttp())
    plugins = await Plugins.load(filled, make_context=factory, simulated=False)
    try:
        yield plugins, service, server
    finally:
        await plugins.close(seconds=1, grace_seconds=0.1)
        await server.close()


async def test_every_verb_over_a_socket_and_an_answer_that_is_lost() -> None:
    async with over_sockets() as (plugins, service, server):
        to: Callable[..., Awaitable[Any]] = plugins.caller.to
        campaigns = await to("m", "fetch_campaigns")
        assert isinstance(campaigns, list)
        assert len(campaigns) == 6
        assert (await to("m", "fetch_spend", Instant(NOW - DAY))).rows
        report = await to("m", "fetch_performance", DayWindow("2026-05-31", "2026-06-01"), None)
        assert report.rows
        wanted = [intent(IntentKind.ADJUST_BID, each, 2_000_000) for each in campaigns[:3]]
        changed = await to("m", "adjust_bid", wanted)
        assert {each.outcome for each in changed} == {Outcome.ACCEPTED}
        uploaded = await to("m", "upload_conversions", conversions(NOW))
        assert {each.outcome for each in uploaded} == {Outcome.ACCEPTED}
        service.faults.order(Fault.LOST)
        lost = [intent(IntentKind.SET_STATUS, campaigns[0], 0)]
        with pytest.raises(UnknownOutcome):
            await to("m", "set_status", lost)
        (receipt,) = await to("m", "reconcile", lost)
        assert (receipt.outcome, receipt.reason) == (Outcome.ACCEPTED, "IN_FORCE")
        service.faults.order(Fault.LOST, times=10)  # a read on a kept connection is asked once more
        with pytest.raises(Temporary):
            await to("m", "fetch_campaigns")
        await server.close()
        with pytest.raises(Rejected) as caught:
            await to("m", "set_status", lost)
        assert caught.value.reason == "NOT_SENT"


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n{"data":[',
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 30000000\r\n\r\n" + b"[" * 30_000_000,
        b"HTTP/1.1 200 OK\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
    ],
    ids=["cut off", "thirty megabytes", "half a head", "not HTTP"],
)
async def test_what_breaks_on_the_way_is_temporary(answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        try:
            await writer.drain()
        except ConnectionError:  # the connector stops listening after eight megabytes
            pass
        writer.close()

    listener = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with over_sockets(f"http://127.0.0.1:{port}") as (plugins, _, _):
        with pytest.raises(Temporary):
            await plugins.caller.to("m", "capabilities")
    listener.close()
    await listener.wait_closed()
