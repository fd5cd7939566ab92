"""A start does not depend on the platforms: those that say nothing are left to their loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from kiki_agent.agent import Agent, World
from kiki_agent.hooks.http import HttpAnswer, HttpClient, InProcessHttp
from kiki_agent.model import MINUTE, SECOND, Instant, Intent, IntentKind, Outcome, intent_key
from kiki_agent.runtime.clock import SystemClock
from kiki_agent.runtime.driver import LiveDriver
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.sandbox.effects import EffectsLog
from kiki_agent.sandbox.faults import Fault, Faults
from kiki_agent.sandbox.market import Market
from kiki_agent.sandbox.service import SandboxService
from kiki_agent.sandbox.wiring import vendor_offers

from .world import CAMPAIGNS, HISTORY_DAYS, settings_for


class Silent:
    """A door behind which nobody answers while `silent` is set."""

    def __init__(self, http: HttpClient, silent: asyncio.Event) -> None:
        self.http, self.silent = http, silent

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10,
    ) -> HttpAnswer:
        if self.silent.is_set():
            await asyncio.get_running_loop().create_future()
        return await self.http.request(method, url, headers=headers, params=params, body=body, timeout_s=timeout_s)

    async def close(self) -> None:
        await self.http.close()


class Town:
    """One market in real time, and the agents that are started on it one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.faults = Faults()
        market = Market(1, self.clock.now(), CAMPAIGNS, HISTORY_DAYS)
        self.settings = settings_for(folder, 1, {"ledger.settle_s": "0.01"}, hop=False)
        self.service = SandboxService(market, EffectsLog(), self.faults, vendors=vendor_offers(self.settings))
        self.silent = asyncio.Event()
        self.agent: Agent | None = None

    async def build(self) -> Agent:
        def http(instance: str) -> HttpClient:
            door = InProcessHttp(self.service.handle, self.clock)
            return Silent(door, self.silent) if instance == "meta" else door

        world = World(self.clock, self.folder / "agent.db", http, synchronous="OFF")
        self.agent = await Agent.build(self.settings, world, metrics=Metrics(process=False), signals=Signals())
        return self.agent

    async def end(self) -> None:
        if self.agent is not None:
            await self.agent.close()
            self.agent = None


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    town = Town(tmp_path)
    yield town
    await town.end()


async def test_a_platform_that_hangs_does_not_delay_the_others(town: Town) -> None:
    agent = await town.build()
    town.silent.set()
    await asyncio.wait_for(agent.start(), 30)
    assert {name for name in agent.accounts.connectors if not agent.accounts.heard(name)} == {"meta"}
    assert len(agent.accounts.campaigns("tiktok")) == CAMPAIGNS // 6
    assert agent.value.platform_value("tiktok", town.clock.now()).average_ltv_micros
    driver = LiveDriver()
    running = asyncio.create_task(driver.run(agent.supervisor, town.clock))
    health = agent.supervisor.health
    await asyncio.wait_for(_until(lambda: health["bidding"].ticks > 0 and health["write:tiktok"].ticks > 0), 30)
    assert health["bidding"].failures == 0
    await driver.stop(0.1)
    await running


async def test_nobody_is_asked_before_a_late_market_is_there(town: Town) -> None:
    """Its loops tick and say what they wait for; nothing is called silent, and the first read comes when it can."""
    agent = await town.build()
    await agent.start(waits_for="the market")
    driver = LiveDriver()
    running = asyncio.create_task(driver.run(agent.supervisor, town.clock))
    readers = ["value", *(f"poll:{name}" for name in agent.accounts.connectors)]
    health = agent.supervisor.health
    await asyncio.wait_for(_until(lambda: all(health[name].ticks for name in readers)), 30)
    said = {report.name: report.reason for report in agent.supervisor.report()}
    assert {said[name] for name in readers} == {"waiting for the market"}
    assert town.faults.requests == 0
    assert not agent.accounts.lost
    await agent.read_platforms(30)
    assert all(agent.accounts.heard(name) for name in agent.accounts.connectors)
    assert agent.value.platform_value("tiktok", town.clock.now()).average_ltv_micros
    await driver.stop(0.1)
    await running


async def test_a_change_nobody_can_tell_of_does_not_delay_a_start(town: Town) -> None:
    """It stays unknown, is not sent again, and is read back once its platform answers."""
    agent = await town.build()
    await agent.start()
    campaign = agent.accounts.campaigns("meta")[0]
    now = town.clock.now()
    intent = Intent(
        key=intent_key("meta", campaign.campaign_id, IntentKind.ADJUST_BID, now),
        kind=IntentKind.ADJUST_BID,
        connector="meta",
        campaign_id=campaign.campaign_id,
        before=campaign.bid_micros,
        after=campaign.bid_micros + 10_000,
        currency="USD",
        reason="ON_PLAN",
        at=now,
    )
    town.faults.order(Fault.LOST, path="/meta/")
    (receipt,) = await agent.outbox.send(now, "meta", IntentKind.ADJUST_BID, [intent])
    assert receipt.outcome is Outcome.UNKNOWN
    await town.end()
    town.silent.set()
    agent = await town.build()
    await asyncio.wait_for(agent.start(), 30)
    assert agent.outbox.unsettled("meta", campaign.campaign_id)
    assert agent.accounts.heard("tiktok")
    await town.end()
    town.silent.clear()
    agent = await town.build()
    await agent.start()
    assert agent.outbox.unsettled_count == 0
    found = await agent.outbox.send(town.clock.now(), "meta", IntentKind.ADJUST_BID, [intent])
    assert [each.outcome for each in found] == [Outcome.ACCEPTED]
    assert [each.after for each in town.service.effects.recent()] == [intent.after], "done once"
    age = agent.accounts.spend_age("meta", Instant(town.clock.now() + SECOND))
    assert age is not None
    assert age < 7 * MINUTE, "what Meta states is five minutes old"


async def _until(condition: object) -> None:
    assert callable(condition)
    while not condition():  # noqa: ASYNC110 - loops tell nobody that they ticked
        await asyncio.sleep(0.01)
