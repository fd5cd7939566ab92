"""What a plugin package says when it is loaded: which classes it offers, and how each is configured."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from kiki_agent.hooks.specs import API_VERSION
from kiki_agent.runtime.limiter import RateLimit


class PluginConfig(BaseModel):
    """Base for a plugin's own settings: frozen, and a misspelt key is an error.

    A validator finds the agent's mode in `info.context["mode"]`, to demand in live what a demo does without.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Offer:
    """One class a plugin provides under a name that configuration tables use as `plugin = "<name>"`."""

    kind: str
    name: str
    implementation: type
    config: type[BaseModel]
    rate_limit: RateLimit | None = None
    """What the vendor allows; the configuration may say otherwise for another tier."""


@dataclass(frozen=True, slots=True)
class SandboxOffer:
    """A vendor's API over the simulated market, which demo and backtest mount under `/<name>`."""

    name: str
    """Also the name of the connector class that is pointed at it."""
    platform: str
    """Canonical id of the platform of the market behind it."""
    target: str
    """`module:Class` of a `kiki_agent.sandbox.VendorApi`; imported where the market lives, never by the agent."""
    options: Mapping[str, str]
    """Settings of the connector that point it there; `{url}`, `{id}` and `{secret}` stand for where the sandbox mounted
    the vendor and for its credentials."""

    def load(self) -> Callable[..., Any]:
        """Import the class. Raises ImportError or AttributeError."""
        module, _, name = self.target.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

    def filled(self, base_url: str, client_id: str, client_secret: str) -> dict[str, str]:
        """The options for a sandbox at `base_url`."""
        values = {"{url}": f"{base_url}/{self.name}", "{id}": client_id, "{secret}": client_secret}
        filled = dict(self.options)
        for key, text in filled.items():
            for mark, value in values.items():
                text = text.replace(mark, value)
            filled[key] = text
        return filled


class PluginApi:
    """Handed to a plugin module's `register(api)`; collects what it offers, and nothing else."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        """The name this plugin is allowed under in `plugins.allow`."""
        self.version = API_VERSION
        """(major, minor) of the hooks this core speaks."""
        self.offers: list[Offer] = []
        self.sandboxes: list[SandboxOffer] = []

    def connector(
        self,
        name: str,
        implementation: type,
        *,
        config: type[BaseModel] = PluginConfig,
        rate_limit: RateLimit | None = None,
    ) -> None:
        """Offer a connector class, see `ConnectorSpec`; `rate_limit` is what its vendor allows an account."""
        self._offer("connector", name, implementation, config, rate_limit)

    def crm(self, name: str, implementation: type, *, config: type[BaseModel] = PluginConfig) -> None:
        """Offer a source of customers, see `CrmSpec`."""
        self._offer("crm", name, implementation, config)

    def notifier(self, name: str, implementation: type, *, config: type[BaseModel] = PluginConfig) -> None:
        """Offer a way to reach people, see `NotifierSpec`."""
        self._offer("notifier", name, implementation, config)

    def sandbox(self, name: str, *, platform: str, target: str, options: Mapping[str, str]) -> None:
        """Offer the vendor's API over the simulated market for connectors of class `name`, see `SandboxOffer`."""
        module, colon, attribute = target.partition(":")
        if not (module and colon and attribute):
            raise ValueError(f"the sandbox of {name!r} is named as module:Class, was {target!r}")
        if not (name.isidentifier() and name.isascii()):
            raise ValueError(f"the name of a sandbox is an ASCII identifier, was {name!r}")
        self.sandboxes.append(SandboxOffer(name, platform, target, dict(options)))

    def require(self, major: int, minor: int) -> None:
        """Refuse to load on a core that does not speak API `major.minor` or a later minor. Raises RuntimeError."""
        if self.version[0] != major or self.version[1] < minor:
            have = ".".join(map(str, self.version))
            raise RuntimeError(f"it needs plugin API {major}.{minor}, this agent speaks {have}")

    def _offer(
        self,
        kind: str,
        name: str,
        implementation: type,
        config: type[BaseModel],
        rate_limit: RateLimit | None = None,
    ) -> None:
        if not inspect.isclass(implementation):
            raise TypeError(f"{kind} {name!r} must be a class, not {type(implementation).__name__}")
        if not (inspect.isclass(config) and issubclass(config, BaseModel)):
            raise TypeError(f"the config of {kind} {name!r} must be a pydantic model class")
        if not isinstance(name, str) or not name:
            raise TypeError(f"the name of a {kind} must be a text that is not empty")
        if any(offer.kind == kind and offer.name == name for offer in self.offers):
            raise ValueError(f"it offers {kind} {name!r} twice")
        self.offers.append(Offer(kind, name, implementation, config, rate_limit))
