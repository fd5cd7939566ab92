"""Google's own description of its API, as a judge of requests and answers.

The schema says names, types, enums and what is required; what JSON Schema cannot say but the same file and its contract
page do is checked beside it: oneofs, read-only and immutable fields, field masks, ranges, resource names, queries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

FOLDER = Path(__file__).parents[2].parent / "shared" / "specs" / "google_ads"
FILE = FOLDER / "google_ads_v26.json"
needs_schema = pytest.mark.skipif(not FILE.is_file(), reason="the vendors' schemas are not beside the project")

PREFIX = re.compile(r"/v26/customers/(?P<customer>[0-9]{10})(?P<rest>[:/].+)")
NAME = re.compile(r"customers/(?P<customer>[0-9]+)/(?P<kind>[a-zA-Z]+)/[0-9]+")
COLLECTIONS = {"campaignBudgets", "campaigns", "biddingStrategies", "adGroups"}
REQUIRED = {
    "ClickConversion": ("conversionAction", "conversionDateTime", "conversionValue", "currencyCode", "consent"),
    "Consent": ("adUserData", "adPersonalization"),
    "CustomParameter": ("key", "value"),
}
"""What a message is useless without, by the vendor's prose; the schema marks what a request needs as a whole."""
HEADERS = {"authorization", "content-type", "developer-token", "login-customer-id"}

STRING, NUMBER = {"type": "string"}, {"type": "number"}
ADJUSTMENTS: dict[str, Any] = {
    "UploadConversionAdjustmentsRequest": {
        "type": "object",
        "additionalProperties": False,
        "required": ["conversionAdjustments", "partialFailure"],
        "properties": {
            "conversionAdjustments": {"type": "array", "items": {"$ref": "#/$defs/ConversionAdjustment"}},
            "partialFailure": {"type": "boolean"},
            "validateOnly": {"type": "boolean"},
        },
    },
    "ConversionAdjustment": {
        "type": "object",
        "additionalProperties": False,
        "required": ["conversionAction", "adjustmentType", "adjustmentDateTime", "orderId", "restatementValue"],
        "properties": {
            "conversionAction": STRING,
            "adjustmentType": {"type": "string", "enum": ["RETRACTION", "RESTATEMENT", "ENHANCEMENT"]},
            "adjustmentDateTime": STRING,
            "orderId": STRING,
            "restatementValue": {"$ref": "#/$defs/RestatementValue"},
        },
    },
    "RestatementValue": {
        "type": "object",
        "additionalProperties": False,
        "required": ["adjustedValue", "currencyCode"],
        "properties": {"adjustedValue": NUMBER, "currencyCode": STRING},
    },
    "UploadConversionAdjustmentsResponse": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "results": {"type": "array", "items": {"$ref": "#/$defs/ConversionAdjustmentResult"}},
            "partialFailureError": {"$ref": "#/$defs/google.rpc.Status"},
        },
    },
    "ConversionAdjustmentResult": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "orderId": STRING,
            "conversionAction": STRING,
            "adjustmentDateTime": STRING,
            "adjustmentType": STRING,
        },
    },
}
"""Messages that the schema file names but does not hold: our reading of the public prototypes."""


