"""Meta's side for tests and the demo: the Graph API over the simulated market, as strict as the real one.

Versions, field selection, cursors, units, usage headers and errors as Meta has them; what it does not know it refuses.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from kiki_agent.model import HOUR, Instant
from kiki_agent.sandbox import Answer, AnswerLost, Desk, Fault
from kiki_meta.sandbox_account import MetaAccount
from kiki_meta.sandbox_write import Problem, Writer

ACCOUNT = "1234567890"
PIXEL = "880088008800"
VERSIONS = ("v25.0", "v26.0")
SCORE_PER_HOUR = 9_000
"""Standard access: points of an hour, one for a read and three for a write (rate limiting page)."""
_JSON = {"content-type": "application/json; charset=UTF-8"}
_HTML = {"content-type": "text/html; charset=utf-8"}

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
}  # fmt: skip
PARAMETERS = {
    "account": frozenset({"fields"}),
    "campaigns": frozenset({"fields", "limit", "after", "effective_status"}),
    "adsets": frozenset({"fields", "limit", "after", "effective_status"}),
    "insights": frozenset({"fields", "limit", "after", "level", "time_increment", "time_range"}),
}


class MetaSandbox:
    """One ad account of Meta."""

    def __init__(
        self,
        desk: Desk,
        *,
        currency: str = "USD",
        timezone: str = "UTC",
        score_per_hour: int = SCORE_PER_HOUR,
        token_expires_at: Instant | None = None,
    ) -> None:
        self.desk = desk
        self.account = MetaAccount(desk, ACCOUNT, currency, timezone)
        self.writer = Writer(self.account)
        self.events: dict[str, dict[str, Any]] = {}
        """Uploaded events by their id."""
        self.token_expires_at = token_expires_at
        """When the token stops working; None: never, as for a system user."""
        self.requests = 0
        self._token = f"token-{desk.client_secret}"
        secret = f"app-{desk.client_secret}"
        self._proof = hmac.new(secret.encode(), self._token.encode(), hashlib.sha256).hexdigest()
        self._limit = score_per_hour
        self._hour, self._score = 0, 0

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: Instant) -> Answer:
        """Answer one request."""
        self.requests += 1
        route, _, query = path.partition("?")
        fault = self.desk.fault(route)
        try:
            match fault:
                case Fault.ERROR:
                    raise Problem(1, "An unknown error occurred", status=500, transient=True)
                case Fault.GARBAGE:
                    return 200, _HTML, b"<!DOCTYPE html><title>Error</title>"
                case Fault.THROTTLED:
                    self._score = self._limit
                case Fault.FAILED:
                    return (
                        200,
                        _JSON,
                        b'{"success":false}'
                        if method == "POST"
                        else _error_body(Problem(2, "Service temporarily unavailable", transient=True), self.requests),
                    )
            made = self._answer(method, route, query, headers, body, now)
        except Problem as problem:
            return problem.status, {**_JSON, **self._usage(now)}, _error_body(problem, self.requests)
        if fault is Fault.LOST:
            raise AnswerLost(f"{method} {route} was processed, its answer is lost")
        return 200, {**_JSON, **self._usage(now)}, msgspec.json.encode(made)

    def _answer(
        self, method: str, route: str, query: str, headers: Mapping[str, str], body: bytes, now: Instant
    ) -> object:
        version, _, rest = route[1:].partition("/")
        if version not in VERSIONS:
            known = version.startswith("v") and version[1:].replace(".", "", 1).isdecimal()
            if known:
                raise Problem(2635, f"You are calling a deprecated version of the Ads API. Use {VERSIONS[-1]}.")
            raise Problem(2500, "Unknown path components: the version is missing.")
        params = _params(query)
        self._check_access(headers, params, now)
        self._use(method, now)
        params.pop("appsecret_proof", None)
        params.pop("access_token", None)
        node, _, edge = rest.partition("/")
        if method == "POST":
            return self._post(node, edge, params, headers, body, now)
        if method != "GET":
            raise Problem(100, f"Unsupported {method.lower()} request.")
        if node != f"act_{ACCOUNT}":
            text = f"Unsupported get request. Object with ID '{node[:40]}' does not exist or cannot be loaded."
            raise Problem(100, text, subcode=33)
        kind = edge or "account"
        if kind not in FIELDS:
            raise Problem(2500, f"Unknown path components: /{edge[:60]}")
        for name in params:
            if name not in PARAMETERS[kind]:
                raise Problem(100, f"Unknown parameter: {name[:60]}")
        fields = self._fields(kind, params)
        if kind == "account":
            return _picked(self.account.account_node(), fields)
        if kind == "insights":
            return self._insights(params, fields, now, version)
        nodes = self.account.campaign_nodes() if kind == "campaigns" else self.account.ad_set_nodes(now)
        return self._page(nodes, kind, params, fields, version)

    def _post(
        self, node: str, edge: str, params: Mapping[str, str], headers: Mapping[str, str], body: bytes, now: Instant
    ) -> object:
        if params:
            raise Problem(100, f"Unknown parameter: {next(iter(params))[:60]}")
        fields = _body(headers, body)
        if node == PIXEL and edge == "events":
            return self._receive(fields)
        if edge:
            raise Problem(2500, f"Unknown path components: /{edge[:60]}")
        self.writer.change(node, fields, now)
        return {"success": True}

    # -- who asks, and how often --------------------------------------------------------------------------------------

    def _check_access(self, headers: Mapping[str, str], params: Mapping[str, str], now: Instant) -> None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token if scheme.lower() == "bearer" else params.get("access_token", "")
        if not token:
            raise Problem(2500, "An active access token must be used to query information about the account.")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise Problem(190, "Malformed access token", status=401)
        if self.token_expires_at is not None and now >= self.token_expires_at:
            raise Problem(190, "Error validating access token: Session has expired.", status=401, subcode=463)
        proof = params.get("appsecret_proof")
        if proof is None or not hmac.compare_digest(proof.encode(), self._proof.encode()):
            raise Problem(100, "API calls from the server require an appsecret_proof argument")

    def _use(self, method: str, now: Instant) -> None:
        if now // HOUR != self._hour:
            self._hour, self._score = now // HOUR, 0
        self._score += 3 if method == "POST" else 1
        if self._score > self._limit:
            text = "There have been too many calls from this ad-account. Wait a bit and try again."
            raise Problem(80_004, text, subcode=2_446_079)

    def _usage(self, now: Instant) -> dict[str, str]:
        """How much is used, as Meta says it: percent; minutes for the business, seconds for the account."""
        share = min(100, 100 * self._score // self._limit)
        left = (self._hour + 1) * HOUR - now
        over = self._score >= self._limit
        use = {
            "type": "ads_management",
            "call_count": share,
            "total_cputime": share // 2,
            "total_time": share // 2,
            "estimated_time_to_regain_access": -(-left // 60_000_000) if over else 0,
            "ads_api_access_tier": "standard_access",
        }
        account = {"acc_id_util_pct": share, "reset_time_duration": left // 1_000_000 if over else 0}
        return {
            "x-business-use-case-usage": msgspec.json.encode({ACCOUNT: [use]}).decode(),
            "x-ad-account-usage": msgspec.json.encode(account).decode(),
            "x-fb-trace-id": f"trace{self.requests}",
        }

    # -- reading -----------------------------------------------------------------------------------------------------

    @staticmethod
    def _fields(kind: str, params: Mapping[str, str]) -> tuple[str, ...]:
        fields = tuple(name for name in params.get("fields", "").split(",") if name) or ("id",)
        for name in fields:
            if name not in FIELDS[kind]:
                raise Problem(100, f"(#100) Tried accessing nonexisting field ({name[:60]})")
        return fields

    def _insights(self, params: Mapping[str, str], fields: tuple[str, ...], now: Instant, version: str) -> object:
        if params.get("level") != "adset" or params.get("time_increment") != "1":
            raise Problem(100, "This account answers level=adset with time_increment=1 only.")
        try:
            span = msgspec.json.decode(params.get("time_range", "").encode(), type=dict[str, str])
            first, last = span["since"], span["until"]
            if set(span) != {"since", "until"} or first > last:
                raise ValueError("span")
            rows = [self.account.insight(day) for day in self.desk.days(first, last, now)]
        except (msgspec.MsgspecError, KeyError, ValueError):
            raise Problem(100, "(#100) Param time_range must be an object with since and until.") from None
        return self._page(rows, "insights", params, (*fields, "date_start", "date_stop"), version)

    @staticmethod
    def _page(
        nodes: Iterable[dict[str, Any]], kind: str, params: Mapping[str, str], fields: tuple[str, ...], version: str
    ) -> object:
        limit = _count(params.get("limit", "25"), "limit", 1, 1000)
        begin = 0
        if "after" in params:
            text = params["after"].removeprefix("c")
            if text == params["after"]:
                raise Problem(100, "Invalid cursor.")
            begin = _count(text, "after", 0, 10**9)
        rows = list(islice(nodes, begin, begin + limit + 1))
        page: dict[str, Any] = {"data": [_picked(row, fields) for row in rows[:limit]]}
        if rows:
            page["paging"] = {"cursors": {"before": f"c{begin}", "after": f"c{begin + min(limit, len(rows))}"}}
        if len(rows) > limit:
            given = "&".join(f"{name}={quote(value)}" for name, value in params.items() if name != "after")
            page["paging"]["next"] = (
                f"https://graph.facebook.com/{version}/act_{ACCOUNT}/{kind}?{given}&after=c{begin + limit}"
            )
        return page

    # -- events ------------------------------------------------------------------------------------------------------

    def _receive(self, fields: Mapping[str, Any]) -> object:
        events = fields.get("data")
        if set(fields) - {"data", "test_event_code"} or not isinstance(events, list) or not events:
            raise Problem(100, "Param data must be a list of events.")
        for event in events:
            _check_event(event)
        for event in events:
            self.events.setdefault(str(event["event_id"]), event)
        return {"events_received": len(events), "messages": [], "fbtrace_id": f"trace{self.requests}"}


def _check_event(event: Any) -> None:
    known = {"event_name", "event_time", "event_id", "action_source", "user_data", "custom_data", "event_source_url"}
    if not isinstance(event, dict) or set(event) - known:
        raise Problem(100, "Invalid parameter", subcode=2_804_019)
    needed = {"event_name": str, "event_time": int, "event_id": str, "action_source": str, "user_data": dict}
    for name, kind in needed.items():
        if not isinstance(event.get(name), kind) or isinstance(event.get(name), bool):
            raise Problem(100, f"Invalid parameter: {name}", subcode=2_804_019)
    custom = event.get("custom_data", {})
    if not isinstance(custom, dict) or not isinstance(custom.get("value", 0), int | float):
        raise Problem(100, "Invalid parameter: custom_data", subcode=2_804_019)
    if "currency" in custom and not (isinstance(custom["currency"], str) and len(custom["currency"]) == 3):
        raise Problem(100, "Invalid parameter: currency", subcode=2_804_019)


def _picked(node: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """The asked fields that are set; an id is always given where there is one."""
    wanted = fields if "id" in fields or "id" not in node else (*fields, "id")
    return {name: node[name] for name in wanted if name in node}


def _params(query: str) -> dict[str, str]:
    params: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in params:
            raise Problem(100, f"Parameter {name[:60]} is given twice")
        params[name] = value
    return params


def _body(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    kind = headers.get("content-type", "").split(";")[0].strip()
    if kind == "application/json":
        try:
            found = msgspec.json.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Problem(100, "The body is no JSON object.")
        return found
    if kind != "application/x-www-form-urlencoded":
        raise Problem(100, "The content type must be a form or JSON.")
    try:
        return dict(_params(body.decode("ascii")))
    except UnicodeDecodeError:
        raise Problem(100, "The body is no form.") from None


def _count(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 12 or not least <= int(text) <= most:
        raise Problem(100, f"(#100) Param {name} must be a number from {least} to {most}")
    return int(text)


def _error_body(problem: Problem, number: int) -> bytes:
    error: dict[str, Any] = {
        "message": problem.message,
        "type": "OAuthException",
        "code": problem.code,
        "fbtrace_id": f"trace{number}",
    }
    if problem.subcode:
        error["error_subcode"] = problem.subcode
    if problem.transient:
        error["is_transient"] = True
    return msgspec.json.encode({"error": error})
