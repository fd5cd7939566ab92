"""What a plugin can do wrong, one test each: it is named, it stays alone with it, and the others run on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.config import Settings
from kiki_agent.errors import Bug, ConfigError, Rejected, Temporary, UnknownOutcome
from kiki_agent.hooks.instance import Quarantine
from kiki_agent.hooks.manager import Plugins
from kiki_agent.model import Intent
from kiki_agent.runtime.watchdog import Block, Watchdog

Load = Callable[..., Awaitable[Plugins]]
Others = Callable[[Plugins], Awaitable[None]]
Lines = Callable[[], list[dict[str, Any]]]

HEAD = """
import asyncio, sys, time
from kiki_agent import Capabilities, hookimpl
from kiki_agent.errors import *
from kiki_agent.model import *

def register(api):
    api.connector("bad", Bad)

class Bad:
    def __init__(self, context):
        self.context = context
"""


def bad(method: str) -> str:
    """A plugin whose class `Bad` has one more method."""
    return HEAD + "".join(f"\n    {line}" for line in method.splitlines()) + "\n"


@pytest.mark.parametrize("simulated", [False, True])
async def test_a_plugin_that_raises(load: Load, others_run: Others, simulated: bool) -> None:
    plugins = await load(bad("@hookimpl\nasync def check(self):\n    return 1 / 0"), simulated=simulated)
    with pytest.raises(Bug, match=r"bad\.check \(plugin bad\) raised ZeroDivisionError") as caught:
        await plugins.caller.to("bad", "check")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert plugins.instances["bad"].state == "ok", "one exception is no reason to stop calling"
    assert plugins.instances["bad"].bugs == 1
    await others_run(plugins)


async def test_a_plugin_that_hangs(load: Load, others_run: Others, intents: list[Intent]) -> None:
    source = bad("@hookimpl\nasync def check(self):\n    await asyncio.Event().wait()")
    source += "\n    @hookimpl\n    async def set_budget(self, intents):\n        await asyncio.Event().wait()\n"
    plugins = await load(source)
    with pytest.raises(Temporary, match=r"bad\.check was cut off after 0\.02 s"):
        await plugins.caller.to("bad", "check", deadline_s=0.02)
    with pytest.raises(UnknownOutcome) as caught:
        await plugins.caller.to("bad", "set_budget", intents, deadline_s=0.02)
    assert caught.value.keys == tuple(intent.key for intent in intents)
    assert plugins.instances["bad"].state == "ok", "it ended when told to"
    await others_run(plugins)


STUBBORN = """
@hookimpl
async def set_budget(self, intents):
    while not released:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""


async def test_a_plugin_that_swallows_cancellation_for_ever(
    load: Load, others_run: Others, intents: list[Intent], module: Callable[[str], Any], log_lines: Lines
) -> None:
    plugins = await load(bad(STUBBORN) + "\nreleased = []\n")
    try:
        with pytest.raises(UnknownOutcome) as caught:
            await plugins.caller.to("bad", "set_budget", intents, deadline_s=0.02)
        assert caught.value.keys == tuple(intent.key for intent in intents)
        instance = plugins.instances["bad"]
        assert (instance.state, instance.quarantine) == ("quarantined", Quarantine.STUCK)
        assert "bad.set_budget" in instance.error
        assert any(
            line["event"] == "plugin_quarantined" and "bad.set_budget" in line["message"] for line in log_lines()
        )
        with pytest.raises(Rejected, match=r"bad is quarantined \(stuck\)") as refused:
            await plugins.caller.to("bad", "set_budget", intents)
        assert refused.value.reason == "QUARANTINED"
        assert plugins.caller.running == ["bad.set_budget"], "the abandoned call is still known"
        await others_run(plugins)
        assert await plugins.close(seconds=0.02, grace_seconds=0.05) == ["plugin bad.set_budget"]
    finally:
        module("bad").released.append(True)
        await plugins.caller.end(0.5)
    assert plugins.caller.running == []


