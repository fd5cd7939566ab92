"""What may be set: every dotted key with its type in words, read off the settings model."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from kiki_agent.config.settings import Expect, InstanceSettings, Settings

ANY_ID = "<id>"
"""Stands for the id a user chooses: `connector.<id>.daily_cap`."""
_SECRET_WORDS = (
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "api_key",
    "access_key",
    "private_key",
    "webhook",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key that may be set."""

    path: tuple[str, ...]
    kind: type | None
    """`bool`, `int`, `float`, `str`, `list` or SecretStr; None for a key a plugin defines."""
    expected: str
    default: object
    required: bool

    @property
    def key(self) -> str:
        """Dotted, for example `optimizer.interval_s`."""
        return ".".join(self.path)


def settings() -> Iterator[Setting]:
    """Every setting the core knows, instance tables under `<id>`."""
    yield from _of_model(Settings, ())


def find(path: tuple[str, ...]) -> Setting | None:
    """The setting a path means; a plugin's own key has no kind; None when there is no such setting."""
    kind = instance_kind(path)
    if kind is not None:
        if len(path) < 3:
            return None
        known = _KNOWN.get((path[0], ANY_ID, *path[2:]))
        return known or Setting(path, None, "what its plugin documents", None, required=False)
    return _KNOWN.get(path)


def instance_kind(path: tuple[str, ...]) -> type[InstanceSettings] | None:
    """The model behind `connector.<id>`, `crm.<id>` or `notifier.<id>`."""
    return _INSTANCES.get(path[0]) if path else None


def is_table(path: tuple[str, ...]) -> bool:
    """True for a path that holds keys and no value itself."""
    if instance_kind(path) is not None:
        return len(path) < 3
    return any(known[: len(path)] == path and len(known) > len(path) for known in _KNOWN)


def is_secret(path: tuple[str, ...]) -> bool:
    """True for a key whose value is never shown, by type or, for a plugin's key, by name."""
    setting = find(path)
    if setting is not None and setting.kind is not None:
        return setting.kind is SecretStr
    name = path[-1].lower() if path else ""
    return any(word in name for word in _SECRET_WORDS) or name == "key" or name.endswith("_key")


def suggest(path: tuple[str, ...], ids: dict[str, list[str]]) -> str | None:
    """The known dotted key nearest to an unknown one; `ids` names the instances per kind that exist."""
    names = [key for known in _KNOWN for key in _spelled_out(known, ids)]
    names += sorted({name.rsplit(".", depth)[0] for name in names for depth in (1, 2) if name.count(".") >= depth})
    same_depth = [name for name in names if name.count(".") == len(path) - 1]
    near = difflib.get_close_matches(".".join(path), same_depth, n=1, cutoff=0.75)
    if near:
        return near[0]
    last = [name for name in names if name.rsplit(".", 1)[-1] == path[-1]]
    return last[0] if len(last) == 1 else None


def _spelled_out(known: tuple[str, ...], ids: dict[str, list[str]]) -> list[str]:
    if ANY_ID not in known:
        return [".".join(known)]
    return [".".join((known[0], instance, *known[2:])) for instance in ids.get(known[0], [])]


def _of_model(model: type[BaseModel], prefix: tuple[str, ...]) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        instance = _instance_model(field.annotation)
        if instance is not None:
            yield from _of_model(instance, (*path, ANY_ID))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _of_model(field.annotation, path)
        else:
            kind, expected = _describe(field.annotation, list(field.metadata))
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            yield Setting(path, kind, expected, default, field.is_required())


def _instance_model(annotation: Any) -> type[InstanceSettings] | None:
    if get_origin(annotation) is dict:
        inner = get_args(annotation)[1]
        if isinstance(inner, type) and issubclass(inner, InstanceSettings):
            return inner
    return None


def _describe(annotation: Any, metadata: list[Any]) -> tuple[type, str]:
    """Kind and words for one annotation."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _describe(inner, _flat(more) + metadata)
    if origin in (Union, types.UnionType):
        inner = next(member for member in get_args(annotation) if member is not type(None))
        return _describe(inner, metadata)
    said = next((mark.text for mark in metadata if isinstance(mark, Expect)), None)
    if origin is list:
        _, items = _describe(get_args(annotation)[0], [])
        return list, said or f"a list, each {items}"
    if origin is Literal:
        return str, "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return str, "one of " + ", ".join(str(member.value) for member in annotation)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", SecretStr: "a secret text"}
    kind = annotation if annotation in words else str
    return kind, said or words[kind] + _bounds(metadata)


def _flat(marks: list[Any]) -> list[Any]:
    return [inner for mark in marks for inner in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]


def _bounds(metadata: list[Any]) -> str:
    low = high = ""
    closed = True
    for mark in metadata:
        match mark:
            case annotated_types.Gt(gt=bound):
                low, closed = f"above {bound}", False
            case annotated_types.Ge(ge=bound):
                low = f"{bound}"
            case annotated_types.Lt(lt=bound):
                high, closed = f"below {bound}", False
            case annotated_types.Le(le=bound):
                high = f"{bound}"
    if not low and not high:
        return ""
    if closed:
        return f" from {low} to {high}" if low and high else f" of at least {low}" if low else f" of at most {high}"
    words = [low if "above" in low or not low else f"at least {low}"]
    words += [high if "below" in high or not high else f"at most {high}"]
    return " " + " and ".join(word for word in words if word)


_INSTANCES: dict[str, type[InstanceSettings]] = {
    name: model
    for name, field in Settings.model_fields.items()
    if (model := _instance_model(field.annotation)) is not None
}
_KNOWN: dict[tuple[str, ...], Setting] = {setting.path: setting for setting in settings()}
