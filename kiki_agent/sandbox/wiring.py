"""Pointing configured plugin instances at a sandbox."""

from __future__ import annotations

from typing import Any

from kiki_agent.config import InstanceSettings, Settings

SANDBOX_CLASSES = frozenset({"sandbox"})
"""Names of the plugin classes that speak the sandbox's own API."""


def with_sandbox(settings: Settings, base_url: str, client_id: str, client_secret: str) -> Settings:
    """The settings, with address and credentials filled in wherever an instance speaks to the sandbox."""
    filled: dict[str, Any] = {"base_url": base_url, "client_id": client_id, "client_secret": client_secret}

    def fill(tables: dict[str, Any]) -> dict[str, Any]:
        return {name: _filled(table, filled) for name, table in tables.items()}

    return settings.model_copy(update={"connector": fill(settings.connector), "crm": fill(settings.crm)})


def _filled(table: InstanceSettings, values: dict[str, Any]) -> InstanceSettings:
    if table.plugin not in SANDBOX_CLASSES:
        return table
    return type(table).model_validate({**table.model_dump(), **values})
