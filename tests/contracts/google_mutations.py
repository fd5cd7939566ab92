"""Requests made wrong by rule, one thing at a time: what both the schema and the stand-in have to refuse."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .google_schema import PREFIX, schema
from .recording import Exchange, paths

LISTS = ("operations", "conversions", "conversionAdjustments")
WRONG: dict[str, Any] = {
    "object": {"a": 1},
    "list": [1],
    "true": True,
    "fraction": 1.5,
    "text": "x y",
    "null": None,
    "number": 7,
    "nested list": [[]],
}
BAD_INT64 = ["", " 5", "+5", "5.0", "1e6", "0x10", "9223372036854775808", "99999999999999999999", "٣", "5\n", 10**19]
BAD_MASKS = ["", "*", "nothing", "resourceName", "id", ",", "{},", "{},{}", "{}X", " {}", "{}.x", "campaign_budget"]


@dataclass(frozen=True)
class Kind:
    """One kind of request: its operation, and a body with a single item in each list."""

    path: str
    rest: str
    message: str
    body: Any

    @property
    def label(self) -> str:
        operations = self.body.get("operations")
        extra = f" {operations[0]['updateMask']}" if operations else ""
        if "query" in self.body:
            extra = " " + self.body["query"].partition(" FROM ")[2].split()[0]
            extra += " by page" if "pageToken" in self.body else ""
        return self.rest + extra


@dataclass(frozen=True)
class Mutant:
    """A request that is wrong in one way."""

    kind: Kind
    sort: str
    """What was done: `removed`, `renamed`, `type`, `read-only`, `mask`, `value`, `query`, `oneof`."""
    place: str
    body: bytes

    @property
    def key(self) -> tuple[str, str, str]:
        """What an exception is made for."""
        return (self.kind.rest, self.sort, re.sub(r"\[\d+\]", "[]", self.place))


def kinds(exchanges: Sequence[Exchange]) -> list[Kind]:
    """Every kind of request that was made, once: same operation, same fields, same mask, same resource of a query."""
    found: dict[object, Kind] = {}
    for each in exchanges:
        match = PREFIX.fullmatch(each.path)
        if match is None:
            continue
        whole = each.asked
        operation = schema().operations[match["rest"]]
        name = next((name for name in LISTS if name in whole), None)
        for item in whole[name] if name else [None]:
            body = {**whole, name: [item]} if name else whole
            body = {**body, "validateOnly": False} if "validateOnly" in body else body
            mask = item.get("updateMask", "") if isinstance(item, dict) else ""
            query = re.sub(r"[0-9]+", "0", whole.get("query", ""))
            key = (match["rest"], mask, query, frozenset(paths(body)))
            found.setdefault(key, Kind(each.path, match["rest"], operation["request"], body))
    return list(found.values())


def mutants(kind: Kind) -> Iterator[Mutant]:
    """Everything that can be made wrong about one kind of request."""
    for place, sort, body in _structural(kind):
        yield Mutant(kind, sort, place, json.dumps(body).encode())
    for sort, place, body in (*_masks(kind), *_read_only(kind), *_oneofs(kind), *_values(kind), *_queries(kind)):
        yield Mutant(kind, sort, place, json.dumps(body).encode())


Change = Callable[[Any, Any], None]
"""(container, key) -> changed in place."""


def _structural(kind: Kind) -> Iterator[tuple[str, str, Any]]:
    """Each field removed, renamed in two ways, and of each other type."""
    for steps, place in _fields(kind.body):
        found = _property(kind.message, steps)
        yield place, "removed", _with(kind.body, steps, lambda box, name: box.pop(name))
        for renamed in (f"{steps[-1]}X", f"_{steps[-1]}", str(steps[-1]).upper()):
            yield (
                place,
                "renamed",
                _with(kind.body, steps, lambda box, name, to=renamed: box.__setitem__(to, box.pop(name))),
            )
        for label, value in WRONG.items():
            if not _fits(found, label):
                yield f"{place} is {label}", "type", _with(kind.body, steps, _setter(value))


def _fits(found: Any, label: str) -> bool:
    """Whether a value of that sort is right for a property, or has a meaning of its own."""
    if found.get("type") == "array":
        return False
    if "allOf" in found or "$ref" in found:
        return False
    match found.get("x-proto"), found.get("type"):
        case "int64", _:
            return label == "number"
        case "double", _:
            return label in ("fraction", "number")
        case _, "string":
            return label == "text"
        case _, "number":
            return label in ("fraction", "number")
        case _, "boolean":
            return label == "true"
    return False


def _masks(kind: Kind) -> Iterator[tuple[str, str, Any]]:
    operations = kind.body.get("operations")
    if not operations:
        return
    mask = operations[0]["updateMask"]
    steps = ("operations", 0, "updateMask")
    wrong = [each.replace("{}", mask) for each in BAD_MASKS]
    wrong += [mask.partition(".")[0]] if "." in mask else []
    wrong += [re.sub(r"[A-Z]", lambda match: "_" + match[0].lower(), mask)] if re.search(r"[A-Z]", mask) else []
    wrong += [mask.rpartition(",")[0]] if "," in mask else []
    for each in wrong:
        sort = "mask lacks a field that is set" if mask.startswith(each + ",") else "mask"
        yield sort, f"updateMask={each}", _with(kind.body, steps, _setter(each))


def _read_only(kind: Kind) -> Iterator[tuple[str, str, Any]]:
    """Every read-only and every immutable field of the resource, in the body, with and without its mask."""
    operations = kind.body.get("operations")
    if not operations:
        return
    holder = schema().inner(schema().properties(kind.message)["operations"])
    resource = schema().inner(schema().properties(holder)["update"])
    for name, found in schema().properties(resource).items():
        if name == "resourceName" or not (found.get("readOnly") or found.get("x-immutable")):
            continue
        body = copy.deepcopy(kind.body)
        body["operations"][0]["update"][name] = _sample(found)
        yield "read-only", name, body
        masked = copy.deepcopy(body)
        masked["operations"][0]["updateMask"] += f",{name}"
        yield "read-only", f"{name} in the mask", masked


def _oneofs(kind: Kind) -> Iterator[tuple[str, str, Any]]:
    """A second member of each oneof."""
    operations = kind.body.get("operations")
    if not operations:
        return
    body = copy.deepcopy(kind.body)
    body["operations"][0]["remove"] = body["operations"][0]["update"]["resourceName"]
    yield "oneof", "update and remove", body
    update = operations[0]["update"]
    for name in ("targetRoas", "maximizeConversionValue", "targetSpend"):
        if name in update:
            for other in {"targetRoas", "maximizeConversionValue", "targetSpend"} - {name}:
                body = copy.deepcopy(kind.body)
                body["operations"][0]["update"][other] = {}
                yield "oneof", f"{name} and {other}", body


def _values(kind: Kind) -> Iterator[tuple[str, str, Any]]:
    """Numbers that are none, names of other resources, words that are no value of their enum."""
    for steps, place in _fields(kind.body):
        found = _property(kind.message, steps)
        inner = schema().messages.get(schema().inner(found), {})
        value = _at(kind.body, steps)
        if found.get("x-proto") == "int64":
            for wrong in BAD_INT64:
                yield "value", f"{place}={wrong!r}", _with(kind.body, steps, _setter(wrong))
        if found.get("x-proto") == "double":
            for wrong in ("NaN", "1,5", "1.5x"):
                yield "value", f"{place}={wrong!r}", _with(kind.body, steps, _setter(wrong))
        if "enum" in inner or "enum" in found:
            for wrong in (value.lower(), "NEITHER", ""):
                yield "value", f"{place}={wrong!r}", _with(kind.body, steps, _setter(wrong))
        if steps[-1] == "resourceName":
            others = (value.replace("customers/1", "customers/2"), re.sub(r"/[a-zA-Z]+/", "/ads/", value[10:]))
            for wrong in (*others, value + "x", value.replace("/", ":"), value + "/1", "customers//" + value):
                yield "value", f"{place}={wrong!r}", _with(kind.body, steps, _setter(wrong))
    if "query" in kind.body and "Stream" not in kind.rest:
        yield "value", "pageSize", {**kind.body, "pageSize": 100}
    for name in LISTS:
        if name in kind.body:
            yield "value", f"{name} is empty", {**kind.body, name: []}
    if "conversions" in kind.body:
        yield "value", "partialFailure=False", {**kind.body, "partialFailure": False}


def _queries(kind: Kind) -> Iterator[tuple[str, str, Any]]:
    """Every name in a query misspelt, and its clauses left out."""
    query = kind.body.get("query", "")
    for name in sorted(set(re.findall(r"\b[a-z_]+\.[a-z_.]+\b", query))):
        yield "query", name, {**kind.body, "query": re.sub(rf"\b{re.escape(name)}\b(?![.\w])", f"{name}x", query)}
    if query:
        resource = query.partition(" FROM ")[2].split()[0]
        yield "query", "FROM", {**kind.body, "query": query.replace(f" FROM {resource}", f" FROM {resource}x")}
        for clause in ("SELECT ", " FROM "):
            yield "query", clause.strip(), {**kind.body, "query": query.replace(clause, " ", 1)}
        if "segments.date" in query or "change_date_time" in query:
            yield "query", "WHERE", {**kind.body, "query": re.sub(r" WHERE .*?(?= ORDER| LIMIT|$)", "", query)}
        if "LIMIT" in query:
            yield "query", "LIMIT", {**kind.body, "query": query.partition(" LIMIT")[0]}
            yield "query", "LIMIT too high", {**kind.body, "query": query + "0"}
        first = query.removeprefix("SELECT ").partition(",")[0]
        yield "query", "a field twice", {**kind.body, "query": query.replace("SELECT ", f"SELECT {first}, ", 1)}


def wrong_answers(answer: Any) -> Iterator[tuple[str, Any]]:
    """An answer with each field renamed, and with each of a type it cannot have."""
    for steps, place in _fields(answer):
        renamed = f"{steps[-1]}X"
        yield (
            f"{place} renamed",
            _with(answer, steps, lambda box, name, to=renamed: box.__setitem__(to, box.pop(name))),
        )
        value = _at(answer, steps)
        for wrong in ([[]], True, None) if not isinstance(value, bool) else ([[]], "yes", None):
            yield f"{place} is {wrong!r}", _with(answer, steps, _setter(wrong))


# ---- walking


def _fields(value: Any, steps: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Way to every field of every object, and the same in words."""
    if isinstance(value, dict):
        for name, inner in value.items():
            here = (*steps, name)
            yield here, "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in here)[1:]
            yield from _fields(inner, here)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _fields(inner, (*steps, index))


def _property(message: str, steps: Sequence[Any]) -> Any:
    found: Any = {}
    for step in steps:
        if isinstance(step, str):
            found = schema().properties(message)[step]
            message = schema().inner(found)
    return found


def _at(body: Any, steps: Sequence[Any]) -> Any:
    for step in steps:
        body = body[step]
    return body


def _with(body: Any, steps: Sequence[Any], change: Change) -> Any:
    made = copy.deepcopy(body)
    change(_at(made, steps[:-1]), steps[-1])
    return made


def _setter(value: Any) -> Change:
    return lambda box, name: box.__setitem__(name, value)


def _sample(found: Any) -> Any:
    """A value of the right type."""
    if found.get("type") == "array":
        return [_sample(found["items"])]
    inner = schema().messages.get(schema().inner(found), {})
    if "enum" in inner:
        return inner["enum"][-1]
    if "properties" in inner:
        return {}
    kinds_of = found.get("type")
    if "x-proto" in found and found["x-proto"] in ("int64", "int32"):
        return "1"
    if isinstance(kinds_of, list):
        return 1.5
    return {"boolean": True, "string": "x"}.get(str(kinds_of), "x")
