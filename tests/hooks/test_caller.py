"""The caller's promises: typed errors only, deadlines that hold, nobody's departure stops a request under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kiki_agent.config import Settings
from kiki_agent.errors import AuthExpired, Bug, PluginError, RateLimited, Rejected, Temporary, Unsupported
from kiki_agent.hooks.caller import MAX_RUNNING, MAX_WAITING
from kiki_agent.hooks.manager import Plugins
from kiki_agent.model import Intent

Load = Callable[..., Awaitable[Plugins]]

SOURCE = """
import asyncio
from kiki_agent import Capabilities, hookimpl
from kiki_agent.errors import *
from kiki_agent.model import *

state = {"begun": None, "gate": None, "error": None}

def register(api):
    api.connector("bad", Bad)

class Bad:
    def __init__(self, context):
        self.context = context

    @hookimpl
    async def check(self):
        if state["error"] is not None:
            raise state["error"]

    @hookimpl
    async def set_budget(self, intents):
        if state["begun"]:
            state["begun"].set()
        await state["gate"].wait()
        state["done"] = True
        return [Receipt(intent.key, Outcome.ACCEPTED) for intent in intents]

    @hookimpl
    async def capabilities(self):
        await state["gate"].wait()
        return Capabilities()

    @hookimpl
    async def close(self):
        state["closed"] = True
