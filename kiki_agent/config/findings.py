"""Turns what pydantic found into findings: where it stands, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from kiki_agent.config import schema
from kiki_agent.config.layers import KeyPath, Layer, variable
from kiki_agent.errors import Finding

_SHOWN = 60


def findings_of(error: ValidationError, layers: Sequence[Layer]) -> Iterator[tuple[KeyPath, Finding]]:
    """Each finding with the path of the value to leave out when judging the rest."""
    seen: set[KeyPath] = set()
    for detail in error.errors(include_url=False):
        path = tuple(str(part) for part in detail["loc"])
        setting_path = _setting_path(path)
        if setting_path in seen:
            continue
        seen.add(setting_path)
        match detail["type"]:
            case "extra_forbidden":
                for place, key in _leaves_at(path, layers):
                    yield path, Finding(place, ".".join(key), _unknown(key, layers))
            case "missing":
                yield path[:-1], _missing(path, layers)
            case _:
                place = _place(path, layers)
                yield setting_path, Finding(place, ".".join(path), _wrong(setting_path, detail))


def shown(value: object, path: KeyPath) -> str:
    """A value as a finding may show it: short, and never a secret."""
    if schema.is_secret(path) or isinstance(value, SecretStr):
        return "a text that is not shown here"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
    return str(value)[:_SHOWN]


def _setting_path(path: KeyPath) -> KeyPath:
    """The setting an error inside a list belongs to."""
    for length in range(len(path), 0, -1):
        setting = schema.find(path[:length])
        if setting is not None and setting.kind is not None:
            return path[:length]
    return path


def _wrong(path: KeyPath, detail: ErrorDetails) -> str:
    setting = schema.find(path)
    if setting is None:
        inner = next((key for key in _keys_in(path)), "key")
        return f"found {shown(detail['input'], path)}, expected a table of settings such as {variable((*path, inner))}"
    return f"found {shown(detail['input'], path)}, expected {setting.expected}"


def _keys_in(path: KeyPath) -> Iterator[str]:
    for setting in schema.settings():
        if setting.path[: len(path)] == path and len(setting.path) > len(path):
            yield setting.path[len(path)]


def _missing(path: KeyPath, layers: Sequence[Layer]) -> Finding:
    table, setting = path[:-1], schema.find(path)
    expected = setting.expected if setting is not None else "a value"
    in_file = any(table in layer.places for layer in layers[:1])
    near = None if in_file else schema.suggest(table, _instances(layers, without=table))
    if near is not None:
        return Finding(_place(table, layers), ".".join(table), f"is not configured; did you mean {near}?")
    looked = f"(looked in [{'.'.join(table)}] of {layers[0].name} and in {variable(path)})"
    return Finding(_place(table, layers), ".".join(path), f"missing, expected {expected} {looked}")


def _unknown(path: KeyPath, layers: Sequence[Layer]) -> str:
    near = schema.suggest(path, _instances(layers))
    return "unknown key" + (f"; did you mean {near}?" if near else "")


def _instances(layers: Sequence[Layer], without: KeyPath = ()) -> dict[str, list[str]]:
    """Ids per kind that stand anywhere."""
    ids: dict[str, list[str]] = {}
    for layer in layers:
        for path in layer.places:
            if len(path) == 2 and schema.instance_kind(path) is not None and path != without:
                ids.setdefault(path[0], []).append(path[1])
    return ids


def _place(path: KeyPath, layers: Sequence[Layer]) -> str:
    """The highest layer that names the key, something inside it, or the nearest table around it."""
    for length in range(len(path), 0, -1):
        for layer in reversed(layers):
            if path[:length] in layer.places:
                return layer.places[path[:length]]
            for known, place in layer.places.items():
                if length == len(path) and known[:length] == path:
                    return place
    return layers[0].name


def _leaves_at(path: KeyPath, layers: Sequence[Layer]) -> Iterator[tuple[str, KeyPath]]:
    """Each place that names an unknown key: the key itself, or, where only its inner keys are named, those."""
    for layer in layers:
        if path in layer.places:
            yield layer.places[path], path
        else:
            inside: list[Any] = [(place, known) for known, place in layer.places.items() if known[: len(path)] == path]
            yield from inside
