"""An agent's plugins in small: one-file plugins written on the spot, loaded, called and closed."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.config import Settings
from kiki_agent.hooks.context import ContextFactory
from kiki_agent.hooks.http import InProcessHttp
from kiki_agent.hooks.manager import Plugins
from kiki_agent.model import Instant, Intent, IntentKind, intent_key
from kiki_agent.runtime import log
from kiki_agent.runtime.clock import SystemClock

START = Instant(1_790_000_000_000_000)

HEALTHY = '''
"""A plugin that does all it should."""
from kiki_agent import Capabilities, hookimpl
from kiki_agent.model import Alert, Outcome, Receipt

class Healthy:
    def __init__(self, context):
        self.context = context

    @hookimpl
    async def check(self):
        pass

    @hookimpl
    async def capabilities(self):
        return Capabilities(currency="EUR")

    @hookimpl
    async def set_budget(self, intents):
        return [Receipt(intent.key, Outcome.ACCEPTED) for intent in intents]

def register(api):
    api.connector("healthy", Healthy)
'''

Load = Callable[..., Awaitable[Plugins]]


@pytest.fixture
def plugin_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for one-file plugins, with `healthy.py` in it."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "healthy.py").write_text(HEALTHY)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("kiki_agent_plugin_"):
            del sys.modules[name]


@pytest.fixture
def settings_of(plugin_folder: Path) -> Callable[..., Settings]:
    """Settings with the folder's plugins allowed, instance `good` of `healthy`, and the tables given."""

    def make(*, allow: list[str] | None = None, **tables: dict[str, dict[str, object]]) -> Settings:
        connector: dict[str, dict[str, object]] = {"good": {"plugin": "healthy", "platform": "meta"}}
        connector |= {name: {"platform": "google_ads"} | table for name, table in tables.pop("connector", {}).items()}
        names = allow if allow is not None else sorted(path.stem for path in plugin_folder.glob("*.py"))
        plugins = {"allow": names, "folder": str(plugin_folder)}
        return Settings.model_validate({"plugins": plugins, "connector": connector, **tables})

    return make


@pytest.fixture
async def load(plugin_folder: Path, settings_of: Callable[..., Settings]) -> AsyncIterator[Load]:
    """Write `source` as `bad.py` and load everything; `bad` is one instance of its class `bad`."""
    loaded: list[Plugins] = []

    async def run(
        source: str = "", *, settings: Settings | None = None, simulated: bool = False, **options: Any
    ) -> Plugins:
        if source:
            (plugin_folder / "bad.py").write_text(source)
        if settings is None:
            settings = settings_of(connector={"bad": {"plugin": "bad"}} if source else {})
        clock = SystemClock()

        def nowhere(*request: object) -> tuple[int, dict[str, str], bytes]:
            return 404, {}, b""

        factory = ContextFactory(clock=clock, make_http=lambda _: InProcessHttp(nowhere, clock), seed=7)
        plugins = await Plugins.load(
            settings, make_context=factory, simulated=simulated, points=options.pop("points", ()), **options
        )
        plugins.caller._grace_s = 0.05
        loaded.append(plugins)
        return plugins

    yield run
    for plugins in loaded:
        await plugins.close(seconds=1, grace_seconds=0.1)


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Everything logged so far, parsed."""
    stream = io.StringIO()
    log.configure("debug", "json", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    log.configure()


@pytest.fixture
def intents() -> list[Intent]:
    """Two budget changes."""
    return [
        Intent(
            intent_key("bad", campaign, IntentKind.SET_BUDGET, START),
            IntentKind.SET_BUDGET,
            "bad",
            campaign,
            1_000_000,
            2_000_000,
            "USD",
            "SHIFT",
            START,
        )
        for campaign in ("c1", "c2")
    ]


@pytest.fixture
def module() -> Callable[[str], Any]:
    """The imported module of a one-file plugin, to reach into it."""
    return lambda name: sys.modules[f"kiki_agent_plugin_{name}"]


async def still_good(plugins: Plugins) -> None:
    """The healthy instance answers a read."""
    answer = await plugins.caller.to("good", "capabilities")
    assert getattr(answer, "currency", None) == "EUR"


@pytest.fixture
def others_run() -> Callable[[Plugins], Awaitable[None]]:
    """Assert that the healthy instance beside the faulty one still works."""
    return still_good
