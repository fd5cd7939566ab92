"""The three places a value can come from, each read into a layer: nested values, and where each of them stands."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from kiki_agent.config import schema
from kiki_agent.config.locate import key_lines
from kiki_agent.errors import Finding

PREFIX = "KIKI__"
FILE_VARIABLE = "KIKI_CONFIG"
"""Names the configuration file; the only variable of ours with a single underscore."""
COMMAND_LINE = "command line"

KeyPath = tuple[str, ...]


@dataclass(slots=True)
class Layer:
    """Values of one source, nested as in TOML, with the place of each key and what could not be read at all."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def put(self, path: KeyPath, value: object, place: str) -> None:
        """Sets one leaf; two values for one key, or a value where a table is, become findings."""
        table = self.values
        for part in path[:-1]:
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                self.findings.append(Finding(place, ".".join(path), f"{part} already has a value of its own"))
                return
            table = inner
        if path[-1] in table:
            other = next((text for known, text in self.places.items() if known[: len(path)] == path), self.name)
            self.findings.append(Finding(place, ".".join(path), f"given twice, also as {other}"))
            return
        table[path[-1]] = value
        self.places[path] = place

    def drop(self, path: KeyPath) -> bool:
        """Forgets a value, so that the rest can be judged without it; False when it was not here."""
        table: Any = self.values
        for part in path[:-1]:
            table = table.get(part) if isinstance(table, dict) else None
        if not isinstance(table, dict) or path[-1] not in table:
            return False
        del table[path[-1]]
        self.places.pop(path, None)
        return True


def file_layer(file: Path, shown: str) -> Layer:
    """The layer of one TOML file; `shown` is how findings call it. A file that cannot be read is a finding."""
    layer = Layer(shown)
    try:
        text = file.read_bytes().decode("utf-8-sig")
        values = tomllib.loads(text, parse_float=Decimal)
    except OSError as error:
        layer.findings.append(Finding(shown, "(file)", f"cannot be read: {error.strerror or error}"))
    except UnicodeDecodeError as error:
        layer.findings.append(Finding(shown, "(file)", f"is not UTF-8 text (byte {error.start})"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        layer.findings.append(_syntax(shown, str(error)))
    else:
        layer.values = _settled(values, ())
        layer.places = {path: f"{shown}:{line}" for path, line in key_lines(text).items()}
    return layer


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """`KIKI__A__B=text` for every setting; names that look meant for the agent and are not read become findings."""
    layer = Layer("environment")
    for name in sorted(environ):
        if name.upper().startswith(PREFIX):
            path = tuple(name[len(PREFIX) :].lower().split("__"))
            if not all(path):
                layer.findings.append(Finding(f"environment {name}", name, "expected a name such as KIKI__HTTP__PORT"))
            else:
                _assign(layer, path, environ[name], f"environment {name}")
        elif (meant := _single_underscores(name)) is not None:
            message = f"is not read; did you mean {variable(meant)}?"
            layer.findings.append(Finding(f"environment {name}", ".".join(meant), message))
    return layer


def flags_layer(flags: Mapping[str, str]) -> Layer:
    """`--set a.b=text`, and the flags of commands that stand for a setting."""
    layer = Layer(COMMAND_LINE)
    for key in sorted(flags):
        path = tuple(key.strip().split("."))
        if not all(path):
            layer.findings.append(Finding(COMMAND_LINE, key, "expected a key such as http.port"))
        else:
            _assign(layer, path, flags[key], COMMAND_LINE)
    return layer


def variable(path: KeyPath) -> str:
    """The environment variable of a key: `KIKI__HTTP__PORT`."""
    return PREFIX + "__".join(part.upper() for part in path)


def _assign(layer: Layer, path: KeyPath, text: str, place: str) -> None:
    """One text from outside TOML, read as the type of its setting asks; what cannot be read so is a finding."""
    key = ".".join(path)
    setting = schema.find(path)
    if schema.is_table(path):
        inner = variable((*path, "key")) if schema.instance_kind(path) is None else variable((*path[:1], "id", "key"))
        layer.findings.append(Finding(place, key, f"is a table of settings; give its keys, as in {inner}"))
        return
    if text == "" and setting is not None:
        layer.findings.append(Finding(place, key, f"found nothing, expected {setting.expected}; or remove it"))
        return
    value: object = text
    listed = setting is not None and (setting.kind is list or (setting.kind is None and text[:1] in ("[", "{")))
    if listed and setting is not None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            shown = "something" if schema.is_secret(path) else repr(text[:60])
            message = f'found {shown}, expected {setting.expected}, as JSON such as ["a", "b"]'
            layer.findings.append(Finding(place, key, message))
            return
    layer.put(path, value, place)


def _single_underscores(name: str) -> KeyPath | None:
    """The setting meant by `KIKI_HTTP_PORT` or `KIKI_HTTP__PORT`; None for names that only look alike."""
    if not name.upper().startswith("KIKI_") or name.upper() == FILE_VARIABLE:
        return None
    rest = name[len("KIKI_") :].lower().strip("_")
    flat = rest.replace("__", "_")
    for setting in schema.settings():
        if schema.ANY_ID not in setting.path and "_".join(setting.path) == flat:
            return setting.path
    first, _, last = rest.replace("__", "_").partition("_")
    for setting in schema.settings():
        if setting.path[0] == first and schema.ANY_ID in setting.path and last.endswith("_" + setting.path[-1]):
            return (first, last.removesuffix("_" + setting.path[-1]), setting.path[-1])
    return None


def _settled(value: Any, path: KeyPath) -> Any:
    """What TOML means by a value: exact decimals for amounts, floats elsewhere; true is never a number."""
    if isinstance(value, dict):
        return {key: _settled(inner, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_settled(inner, (*path, str(index))) for index, inner in enumerate(value)]
    setting = schema.find(path)
    kind = setting.kind if setting is not None else None
    if isinstance(value, Decimal):
        return value if kind is str and value.is_finite() else float(value)
    if isinstance(value, bool) and kind in (int, float):
        return str(value).lower()
    return value


def _syntax(shown: str, message: str) -> Finding:
    found = re.search(r"\(at (?:line (\d+), column (\d+)|end of document)\)", message)
    said = message[: found.start()].strip() if found else message
    where = f":{found[1]}" if found and found[1] else ""
    column = f" at column {found[2]}" if found and found[2] else " at the end of the file" if found else ""
    return Finding(shown + where, "(syntax)", f"not valid TOML{column}: {said[:1].lower()}{said[1:]}")
