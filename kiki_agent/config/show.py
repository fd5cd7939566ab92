"""The effective configuration as it may be shown: values with their sources, secrets masked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from pydantic import SecretStr

from kiki_agent.config import schema
from kiki_agent.config.load import Loaded, leaves

MASK = "***"


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One line of the effective configuration."""

    key: str
    value: object
    """As JSON has it: text, number, list, true or null."""
    source: str

    @property
    def text(self) -> str:
        """As a person writes it; `-` where nothing is set."""
        if self.value is None:
            return "-"
        return self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False, default=str)


def shown_settings(loaded: Loaded) -> list[ShownSetting]:
    """Every setting in the order of the documentation; a secret that is set reads `***`."""
    return [
        ShownSetting(".".join(path), _shown(path, value), loaded.sources[".".join(path)])
        for path, value in leaves(loaded.settings)
    ]


def _shown(path: tuple[str, ...], value: object) -> object:
    if value is None:
        return None
    if isinstance(value, SecretStr) or schema.is_secret(path):
        return MASK
    if isinstance(value, list):
        return [_shown(path, item) for item in value]
    if isinstance(value, dict):
        return {key: _shown((*path, str(key)), item) for key, item in value.items()}
    return value.value if isinstance(value, Enum) else value
