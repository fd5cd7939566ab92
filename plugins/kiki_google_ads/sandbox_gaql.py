"""The part of the Google Ads query language that the stand-in understands; what it does not know it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any

Value = str | int | float | bool | dict[str, Any] | list[dict[str, str]] | None

FIELDS: Mapping[str, frozenset[str]] = {
    "customer": frozenset(
        {
            "customer.id", "customer.currency_code", "customer.time_zone", "customer.test_account",
            "customer.descriptive_name",
        }
    ),
    "campaign": frozenset(
        {
            "campaign.id", "campaign.name", "campaign.status", "campaign.campaign_budget", "campaign.bidding_strategy",
            "campaign.bidding_strategy_type", "campaign.bidding_strategy_system_status",
            "campaign.target_roas.target_roas", "campaign.target_spend.cpc_bid_ceiling_micros",
            "campaign.maximize_conversion_value.target_roas", "campaign.url_custom_parameters",
            "campaign_budget.id", "campaign_budget.amount_micros", "campaign_budget.total_amount_micros",
            "campaign_budget.explicitly_shared", "campaign_budget.reference_count", "campaign_budget.period",
            "bidding_strategy.id", "bidding_strategy.name", "bidding_strategy.type",
            "bidding_strategy.non_removed_campaign_count", "bidding_strategy.campaign_count",
            "bidding_strategy.target_roas.target_roas", "bidding_strategy.target_roas.cpc_bid_ceiling_micros",
            "bidding_strategy.maximize_conversion_value.target_roas",
            "bidding_strategy.maximize_conversion_value.cpc_bid_ceiling_micros",
            "bidding_strategy.target_spend.cpc_bid_ceiling_micros",
            "metrics.cost_micros", "metrics.impressions", "metrics.clicks", "metrics.conversions",
            "metrics.conversions_value", "segments.date",
        }
    ),
    "ad_group": frozenset(
        {
            "ad_group.id", "ad_group.name", "ad_group.status", "ad_group.campaign", "ad_group.cpc_bid_micros",
            "campaign.id", "campaign.status", "campaign.bidding_strategy_type",
        }
    ),
    "change_event": frozenset(
        {
            "change_event.resource_name", "change_event.change_date_time", "change_event.change_resource_type",
            "change_event.change_resource_name", "change_event.resource_change_operation", "change_event.client_type",
            "change_event.user_email", "change_event.old_resource", "change_event.new_resource",
            "change_event.changed_fields", "change_event.campaign",
        }
    ),
}  # fmt: skip
"""Fields that can be selected from a resource, and filtered and ordered by."""
_QUERY = re.compile(
    r"\s*SELECT\s+(?P<select>[\w.,\s]+?)\s+FROM\s+(?P<resource>\w+)"
    r"(?:\s+WHERE\s+(?P<where>.+?))?(?:\s+ORDER\s+BY\s+(?P<order>[\w.,\s]+?))?(?:\s+LIMIT\s+(?P<limit>[0-9]+))?\s*",
    re.DOTALL,
)
_CONDITION = re.compile(
    r"(?P<field>[\w.]+)\s*(?:(?P<op>!=|=|>=|<=|>|<)\s*(?P<value>'[^']*'|-?[0-9.]+|\w+)"
    r"|BETWEEN\s+'(?P<low>[^']*)'\s+AND\s+'(?P<high>[^']*)'|IN\s*\((?P<many>[^)]*)\))"
)


class QueryError(Exception):
    """A query Google would refuse; `code` is the name in `QueryErrorEnum`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


