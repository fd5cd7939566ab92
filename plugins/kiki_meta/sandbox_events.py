"""Uploaded conversions as the stand-in takes them: server events, each checked, one bad one refuses them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kiki_agent.model import DAY, SECOND, Instant
from kiki_meta.sandbox_wire import Problem, only

MOST_EVENTS = 1_000
OLDEST_S = 7 * DAY // SECOND
SOURCES = frozenset(
    {"email", "website", "app", "phone_call", "chat", "physical_store", "system_generated", "business_messaging",
     "other"}
)  # fmt: skip
_FIELDS: Mapping[str, type] = {
    "event_name": str,
    "event_time": int,
    "event_id": str,
    "action_source": str,
    "user_data": dict,
    "custom_data": dict,
    "event_source_url": str,
}
_NEEDED = ("event_name", "event_time", "action_source", "user_data")
_USER = frozenset({"fbc", "fbp", "em", "ph", "external_id", "client_ip_address", "client_user_agent"})
_HASHED = frozenset({"em", "ph"})


def check_events(fields: Mapping[str, Any], now: Instant) -> list[dict[str, Any]]:
    """The events of a request. Raises Problem for the first that Meta would not take."""
    only(fields, frozenset({"data", "test_event_code"}))
    events = fields.get("data")
    if not isinstance(events, list) or not 0 < len(events) <= MOST_EVENTS:
        raise Problem(100, f"Param data must be a list of 1 to {MOST_EVENTS} events.")
    for event in events:
        _check(event, now // SECOND)
    return events


def _check(event: Any, now_s: int) -> None:
    if not isinstance(event, dict):
        raise _invalid("data")
    for name, value in event.items():
        if name not in _FIELDS or not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
            raise _invalid(name)
    for name in _NEEDED:
        if not event.get(name):
            raise _invalid(name)
    if event["action_source"] not in SOURCES:
        raise _invalid("action_source")
    if not now_s - OLDEST_S <= event["event_time"] <= now_s:
        raise Problem(100, "Event Timestamp Too Old, or in the future", subcode=2_804_003)
    if event["action_source"] == "website" and "client_user_agent" not in event["user_data"]:
        raise _invalid("client_user_agent")
    for name, value in event["user_data"].items():
        if name not in _USER or not isinstance(value, str) or not value:
            raise _invalid(name)
        if name in _HASHED and not (len(value) == 64 and set(value) <= set("0123456789abcdef")):
            raise _invalid(name)
    _check_click(event["user_data"].get("fbc"))
    data = event.get("custom_data", {})
    if event["event_name"] == "Purchase" and not {"value", "currency"} <= set(data):
        raise _invalid("value")
    _check_data(data)


def _check_click(fbc: str | None) -> None:
    """`fb.<subdomain index>.<milliseconds>.<click id>`."""
    if fbc is None:
        return
    parts = fbc.split(".", 3)
    if len(parts) != 4 or parts[0] != "fb" or not parts[1].isdecimal() or not parts[2].isdecimal() or not parts[3]:
        raise _invalid("fbc")


def _check_data(data: Mapping[str, Any]) -> None:
    """Known names by their type; names of the advertiser's own are taken as they are."""
    if isinstance(data.get("value", 0), bool) or not isinstance(data.get("value", 0), int | float):
        raise _invalid("value")
    for name in ("currency", "order_id"):
        if name in data and not isinstance(data[name], str):
            raise _invalid(name)
    currency = data.get("currency", "USD")
    if len(currency) != 3 or not currency.isupper():
        raise _invalid("currency")
    if "value" in data and "currency" not in data:
        raise _invalid("currency")


def _invalid(name: str) -> Problem:
    return Problem(100, f"Invalid parameter: {name[:60]}", subcode=2_804_019)