class Schema:
    """The file, its messages by name, and its operations by path."""

    def __init__(self) -> None:
        self.data = json.loads(FILE.read_bytes())
        self.messages: dict[str, Any] = {**ADJUSTMENTS, **self.data["$defs"]}
        self.operations: dict[str, Any] = {}
        """Path after the customer -> operation."""
        for each in self.data["x-operations"]:
            _, found, rest = each["path"].partition("{customer_id=*}")
            if found:
                self.operations[rest] = each
        self._validators: dict[str, Draft202012Validator] = {}

    def by_schema(self, message: str, value: object) -> list[str]:
        """What JSON Schema has against a value."""
        if message not in self._validators:
            self._validators[message] = Draft202012Validator({"$ref": f"#/$defs/{message}", "$defs": self.messages})
        return [f"{each.json_path}: {each.message[:120]}" for each in self._validators[message].iter_errors(value)]

    def inner(self, property_schema: Mapping[str, Any]) -> str:
        """Name of the message or enum a property holds; empty for plain values."""
        if property_schema.get("type") == "array":
            return self.inner(property_schema["items"])
        for each in (property_schema, *property_schema.get("allOf", ())):
            if "$ref" in each:
                return str(each["$ref"]).rpartition("/")[2]
        return ""

    def properties(self, message: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.messages.get(message, {}).get("properties", {})
        return found

    def field(self, message: str, path: str) -> Mapping[str, Any] | None:
        """The property a dotted path of camel case names leads to; None where there is none."""
        found: Mapping[str, Any] | None = None
        for name in path.split("."):
            found = self.properties(message).get(name)
            if found is None:
                return None
            message = self.inner(found)
        return found

    def is_message(self, name: str) -> bool:
        return "properties" in self.messages.get(name, {})


@cache
def schema() -> Schema:
    return Schema()


# ---- requests


def judge_request(path: str, body: bytes, headers: Mapping[str, str], params: Mapping[str, str]) -> list[str]:
    """Everything that is wrong with a request; empty for one that Google would take."""
    found = PREFIX.fullmatch(path)
    operation = schema().operations.get(found["rest"]) if found else None
    if found is None or operation is None:
        return [f"no operation has the path {path}"]
    wrong = [f"header {name} does not belong" for name in headers.keys() - HEADERS]
    wrong += [f"parameter {name} does not belong" for name in params]
    wrong += [f"header {name} is missing" for name in HEADERS - {"login-customer-id"} - headers.keys()]
    if not headers.get("authorization", "").startswith("Bearer ") or headers.get("content-type") != "application/json":
        wrong.append("authorization or content type")
    if not re.fullmatch(r"[0-9]{10}|", headers.get("login-customer-id", "")):
        wrong.append("login-customer-id has digits only")
    try:
        value = json.loads(body)
    except ValueError:
        return [*wrong, "the body is no JSON"]
    return wrong + judge_body(operation["request"], found["rest"], value, found["customer"])


def judge_body(message: str, rest: str, value: Any, customer: str) -> list[str]:
    """Everything that is wrong with a request's body."""
    wrong = schema().by_schema(message, value)
    if wrong:
        return wrong
    wrong = [f"{name} is bound in the URL" for name in value if name == "customerId"]
    wrong += _walk(message, value, "$", sent=True)
    wrong += [
        f"{name} is empty" for name in ("operations", "conversions", "conversionAdjustments") if value.get(name) == []
    ]
    if "pageSize" in value:
        wrong.append("pageSize is not supported")
    if "query" in value:
        wrong += judge_query(value["query"])
    if "conversions" in value and value["partialFailure"] is not True:
        wrong.append("uploads are partial")
    for index, operation in enumerate(value.get("operations", ())):
        kind = rest.removeprefix("/").partition(":")[0]
        wrong += [f"operation {index}: {each}" for each in _judge_operation(message, operation, kind, customer)]
    for each in value.get("conversions", ()):
        if not any(each.get(name) for name in ("gclid", "gbraid", "wbraid")):
            wrong.append("a conversion without a click")
    return wrong


def _judge_operation(message: str, operation: Mapping[str, Any], kind: str, customer: str) -> list[str]:
    holder = schema().inner(schema().properties(message)["operations"])
    resource = schema().inner(schema().properties(holder)["update"])
    update = operation.get("update")
    if not update:
        return ["it updates nothing"]
    name = NAME.fullmatch(update.get("resourceName", ""))
    wrong = [] if name and name["kind"] == kind and name["customer"] == customer else ["its resource name"]
    mask = operation.get("updateMask", "").split(",")
    for path in mask:
        found = schema().field(resource, path)
        if found is None:
            wrong.append(f"mask: there is no {path!r}")
        elif found.get("readOnly") or found.get("x-immutable"):
            wrong.append(f"mask: {path!r} cannot be set")
        elif schema().is_message(schema().inner(found)) and found.get("type") != "array":
            wrong.append(f"mask: {path!r} has fields of its own")
    given = {path for path in _leaves(resource, update) if path != "resourceName"}
    if given != set(mask) or len(mask) != len(set(mask)):
        wrong.append(f"mask {sorted(mask)} is not what is given: {sorted(given)}")
    return wrong


def _leaves(message: str, value: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted paths of the single fields that are set; lists count as one."""
    for name, inner in value.items():
        found = schema().properties(message)[name]
        if isinstance(inner, dict) and inner:
            yield from _leaves(schema().inner(found), inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _walk(message: str, value: Any, place: str, *, sent: bool) -> Iterator[str]:
    """What JSON Schema cannot say of a message: oneofs, read-only fields, ranges, what is useless without."""
    properties = schema().properties(message)
    groups: dict[str, list[str]] = {}
    if sent:
        yield from (f"{place} lacks {name}" for name in REQUIRED.get(message, ()) if name not in value)
    for name, inner in value.items():
        found = properties.get(name)
        if found is None:
            continue
        if "x-oneof" in found:
            groups.setdefault(found["x-oneof"], []).append(name)
        if sent and (found.get("readOnly") or (found.get("x-immutable") and name != "resourceName")):
            yield f"{place}.{name} cannot be set"
        for index, each in enumerate(inner if isinstance(inner, list) else [inner]):
            yield from _plain(found, each, f"{place}.{name}[{index}]", sent=sent)
            if isinstance(each, dict):
                yield from _walk(schema().inner(found), each, f"{place}.{name}", sent=sent)
    yield from (f"{place}: {names} are of one {group}" for group, names in groups.items() if len(names) > 1)


def _plain(found: Mapping[str, Any], value: Any, place: str, *, sent: bool) -> Iterator[str]:
    match found.get("x-proto"):
        case "int64":
            if not re.fullmatch(r"-?(0|[1-9][0-9]*)", str(value)) or not -(2**63) <= int(value) < 2**63:
                yield f"{place} is no int64"
            if not sent and not isinstance(value, str):
                yield f"{place} is an int64 that is no text"
        case "double":
            if isinstance(value, bool) or not isinstance(value, int | float):
                yield f"{place} is no number"


_QUERY = re.compile(
    r"SELECT (?P<select>.+) FROM (?P<resource>\w+)(?: WHERE (?P<where>.+?))?(?: ORDER BY (?P<order>[\w.]+))?"
    r"(?: LIMIT (?P<limit>[0-9]+))?"
)
_CONDITION = re.compile(
    r"(?P<field>[\w.]+) (?:(?:=|!=|>=|<=) (?P<one>'[^']*')|IN \((?P<many>[^)]+)\)|BETWEEN '.+' AND '.+')"
)


def judge_query(text: str) -> list[str]:
    """Every field of a query is one of the row's messages, every literal of an enum one of its values."""
    found = _QUERY.fullmatch(text)
    if found is None:
        return ["the query is none"]
    if schema().properties("GoogleAdsRow").get(_camel(found["resource"])) is None:
        return [f"there is no resource {found['resource']}"]
    names = [each.strip() for each in found["select"].split(",")] + ([found["order"]] if found["order"] else [])
    wrong = []
    conditions = re.split(r" AND (?!')", found["where"]) if found["where"] else []
    for text_of_one in conditions:
        condition = _CONDITION.fullmatch(text_of_one)
        if condition is None:
            wrong.append(f"condition {text_of_one!r}")
            continue
        names.append(condition["field"])
        values = (condition["one"] or condition["many"] or "").replace("'", "").split(", ")
        kind = schema().field("GoogleAdsRow", _camel(condition["field"]))
        enum = schema().messages.get(schema().inner(kind), {}).get("enum") if kind else None
        wrong += [f"{each} is no value of {condition['field']}" for each in values if enum and each not in enum]
    wrong += [f"there is no field {name}" for name in names if schema().field("GoogleAdsRow", _camel(name)) is None]
    conditioned = {each.split(" ")[0] for each in conditions}
    if "segments.date" in names and "segments.date" not in conditioned:
        wrong.append("a report without days")
    if found["resource"] == "change_event" and (
        "change_event.change_date_time" not in conditioned or not 1 <= int(found["limit"] or 0) <= 10_000
    ):
        wrong.append("a history without times or limit")
    if len(set(names[: found["select"].count(",") + 1])) < found["select"].count(",") + 1:
        wrong.append("a field twice")
    return wrong


def _camel(path: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), path)


# ---- answers


def judge_answer(path: str, status: int, value: Any) -> list[str]:
    """Everything that is wrong with an answer's JSON."""
    found = PREFIX.fullmatch(path)
    operation = schema().operations.get(found["rest"]) if found else None
    if operation is None:
        return [f"no operation has the path {path}"]
    streamed = operation["server_streaming"]
    if streamed and not isinstance(value, list):
        return ["a stream is an array"]
    wrong: list[str] = []
    for each in value if streamed else [value]:
        if not isinstance(each, dict):
            wrong.append("an answer is an object")
        elif status == 200 and "error" not in each:
            wrong += schema().by_schema(operation["response"], each) or _walk(
                operation["response"], each, "$", sent=False
            )
            wrong += judge_status(each["partialFailureError"]) if "partialFailureError" in each else []
        elif status == 200 and not streamed:
            wrong.append("an error under a status of 200")
        else:
            wrong += judge_envelope(each, status)
    return wrong


def judge_envelope(value: Any, status: int) -> list[str]:
    """Everything that is wrong with an error's JSON."""
    if not isinstance(value, dict) or set(value) != {"error"} or not isinstance(value["error"], dict):
        return ["the envelope of an error"]
    error = dict(value["error"])
    wrong = [] if error.get("code") == status or status == 200 else ["the code is not the status"]
    if not re.fullmatch(r"[A-Z_]+", str(error.pop("status", ""))):
        wrong.append("the status in words")
    return wrong + judge_status(error)


def judge_status(value: Any) -> list[str]:
    """Everything that is wrong with a `google.rpc.Status` and the failures in it."""
    wrong = schema().by_schema("google.rpc.Status", value)
    if wrong:
        return wrong
    for detail in value.get("details", ()):
        kind = str(detail.get("@type", ""))
        rest = {name: each for name, each in detail.items() if name != "@type"}
        if kind.endswith(".GoogleAdsFailure"):
            if not re.fullmatch(
                r"type\.googleapis\.com/google\.ads\.googleads\.v2[0-9]\.errors\.GoogleAdsFailure", kind
            ):
                wrong.append(f"the type {kind}")
            wrong += schema().by_schema("errors_GoogleAdsFailure", rest) or list(
                _walk("errors_GoogleAdsFailure", rest, "$", sent=False)
            )
            wrong += ["a failure without errors"] if not rest.get("errors") else []
        elif kind == "type.googleapis.com/google.rpc.BadRequest":
            violations = rest.get("fieldViolations")
            if (
                set(rest) != {"fieldViolations"}
                or not isinstance(violations, list)
                or not all(map(_violation, violations))
            ):
                wrong.append("the violations of a bad request")
        else:
            wrong.append(f"a detail of type {kind}")
    return wrong


def _violation(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"field", "description"} and {*map(type, value.values())} == {str}
