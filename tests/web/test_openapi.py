"""The description of the interface is well formed, complete, and the same as what runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kiki_agent.web.openapi import describe, operation_id
from kiki_agent.web.routes import ENDPOINTS

from .conftest import Client

DOCUMENT: dict[str, Any] = json.loads(json.dumps(describe(ENDPOINTS, "1.2.3")))
OPERATION = {
    "type": "object",
    "required": ["operationId", "responses", "summary", "tags", "parameters"],
    "properties": {
        "operationId": {"type": "string", "pattern": "^[a-z0-9_]+$"},
        "summary": {"type": "string", "minLength": 3},
        "tags": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "security": {"type": "array"},
        "x-permission": {"enum": ["open", "view", "operate", "admin"]},
        "parameters": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "in", "required", "schema"],
                "properties": {"in": {"enum": ["path", "query", "header"]}, "schema": {"type": "object"}},
            },
        },
        "requestBody": {"type": "object", "required": ["content"]},
        "responses": {
            "type": "object",
            "minProperties": 2,
            "propertyNames": {"pattern": "^[1-5][0-9][0-9]$"},
            "additionalProperties": {
                "type": "object",
                "required": ["description", "content"],
                "properties": {
                    "content": {
                        "type": "object",
                        "minProperties": 1,
                        "additionalProperties": {"type": "object", "required": ["schema"]},
                    }
                },
            },
        },
    },
    "additionalProperties": False,
}
STRUCTURE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["openapi", "info", "paths", "components"],
    "properties": {
        "openapi": {"const": "3.1.0"},
        "info": {"type": "object", "required": ["title", "version"]},
        "paths": {
            "type": "object",
            "propertyNames": {"pattern": "^/"},
            "additionalProperties": {
                "type": "object",
                "propertyNames": {"enum": ["get", "post", "put", "delete"]},
                "additionalProperties": OPERATION,
            },
        },
        "components": {
            "type": "object",
            "properties": {"schemas": {"type": "object", "propertyNames": {"pattern": "^[A-Za-z0-9._-]+$"}}},
        },
    },
}


def test_the_structure_is_that_of_openapi() -> None:
    jsonschema.Draft202012Validator(STRUCTURE).validate(DOCUMENT)


def test_every_schema_is_a_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_route_is_described_and_nothing_else() -> None:
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == {(each.method, each.path) for each in ENDPOINTS}


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(DOCUMENT)))
    assert names <= set(schemas)
    assert set(schemas) - names == set()


def test_operation_ids_are_unique() -> None:
    made = [operation_id(each) for each in ENDPOINTS]
    assert len(set(made)) == len(made)


def test_path_parameters_are_described() -> None:
    for endpoint in ENDPOINTS:
        operation = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
        named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", endpoint.path))


CALLS = [
    ("GET", "/health", None), ("GET", "/healthz", None), ("GET", "/ready", None), ("GET", "/status", None),
    ("GET", "/budget-efficiency", None), ("POST", "/platform-ltv", {"client_id": "demo", "platform": "meta"}),
    ("GET", "/platform-ltv/{platform}", "meta"), ("GET", "/api/v1/decisions", None),
    ("POST", "/api/v1/allocate", {"campaign_id": "c1", "budget": 5}), ("GET", "/api/v1/connectors", None),
    ("POST", "/api/v1/bids", {"campaign_id": "c1", "platform": "meta", "bid_amount": 1}),
    ("GET", "/api/v1/connectors/{id}", "meta"), ("GET", "/api/v1/plugins", None),
    ("GET", "/api/v1/ledger/reallocations", None), ("GET", "/api/v1/ledger/verify", None),
    ("GET", "/api/v1/overview", None), ("POST", "/admin/kill-switch", {"on": False}),
    ("POST", "/admin/tasks/{name}/pause", "bidding"), ("GET", "/api/v1/budget/{campaign_id}", "unknown"),
    ("POST", "/api/v1/check", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "given"), CALLS)
async def test_answers_are_as_described(client: Client, method: str, path: str, given: Any) -> None:
    url = re.sub(r"\{\w+\}", given, path) if isinstance(given, str) else path
    answer = await client.request(method, url, json=given if isinstance(given, dict) else None)
    described = DOCUMENT["paths"][path][method.lower()]["responses"][str(answer.status)]["content"]
    schema = described[answer.content_type]["schema"]
    body = await answer.json(content_type=None)
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(whole).validate(body)


async def test_it_is_served_and_the_page_of_it_loads_nothing_from_outside(client: Client) -> None:
    served = await (await client.get("/openapi.json")).json()
    assert served["paths"].keys() == DOCUMENT["paths"].keys()
    assert (await client.get("/docs")).status == 200


def test_no_file_of_the_page_names_another_host() -> None:
    folder = Path(__file__).parents[2] / "kiki_agent" / "web" / "page"
    for file in folder.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn|@import|url\(", text), file.name
        if file.suffix == ".html":
            assert "<style" not in text
            assert not re.search(r"<script(?! src=)|\son\w+=|style=", text), file.name


def test_the_docs_name_every_endpoint_and_no_other() -> None:
    text = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
    documented = set(re.findall(r"^\| `(GET|POST|PUT) ([^`?]+)[^`]*` \|", text, re.MULTILINE))
    assert documented == {(each.method, each.path) for each in ENDPOINTS}
    for endpoint in ENDPOINTS:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{endpoint.method} {endpoint.path}`"))
        assert f"| {endpoint.permission.value} |" in row, row
