"""Wrong requests made of right ones, mechanically: left out, renamed, of a wrong kind, a word that is none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tests.contracts.meta_names import EVENT_NEEDED, REQUIRED, Names
from tests.contracts.meta_rig import Asked


@dataclass(frozen=True)
class Mutation:
    """One wrong request."""

    operation: str
    how: str
    """`removed`, `renamed`, `wrong kind`, `wrong word` or `wrong place`."""
    what: str
    asked: Asked
    part: int | None = None
    """The request of a batch that is wrong; None: the whole."""


def mutations(asked: Asked, names: Names) -> Iterator[Mutation]:
    """All wrong forms of a request."""
    operation = names.operation(asked)
    yield from _access(operation, asked)
    yield from _place(operation, asked)
    if asked.method == "GET":
        given = {name: value for name, value in asked.params.items() if name != "appsecret_proof"}
        keep = {"appsecret_proof": asked.params["appsecret_proof"]}
        for how, what, changed in _texts(operation, given, names):
            yield Mutation(operation, how, what, replace(asked, params={**changed, **keep}))
        return
    for kind in ("text/plain", ""):
        headers = {**asked.headers, "content-type": kind}
        yield Mutation(operation, "wrong kind", f"content-type {kind!r}", replace(asked, headers=headers))
    yield Mutation(operation, "wrong place", "a field in the query", replace(asked, params={**asked.params, "x": "1"}))
    if operation == "events":
        for how, what, body in _events(asked.fields):
            yield Mutation(operation, how, what, replace(asked, body=json.dumps(body).encode()))
        return
    if operation == "batch":
        yield from _batches(asked, names)
        return
    for how, what, changed in _texts(operation, asked.fields, names):
        yield Mutation(operation, how, what, replace(asked, body=urlencode(changed).encode()))


def _access(operation: str, asked: Asked) -> Iterator[Mutation]:
    headers = {name: value for name, value in asked.headers.items() if name != "authorization"}
    yield Mutation(operation, "removed", "authorization", replace(asked, headers=headers))
    renamed = {**headers, "x-authorization": asked.headers["authorization"]}
    yield Mutation(operation, "renamed", "authorization", replace(asked, headers=renamed))
    wrong = {**headers, "authorization": "Basic dXNlcjpwYXNz"}
    yield Mutation(operation, "wrong kind", "authorization", replace(asked, headers=wrong))
    params = {name: value for name, value in asked.params.items() if name != "appsecret_proof"}
    yield Mutation(operation, "removed", "appsecret_proof", replace(asked, params=params))
    for name in ("appsecretProof", "proof"):
        renamed = {**params, name: asked.params["appsecret_proof"]}
        yield Mutation(operation, "renamed", f"appsecret_proof to {name}", replace(asked, params=renamed))
    wrong = {**params, "appsecret_proof": "12"}
    yield Mutation(operation, "wrong kind", "appsecret_proof", replace(asked, params=wrong))


def _place(operation: str, asked: Asked) -> Iterator[Mutation]:
    rest = asked.path.removeprefix("/v26.0/")
    for version in ("v19.0/", "v99.0/", "26.0/", ""):
        yield Mutation(operation, "wrong place", f"version {version!r}", replace(asked, path=f"/{version}{rest}"))
    node, slash, edge = rest.partition("/")
    others = ("act_999", "5") if node else ("5",)
    for other in others:
        path = f"/v26.0/{other}{slash}{edge}"
        yield Mutation(operation, "wrong place", f"node {other}", replace(asked, path=path))
    yield Mutation(operation, "renamed", "edge", replace(asked, path=f"/v26.0/{node}/{edge}x"))
    yield Mutation(operation, "wrong place", "method", replace(asked, method="DELETE"))


def _texts(operation: str, given: Mapping[str, Any], names: Names) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Wrong forms of parameters that travel as text."""
    kinds = {"since": "datetime", "until": "datetime"} if operation == "activities" else names._spec(operation)[0]
    required = REQUIRED.get(operation, ())
    for name, value in given.items():
        rest = {each: other for each, other in given.items() if each != name}
        if name in required or (operation.startswith("change") and not set(rest) - {"execution_options"}):
            yield "removed", name, rest
        yield "renamed", name, {**rest, f"{name}s": value}
        yield "renamed", f"{name} in capitals", {**rest, name.upper(): value}
        kind = kinds.get(name, "string")
        for wrong in _wrong_texts(name, kind, names):
            yield "wrong kind", f"{name} {wrong[:40]!r}", {**rest, name: wrong}
        if kind in names.v25["enums"]:
            yield "wrong word", name, {**rest, name: "NO_SUCH_WORD"}
        if name == "fields":
            for field in value.split(","):
                wrong = ",".join(f"{each}_" if each == field else each for each in value.split(","))
                yield "renamed", f"field {field}", {**rest, name: wrong}
        if name in ("time_range", "bid_constraints"):
            for how, what, inside in _objects(json.loads(value)):
                yield how, f"{name}.{what}", {**rest, name: json.dumps(inside)}
        if name == "execution_options":
            yield "wrong word", name, {**rest, name: '["just_look"]'}


