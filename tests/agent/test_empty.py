"""An agent before its first account: it starts, is ready, ticks and ends."""

from __future__ import annotations

from pathlib import Path

from kiki_agent.agent import Agent, World
from kiki_agent.config import load
from kiki_agent.hooks.http_aiohttp import AiohttpHttp
from kiki_agent.runtime.clock import SystemClock
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals


async def test_without_any_account_it_starts_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('client_id = "acme"\nmode = "dry-run"\n')
    settings = load(tmp_path / "config.toml", {}, {"store.folder": str(tmp_path)}).settings
    clock = SystemClock()
    world = World(clock, tmp_path / "dryrun.db", lambda _: AiohttpHttp())
    agent = await Agent.build(settings, world, metrics=Metrics(), signals=Signals())
    try:
        await agent.start()
        for loop in agent.loops:
            await loop.tick(clock.now())
        assert agent.shield.hold_reason is None
        assert agent.calls == 0
    finally:
        assert await agent.close() == []