"""


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize(
    "error",
    [Temporary("t"), RateLimited("r", 5), AuthExpired("a"), Rejected("no", "LOW"), Unsupported("u")],
    ids=lambda error: type(error).__name__,
)
async def test_typed_errors_pass_as_they_are(
    load: Load, module: Callable[[str], Any], error: PluginError, simulated: bool
) -> None:
    plugins = await load(SOURCE, simulated=simulated)
    module("bad").state["error"] = error
    with pytest.raises(type(error)) as caught:
        await plugins.caller.to("bad", "check")
    assert caught.value is error
    assert plugins.instances["bad"].bugs == 0


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        PluginError("bare"),
        asyncio.CancelledError(),
        BaseExceptionGroup("g", [SystemExit(1)]),
        Unreadable(),
        StopAsyncIteration(),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_anything_else_is_a_bug_with_the_plugin_named(
    load: Load, module: Callable[[str], Any], error: BaseException, simulated: bool
) -> None:
    plugins = await load(SOURCE, simulated=simulated)
    module("bad").state["error"] = error
    with pytest.raises(Bug, match=r"bad\.check \(plugin bad\)"):
        await plugins.caller.to("bad", "check")
    assert plugins.instances["bad"].last_bug


async def test_a_plugin_that_closes_its_own_coroutine(load: Load, module: Callable[[str], Any]) -> None:
    plugins = await load(SOURCE)
    module("bad").state["error"] = GeneratorExit()
    with pytest.raises(Bug, match="raised GeneratorExit"):
        await plugins.caller.to("bad", "check")
    assert plugins.caller.running == []


@pytest.mark.parametrize("simulated", [False, True])
async def test_what_cannot_be_called_says_so(load: Load, settings_of: Callable[..., Settings], simulated: bool) -> None:
    tables = {"bad": {"plugin": "healthy"}, "away": {"plugin": "healthy", "enabled": False}}
    plugins = await load(settings=settings_of(connector=tables), simulated=simulated)
    with pytest.raises(Unsupported, match="no plugin instance 'nobody'"):
        await plugins.caller.to("nobody", "check")
    with pytest.raises(Unsupported, match="does not offer fetch_spend"):
        await plugins.caller.to("good", "fetch_spend", 1)
    with pytest.raises(Unsupported, match="set_budget takes intents, not 0 arguments"):
        await plugins.caller.to("good", "set_budget")
    with pytest.raises(Unsupported, match="away is switched off"):
        await plugins.caller.to("away", "check")


async def test_a_waiter_that_leaves_does_not_stop_the_request(
    load: Load, module: Callable[[str], Any], intents: list[Intent]
) -> None:
    plugins = await load(SOURCE)
    state = module("bad").state
    state["gate"], state["begun"] = asyncio.Event(), asyncio.Event()
    waiter = asyncio.create_task(plugins.caller.to("bad", "set_budget", intents))
    await state["begun"].wait()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert plugins.caller.running == ["bad.set_budget"]
    state["gate"].set()
    await plugins.caller.drain(5)
    assert state["done"]
    assert plugins.caller.running == []


async def test_an_answer_within_the_grace_counts(load: Load, intents: list[Intent]) -> None:
    """A plugin that catches its cancellation and still brings receipts has brought facts."""
    source = SOURCE.replace(
        '        await state["gate"].wait()\n        state["done"] = True',
        """\
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass""",
    )
    plugins = await load(source)
    receipts = await plugins.caller.to("bad", "set_budget", intents, deadline_s=0.01)
    assert isinstance(receipts, list)
    assert len(receipts) == 2
    assert plugins.instances["bad"].state == "ok"


async def test_calls_of_one_instance_are_limited(
    load: Load, module: Callable[[str], Any], intents: list[Intent]
) -> None:
    plugins = await load(SOURCE)
    module("bad").state["gate"] = asyncio.Event()
    calls = [asyncio.create_task(plugins.caller.to("bad", "capabilities")) for _ in range(MAX_RUNNING)]
    await asyncio.sleep(0)
    with pytest.raises(Temporary, match="32 calls were under way for"):
        await plugins.caller.to("bad", "check", deadline_s=0.05)
    with pytest.raises(Rejected) as refused:
        await plugins.caller.to("bad", "set_budget", intents, deadline_s=0.05)
    assert refused.value.reason == "BUSY"
    assert len(plugins.instances["bad"].waiting) == 0
    module("bad").state["gate"].set()
    await asyncio.gather(*calls)
    assert plugins.instances["bad"].running == 0
    assert await plugins.caller.to("bad", "check") is None


async def test_calls_beyond_the_limit_wait_their_turn(
    load: Load, module: Callable[[str], Any], intents: list[Intent]
) -> None:
    plugins = await load(SOURCE)
    module("bad").state["gate"] = asyncio.Event()
    count = MAX_RUNNING + 5
    calls = [asyncio.create_task(plugins.caller.to("bad", "set_budget", intents)) for _ in range(count)]
    await asyncio.sleep(0)
    assert (plugins.instances["bad"].running, len(plugins.instances["bad"].waiting)) == (MAX_RUNNING, 5)
    module("bad").state["gate"].set()
    answers = await asyncio.gather(*calls)
    assert [len(each) for each in answers] == [2] * count  # type: ignore[arg-type]
    assert (plugins.instances["bad"].running, len(plugins.instances["bad"].waiting)) == (0, 0)


async def test_so_many_may_wait_and_at_the_end_they_hear_that_nothing_was_sent(
    load: Load, module: Callable[[str], Any], intents: list[Intent]
) -> None:
    plugins = await load(SOURCE)
    module("bad").state["gate"] = asyncio.Event()
    room = MAX_RUNNING + MAX_WAITING
    calls = [asyncio.create_task(plugins.caller.to("bad", "set_budget", intents)) for _ in range(room)]
    await asyncio.sleep(0)
    with pytest.raises(Rejected, match="32 calls are under way already") as refused:
        await plugins.caller.to("bad", "set_budget", intents)
    assert refused.value.reason == "BUSY"
    await plugins.caller.end(0.05)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    outcomes = [type(each).__name__ for each in answers]
    assert outcomes == ["UnknownOutcome"] * MAX_RUNNING + ["Rejected"] * MAX_WAITING


async def test_every_call_is_observed_once(load: Load, module: Callable[[str], Any]) -> None:
    seen: list[tuple[str, str, str]] = []
    plugins = await load(SOURCE, observe=lambda who, verb, seconds, outcome: seen.append((who, verb, outcome)))
    module("bad").state["error"] = KeyError("k")
    await plugins.caller.fan("connector", "check")
    module("bad").state["gate"] = asyncio.Event()
    with pytest.raises(Temporary):
        await plugins.caller.to("bad", "capabilities", deadline_s=0.01)
    assert sorted(seen) == [("bad", "capabilities", "Temporary"), ("bad", "check", "Bug"), ("good", "check", "ok")]


@pytest.mark.parametrize("simulated", [False, True])
async def test_a_fan_answers_for_each_that_offers_the_verb(load: Load, intents: list[Intent], simulated: bool) -> None:
    plugins = await load("raise ValueError('broken')", simulated=simulated)
    assert await plugins.caller.fan("connector", "fetch_campaigns") == {"bad": _quarantined(plugins)}
    assert await plugins.caller.fan("notifier", "check") == {}
    answers = await plugins.caller.fan("connector", "check")
    assert list(answers) == ["good", "bad"]
    assert answers["good"] is None
    assert isinstance(answers["bad"], Rejected)


class _Same:
    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rejected) and self.text in str(other)

    __hash__ = None  # type: ignore[assignment]


def _quarantined(plugins: Plugins) -> _Same:
    return _Same("bad is quarantined (missing)")


async def test_in_simulation_no_task_and_no_deadline(load: Load, module: Callable[[str], Any]) -> None:
    plugins = await load(
        SOURCE.replace(
            '        await state["gate"].wait()\n        return',
            "        who.append(asyncio.current_task())\n        return",
        )
        + "\nwho = []\n",
        simulated=True,
    )
    await plugins.caller.to("bad", "capabilities", deadline_s=0)
    assert module("bad").who == [asyncio.current_task()]


async def test_in_simulation_a_cancelled_waiter_is_cancelled(load: Load, module: Callable[[str], Any]) -> None:
    plugins = await load(SOURCE, simulated=True)
    module("bad").state["gate"] = asyncio.Event()
    waiter = asyncio.create_task(plugins.caller.to("bad", "capabilities"))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_close_lets_calls_finish_then_says_goodbye(
    load: Load, module: Callable[[str], Any], intents: list[Intent]
) -> None:
    plugins = await load(SOURCE)
    state = module("bad").state
    state["gate"], state["begun"] = asyncio.Event(), asyncio.Event()
    waiter = asyncio.create_task(plugins.caller.to("bad", "set_budget", intents))
    await state["begun"].wait()
    asyncio.get_running_loop().call_later(0.02, state["gate"].set)
    assert await plugins.close(seconds=10) == []
    assert len(await waiter) == 2  # type: ignore[arg-type]
    assert state["closed"]
