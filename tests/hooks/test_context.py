"""What a plugin is handed: repeatable chance, a memory of its own, tasks that end with it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.errors import Bug
from kiki_agent.hooks.context import PluginMetrics
from kiki_agent.hooks.http_aiohttp import AiohttpHttp
from kiki_agent.hooks.manager import Plugins
from kiki_agent.hooks.rng import Rng
from kiki_agent.hooks.state import MAX_KEYS, PluginState
from kiki_agent.model import Instant
from kiki_agent.runtime.clock import SimClock
from kiki_agent.store import Store

Load = Callable[..., Awaitable[Plugins]]
NOW = Instant(1_790_000_000_000_000)


def test_chance_is_a_function_of_seed_and_entity() -> None:
    first, second = Rng(1, "meta", "c1", 5), Rng(1, "meta", "c1", 5)
    words = [first.word() for _ in range(20)]
    assert words == [second.word() for _ in range(20)]
    assert len(set(words)) == 20
    entities: list[tuple[str | int, ...]] = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("1",),
        (1,),
        (),
        ("", "abc"),
        ("abc", ""),
    ]
    starts = {Rng(seed, *entity).word() for entity in entities for seed in (1, 11)}
    assert len(starts) == 16, "entities that only look alike have streams of their own"


def test_chance_is_the_same_in_every_process() -> None:
    code = "from kiki_agent import Rng; r = Rng(7, 'meta', 3); print([r.word() for _ in range(9)])"
    own = Rng(7, "meta", 3)
    expected = str([own.word() for _ in range(9)])
    environment = {"PYTHONHASHSEED": "12345"}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == expected


@given(st.integers(), st.integers(1, 2**64))
def test_below_stays_below(seed: int, bound: int) -> None:
    rng = Rng(seed)
    assert all(0 <= rng.below(bound) < bound for _ in range(20))


def test_chance_is_even() -> None:
    rng = Rng(3)
    counts = [0] * 10
    for _ in range(20_000):
        counts[rng.below(10)] += 1
    assert sum((count - 2_000) ** 2 / 2_000 for count in counts) < 40, "chi-square with 9 degrees of freedom"
    mean = sum(rng.uniform() for _ in range(20_000)) / 20_000
    assert abs(mean - 0.5) < 0.02
    for bound in (0, -1, 2**64 + 1):
        with pytest.raises(ValueError):
            rng.below(bound)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "a.db", now=NOW)
    yield opened
    await opened.close()


async def test_memory_is_kept_and_kept_apart(store: Store, tmp_path: Path) -> None:
    clock = SimClock(NOW)
    mine, other = PluginState("meta", store, clock), PluginState("tiktok", store, clock)
    assert await mine.get("cursor") is None
    await mine.set("cursor", "a")
    await mine.set("cursor", "b")
    await other.set("cursor", "z")
    assert (await mine.get("cursor"), await other.get("cursor")) == ("b", "z")
    await mine.delete("cursor")
    await mine.delete("cursor")
    assert (await mine.get("cursor"), await other.get("cursor")) == (None, "z")
    await store.close()
    again = await Store.open(tmp_path / "a.db", now=NOW)
    assert await PluginState("tiktok", again, clock).get("cursor") == "z"
    await again.close()


@pytest.mark.parametrize("durable", [True, False])
async def test_memory_is_bounded(store: Store, durable: bool) -> None:
    state = PluginState("meta", store if durable else None, SimClock(NOW))
    for key, value in [("", "v"), ("k" * 201, "v"), ("k", "v" * 65_537), ("k", 5), (5, "v")]:
        with pytest.raises(ValueError):
            await state.set(key, value)  # type: ignore[arg-type]
    await asyncio.gather(*(state.set(f"k{index}", "v") for index in range(MAX_KEYS)))
    with pytest.raises(ValueError, match="at most 1000 keys"):
        await state.set("one more", "v")
    await state.set("k0", "still writable")
    assert await state.get("k0") == "still writable"


def test_metrics_are_bounded() -> None:
    metrics = PluginMetrics()
    metrics.count("calls")
    metrics.count("calls", 2)
    metrics.level("queue", 7)
    assert metrics.values == {"calls": 3, "queue": 7}
    for index in range(30):
        metrics.count(f"m{index}")
    for name in ("one_more", "no good", "é"):
        with pytest.raises(ValueError):
            metrics.count(name)


SPAWNS = """
import asyncio
from kiki_agent import hookimpl
from kiki_agent.errors import *