@pytest.mark.parametrize("simulated", [False, True])
async def test_a_plugin_that_exits_in_a_call(load: Load, others_run: Others, simulated: bool) -> None:
    plugins = await load(bad("@hookimpl\nasync def check(self):\n    sys.exit(3)"), simulated=simulated)
    with pytest.raises(Bug, match=r"bad\.check \(plugin bad\) called sys\.exit\(3\)"):
        await plugins.caller.to("bad", "check")
    await others_run(plugins)


EXITS_IN_A_TASK = """
@hookimpl
async def check(self):
    self.mine = asyncio.create_task(self.quit())
    await asyncio.wait([self.mine])
async def quit(self):
    sys.exit("over")
"""


async def test_a_plugin_that_exits_in_its_own_task(load: Load, others_run: Others, log_lines: Lines) -> None:
    plugins = await load(bad(EXITS_IN_A_TASK))
    assert await plugins.caller.to("bad", "check") is None
    said = [line["message"] for line in log_lines() if line["event"] == "exit_attempt"]
    assert len(said) == 1
    assert "plugin bad.check" in said[0]
    await others_run(plugins)


async def test_a_plugin_that_exits_in_a_spawned_task(load: Load, others_run: Others, log_lines: Lines) -> None:
    source = EXITS_IN_A_TASK.replace("asyncio.create_task(self.quit())", "self.context.spawn(self.quit(), name='q')")
    plugins = await load(bad(source))
    assert await plugins.caller.to("bad", "check") is None
    assert any("plugin bad:q failed" in line["message"] for line in log_lines())
    await others_run(plugins)


BLOCKS = """
@hookimpl
async def check(self):
    time.sleep(0.5)
@hookimpl
async def capabilities(self):
    await asyncio.create_task(self.block(), name="a name of its own")
    return Capabilities()
async def block(self):
    time.sleep(0.5)
"""


@pytest.mark.parametrize(
    ("verb", "blamed"),
    [("check", "plugin bad.check"), ("capabilities", "plugin bad.capabilities: a name of its own")],
)
async def test_a_plugin_that_blocks_is_named_by_the_watchdog(
    load: Load, others_run: Others, verb: str, blamed: str
) -> None:
    plugins = await load(bad(BLOCKS))
    blamed_for: set[str] = set()
    seen = asyncio.Event()

    def on_block(block: Block) -> None:
        blamed_for.add(block.label)
        seen.set()

    watchdog = Watchdog(limit_seconds=0.05, every_seconds=0.02, on_block=on_block, blame=plugins.blame)
    watchdog.start()
    try:
        for _ in range(10):  # on a busy machine the watchdog's own thread may come too late once
            await plugins.caller.to("bad", verb)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(seen.wait(), 1)
            if blamed in blamed_for:
                break
            seen.clear()
    finally:
        watchdog.stop()
    assert blamed in blamed_for
    await others_run(plugins)


LEAKS = """
@hookimpl
async def check(self):
    mine = asyncio.create_task(self.pump())
    started.append(mine)
    await asyncio.sleep(0)
async def pump(self):
    await asyncio.Event().wait()
"""


async def test_a_plugin_that_leaks_a_task(
    load: Load, others_run: Others, module: Callable[[str], Any], log_lines: Lines
) -> None:
    plugins = await load(bad(LEAKS) + "\nstarted = []\n")
    await plugins.caller.to("bad", "check")
    assert plugins.instances["bad"].tasks.leaks == 1
    said = [line["message"] for line in log_lines() if line["event"] == "plugin_task_leaked"]
    assert len(said) == 1
    assert "bad.check left plugin bad.check: Bad.pump running" in said[0]
    for _ in range(30):
        await plugins.caller.to("bad", "check")
    await asyncio.sleep(0)
    alive = [task for task in module("bad").started if not task.done()]
    assert len(alive) == 16, "leaking for ever is bounded: the oldest go"
    assert len([line for line in log_lines() if line["event"] == "plugin_task_leaked"]) == 1, "said once"
    await others_run(plugins)
    assert await plugins.close() == []
    assert all(task.cancelled() for task in module("bad").started)
    assert any(
        "left tasks running, now cancelled: plugin bad.check: Bad.pump" in line["message"] for line in log_lines()
    )


