"""Meta's names: paths, parameters, fields, kinds and enums of requests and answers, by the vendor's own specification.

Two files stand behind it: the specification of v25.0 that Meta generates its libraries from (with kinds and enums),
and what the package for v26.0 knows. Both must know a name. What neither describes (access, paging, batches, the
envelope of errors, the Conversions API, the history of an account) is held against the vendor's prose, and is called
our reading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from tests.contracts.meta_rig import ACCOUNT, PIXEL, Asked

VERSION = re.compile(r"^/v26\.0/")
PAGING = {"limit": "int", "after": "string", "fields": "list<string>"}
"""Parameters of every read of the Graph API, which no single endpoint lists."""

EVENT = {
    "event_name": "string", "event_time": "unsigned int", "event_id": "string", "action_source": "source",
    "user_data": "user", "custom_data": "custom", "event_source_url": "string",
}  # fmt: skip
"""Server events: names and kinds of Meta's page of server event parameters."""
EVENT_NEEDED = ("event_name", "event_time", "action_source", "user_data")
SOURCES = {"email", "website", "app", "phone_call", "chat", "physical_store", "system_generated",
           "business_messaging", "other"}  # fmt: skip
CUSTOM = {"value": "float", "currency": "currency", "order_id": "string", "ltv": "float", "confidence": "float",
          "timestamp": "datetime"}  # fmt: skip
"""Meta's own names first; an advertiser's own properties, the last three, may have any name."""
ACTIVITY = {
    "actor_id": "string", "actor_name": "string", "application_id": "string", "application_name": "string",
    "date_time_in_timezone": "string", "event_time": "datetime", "event_type": "string", "extra_data": "string",
    "object_id": "string", "object_name": "string", "object_type": "string", "translated_event_type": "string",
}  # fmt: skip
ACTIVITIES = PAGING | {"since": "datetime", "until": "datetime"}
ERROR = {
    "message": "string", "type": "string", "code": "unsigned int", "error_subcode": "unsigned int",
    "is_transient": "bool", "error_user_title": "string", "error_user_msg": "string", "fbtrace_id": "string",
    "error_data": "map",
}  # fmt: skip
BUSINESS_USE = {"type", "call_count", "total_cputime", "total_time", "estimated_time_to_regain_access",
                "ads_api_access_tier"}  # fmt: skip

REQUIRED = {
    "insights": ("level", "time_increment", "time_range"),
    "order a report": ("level", "time_increment", "time_range"),
}
"""What Meta has defaults for (account level, all days in one, thirty days): another report than was meant."""