log = []

def register(api):
    api.connector("bad", Bad)

class Bad:
    def __init__(self, context):
        self.context = context
        self.task = context.spawn(self.pump(), name="pump")

    async def pump(self):
        try:
            log.append((asyncio.current_task().get_name(), self.context.instance_id, self.context.platform))
            await asyncio.Event().wait()
        finally:
            log.append("ended")

    @hookimpl
    async def check(self):
        for _ in range(100):
            self.context.spawn(self.pump())

    @hookimpl
    async def set_status(self, intents):
        self.context.spawn(self.fail(), name="fails")
        return []

    async def fail(self):
        self.inner = asyncio.create_task(asyncio.Event().wait(), name="inner")
        raise KeyError("lost")
"""


async def test_spawned_tasks_are_named_bounded_and_ended(load: Load, module: Callable[[str], Any]) -> None:
    plugins = await load(SPAWNS)
    await asyncio.sleep(0)
    assert module("bad").log == [("plugin bad:pump", "bad", "google_ads")]
    with pytest.raises(Bug, match="already runs 64 background tasks"):
        await plugins.caller.to("bad", "check")
    assert plugins.instances["bad"].tasks.leaks == 0, "spawned tasks are no leaks"
    await asyncio.sleep(0)
    assert await plugins.close() == []
    assert module("bad").log.count("ended") == 64


async def test_a_spawned_task_that_fails_is_named_and_its_own_leaks_are_found(
    load: Load, log_lines: Callable[[], list[dict[str, Any]]], others_run: Callable[[Plugins], Awaitable[None]]
) -> None:
    plugins = await load(SPAWNS)
    assert await plugins.caller.to("bad", "set_status", []) == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert any("plugin bad:fails failed" in line["message"] for line in log_lines())
    assert any("bad:fails left inner running" in line["message"] for line in log_lines())
    await others_run(plugins)


USES_SERVICES = """
import asyncio
from kiki_agent import hookimpl

def register(api):
    api.connector("bad", Bad)

class Bad:
    def __init__(self, context):
        self.context = context

    @hookimpl
    async def check(self):
        await self.context.state.set("url", (await self.context.state.get("url")) or "none")
        answer = await self.context.http.request("GET", address[0].replace("127.0.0.1", "localhost"))
        assert answer.status == 204
"""


async def test_tasks_of_the_core_behind_a_plugin_are_not_its_own(
    load: Load, module: Callable[[str], Any], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connection pools, resolvers and the store's writer begin tasks in a plugin's call; they must outlive it."""

    async def serve(request: web.Request) -> web.Response:
        return web.Response(status=204)

    app = web.Application()
    app.router.add_get("/", serve)
    plugins = await load(USES_SERVICES + "\naddress = []\n")
    instance = plugins.instances["bad"]
    booked: list[str] = []
    monkeypatch.setattr(type(instance.tasks), "adopt", lambda self, task, mine: booked.append(task.get_name()))
    context = instance.context
    assert context is not None
    client = AiohttpHttp()
    object.__setattr__(context, "http", client)
    object.__setattr__(context, "state", PluginState("bad", store, context.clock))
    async with TestServer(app) as server:
        module("bad").address.append(str(server.make_url("/")))
        assert await plugins.caller.to("bad", "check") is None
    assert booked == []
    await client.close()
