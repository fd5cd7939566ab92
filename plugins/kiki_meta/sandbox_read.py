"""Reads as the stand-in answers them: fields by name, pages by cursor, insights at once or as a report, history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any
from urllib.parse import quote

import msgspec

from kiki_agent.model import SECOND, Instant
from kiki_meta.sandbox_account import MetaAccount
from kiki_meta.sandbox_wire import Problem, number, only, word

FIELDS = {
    "account": frozenset(
        {"id", "account_id", "name", "account_status", "currency", "timezone_name", "min_daily_budget"}
    ),
    "campaigns": frozenset(
        {"id", "name", "status", "effective_status", "daily_budget", "lifetime_budget", "bid_strategy", "objective"}
    ),
    "adsets": frozenset(
        {"id", "name", "campaign_id", "status", "effective_status", "daily_budget", "lifetime_budget", "bid_amount",
         "bid_strategy", "bid_constraints", "optimization_goal", "learning_stage_info", "budget_remaining"}
    ),
    "insights": frozenset(
        {"account_id", "campaign_id", "adset_id", "spend", "impressions", "clicks", "actions", "action_values",
         "date_start", "date_stop"}
    ),
    "activities": frozenset(
        {"actor_id", "actor_name", "application_id", "event_time", "event_type", "extra_data", "object_id"}
    ),
    "run": frozenset({"id", "account_id", "async_status", "async_percent_completion", "date_start", "date_stop"}),
}  # fmt: skip
PAGED = frozenset({"fields", "limit", "after"})
PARAMETERS = {
    "account": frozenset({"fields"}),
    "campaigns": PAGED,
    "adsets": PAGED,
    "insights": PAGED | {"level", "time_increment", "time_range"},
    "activities": PAGED | {"since", "until"},
    "run": frozenset({"fields"}),
    "made": PAGED,
}
LEVELS = ("account", "ad", "adset", "campaign")
FIRST_RUN = 600_500_400_300_001
PROGRESS = (("Job Not Started", 0), ("Job Running", 40), ("Job Completed", 100))
"""What one poll after the other is told of a report."""
MOST_DAYS_AT_ONCE = 90
"""More days than this are made as a report only; Meta goes by the amount of data."""


class Reader:
    """The reads of one account."""

    def __init__(self, account: MetaAccount, token: str) -> None:
        self.account = account
        self._token = token
        self._runs: dict[str, dict[str, str]] = {}
        self._polls: dict[str, int] = {}

    def get(self, node: str, edge: str, params: Mapping[str, str], now: Instant, version: str) -> object:
        """Answer a GET."""
        if node in self._runs:
            return self._run(node, edge, params, now, version)
        if node != f"act_{self.account.account}":
            text = f"Unsupported get request. Object with ID '{node[:40]}' does not exist or cannot be loaded."
            raise Problem(100, text, subcode=33)
        kind = edge or "account"
        if kind not in FIELDS or kind == "run":
            raise Problem(2500, f"Unknown path components: /{edge[:60]}")
        only(params, PARAMETERS[kind])
        fields = _fields(kind, params)
        path = f"{node}/{kind}"
        match kind:
            case "account":
                return _picked(self.account.account_node(), fields)
            case "insights":
                return self._page(self._insights(params, now), path, params, (*fields, *DATES), version)
            case "activities":
                return self._page(self._activities(params), path, params, fields, version)
            case "campaigns":
                return self._page(self.account.campaign_nodes(), path, params, fields, version)
        return self._page(self.account.ad_set_nodes(now), path, params, fields, version)

    def order(self, fields: Mapping[str, Any], now: Instant) -> object:
        """Order a report: a POST of what a read of insights asks for."""
        only(fields, PARAMETERS["insights"])
        params = {name: str(value) for name, value in fields.items()}
        _fields("insights", params)
        number(params.get("limit", "25"), "limit", 1, 1000)
        self._insights(params, now, most=10_000)
        identity = str(FIRST_RUN + len(self._runs))
        self._runs[identity] = params
        self._polls[identity] = 0
        return {"report_run_id": identity}

    def _run(self, node: str, edge: str, params: Mapping[str, str], now: Instant, version: str) -> object:
        if edge == "insights":
            only(params, PARAMETERS["made"])
            if self._polls[node] < len(PROGRESS):
                raise Problem(2601, "Error accessing adreport job. The job is not completed.", subcode=1_487_221)
            asked = self._runs[node]
            fields = _fields("insights", params)
            return self._page(
                self._insights({**asked, "fields": "actions"}, now, most=10_000),
                f"{node}/insights",
                params,
                (*fields, *DATES),
                version,
            )
        if edge:
            raise Problem(2500, f"Unknown path components: /{edge[:60]}")
        only(params, PARAMETERS["run"])
        status, percent = PROGRESS[min(self._polls[node], len(PROGRESS) - 1)]
        self._polls[node] += 1
        run = {"id": node, "account_id": self.account.account, "async_status": status}
        return _picked({**run, "async_percent_completion": percent}, _fields("run", params))

    def _insights(
        self, params: Mapping[str, str], now: Instant, most: int = MOST_DAYS_AT_ONCE
    ) -> Iterable[dict[str, Any]]:
        actions = "action" in params.get("fields", "action")
        word(params.get("level", "account"), LEVELS, "level")
        if params.get("level") != "adset" or params.get("time_increment") != "1":
            raise Problem(100, "This account answers level=adset with time_increment=1 only.")
        try:
            span = msgspec.json.decode(params.get("time_range", "").encode(), type=dict[str, str])
            first, last = span["since"], span["until"]
            if set(span) != {"since", "until"} or first > last:
                raise ValueError("span")
            days = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).days + 1
            rows = [self.account.insight(day, actions) for day in self.account.desk.days(first, last, now)]
        except (msgspec.MsgspecError, KeyError, ValueError):
            raise Problem(100, "(#100) Param time_range must be an object with since and until.") from None
        if days > most:
            raise Problem(1, "Please reduce the amount of data you're asking for, then retry", status=500, subcode=99)
        return rows

    def _activities(self, params: Mapping[str, str]) -> Iterable[dict[str, Any]]:
        since = _seconds(params.get("since"), "since", 0)
        until = _seconds(params.get("until"), "until", 1 << 40)
        for at, node in reversed(self.account.activities):
            if since <= at // SECOND <= until:
                yield node

    def _page(
        self,
        nodes: Iterable[dict[str, Any]],
        path: str,
        params: Mapping[str, str],
        fields: tuple[str, ...],
        version: str,
    ) -> object:
        limit = number(params.get("limit", "25"), "limit", 1, 1000)
        begin = 0
        if "after" in params:
            text = params["after"].removeprefix("c")
            if text == params["after"]:
                raise Problem(100, "Invalid cursor.")
            begin = number(text, "after", 0, 10**9)
        rows = list(islice(nodes, begin, begin + limit + 1))
        page: dict[str, Any] = {"data": [_picked(row, fields) for row in rows[:limit]]}
        if rows:
            page["paging"] = {"cursors": {"before": f"c{begin}", "after": f"c{begin + min(limit, len(rows))}"}}
        if len(rows) > limit:
            given = "&".join(f"{name}={quote(value)}" for name, value in params.items() if name != "after")
            page["paging"]["next"] = (
                f"https://graph.facebook.com/{version}/{path}?access_token={self._token}&{given}&after=c{begin + limit}"
            )
        return page


DATES = ("date_start", "date_stop")


def _fields(kind: str, params: Mapping[str, str]) -> tuple[str, ...]:
    fields = tuple(name for name in params.get("fields", "").split(",") if name) or ("id",)
    for name in fields:
        if name not in FIELDS[kind] and name != "id":
            raise Problem(100, f"(#100) Tried accessing nonexisting field ({name[:60]})")
    return fields


def _picked(node: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """The asked fields that are set; an id is always given where there is one."""
    wanted = fields if "id" in fields or "id" not in node else (*fields, "id")
    return {name: node[name] for name in wanted if name in node}


def _seconds(given: str | None, name: str, absent: int) -> int:
    if given is None:
        return absent
    if given.isascii() and given.isdecimal() and len(given) < 12:
        return int(given)
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise Problem(100, f"(#100) Param {name} must be a valid date") from None
    return int(moment.timestamp())
