"""/openapi.json: generated from the route table and the models, so that it cannot say anything else than they do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, cast

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from kiki_agent.web.endpoint import JSON, Endpoint, Permission
from kiki_agent.web.problem import PROBLEM_TYPE
from kiki_agent.web.shapes.base import Answer, Nothing

Json = dict[str, object]
Mode = Literal["validation", "serialization"]

_TAGS = {
    "health": "Is it alive, ready, and how does it fare",
    "optimizer": "The five-minute loop: budgets across platforms",
    "value": "What a customer is worth",
    "money": "Allocations by hand",
    "privacy": "What people allow, and what they ask about their data",
    "bidding": "The two-second loop, and bids by hand",
    "ledger": "The record, and its proof",
    "connectors": "Platforms and plugins",
    "admin": "Orders of a person",
    "page": "The page and this description",
}
_PHRASES = {
    200: "Done",
    201: "Created",
    202: "Accepted; it happens soon",
    303: "See the page",
    400: "The body is not usable JSON",
    401: "No token, or a wrong one",
    403: "Asked through another host name, or by another site",
    404: "There is no such thing",
    409: "It contradicts what is there",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "A value is wrong; every field is named",
    429: "Too many; see Retry-After",
    500: "Something unexpected; the log has it under the request id",
    503: "Off, or not up yet",
}


class ProblemField(Answer):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int
    code: str = Field(description="Stable code for programs.")
    detail: str = Field(description="What is wrong, and what to do.")
    request_id: str
    errors: list[ProblemField] = Field(default=[], description="The wrong fields, where there are any.")


def describe(endpoints: Sequence[Endpoint], version: str) -> Json:
    """The OpenAPI 3.1 document of these endpoints."""
    schemas, names = _schemas(endpoints)
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas, names)
    for endpoint in endpoints:
        if endpoint.method == "GET" and endpoint.given is not Nothing:
            schemas.pop(names[endpoint.given, "validation"], None)  # its fields are parameters
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kiki-agent",
            "version": version,
            "summary": "Bids by customer value, moves budget between ad platforms, and proves every cent.",
            "description": "Times are ISO 8601 in UTC unless said otherwise. Errors are problem bodies (RFC 9457).",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "security": [{"bearer": []}, {"key": []}, {"cookie": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "http.token of the configuration"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "kiki_session"},
            },
        },
    }


def encode(document: Json) -> bytes:
    """The document as JSON text."""
    return msgspec.json.encode(document)


def _schemas(endpoints: Sequence[Endpoint]) -> tuple[dict[str, Json], dict[tuple[type[BaseModel], Mode], str]]:
    wanted: list[tuple[type[BaseModel], Mode]] = [(Problem, "serialization")]
    for endpoint in endpoints:
        if endpoint.given is not Nothing:
            wanted.append((endpoint.given, "validation"))
        wanted += [(model, "serialization") for model in endpoint.answers.values() if not isinstance(model, str)]
    unique = list(dict.fromkeys(wanted))
    references, document = models_json_schema(unique, ref_template="#/components/schemas/{model}")
    names = {
        (cast(type[BaseModel], key[0]), key[1]): str(value["$ref"]).rpartition("/")[2]
        for key, value in references.items()
    }
    return document.get("$defs", {}), names


def _operation(endpoint: Endpoint, schemas: dict[str, Json], names: dict[tuple[type[BaseModel], Mode], str]) -> Json:
    responses: dict[str, Json] = {}
    for status, model in endpoint.answers.items():
        content: Json = {"schema": {"type": "string"}} if isinstance(model, str) else _reference(names, model)
        media = model if isinstance(model, str) else JSON
        responses[str(status)] = {"description": _PHRASES[status], "content": {media: content}}
    for status in _problem_statuses(endpoint):
        responses[str(status)] = {
            "description": _PHRASES[status],
            "content": {PROBLEM_TYPE: _reference(names, Problem)},
        }
    if endpoint.path == "/ready":
        ready = next(model for model in endpoint.answers.values() if not isinstance(model, str))
        responses["503"] = {"description": "Not ready, with the reason", "content": {JSON: _reference(names, ready)}}
    found: Json = {
        "operationId": operation_id(endpoint),
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "x-permission": endpoint.permission.value,
        "parameters": _parameters(endpoint, schemas, names),
        "responses": responses,
    }
    if endpoint.permission is Permission.OPEN:
        found["security"] = []
    if endpoint.form:
        fields = {name: {"type": "string"} for name in endpoint.form}
        form = {"schema": {"type": "object", "properties": fields}}
        found["requestBody"] = {"content": {"application/x-www-form-urlencoded": form}}
    elif endpoint.method != "GET" and endpoint.given is not Nothing:
        name = names[endpoint.given, "validation"]
        found["requestBody"] = {
            "required": bool(schemas[name].get("required")),
            "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}},
        }
    return found


def operation_id(endpoint: Endpoint) -> str:
    """A name for generated clients: method and path in words."""
    words = re.findall(r"[a-z0-9]+", endpoint.path.lower()) or ["home"]
    return "_".join((endpoint.method.lower(), *words))


def _problem_statuses(endpoint: Endpoint) -> list[int]:
    found = {403, 500, *endpoint.problems}
    if endpoint.permission is not Permission.OPEN:
        found |= {401, 429}
    if endpoint.method != "GET":
        found |= {413} if endpoint.form else {400, 413, 415, 422}
    elif endpoint.given is not Nothing or "{" in endpoint.path:
        found.add(422)
    if endpoint.permission is not Permission.OPEN:
        found.add(503)
    return sorted(found - set(endpoint.answers))


def _parameters(
    endpoint: Endpoint, schemas: dict[str, Json], names: dict[tuple[type[BaseModel], Mode], str]
) -> list[Json]:
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 128}}
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]
    if endpoint.method == "GET" and endpoint.given is not Nothing:
        schema = schemas[names[endpoint.given, "validation"]]
        properties = schema.get("properties")
        required = schema.get("required")
        assert isinstance(properties, dict)
        for name, each in properties.items():
            needed = isinstance(required, list) and name in required
            found.append({"name": name, "in": "query", "required": needed, "schema": each})
    if endpoint.path == "/events":
        found.append({"name": "Last-Event-ID", "in": "header", "required": False, "schema": {"type": "string"}})
    return found


def _reference(names: dict[tuple[type[BaseModel], Mode], str], model: type[BaseModel]) -> Json:
    return {"schema": {"$ref": f"#/components/schemas/{names[model, 'serialization']}"}}
