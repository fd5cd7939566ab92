"""kiki-agent: one process per advertiser that bids by customer value and moves budget between ad platforms.

The names here are what a plugin imports. They load on first use, so `import kiki_agent` costs next to nothing; nothing
else of the package is promised to plugins except `kiki_agent.model` and `kiki_agent.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kiki_agent.hooks.api import PluginApi, PluginConfig
    from kiki_agent.hooks.capabilities import Capabilities
    from kiki_agent.hooks.context import PluginContext
    from kiki_agent.hooks.conversion import Conversion
    from kiki_agent.hooks.edit import AccountEdit
    from kiki_agent.hooks.http import HttpAnswer, HttpClient, NoAnswer
    from kiki_agent.hooks.rng import Rng
    from kiki_agent.hooks.specs import API_VERSION, hookimpl
    from kiki_agent.runtime.limiter import RateLimit

_HOMES = {
    "API_VERSION": "kiki_agent.hooks.specs",
    "AccountEdit": "kiki_agent.hooks.edit",
    "Capabilities": "kiki_agent.hooks.capabilities",
    "Conversion": "kiki_agent.hooks.conversion",
    "HttpAnswer": "kiki_agent.hooks.http",
    "HttpClient": "kiki_agent.hooks.http",
    "NoAnswer": "kiki_agent.hooks.http",
    "PluginApi": "kiki_agent.hooks.api",
    "PluginConfig": "kiki_agent.hooks.api",
    "PluginContext": "kiki_agent.hooks.context",
    "RateLimit": "kiki_agent.runtime.limiter",
    "Rng": "kiki_agent.hooks.rng",
    "hookimpl": "kiki_agent.hooks.specs",
}

__all__ = [
    "API_VERSION",
    "AccountEdit",
    "Capabilities",
    "Conversion",
    "HttpAnswer",
    "HttpClient",
    "NoAnswer",
    "PluginApi",
    "PluginConfig",
    "PluginContext",
    "RateLimit",
    "Rng",
    "hookimpl",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'kiki_agent' has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