class Names:
    """Judges requests and answers; each judgement is a list of complaints, empty when there are none."""

    def __init__(self, folder: Path) -> None:
        self.v25 = json.loads((folder / "marketing_api_v25.json").read_text())
        self.v26 = json.loads((folder / "marketing_api_v26.json").read_text())
        self.nodes: dict[str, str] = {f"act_{ACCOUNT}": "AdAccount"}
        """Kind of every node that was seen in an answer."""

    # -- requests

    def operation(self, asked: Asked) -> str:
        """What a request is, or why it is nothing (then it begins with a question mark)."""
        path = VERSION.sub("", asked.path)
        if path == asked.path:
            return f"? version of {asked.path}"
        node, _, edge = path.partition("/")
        if asked.method == "POST" and not path:
            return "batch"
        if (asked.method, node, edge) == ("POST", PIXEL, "events"):
            return "events"
        kind = self.nodes.get(node)
        if kind is None:
            return f"? node {node}"
        known = {
            ("GET", "AdAccount", ""): "account",
            ("GET", "AdAccount", "campaigns"): "campaigns",
            ("GET", "AdAccount", "adsets"): "ad sets",
            ("GET", "AdAccount", "insights"): "insights",
            ("GET", "AdAccount", "activities"): "activities",
            ("POST", "AdAccount", "insights"): "order a report",
            ("GET", "AdReportRun", ""): "report",
            ("GET", "AdReportRun", "insights"): "rows of a report",
            ("POST", "AdSet", ""): "change an ad set",
            ("POST", "Campaign", ""): "change a campaign",
        }
        return known.get((asked.method, kind, edge), f"? {asked.method} {kind}/{edge}")

    def request(self, asked: Asked) -> list[str]:
        """What is wrong with a request."""
        operation = self.operation(asked)
        if operation.startswith("?"):
            return [operation]
        found = self._access(asked)
        given = {name: value for name, value in asked.params.items() if name != "appsecret_proof"}
        if asked.method == "GET":
            return found + self._parameters(operation, given) + (["body"] if asked.body else [])
        found += [f"query parameter {name} in a change" for name in given]
        try:
            fields = asked.fields
        except (ValueError, UnicodeDecodeError):
            return [*found, "body"]
        if operation == "events":
            return found + self._content(asked, "application/json") + self._events(fields)
        found += self._content(asked, "application/x-www-form-urlencoded")
        if operation == "batch":
            return found + self._batch(fields)
        return found + self._parameters(operation, fields)

    def _access(self, asked: Asked) -> list[str]:
        found = []
        if not re.fullmatch(r"Bearer \S+", asked.headers.get("authorization", "")):
            found.append("header authorization")
        if not re.fullmatch(r"[0-9a-f]{64}", asked.params.get("appsecret_proof", "")):
            found.append("appsecret_proof")
        return found

    def _content(self, asked: Asked, wanted: str) -> list[str]:
        return [] if asked.headers.get("content-type") == wanted else ["header content-type"]

    def _spec(self, operation: str) -> tuple[Mapping[str, str], str]:
        """Parameters with their kinds, and the node whose fields are asked for."""
        home, method, endpoint, late = {
            "account": ("AdAccount", "GET", "#get", "api_get"),
            "campaigns": ("AdAccount", "GET", "campaigns", "get_campaigns"),
            "ad sets": ("AdAccount", "GET", "adsets", "get_ad_sets"),
            "insights": ("AdAccount", "GET", "insights", "get_insights"),
            "order a report": ("AdAccount", "POST", "insights", "get_insights_async"),
            "report": ("AdReportRun", "GET", "#get", "api_get"),
            "rows of a report": ("AdReportRun", "GET", "insights", "get_insights"),
            "change an ad set": ("AdSet", "POST", "#update", "api_update"),
            "change a campaign": ("Campaign", "POST", "#update", "api_update"),
        }[operation]
        apis = self.v25["nodes"][home]["apis"]
        api = next(
            each for each in apis if (each["method"], each.get("endpoint", each.get("name"))) == (method, endpoint)
        )
        methods = self.v26["nodes"][home]["methods"]
        assert late in methods or not methods, (home, late)
        newer = methods.get(late, {})
        kinds = {each["name"]: each["type"] for each in api["params"] if each["name"] in newer}
        returned = api["return"]
        if method == "GET" or operation == "order a report":
            kinds = {**PAGING, **kinds}
        return kinds, "AdsInsights" if operation == "order a report" else returned

    def _parameters(self, operation: str, given: Mapping[str, Any]) -> list[str]:
        if operation == "activities":
            kinds, returned = ACTIVITIES, "AdActivity"
        else:
            kinds, returned = self._spec(operation)
        found = [f"parameter {name} is missing" for name in REQUIRED.get(operation, ()) if name not in given]
        if operation.startswith("change") and not set(given) - {"execution_options"}:
            found.append("nothing is changed")
        for name, value in given.items():
            if name not in kinds:
                found.append(f"parameter {name}")
            elif name == "fields":
                found += [f"field {each}" for each in str(value).split(",") if each not in self.fields(returned)]
            elif not self._text_is(str(value), kinds[name], name):
                found.append(f"parameter {name} is no {kinds[name]}: {value!r}")
        return found

    def _batch(self, fields: Mapping[str, Any]) -> list[str]:
        found = [f"parameter {name}" for name in fields if name not in ("batch", "include_headers")]
        if fields.get("include_headers", "false") not in ("true", "false"):
            found.append("parameter include_headers")
        try:
            items = json.loads(fields.get("batch", ""))
        except ValueError:
            return [*found, "parameter batch"]
        if not isinstance(items, list) or not 0 < len(items) <= 50:
            return [*found, "parameter batch"]
        for item in items:
            if not isinstance(item, dict) or not all(isinstance(value, str) for value in item.values()):
                return [*found, "a request of the batch"]
            if set(item) != {"method", "relative_url", "body"}:
                found.append(f"names of a request of the batch: {sorted(item)}")
                continue
            inner = Asked(item["method"], f"/v26.0/{item['relative_url']}", {}, {}, item["body"].encode())
            operation = self.operation(inner)
            if not operation.startswith("change"):
                found.append(f"in a batch: {operation}")
                continue
            found += self._parameters(operation, dict(parse_qsl(item["body"], keep_blank_values=True)))
        return found

    def _events(self, fields: Mapping[str, Any]) -> list[str]:
        events = fields.get("data")
        if set(fields) != {"data"} or not isinstance(events, list) or not 0 < len(events) <= 1_000:
            return ["data"]
        found = []
        for event in events:
            if not isinstance(event, dict):
                return ["an event"]
            found += [f"event without {name}" for name in EVENT_NEEDED if name not in event]
            for name, value in event.items():
                if name not in EVENT:
                    found.append(f"event field {name}")
                elif not self._value_is(value, EVENT[name]):
                    found.append(f"event field {name} is no {EVENT[name]}")
        return found

    # -- answers

    def answer(self, asked: Asked, status: int, headers: Mapping[str, str], body: bytes) -> list[str]:
        """What is wrong with an answer to a request."""
        try:
            said = json.loads(body)
        except ValueError:
            return ["not JSON"]
        found = self._usage(headers)
        if isinstance(said, dict) and "error" in said:
            return found + self._error(said)
        if status != 200:
            return [*found, "a failure without an error"]
        operation = self.operation(asked)
        if operation == "batch":
            return found + self._answers(said)
        return found + self._success(operation, said, asked)

    def _success(self, operation: str, said: Any, asked: Asked) -> list[str]:
        if operation.startswith("change"):
            return self._struct(said, {"success": "bool"}, ("success",))
        if operation == "events":
            kinds = {"events_received": "unsigned int", "messages": "list<string>", "fbtrace_id": "string"}
            return self._struct(said, kinds, tuple(kinds))
        if operation == "order a report":
            return self._struct(said, {"report_run_id": "id"}, ("report_run_id",))
        asked_for = tuple(str(asked.params.get("fields", "")).split(","))
        if operation == "account":
            return self._struct(said, self.fields("AdAccount"), asked_for)
        if operation == "report":
            return self._struct(said, self.fields("AdReportRun"), asked_for)
        node, always = {
            "campaigns": ("Campaign", ("id", "name", "status", "effective_status")),
            "ad sets": ("AdSet", ("id", "name", "campaign_id", "status", "effective_status", "optimization_goal")),
            "activities": ("AdActivity", ("event_time", "event_type", "object_id")),
        }.get(operation, ("AdsInsights", (*(set(asked_for) - {"actions", "action_values"}), "date_start", "date_stop")))
        return self._page(said, node, always)

    def _page(self, said: Any, node: str, always: tuple[str, ...]) -> list[str]:
        if not isinstance(said, dict) or not isinstance(said.get("data"), list) or set(said) - {"data", "paging"}:
            return ["page"]
        found = []
        for row in said["data"]:
            found += self._struct(row, self.fields(node), always)
        paging = said.get("paging", {})
        if not isinstance(paging, dict) or set(paging) - {"cursors", "next", "previous"}:
            found.append("paging")
        elif paging:
            cursors = paging.get("cursors")
            if not isinstance(cursors, dict) or set(cursors) != {"before", "after"}:
                found.append("cursors")
            elif not all(isinstance(each, str) for each in (*cursors.values(), paging.get("next", ""))):
                found.append("cursors are no text")
        return found

    def _answers(self, said: Any) -> list[str]:
        if not isinstance(said, list):
            return ["a batch is answered by a list"]
        found = []
        for part in said:
            if part is None:
                continue
            if not isinstance(part, dict) or set(part) - {"code", "headers", "body"}:
                found.append("part of a batch")
                continue
            if not self._value_is(part.get("code"), "unsigned int") or not isinstance(part.get("body"), str):
                found.append("part of a batch")
                continue
            try:
                inner = json.loads(part["body"])
            except ValueError:
                found.append("body of a part")
                continue
            if isinstance(inner, dict) and "error" in inner:
                found += self._error(inner)
            else:
                found += self._struct(inner, {"success": "bool"}, ("success",))
        return found

    def _error(self, said: Mapping[str, Any]) -> list[str]:
        if set(said) != {"error"}:
            return ["envelope of an error"]
        return self._struct(said["error"], ERROR, ("message", "type", "code", "fbtrace_id"))

    def _usage(self, headers: Mapping[str, str]) -> list[str]:
        found = []
        if "x-business-use-case-usage" in headers:
            for uses in json.loads(headers["x-business-use-case-usage"]).values():
                found += [f"usage {name}" for use in uses for name in set(use) ^ BUSINESS_USE]
        if "x-ad-account-usage" in headers:
            use = json.loads(headers["x-ad-account-usage"])
            found += [f"usage {name}" for name in set(use) ^ {"acc_id_util_pct", "reset_time_duration"}]
        return found

    # -- kinds

    def fields(self, node: str) -> Mapping[str, str]:
        """Names and kinds of a node's fields, as far as both versions know them."""
        if node == "AdActivity":
            return ACTIVITY
        kinds = {each["name"]: each["type"] for each in self.v25["nodes"][node]["fields"]}
        if node in self.v26["nodes"]:
            newer = self.v26["nodes"][node]["fields"]
            kinds = {name: kind for name, kind in kinds.items() if name in newer}
        return kinds

    def _struct(self, said: Any, kinds: Mapping[str, str], always: tuple[str, ...]) -> list[str]:
        if not isinstance(said, dict):
            return ["no object"]
        found = [f"field {name} is missing" for name in always if name and name not in said]
        for name, value in said.items():
            if name not in kinds:
                found.append(f"field {name}")
            elif not self._value_is(value, kinds[name]):
                found.append(f"field {name} is no {kinds[name]}: {value!r}")
        return found

    def _value_is(self, value: Any, kind: str) -> bool:
        """Whether a JSON value is of a kind of the specification."""
        enums: Mapping[str, list[str]] = self.v25["enums"]
        if kind in enums:
            return value in enums[kind]
        if kind in self.v25["nodes"]:
            return not self._struct(value, self.fields(kind), ("action_type", "value") if "Stats" in kind else ())
        inner = re.fullmatch(r"list<(.+)>", kind)
        if inner is not None:
            return isinstance(value, list) and all(self._value_is(each, inner[1]) for each in value)
        check = _VALUES.get(kind)
        return check is not None and check(value)

    def _text_is(self, text: str, kind: str, name: str) -> bool:
        """Whether a parameter in a query or form is of a kind."""
        enums: Mapping[str, list[str]] = self.v25["enums"]
        if kind in enums:
            return text in enums[kind]
        if name == "limit":
            return re.fullmatch(r"[1-9][0-9]{0,3}", text) is not None
        if kind in ("int", "unsigned int"):
            return re.fullmatch(r"[0-9]{1,15}" if kind[0] == "u" else r"-?[0-9]{1,15}", text) is not None
        if kind == "datetime":
            return text.isdecimal() or _is_datetime(text)
        if kind.startswith(("list<", "map")):
            try:
                value = json.loads(text)
            except ValueError:
                return False
            if name == "time_range":
                return _is_range(value)
            if name == "bid_constraints":
                kinds = self.fields("AdCampaignBidConstraint")
                return not self._struct(value, kinds, ("roas_average_floor",)) and value["roas_average_floor"] > 0
            return self._value_is(value, kind)
        if name == "time_increment":
            return text in ("monthly", "all_days") or (text.isdecimal() and 1 <= int(text) <= 90)
        return kind == "string" and bool(text)