def _wrong_texts(name: str, kind: str, names: Names) -> tuple[str, ...]:
    if name == "time_increment":
        return ("", "x", "0", "-1")
    if kind in names.v25["enums"]:
        return ("", "1", '["ACTIVE"]')
    if kind in ("int", "unsigned int"):
        return ("", "x", "1.5", "-5", "1e3", "true", '"5"', "99999999999999999999")
    if name == "fields":
        return ('["id"', "1")
    if kind == "datetime":
        return ("yesterday", "")
    if kind.startswith(("list", "map")):
        return ("", "5", "{", "null", '"text"')
    return ()


def _objects(value: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, inside in value.items():
        rest = {each: other for each, other in value.items() if each != name}
        yield "removed", name, rest
        yield "renamed", name, {**rest, f"{name}s": inside}
        for wrong in (None, [inside], {"a": inside}, "text", -7, 1.5, True):
            yield "wrong kind", f"{name} {wrong!r:.20}", {**rest, name: wrong}


def _batches(asked: Asked, names: Names) -> Iterator[Mutation]:
    fields = asked.fields
    items = json.loads(fields["batch"])

    def made(changed: object, **more: str) -> Asked:
        return replace(asked, body=urlencode({**fields, "batch": json.dumps(changed), **more}).encode())

    yield Mutation("batch", "removed", "batch", replace(asked, body=b"include_headers=false"))
    for wrong in ({}, [], "text", 5, [5], [None], [items], items * 51):
        yield Mutation("batch", "wrong kind", f"batch {json.dumps(wrong)[:20]}", made(wrong))
    yield Mutation("batch", "renamed", "batch", replace(asked, body=urlencode({"batches": fields["batch"]}).encode()))
    yield Mutation("batch", "wrong kind", "include_headers", made(items, include_headers="perhaps"))
    for place, item in enumerate(items[:3]):
        for name, value in item.items():
            rest = {each: other for each, other in item.items() if each != name}
            for how, changed in (
                ("removed", rest),
                ("renamed", {**rest, f"{name}s": value}),
                ("wrong kind", {**rest, name: 5}),
                ("wrong kind", {**rest, name: None}),
                ("wrong kind", {**rest, name: [value]}),
            ):
                yield Mutation("batch", how, f"{name} of a part", made([*items[:place], changed, *items[place + 1 :]]))
        wrong_method = {**item, "method": "DELETE"}
        yield Mutation("batch", "wrong word", "method of a part", made([*items[:place], wrong_method]))
        for url in ("5", f"{item['relative_url']}/x"):
            changed = [*items[:place], {**item, "relative_url": url}, *items[place + 1 :]]
            yield Mutation("batch", "wrong place", f"relative_url {url[:4]}", made(changed), place)
        inner = Asked("POST", f"/v26.0/{item['relative_url']}", {}, {}, item["body"].encode())
        form = dict(parse_qsl(item["body"]))
        for how, what, body in _texts(names.operation(inner), form, names):
            changed = [*items[:place], {**item, "body": urlencode(body)}, *items[place + 1 :]]
            yield Mutation("batch", how, f"{what} of a part", made(changed), None if not body else place)


def _events(body: Mapping[str, Any]) -> Iterator[tuple[str, str, object]]:
    events = body["data"]
    yield "removed", "data", {}
    yield "renamed", "data", {"events": events}
    for wrong in ({}, [], "text", None, [5], [None]):
        yield "wrong kind", f"data {wrong!r}", {"data": wrong}
    for place, event in enumerate(events):

        def with_event(changed: object, place: int = place) -> dict[str, object]:
            return {"data": [*events[:place], changed, *events[place + 1 :]]}

        for name, value in event.items():
            rest = {each: other for each, other in event.items() if each != name}
            if name in EVENT_NEEDED:
                yield "removed", f"event {name}", with_event(rest)
            yield "renamed", f"event {name}", with_event({**rest, f"{name}s": value})
            for wrong in _wrong_values(value):
                yield "wrong kind", f"event {name} {wrong!r:.20}", with_event({**rest, name: wrong})
        yield "wrong word", "event action_source", with_event({**event, "action_source": "billboard"})
        for group in ("user_data", "custom_data"):
            for name, value in event[group].items():
                rest = {each: other for each, other in event[group].items() if each != name}
                renamed = {**event, group: {**rest, f"{name}s": value}}
                yield "renamed", f"{group}.{name}", with_event(renamed)
                for wrong in _wrong_values(value):
                    changed = {**event, group: {**rest, name: wrong}}
                    yield "wrong kind", f"{group}.{name}", with_event(changed)


def _wrong_values(value: Any) -> tuple[Any, ...]:
    """Values of other kinds than this one."""
    if isinstance(value, str):
        return 5, None, [value], {"a": value}, True
    if isinstance(value, int | float):
        return str(value), None, [value], True
    return "text", 5, None, [value]