Test = Callable[[Value], bool]


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was understood."""

    resource: str
    fields: tuple[str, ...]
    tests: tuple[tuple[str, Test], ...]
    days: tuple[str, str] | None
    """First and last day of the report; None where there is no segment."""
    order: tuple[tuple[str, bool], ...]
    """Field, and whether it descends."""
    limit: int | None
    times: tuple[str, str] | None = None
    """First and last account time of a history, to the second."""

    def keeps(self, row: Mapping[str, Value]) -> bool:
        """Whether a row meets every condition."""
        return all(test(row.get(name)) for name, test in self.tests)

    def ordered(self, rows: Iterable[Mapping[str, Value]]) -> list[Mapping[str, Value]]:
        """Rows that meet the conditions, in order, as many as wanted."""
        found = [row for row in rows if self.keeps(row)]
        for name, descends in reversed(self.order):
            found.sort(key=lambda row: (row.get(name) is None, row.get(name)), reverse=descends)
        return found if self.limit is None else found[: self.limit]


@lru_cache(maxsize=256)
def parse(text: str) -> Query:
    """Understand a query. Raises QueryError."""
    found = _QUERY.fullmatch(text)
    if found is None:
        raise QueryError(
            "UNEXPECTED_INPUT", "the query is not SELECT ... FROM ... [WHERE ...] [ORDER BY ...] [LIMIT n]"
        )
    resource = found["resource"]
    known = FIELDS.get(resource)
    if known is None:
        raise QueryError("BAD_RESOURCE_TYPE_IN_FROM_CLAUSE", f"resource {resource[:40]!r} is not known")
    fields = _names(found["select"], known)
    tests, days, times = _conditions(found["where"], known) if found["where"] else ((), None, None)
    _check_history(resource, times, found["limit"])
    segmented = any(name.startswith("segments.") for name in fields)
    if segmented and days is None:
        raise QueryError(
            "EXPECTED_FILTERS_ON_DATE_RANGE", "a query with segments.date filters by a finite span of days"
        )
    order = []
    for part in (found["order"] or "").split(","):
        words = part.split()
        if not words:
            continue
        if words[0] not in known or len(words) > 2 or (len(words) == 2 and words[1] not in ("ASC", "DESC")):
            raise QueryError(
                "PROHIBITED_FIELD_IN_ORDER_BY_CLAUSE" if words[0] in known else "UNRECOGNIZED_FIELD",
                f"ORDER BY {part[:60]}",
            )
        order.append((words[0], words[-1] == "DESC"))
    limit = int(found["limit"]) if found["limit"] else None
    if limit == 0:
        raise QueryError("LIMIT_VALUE_TOO_LOW", "LIMIT is a positive number")
    return Query(resource, fields, tests, days, tuple(order), limit, times)


def _check_history(resource: str, times: tuple[str, str] | None, limit: str | None) -> None:
    """A history is asked for a finite time, and for at most 10,000 lines."""
    if resource != "change_event":
        return
    if times is None:
        raise QueryError("CHANGE_DATE_RANGE_INFINITE", "change_event.change_date_time needs a first and a last time")
    if limit is None:
        raise QueryError("LIMIT_NOT_SPECIFIED", "a query for change_event has a LIMIT")
    if not 1 <= int(limit) <= 10_000:
        raise QueryError("INVALID_LIMIT_CLAUSE", "LIMIT is at most 10000 for change_event")


def _names(text: str, known: frozenset[str]) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in known:
            raise QueryError("UNRECOGNIZED_FIELD", f"field {name[:60]!r} is not known in this query")
    if len(set(names)) < len(names):
        raise QueryError("UNEXPECTED_INPUT", "a field is selected twice")
    return names


_Span = tuple[str, str] | None


def _conditions(text: str, known: frozenset[str]) -> tuple[tuple[tuple[str, Test], ...], _Span, _Span]:
    """Tests on fields, the days of a report, the times of a history."""
    tests: list[tuple[str, Test]] = []
    spans = {"segments.date": ("", ""), "change_event.change_date_time": ("", "")}
    position = 0
    while position < len(text):
        found = _CONDITION.match(text, position)
        if found is None:
            raise QueryError("UNEXPECTED_INPUT", f"condition {text[position : position + 40]!r} is not understood")
        name = found["field"]
        if name not in known:
            raise QueryError("UNRECOGNIZED_FIELD", f"field {name[:60]!r} is not known in this query")
        if name in spans:
            spans[name] = _span(found, *spans[name])
        else:
            tests.append((name, _test(found)))
        position = found.end()
        rest = re.compile(r"\s+AND\s+|\s*$").match(text, position)
        if rest is None:
            raise QueryError("UNEXPECTED_INPUT", f"expected AND at {text[position : position + 40]!r}")
        position = rest.end()
    days, times = spans.values()
    if bool(days[0]) != bool(days[1]):
        raise QueryError("EXPECTED_FILTERS_ON_DATE_RANGE", "segments.date needs a first and a last day")
    if bool(times[0]) != bool(times[1]):
        raise QueryError("CHANGE_DATE_RANGE_INFINITE", "change_event.change_date_time needs a first and a last time")
    if days[0] > days[1]:
        raise QueryError("INVALID_VALUE_WITH_BETWEEN_OPERATOR", "the first day comes after the last")
    if times[0] > times[1]:
        raise QueryError("CHANGE_DATE_RANGE_NEGATIVE", "the first time comes after the last")
    return tuple(tests), days if days[0] else None, times if times[0] else None


def _span(found: re.Match[str], first: str, last: str) -> tuple[str, str]:
    read = _time if found["field"] == "change_event.change_date_time" else _day
    if found["low"] is not None:
        return read(found["low"]), read(found["high"])
    value = (found["value"] or "").strip("'")
    match found["op"]:
        case "=":
            return read(value), read(value)
        case ">=":
            return read(value), last
        case "<=":
            return first, read(value)
    raise QueryError("INVALID_VALUE_WITH_DURING_OPERATOR", f"{found['field']} takes =, >=, <= and BETWEEN here")


def _day(text: str) -> str:
    try:
        if len(text) == 10:
            return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    raise QueryError("INVALID_DATE_FORMAT", f"{text[:20]!r} is no day such as 2026-01-31")


def _time(text: str) -> str:
    try:
        if len(text) == 19 and text[10] == " ":
            return datetime.fromisoformat(text).isoformat(" ")
    except ValueError:
        pass
    raise QueryError("INVALID_DATE_FORMAT", f"{text[:24]!r} is no time such as 2026-01-31 12:00:00")


def _test(found: re.Match[str]) -> Test:
    if found["many"] is not None:
        wanted = {part.strip().strip("'") for part in found["many"].split(",")}
        return lambda value: str(value) in wanted
    if found["low"] is not None:
        raise QueryError("UNEXPECTED_INPUT", "BETWEEN is for days here")
    text = found["value"]
    literal = text.strip("'")
    if found["op"] == "=":
        return lambda value: str(value) == literal
    if found["op"] == "!=":
        return lambda value: str(value) != literal
    if text.startswith("'") or not literal.lstrip("-").replace(".", "", 1).isdecimal():
        raise QueryError("UNEXPECTED_INPUT", f"{text[:20]} is no number")
    bound = float(literal)
    compare: dict[str, Callable[[float], bool]] = {
        ">": lambda value: value > bound,
        "<": lambda value: value < bound,
        ">=": lambda value: value >= bound,
        "<=": lambda value: value <= bound,
    }
    return lambda value: isinstance(value, int | float) and compare[found["op"]](value)
