"""Puts file, environment and flags together: settings with the source of each value, or every finding at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from kiki_agent.config import schema
from kiki_agent.config.checks import conflicts
from kiki_agent.config.findings import findings_of
from kiki_agent.config.known_names import known_names_layer
from kiki_agent.config.layers import (
    FILE_VARIABLE,
    KeyPath,
    Layer,
    environment_layer,
    file_layer,
    flags_layer,
)
from kiki_agent.config.settings import Settings
from kiki_agent.errors import ConfigError, Finding

DEFAULT_FILE = "config.toml"
PACKAGED = "packaged config.toml"
DEFAULT = "default"
_ROUNDS = 5
"""Enough to judge a configuration again without its broken values; each round drops at least one."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each of their values came from."""

    settings: Settings
    sources: Mapping[str, str]
    """Dotted key -> `config.toml:12`, `environment KIKI__HTTP__PORT`, `command line` or `default`."""
    file: str
    """The configuration file that was read, as it is called in sources."""

    def locate(self, key: str) -> str:
        """The place of a dotted key, for a finding about it; of a table, where its first given key stands."""
        inside = (source for name, source in self.sources.items() if name.startswith(f"{key}.") and source != DEFAULT)
        given = self.sources.get(key, DEFAULT)
        return given if given != DEFAULT else next(inside, self.file)


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, str]) -> Loaded:
    """Settings from config.toml < environment < flags (dotted key -> text). Raises ConfigError with every finding.

    The file is `path`, else what KIKI_CONFIG names, else ./config.toml, else the one shipped with the package.
    """
    base = _file(path, environ)
    own = [environment_layer(environ), flags_layer(flags)]
    layers = [base, known_names_layer(environ, [base, *own]), *own]
    found = [finding for layer in layers for finding in layer.findings]
    if base.findings:
        raise ConfigError(found)  # nothing to judge the rest against
    settings, more = _judge(layers)
    found += more
    if settings is not None:
        sources = {".".join(leaf): _source(leaf, layers) or DEFAULT for leaf, _ in leaves(settings)}
        found += _broken_rules(settings, sources, layers, found)
        if not found:
            return Loaded(settings, sources, base.name)
    raise ConfigError(sorted(dict.fromkeys(found), key=lambda finding: _reading_order(finding, layers)))


def leaves(settings: Settings) -> Iterator[tuple[KeyPath, object]]:
    """Every value with its path, in the order of the model; lists are one value."""
    yield from _leaves(settings, ())


def _leaves(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves(getattr(value, name), (*path, name))
        for name, inner in (value.model_extra or {}).items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, str(name)))
    else:
        yield path, value


def _file(path: Path | None, environ: Mapping[str, str]) -> Layer:
    named = environ.get(FILE_VARIABLE, "")
    if path is not None:
        return _named_file(path, "the command line")
    if named:
        return _named_file(Path(named), FILE_VARIABLE)
    if Path(DEFAULT_FILE).is_file():
        return file_layer(Path(DEFAULT_FILE), DEFAULT_FILE)
    with as_file(files("kiki_agent.config") / "default.toml") as packaged:
        return file_layer(packaged, PACKAGED)


def _named_file(path: Path, named_by: str) -> Layer:
    if not path.exists():
        missing = Layer(str(path))
        missing.findings.append(Finding(str(path), "(file)", f"does not exist (named by {named_by})"))
        return missing
    return file_layer(path, str(path))


class _LayerSource(PydanticBaseSettingsSource):
    """One layer as a source of pydantic-settings, which merges tables key by key."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_cls)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._layer.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._layer.values


def _merge(layers: Sequence[Layer]) -> Settings:
    class Effective(Settings, BaseSettings):
        model_config = SettingsConfigDict(extra="forbid", frozen=True)

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: object, **__: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(_LayerSource(settings_cls, layer) for layer in reversed(layers))

    return Settings.model_validate(Effective().model_dump())


def _judge(layers: Sequence[Layer]) -> tuple[Settings | None, list[Finding]]:
    """Settings as far as they can be judged: broken values are reported, left out, and the rest is looked at again."""
    found: list[Finding] = []
    for _ in range(_ROUNDS):
        try:
            return _merge(layers), found
        except ValidationError as error:
            for path, finding in findings_of(error, layers):
                found.append(finding)
                _leave_out(path, layers)
    return None, found


def _leave_out(path: KeyPath, layers: Sequence[Layer]) -> None:
    """Drops the value in force, so that a lower layer's is judged next; a table goes from all layers."""
    setting = schema.find(path)
    if setting is None or setting.kind is None:
        for layer in layers:
            layer.drop(path)
    elif not next((True for layer in reversed(layers) if layer.drop(path)), False) or setting.required:
        for layer in layers:
            layer.drop(path[:-1])


def _broken_rules(
    settings: Settings, sources: Mapping[str, str], layers: Sequence[Layer], found: Sequence[Finding]
) -> list[Finding]:
    """Findings over several settings, leaving out what depends on a value that is already reported."""
    given = {key for key, source in sources.items() if source != DEFAULT}
    reported = {finding.key for finding in found}
    broken = []
    for conflict in conflicts(settings, given | reported):
        key = ".".join(conflict.path)
        if not any(other == key or other.startswith(key + ".") or key.startswith(other + ".") for other in reported):
            broken.append(Finding(_source(conflict.path, layers) or layers[0].name, key, conflict.message))
    return broken


def _source(path: KeyPath, layers: Sequence[Layer]) -> str | None:
    """Where the value in force stands: the highest layer that names the key, or the table or list it is part of."""
    for layer in reversed(layers):
        for length in range(len(path), 0, -1):
            place = layer.places.get(path[:length])
            if place is not None and (length == len(path) or not schema.is_table(path[:length])):
                return place
    return None


def _reading_order(finding: Finding, layers: Sequence[Layer]) -> tuple[int, int, str]:
    """The file from top to bottom, then the environment, then the command line."""
    for rank, layer in enumerate(layers[1:], start=1):
        if finding.place.startswith(layer.name):
            return rank, 0, finding.key
    line = finding.place.rpartition(":")[2]
    return 0, int(line) if line.isdecimal() else sys.maxsize, finding.key
