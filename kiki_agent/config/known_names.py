"""Environment variables under the names people know from the vendors, each for one key of a connector's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kiki_agent.config.layers import KeyPath, Layer, variable
from kiki_agent.errors import Finding

KNOWN_NAMES: Final[Mapping[str, tuple[str, str]]] = {
    "GOOGLE_ADS_API_KEY": ("google_ads", "developer_token"),
    "GOOGLE_ADS_CUSTOMER_ID": ("google_ads", "customer_id"),
    "GOOGLE_ADS_BUDGET": ("google_ads", "window_cap"),
    "META_ACCESS_TOKEN": ("meta", "access_token"),
    "META_BUSINESS_ID": ("meta", "business_id"),
    "META_BUDGET": ("meta", "window_cap"),
}
"""Variable -> connector class and the key of its table. They stand above the file and below `KIKI__...`."""


def variables_of(path: KeyPath, plugin: str) -> tuple[str, ...]:
    """The variables that set a key of a table with this plugin, the one people know from the vendor first."""
    known = [name for name, meant in KNOWN_NAMES.items() if path[0] == "connector" and meant == (plugin, path[-1])]
    return (*known, variable(path))


def known_names_layer(environ: Mapping[str, str], others: Sequence[Layer]) -> Layer:
    """A layer of what these variables say; `others` tell which tables there are.

    A variable whose class no table uses is somebody else's and left alone. One that would mean several accounts at
    once, or that is empty, is a finding.
    """
    layer = Layer("environment")
    for name, (plugin, key) in KNOWN_NAMES.items():
        if name not in environ:
            continue
        ids = _tables(plugin, others)
        place = f"environment {name}"
        if len(ids) > 1:
            better = " and ".join(variable(("connector", each, key)) for each in ids)
            layer.findings.append(Finding(place, name, f"could mean {', '.join(ids)}; use {better}"))
        elif ids and not environ[name].strip():
            layer.findings.append(Finding(place, name, "is empty; give it a value or remove it"))
        elif ids:
            layer.put(("connector", ids[0], key), environ[name].strip(), place)
    return layer


def _tables(plugin: str, layers: Sequence[Layer]) -> list[str]:
    """Ids of the connectors of a class that are switched on, as the layers together have it."""
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        tables = layer.values.get("connector")
        for name, table in tables.items() if isinstance(tables, dict) else ():
            if isinstance(table, dict):
                merged.setdefault(name, {}).update(table)
    off = (False, "false", "0", "no", "off")
    return [name for name, table in merged.items() if table.get("plugin") == plugin and table.get("enabled") not in off]
