"""Pointing configured plugin instances at a sandbox: at its own API, or at their vendor's API over its market."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kiki_agent.config import InstanceSettings, Settings
from kiki_agent.hooks import discovery
from kiki_agent.hooks.api import SandboxOffer

SANDBOX_CLASSES = frozenset({"sandbox"})
"""Names of the plugin classes that speak the sandbox's own API."""


def vendor_offers(settings: Settings) -> list[SandboxOffer]:
    """The vendors' APIs that allowed plugins offer, for the connector classes that the configuration uses."""
    folder = Path(settings.plugins.folder) if settings.plugins.folder is not None else None
    plugins = discovery.find(discovery.installed(), folder)
    discovery.load(plugins, settings.plugins.allow)
    used = {table.plugin for table in settings.connector.values() if table.enabled}
    return [offer for plugin in plugins for offer in plugin.sandboxes if offer.name in used]


def with_sandbox(
    settings: Settings, base_url: str, client_id: str, client_secret: str, vendors: Sequence[SandboxOffer] = ()
) -> Settings:
    """The settings, with address and credentials filled in wherever an instance speaks to the sandbox."""
    own: dict[str, str] = {"base_url": base_url, "client_id": client_id, "client_secret": client_secret}
    values = dict.fromkeys(SANDBOX_CLASSES, own)
    values |= {offer.name: offer.filled(base_url, client_id, client_secret) for offer in vendors}

    def fill(tables: dict[str, Any]) -> dict[str, Any]:
        return {name: _filled(table, values) for name, table in tables.items()}

    return settings.model_copy(update={"connector": fill(settings.connector), "crm": fill(settings.crm)})


def _filled(table: InstanceSettings, values: Mapping[str, Mapping[str, str]]) -> InstanceSettings:
    filled = values.get(table.plugin)
    return table if filled is None else type(table).model_validate({**table.model_dump(), **filled})