@pytest.mark.parametrize("simulated", [False, True])
async def test_a_plugin_that_returns_a_wrong_type(
    load: Load, others_run: Others, intents: list[Intent], simulated: bool
) -> None:
    source = bad("@hookimpl\nasync def set_budget(self, intents):\n    return [True for _ in intents]")
    plugins = await load(source, simulated=simulated)
    with pytest.raises(Bug, match=r"bad\.set_budget \(plugin bad\) answered row 0: bool where Receipt belongs"):
        await plugins.caller.to("bad", "set_budget", intents)
    assert await plugins.caller.to("good", "set_budget", intents)
    await others_run(plugins)


async def test_a_sync_function_for_an_async_hook(load: Load, others_run: Others) -> None:
    plugins = await load(bad("@hookimpl\ndef check(self):\n    pass"))
    instance = plugins.instances["bad"]
    assert (instance.state, instance.quarantine) == ("quarantined", Quarantine.SIGNATURE)
    assert instance.error == "bad (plugin bad): check is a plain function; hooks are `async def`"
    with pytest.raises(Rejected, match="plain function"):
        await plugins.caller.to("bad", "check")
    await others_run(plugins)


@pytest.mark.parametrize("statement", ["raise RuntimeError('no such library')", "import sys; sys.exit(1)", "def ("])
async def test_a_plugin_that_breaks_at_import(load: Load, others_run: Others, statement: str) -> None:
    plugins = await load(statement)
    [found] = [entry for entry in plugins.describe() if entry["kind"] == "plugin"]
    assert (found["name"], found["state"], found["quarantine"]) == ("bad", "quarantined", "import")
    instance = plugins.instances["bad"]
    assert (instance.state, instance.quarantine) == ("quarantined", Quarantine.MISSING)
    assert "plugin bad failed to import" in instance.error
    await others_run(plugins)


async def test_an_unknown_configuration_key(
    settings_of: Callable[..., Settings], load: Load, plugin_folder: Path, others_run: Others
) -> None:
    source = bad("@hookimpl\nasync def check(self):\n    pass")
    source += "\nfrom kiki_agent import PluginConfig\nclass Keys(PluginConfig):\n    token: str\n    rate: int = 1\n"
    source = source.replace('api.connector("bad", Bad)', 'api.connector("bad", Bad, config=Keys)')
    (plugin_folder / "bad.py").write_text(source)
    tables = {"one": {"plugin": "bad", "tokn": "secret-a"}, "two": {"plugin": "bad", "token": "t", "rate": "much"}}
    with pytest.raises(ConfigError) as caught:
        await load(settings=settings_of(connector=tables), locate=lambda key: f"config.toml at {key}")
    found = {finding.key: finding.message for finding in caught.value.findings}
    assert found == {
        "connector.one.token": "is required; in the environment token (KIKI__CONNECTOR__ONE__TOKEN)",
        "connector.one.tokn": "unknown key (did you mean 'token'?); known are token, rate",
        "connector.two.rate": "Input should be a valid integer, unable to parse string as an integer",
    }
    assert caught.value.findings[0].place == "config.toml at connector.one.token"
    assert "secret-a" not in str(caught.value)
    fixed = {"one": {"plugin": "bad", "token": "a"}}
    await others_run(await load(settings=settings_of(connector=fixed)))