def _is_datetime(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_range(value: Any) -> bool:
    try:
        return set(value) == {"since", "until"} and date.fromisoformat(value["since"]) <= date.fromisoformat(
            value["until"]
        )
    except (TypeError, KeyError, ValueError):
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_user(value: Any) -> bool:
    """The click as the browser's cookie names it; hashing is for mail addresses and the like, which never come here."""
    return (
        isinstance(value, dict)
        and set(value) == {"fbc"}
        and bool(isinstance(value["fbc"], str) and re.fullmatch(r"fb\.[0-2]\.[0-9]{13}\..+", value["fbc"]))
    )


def _is_custom(value: Any) -> bool:
    if not isinstance(value, dict) or ("value" in value) != ("currency" in value):
        return False
    return all(_VALUES[CUSTOM[name]](each) for name, each in value.items() if name in CUSTOM)


_VALUES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "id": lambda value: isinstance(value, str) and value.isdecimal(),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "unsigned int": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "float": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "map": lambda value: isinstance(value, dict),
    "datetime": _is_datetime,
    "source": lambda value: isinstance(value, str) and value in SOURCES,
    "currency": lambda value: isinstance(value, str) and re.fullmatch("[A-Z]{3}", value) is not None,
    "user": _is_user,
    "custom": _is_custom,
}
