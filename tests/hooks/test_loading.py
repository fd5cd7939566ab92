"""From configuration to instances: every mistake found at once, every fault set aside."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import kiki_agent
from kiki_agent.config import Settings
from kiki_agent.errors import ConfigError
from kiki_agent.hooks.instance import Quarantine
from kiki_agent.hooks.manager import Plugins
from kiki_agent.model import DayWindow

Load = Callable[..., Awaitable[Plugins]]
SettingsOf = Callable[..., Settings]

PLAIN = """
from kiki_agent import Capabilities, hookimpl
from kiki_agent.model import *

def register(api):
    api.connector("bad", Bad)

class Bad:
    def __init__(self, context):
        pass
"""


async def findings(load: Load, settings: Settings) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        await load(settings=settings)
    return {finding.key: finding.message for finding in caught.value.findings}


async def test_all_mistakes_of_all_tables_at_once(load: Load, settings_of: SettingsOf, plugin_folder: Path) -> None:
    (plugin_folder / "other.py").write_text("def register(api): pass\n")
    found = await findings(
        load,
        settings_of(
            allow=["healthy", "helthy"],
            connector={"a": {"plugin": "healthi"}, "b": {"plugin": "healthy", "depth": 1}},
            crm={"a": {"plugin": "none"}, "c": {"plugin": "none"}},
        ),
    )
    assert found == {
        "plugins.allow": "no plugin is called 'helthy' (did you mean 'healthy'?); found are healthy, other",
        "connector.a.plugin": "no allowed plugin offers a connector 'healthi' (did you mean 'healthy'?); offered are "
        "healthy; installed but not in plugins.allow: other",
        "connector.b.depth": "unknown key; known are none",
        "crm.a": "the id is taken by [connector.a]; ids are unique over all kinds",
        "crm.c.plugin": "no allowed plugin offers a crm 'none'; offered are none; installed but not in plugins.allow: "
        "other",
    }


async def test_a_folder_that_is_not_there(load: Load) -> None:
    settings = Settings.model_validate({"plugins": {"allow": [], "folder": "/nonexistent/plugins"}})
    assert await findings(load, settings) == {"plugins.folder": "'/nonexistent/plugins' is not a folder"}


async def test_two_plugins_of_one_name(load: Load, settings_of: SettingsOf) -> None:
    points = (EntryPoint("healthy", "json", "kiki_agent"),)
    with pytest.raises(ConfigError, match="2 plugins are called 'healthy'; rename or uninstall all but one"):
        await load(settings=settings_of(), points=points)


async def test_a_table_that_is_off_is_not_looked_into(load: Load, settings_of: SettingsOf) -> None:
    plugins = await load(settings=settings_of(connector={"later": {"plugin": "unknown", "enabled": False, "x": 1}}))
    assert plugins.instances["later"].state == "off"
    assert "later" not in await plugins.caller.fan("connector", "check")


async def test_a_model_that_ignores_unknown_keys_is_made_strict(load: Load, plugin_folder: Path) -> None:
    source = PLAIN.replace('api.connector("bad", Bad)', 'api.connector("bad", Bad, config=Loose)')
    source += "    @hookimpl\n    async def check(self): pass\n"
    source += "\nfrom pydantic import BaseModel\nclass Loose(BaseModel):\n    depth: int = 1\n"
    (plugin_folder / "bad.py").write_text(source)
    table: dict[str, object] = {"plugin": "bad", "platform": "meta", "dept": 2}
    base: dict[str, object] = {"plugins": {"allow": ["bad"], "folder": str(plugin_folder)}}
    found = await findings(load, Settings.model_validate(base | {"connector": {"x": table}}))
    assert found == {"connector.x.dept": "unknown key (did you mean 'depth'?); known are depth"}
    del table["dept"]
    plugins = await load(settings=Settings.model_validate(base | {"connector": {"x": table}}))
    context = plugins.instances["x"].context
    assert context is not None
    assert type(context.config).__mro__[1].__name__ == "Loose"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1", "plugin bad has no function register(api)"),
        ("def register(api):\n    raise OSError('disk')", "failed to register: OSError: disk (bad.py:2)"),
        ("def register(api):\n    raise SystemExit(2)", "failed to register: SystemExit: 2"),
        ("def register(api):\n    api.connector('bad', object())", "must be a class, not object"),
        ("def register(api):\n    api.connector('bad', object, config=dict)", "must be a pydantic model class"),
        ("def register(api):\n    [api.connector('bad', object) for _ in '12']", "it offers connector 'bad' twice"),
        ("def register(api):\n    api.require(2, 0)", "it needs plugin API 2.0, this agent speaks 1.1"),
        ("def register(api):\n    api.require(1, 9)", "it needs plugin API 1.9, this agent speaks 1.1"),
    ],
)
async def test_a_registration_that_fails(
    load: Load, others_run: Callable[[Plugins], Awaitable[None]], source: str, expected: str
) -> None:
    plugins = await load(source)
    [plugin] = [plugin for plugin in plugins.plugins if plugin.name == "bad"]
    assert (plugin.state, plugin.quarantine) == ("quarantined", Quarantine.REGISTER)
    assert expected in plugin.error
    assert plugins.instances["bad"].quarantine is Quarantine.MISSING
    await others_run(plugins)


async def test_a_name_that_is_taken_goes_to_the_first(
    load: Load, plugin_folder: Path, settings_of: SettingsOf, others_run: Callable[[Plugins], Awaitable[None]]
) -> None:
    (plugin_folder / "thief.py").write_text("def register(api):\n    api.connector('healthy', object)\n")
    plugins = await load(settings=settings_of())
    [thief] = [entry for entry in plugins.describe() if entry["name"] == "thief"]
    assert thief["error"] == "plugin thief offers connector 'healthy', which plugin healthy offers already"
    await others_run(plugins)


@pytest.mark.parametrize(
    ("body", "why", "expected"),
    [
        ("        raise KeyError('no')\n", Quarantine.CONSTRUCT, "plugin bad failed to make bad: KeyError: 'no'"),
        ("        raise SystemExit\n", Quarantine.CONSTRUCT, "plugin bad failed to make bad: SystemExit"),
        ("\n", Quarantine.SIGNATURE, "it implements no hook of a connector"),
        (
            "    @hookimpl\n    async def fetch_spned(self): pass\n",
            Quarantine.SIGNATURE,
            "fetch_spned is no hook of a connector",
        ),
        (
            "    @hookimpl\n    async def fetch_spend(self, since, until): pass\n",
            Quarantine.SIGNATURE,
            "Argument(s) {'until'} are declared in the hookimpl but can not be found in the hookspec",
        ),
        (
            "    async def check(self): pass\n",
            Quarantine.SIGNATURE,
            "check is named like a hook but not marked @hookimpl",
        ),
        (
            "    @hookimpl(wrapper=True)\n    def check(self):\n        yield\n",
            Quarantine.SIGNATURE,
            "check is a wrapper",
        ),
        (
            "    @hookimpl\n    async def check(self):\n        yield\n",
            Quarantine.SIGNATURE,
            "check is a plain function",
        ),
        (
            "    @hookimpl\n    def check(self): pass\n    @hookimpl\n    def capabilities(self): pass\n",
            Quarantine.SIGNATURE,
            "capabilities is a plain function; hooks are `async def`; check is a plain function",
        ),
    ],
)
async def test_an_instance_that_does_not_fit(
    load: Load,
    others_run: Callable[[Plugins], Awaitable[None]],
    body: str,
    why: Quarantine,
    expected: str,
) -> None:
    plugins = await load(PLAIN + body)
    instance = plugins.instances["bad"]
    assert (instance.state, instance.quarantine) == ("quarantined", why)
    assert expected in instance.error
    await others_run(plugins)


async def test_a_newer_plugin_may_bring_hooks_this_agent_does_not_know(load: Load) -> None:
    source = PLAIN + "    @hookimpl\n    async def check(self): pass\n"
    source += "    @hookimpl(optionalhook=True)\n    async def fetch_weather(self, place): pass\n"
    plugins = await load(source)
    assert plugins.instances["bad"].state == "ok"
    assert list(plugins.instances["bad"].hooks) == ["check"]


@pytest.mark.parametrize(
    "arguments",
    ["window, cursor", "cursor, window", "window, cursor=None", "*, window, cursor", "window, *, cursor, extra=3"],
)
async def test_arguments_arrive_by_name(load: Load, module: Callable[[str], Any], arguments: str) -> None:
    """A default must not hide an argument: a `cursor=None` that never arrives would read the first page for ever."""
    body = f"    @hookimpl\n    async def fetch_performance(self, {arguments}):\n"
    body += "        seen.append((window, cursor))\n        return PerformanceReport((), Instant(1), 'd')\nseen = []\n"
    plugins = await load(PLAIN + body)
    window = DayWindow("a", "b")
    await plugins.caller.to("bad", "fetch_performance", window, "page 2")
    assert module("bad").seen == [(window, "page 2")]


async def test_listing_makes_no_instance(plugin_folder: Path, settings_of: SettingsOf) -> None:
    (plugin_folder / "bad.py").write_text(
        PLAIN + "        raise KeyError\n    @hookimpl\n    async def check(self): pass\n"
    )
    settings = settings_of(connector={"bad": {"plugin": "bad"}})
    plugins = await Plugins.load(settings, make_context=None, points=())
    entries = {str(entry["name"]): entry for entry in plugins.describe()}
    assert {name: entry["state"] for name, entry in entries.items()} == {"good": "ok", "bad": "ok"}
    assert entries["bad"]["hooks"] == ["check"]
    assert asyncio.get_running_loop().get_task_factory() is None
    await plugins.close()


async def test_first_party_plugins_are_found_like_any_other(load: Load) -> None:
    settings = Settings.model_validate({"plugins": {"allow": ["sandbox"]}})
    plugins = await load(settings=settings, points=None)
    [sandbox] = [plugin for plugin in plugins.plugins if plugin.name == "sandbox"]
    assert (sandbox.source, sandbox.state, sandbox.error) == ("package", "ok", "")
    assert sandbox.version
    assert {(offer.kind, offer.name) for offer in sandbox.offers} >= {("connector", "sandbox")}


async def test_closing_gives_the_loop_its_task_factory_back(load: Load) -> None:
    loop = asyncio.get_running_loop()
    first, second = await load(), await load()
    inner = loop.get_task_factory()
    await second.close()
    assert loop.get_task_factory() is not inner
    await first.close()
    assert "InstanceTasks" not in repr(loop.get_task_factory())


def test_public_names_load_on_use() -> None:
    code = "import sys, kiki_agent; print(sorted(set(sys.modules) & {'pluggy', 'pydantic', 'aiohttp', 'asyncio'}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
    for name in kiki_agent.__all__:
        assert getattr(kiki_agent, name) is not None
    assert set(kiki_agent.__all__) <= set(dir(kiki_agent))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kiki_agent.nothing  # noqa: B018