async def test_two_accounts_of_one_class(settings_of: Callable[..., Settings], load: Load, plugin_folder: Path) -> None:
    source = bad(
        "@hookimpl\nasync def capabilities(self):\n    return Capabilities(currency=self.context.config.money)"
    )
    source += "\nfrom kiki_agent import PluginConfig\nclass Keys(PluginConfig):\n    money: str\n"
    source = source.replace('api.connector("bad", Bad)', 'api.connector("bad", Bad, config=Keys)')
    (plugin_folder / "bad.py").write_text(source)
    tables = {"east": {"plugin": "bad", "money": "JPY"}, "west": {"plugin": "bad", "money": "USD"}}
    plugins = await load(settings=settings_of(connector=tables))
    answers = await plugins.caller.fan("connector", "capabilities")
    assert {name: getattr(answer, "currency", answer) for name, answer in answers.items()} == {
        "good": "EUR",
        "east": "JPY",
        "west": "USD",
    }


async def test_an_older_plugin_with_fewer_arguments(load: Load, others_run: Others) -> None:
    source = bad(
        "@hookimpl\nasync def fetch_performance(self, window):\n"
        "    asked.append(window)\n    return PerformanceReport((), Instant(5), window.first_day)\n"
    )
    plugins = await load(source + "\nasked = []\n")
    assert plugins.instances["bad"].state == "ok"
    from kiki_agent.model import DayWindow, PerformanceReport

    report = await plugins.caller.to("bad", "fetch_performance", DayWindow("2026-01-01", "2026-01-02"), None)
    assert isinstance(report, PerformanceReport)
    assert report.final_before == "2026-01-01"
    await others_run(plugins)


async def test_a_one_file_plugin_from_the_folder(load: Load, others_run: Others) -> None:
    plugins = await load()
    assert [(plugin.name, plugin.source, plugin.state) for plugin in plugins.plugins] == [("healthy", "file", "ok")]
    await others_run(plugins)


async def test_a_plugin_not_in_the_allow_list_is_not_imported(
    settings_of: Callable[..., Settings], load: Load, plugin_folder: Path, tmp_path: Path, others_run: Others
) -> None:
    trace = tmp_path / "imported"
    (plugin_folder / "stranger.py").write_text(f"open({str(trace)!r}, 'w').close()\ndef register(api): pass\n")
    plugins = await load(settings=settings_of(allow=["healthy"]))
    assert not trace.exists()
    [stranger] = [entry for entry in plugins.describe() if entry["name"] == "stranger"]
    assert (stranger["state"], stranger["kind"]) == ("off", "plugin")
    await others_run(plugins)
    await load(settings=settings_of(allow=["healthy", "stranger"]))
    assert trace.exists(), "the trace is a proof only if an import leaves it"


async def test_an_installed_package_not_in_the_allow_list_is_not_imported(
    load: Load, others_run: Others, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "imported"
    (tmp_path / "packaged_stranger.py").write_text(f"open({str(trace)!r}, 'w').close()\ndef register(api): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins = await load(points=(EntryPoint("stranger", "packaged_stranger", "kiki_agent"),))
    assert not trace.exists()
    assert [plugin.state for plugin in plugins.plugins if plugin.name == "stranger"] == ["off"]
    await others_run(plugins)


async def test_many_faults_at_once_delay_nobody(load: Load, plugin_folder: Path, intents: list[Intent]) -> None:
    """A fan over a hanging, a raising and a healthy instance gives each its own answer, and never raises."""
    source = bad("@hookimpl\nasync def capabilities(self):\n    await asyncio.Event().wait()")
    (plugin_folder / "worse.py").write_text(
        bad("@hookimpl\nasync def capabilities(self):\n    raise KeyError('x')").replace('"bad"', '"worse"')
    )
    settings = Settings.model_validate(
        {
            "plugins": {"allow": ["bad", "worse", "healthy"], "folder": str(plugin_folder)},
            "connector": {name: {"plugin": name, "platform": "meta"} for name in ("bad", "worse", "healthy")},
        }
    )
    plugins = await load(source, settings=settings)
    answers = await plugins.caller.fan("connector", "capabilities", deadline_s=0.05)
    assert list(answers) == ["bad", "worse", "healthy"]
    assert [type(answer).__name__ for answer in answers.values()] == ["Temporary", "Bug", "Capabilities"]
