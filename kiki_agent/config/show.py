"""The effective configuration as it may be shown: values with their sources, secrets masked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pydantic import SecretStr

from kiki_agent.config import schema
from kiki_agent.config.known_names import variables_of
from kiki_agent.config.load import DEFAULT, Loaded, leaves

MASK = "***"
NOT_SET = "not set"


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One line of the effective configuration."""

    key: str
    value: object
    """As JSON has it: text, number, list, true or null."""
    source: str
    variables: tuple[str, ...] = ()
    """What sets it in the environment, the name known from the vendor first."""

    @property
    def text(self) -> str:
        """As a person writes it; `-` where nothing is set."""
        if self.value is None or self.value == "":
            return "-"
        return self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False, default=str)


def shown_settings(loaded: Loaded) -> list[ShownSetting]:
    """Every setting in the order of the documentation; a secret that is set reads `***`.

    Of the tables of plugins it knows what was given; `unset_keys` adds the rest.
    """
    return [
        ShownSetting(
            ".".join(path),
            _shown(path, value),
            loaded.sources[".".join(path)],
            variables_of(path, _plugin(loaded, path)),
        )
        for path, value in leaves(loaded.settings)
    ]


def unset_keys(loaded: Loaded, table: tuple[str, str], defaults: Mapping[str, object]) -> list[ShownSetting]:
    """The keys of a plugin's table that nobody gave, with what its plugin says they are then."""
    given = getattr(loaded.settings, table[0])[table[1]].options
    rows = []
    for name, default in defaults.items():
        if name not in given:
            path = (*table, name)
            value = _plain(default)  # a default stands in the plugin's code, so its name makes no secret of it
            source = NOT_SET if value in (None, "") else DEFAULT
            rows.append(ShownSetting(".".join(path), value, source, variables_of(path, _plugin(loaded, path))))
    return rows


def _plugin(loaded: Loaded, path: tuple[str, ...]) -> str:
    """The class that serves the table a path is in; empty for the core's own settings."""
    if schema.instance_kind(path) is None:
        return ""
    return str(getattr(loaded.settings, path[0])[path[1]].plugin)


def _shown(path: tuple[str, ...], value: object) -> object:
    if value is None:
        return None
    if isinstance(value, SecretStr) or schema.is_secret(path):
        return MASK
    if isinstance(value, list):
        return [_shown(path, item) for item in value]
    if isinstance(value, dict):
        return {key: _shown((*path, str(key)), item) for key, item in value.items()}
    return _plain(value)


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else None
    return value.value if isinstance(value, Enum) else value
