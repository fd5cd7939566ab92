"""Meta's side for tests and the demo: the Graph API over the simulated market, as strict as the real one.

Versions, access, quotas, batches and faults stand here; reads, changes and events in the modules beside it. Versions,
field selection, cursors, units, usage headers and errors are Meta's; what it does not know it refuses.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import msgspec

from kiki_agent.model import HOUR, Instant
from kiki_agent.sandbox import Answer, AnswerLost, Desk, Fault
from kiki_meta.sandbox_account import MetaAccount
from kiki_meta.sandbox_events import check_events
from kiki_meta.sandbox_read import Reader
from kiki_meta.sandbox_wire import Problem, body_of, decoded, only, parameters, word
from kiki_meta.sandbox_write import Writer

ACCOUNT = "1234567890"
PIXEL = "880088008800"
VERSIONS = ("v25.0", "v26.0")
SCORE_PER_HOUR = 9_000
"""Standard access: points of an hour, one for a read and three for a write (rate limiting page)."""
MOST_IN_BATCH = 50
_JSON = {"content-type": "application/json; charset=UTF-8"}
_HTML = {"content-type": "text/html; charset=utf-8"}
_TROUBLE = {"success": False}


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
        self.events: dict[str, dict[str, Any]] = {}
        """Uploaded events by their id."""
        self.token_expires_at = token_expires_at
        """When the token stops working; None: never, as for a system user."""
        self.requests = 0
        self._token = f"token-{desk.client_secret}"
        secret = f"app-{desk.client_secret}"
        self._proof = hmac.new(secret.encode(), self._token.encode(), hashlib.sha256).hexdigest()
        self.writer = Writer(self.account)
        self._reader = Reader(self.account, self._token)
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
                    self._hour, self._score = now // HOUR, self._limit
            made = self._answer(method, route, query, headers, body, now, failed=fault is Fault.FAILED)
        except Problem as problem:
            status = 200 if fault is Fault.FAILED else problem.status
            return status, {**_JSON, **self._usage(now)}, problem.body(self.requests)
        if fault is Fault.LOST:
            raise AnswerLost(f"{method} {route} was processed, its answer is lost")
        return 200, {**_JSON, **self._usage(now)}, msgspec.json.encode(made)

    def _answer(
        self,
        method: str,
        route: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        now: Instant,
        *,
        failed: bool,
    ) -> object:
        version, _, rest = route[1:].partition("/")
        if version not in VERSIONS:
            raise _wrong_version(version)
        params = parameters(query)
        self._check_access(headers, params, now)
        self._use(method, now)
        params.pop("appsecret_proof", None)
        params.pop("access_token", None)
        node, _, edge = rest.partition("/")
        if method == "GET":
            if failed:
                raise Problem(2, "Service temporarily unavailable", transient=True)
            return self._reader.get(node, edge, params, now, version)
        if method != "POST":
            raise Problem(100, f"Unsupported {method.lower()} request.")
        only(params, frozenset())
        return self._post(node, edge, body_of(headers, body), now, failed=failed)

    def _post(self, node: str, edge: str, fields: Mapping[str, Any], now: Instant, *, failed: bool) -> object:
        if not node and not edge:
            return self._batch(fields, now, failed=failed)
        if node == PIXEL and edge == "events":
            events = check_events(fields, now)
            if failed:
                return {"events_received": 0, "messages": [], "fbtrace_id": f"trace{self.requests}"}
            for event in events:
                self.events.setdefault(str(event.get("event_id", len(self.events))), event)
            return {"events_received": len(events), "messages": [], "fbtrace_id": f"trace{self.requests}"}
        if node == f"act_{ACCOUNT}" and edge == "insights":
            if failed:
                raise Problem(2, "Service temporarily unavailable", transient=True)
            return self._reader.order(fields, now)
        if edge:
            raise Problem(2500, f"Unknown path components: /{edge[:60]}")
        if failed:
            return _TROUBLE
        self.writer.change(node, fields, now)
        return {"success": True}

    def _batch(self, fields: Mapping[str, Any], now: Instant, *, failed: bool) -> object:
        """Up to fifty requests, each carried out and answered by itself."""
        only(fields, frozenset({"batch", "include_headers"}))
        word(fields.get("include_headers", "true"), ("true", "false"), "include_headers")
        given = fields.get("batch")
        items = decoded(given, "Param batch") if isinstance(given, str) else given
        if not isinstance(items, list) or not items:
            raise Problem(100, "(#100) Param batch must be a list of requests")
        if len(items) > MOST_IN_BATCH:
            raise Problem(100, f"(#100) Too many requests in batch message. Maximum batch size is {MOST_IN_BATCH}")
        for item in items:
            _check_item(item)
        return [self._item(number, item, now, failed=failed) for number, item in enumerate(items)]

    def _item(self, number: int, item: Mapping[str, str], now: Instant, *, failed: bool) -> dict[str, Any]:
        status = 200
        try:
            if number:
                self._use(item["method"], now)
            route, _, query = item["relative_url"].partition("?")
            node, _, edge = route.strip("/").partition("/")
            only(parameters(query), frozenset())
            form = body_of({"content-type": "application/x-www-form-urlencoded"}, item["body"].encode())
            if not node:
                raise Problem(100, "A batch cannot hold a batch.")
            made = msgspec.json.encode(self._post(node, edge, form, now, failed=failed))
        except Problem as problem:
            status, made = problem.status, problem.body(self.requests)
        return {"code": status, "body": made.decode()}

    # -- who asks, and how often --------------------------------------------------------------------------------------

    def _check_access(self, headers: Mapping[str, str], params: Mapping[str, str], now: Instant) -> None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token if scheme.lower() == "bearer" else params.get("access_token", "")
        if not token:
            raise Problem(2500, "An active access token must be used to query information about the current user.")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise Problem(190, f"Malformed access token {token}", status=401)
        if self.token_expires_at is not None and now >= self.token_expires_at:
            raise Problem(190, "Error validating access token: Session has expired.", status=401, subcode=463)
        proof = params.get("appsecret_proof")
        if proof is None:
            raise Problem(100, "API calls from the server require an appsecret_proof argument")
        if not hmac.compare_digest(proof.encode(), self._proof.encode()):
            raise Problem(100, "Invalid appsecret_proof provided in the API argument")

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


def _wrong_version(given: str) -> Problem:
    """A version that ended, and one that never was, or no version at all."""
    number = given.removeprefix("v").removesuffix(".0")
    if given.startswith("v") and number.isdecimal() and len(number) < 4 and int(number) < int(VERSIONS[0][1:3]):
        return Problem(2635, f"You are calling a deprecated version of the Ads API. Please update to {VERSIONS[-1]}.")
    return Problem(2500, f"Unknown path components: /{given[:60]}")


def _check_item(item: Any) -> None:
    if not isinstance(item, dict):
        raise Problem(100, "(#100) Each request of a batch must be an object")
    only(item, frozenset({"method", "relative_url", "body", "name", "omit_response_on_success"}))
    for name in ("method", "relative_url", "body"):
        if not isinstance(item.get(name), str) or not item[name]:
            raise Problem(100, f"(#100) Param batch: {name} must be a string")
    word(item["method"], ("POST",), "method")
