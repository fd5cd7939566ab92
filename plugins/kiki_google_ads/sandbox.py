"""Google's side for tests and the demo: the REST API over the simulated market, as strict as the real one.

Headers, version, query language, field masks, units and partial failures as Google has them; what it does not know it
refuses, in Google's own envelopes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from kiki_agent.model import DAY, MINUTE, Instant
from kiki_agent.sandbox import Answer, AnswerLost, Desk, Fault
from kiki_google_ads import sandbox_wire as wire
from kiki_google_ads.sandbox_account import GoogleAccount
from kiki_google_ads.sandbox_gaql import Query, QueryError, Value, parse
from kiki_google_ads.sandbox_mutate import Mutator, Service
from kiki_google_ads.sandbox_uploads import Uploads
from kiki_google_ads.sandbox_wire import Malformed, Refused

CUSTOMER = "1234567890"
VERSIONS = ("v23", "v24", "v25", "v26")
"""What Google's library 34.0.0 speaks."""
OPERATIONS_PER_DAY = 15_000
"""Basic access: operations a day and developer token, reads included (Google's quota page)."""
REQUESTS_PER_MINUTE = 240
PAGE_ROWS = 10_000
HISTORY_DAYS = 30
_JSON = {"content-type": "application/json; charset=UTF-8"}
_HTML = {"content-type": "text/html; charset=UTF-8"}
_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED",
           500: "INTERNAL", 503: "UNAVAILABLE"}  # fmt: skip
_SEARCH, _STREAM = msgspec.json.Decoder(wire.Search), msgspec.json.Decoder(wire.Stream)


class Problem(Exception):
    """A request that gets an error envelope."""

    def __init__(self, status: int, group: str, name: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status, self.group, self.name, self.message, self.extra = status, group, name, message, extra


class GoogleAdsSandbox:
    """One customer account of Google Ads."""

    def __init__(
        self,
        desk: Desk,
        *,
        currency: str = "USD",
        timezone: str = "UTC",
        operations_per_day: int = OPERATIONS_PER_DAY,
        requests_per_minute: int = REQUESTS_PER_MINUTE,
        page_rows: int = PAGE_ROWS,
        strategies: Mapping[int, str] | None = None,
    ) -> None:
        """`currency`, `page_rows` and `strategies` (by campaign, see `sandbox_account`) are for tests."""
        self.desk = desk
        self.account = GoogleAccount(desk, CUSTOMER, currency, timezone, strategies)
        self.uploads = Uploads(CUSTOMER)
        self._services: Mapping[tuple[str, str], Service] = {
            **Mutator(self.account).services,
            **self.uploads.services,
        }
        self._page_rows = page_rows
        self.requests = 0
        self._per_day, self._per_minute = operations_per_day, requests_per_minute
        self._used: dict[int, tuple[int, int]] = {}

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: Instant) -> Answer:
        """Answer one request."""
        route, _, query = path.partition("?")
        if route == "/token":
            return self._token(method, body, now)
        self.requests += 1
        streamed = route.endswith(":searchStream")
        try:
            fault = self.desk.fault(route)
            answer = self._answer(method, route, query, headers, body, now, fault)
        except Problem as problem:
            return self._refuse(problem, streamed)
        except Malformed as malformed:
            return self._malformed(malformed, streamed)
        except _NoSuchPage:
            return 404, _HTML, b"<!DOCTYPE html><title>Error 404 (Not Found)</title>"
        if fault is Fault.LOST:
            raise AnswerLost(f"{method} {route} was processed, its answer is lost")
        return answer

    def _answer(
        self,
        method: str,
        route: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        now: Instant,
        fault: Fault | None,
    ) -> Answer:
        match fault:
            case Fault.ERROR:
                raise Problem(500, "internalError", "INTERNAL_ERROR", "An internal error has occurred.")
            case Fault.GARBAGE:
                return 200, _HTML, b"<html><body>Please try again</body></html>"
            case Fault.THROTTLED:
                raise _exhausted("RESOURCE_TEMPORARILY_EXHAUSTED", 30)
        version, _, rest = route[1:].partition("/")
        if version not in VERSIONS or not rest.startswith("customers/"):
            raise _NoSuchPage
        self._check_access(method, query, headers, now)
        customer, colon, verb = rest.removeprefix("customers/").partition(":")
        if not colon:
            raise _NoSuchPage
        customer, _, service = customer.partition("/")
        if customer != CUSTOMER:
            raise Problem(403, "authorizationError", "USER_PERMISSION_DENIED", "The caller does not have permission.")
        failed = fault is Fault.FAILED
        match service, verb:
            case "googleAds", "search":
                self._count(1, now)
                if failed:
                    raise Problem(503, "internalError", "TRANSIENT_ERROR", "The service is busy.")
                return self._search(body, now)
            case "googleAds", "searchStream":
                self._count(1, now)
                return self._stream(body, now, broken=failed)
        change = self._services.get((service, verb))
        if change is None:
            raise _NoSuchPage
        return self._change(change, version, body, now, failed)

    def _change(self, change: Service, version: str, body: bytes, now: Instant, failed: bool) -> Answer:
        try:
            results, errors = change(body, now, failed, lambda operations: self._count(operations, now))
        except Refused as refusal:
            raise Problem(400, refusal.group, refusal.name, refusal.message, location=refusal.location) from None
        made: dict[str, Any] = {"results": results} if results else {}
        if errors:
            made["partialFailureError"] = {
                "code": 3,
                "message": f"Multiple errors in 'details'. First error: {errors[0].message}",
                "details": [
                    {
                        "@type": f"type.googleapis.com/google.ads.googleads.{version}.errors.GoogleAdsFailure",
                        "errors": [_error(each.group, each.name, each.message, each.location) for each in errors],
                        "requestId": f"req{self.requests}",
                    }
                ],
            }
        return 200, _JSON, msgspec.json.encode(made)

    # -- who asks, and how often ------------------------------------------------------------------------------------

    def _token(self, method: str, body: bytes, now: Instant) -> Answer:
        try:
            form = dict(parse_qsl(body.decode("ascii"), strict_parsing=True))
        except (ValueError, UnicodeDecodeError):
            form = {}
        if method != "POST" or set(form) != {"client_id", "client_secret", "refresh_token", "grant_type"}:
            return 400, _JSON, b'{"error":"invalid_request"}'
        if form["grant_type"] != "refresh_token":
            return 400, _JSON, b'{"error":"unsupported_grant_type"}'
        if form["refresh_token"] != f"refresh-{self.desk.client_secret}":
            return 400, _JSON, b'{"error":"invalid_grant","error_description":"Token has been expired or revoked."}'
        issued = self.desk.tokens.issue(form["client_id"], form["client_secret"], now)
        if issued is None:
            return 401, _JSON, b'{"error":"invalid_client"}'
        granted = {
            "access_token": issued[0],
            "expires_in": issued[1],
            "scope": "https://www.googleapis.com/auth/adwords",
            "token_type": "Bearer",
        }
        return 200, _JSON, msgspec.json.encode(granted)

    def _check_access(self, method: str, query: str, headers: Mapping[str, str], now: Instant) -> None:
        if method != "POST":
            raise _NoSuchPage
        if query:
            raise Problem(400, "requestError", "UNKNOWN", "Invalid JSON payload received. Unknown name in the query.")
        if not self.desk.tokens.valid(headers.get("authorization", ""), now):
            name = "OAUTH_TOKEN_EXPIRED" if headers.get("authorization") else "OAUTH_TOKEN_INVALID"
            raise Problem(401, "authenticationError", name, "The access token is missing, wrong or expired.")
        developer = headers.get("developer-token")
        if developer is None:
            text = "The developer token is missing."
            raise Problem(400, "requestError", "DEVELOPER_TOKEN_PARAMETER_MISSING", text)
        if developer != f"developer-{self.desk.client_secret}":
            raise Problem(401, "authenticationError", "DEVELOPER_TOKEN_INVALID", "The developer token is not valid.")
        login = headers.get("login-customer-id", "")
        if login and not (login.isascii() and login.isdecimal() and len(login) == 10):
            raise Problem(400, "headerError", "INVALID_LOGIN_CUSTOMER_ID", "The login customer id is not valid.")
        if headers.get("content-type", "").split(";")[0].strip() != "application/json":
            raise Problem(400, "requestError", "UNKNOWN", "The content type must be application/json.")

    def _count(self, operations: int, now: Instant) -> None:
        """Use up quota: operations of the day, requests of the minute."""
        for span, limit, amount, name in (
            (DAY, self._per_day, operations, "RESOURCE_EXHAUSTED"),
            (MINUTE, self._per_minute, 1, "RESOURCE_TEMPORARILY_EXHAUSTED"),
        ):
            number, used = self._used.get(span, (now // span, 0))
            if number != now // span:
                number, used = now // span, 0
            self._used[span] = (number, used + amount)
            if used + amount > limit:
                raise _exhausted(name, -(-((number + 1) * span - now) // 1_000_000))

    # -- reading ----------------------------------------------------------------------------------------------------

    def _search(self, body: bytes, now: Instant) -> Answer:
        asked: wire.Search = wire.decoded(_SEARCH, body)
        if asked.page_size is not None:
            raise Problem(400, "requestError", "PAGE_SIZE_NOT_SUPPORTED", "Setting the page size is not supported.")
        rows, mask = self._rows(asked.query, now)
        offset = 0
        if asked.page_token:
            text = asked.page_token.removeprefix("page-")
            if text == asked.page_token or not text.isdecimal() or not text.isascii() or int(text[:9]) >= len(rows):
                raise Problem(400, "requestError", "INVALID_PAGE_TOKEN", "The page token is not valid.")
            offset = int(text)
        if asked.validate_only:
            return 200, _JSON, b"{}"
        end = offset + self._page_rows
        page: dict[str, Any] = {"results": rows[offset:end]} if rows else {}
        page["fieldMask"] = mask
        if end < len(rows):
            page["nextPageToken"] = f"page-{end}"
        return 200, _JSON, msgspec.json.encode(page)

    def _stream(self, body: bytes, now: Instant, *, broken: bool) -> Answer:
        """Chunks; a stream that breaks off ends with an error, under the status of 200 that went out before."""
        asked: wire.Stream = wire.decoded(_STREAM, body)
        rows, mask = self._rows(asked.query, now)
        if broken:
            problem = Problem(503, "internalError", "TRANSIENT_ERROR", "The service is busy.")
            return 200, _JSON, msgspec.json.encode([self._envelope(problem)])
        chunk = {"results": rows, "fieldMask": mask, "requestId": f"req{self.requests}"}
        return 200, _JSON, msgspec.json.encode([chunk] if rows else [])

    def _rows(self, text: str, now: Instant) -> tuple[list[dict[str, Any]], str]:
        if not text:
            raise Problem(400, "requestError", "REQUIRED_FIELD_MISSING", "Required field is missing: query")
        try:
            query, plan, mask = _understood(text)
        except QueryError as error:
            group = "changeEventError" if error.code in _HISTORY_CODES else "queryError"
            raise Problem(400, group, error.code, str(error)) from None
        if query.times and query.times[0] < self.account.local(Instant(now - HISTORY_DAYS * DAY))[:19]:
            raise Problem(400, "changeEventError", "START_DATE_TOO_OLD", "The history goes back 30 days.")
        report = self.account.report(query, now)
        if report is not None:
            return report, mask
        found = query.ordered(self.account.rows(query, now))
        return [_nested(plan, row) for row in found], mask

    # -- errors -----------------------------------------------------------------------------------------------------

    def _refuse(self, problem: Problem, streamed: bool) -> Answer:
        envelope = self._envelope(problem)
        return problem.status, _JSON, msgspec.json.encode([envelope] if streamed else envelope)

    def _envelope(self, problem: Problem) -> dict[str, Any]:
        error = _error(problem.group, problem.name, problem.message, problem.extra.get("location"))
        if "retry" in problem.extra:
            details = {"rateName": "requests", "rateScope": "DEVELOPER", "retryDelay": f"{problem.extra['retry']}s"}
            error["details"] = {"quotaErrorDetails": details}
        return {
            "error": {
                "code": problem.status,
                "message": "Request contains an invalid argument." if problem.status == 400 else problem.message,
                "status": _STATUS[problem.status],
                "details": [
                    {
                        "@type": "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure",
                        "errors": [error],
                        "requestId": f"req{self.requests}",
                    }
                ],
            }
        }

    @staticmethod
    def _malformed(problem: Malformed, streamed: bool) -> Answer:
        """What the gateway says of a body that does not fit the message: no error of the service is in it."""
        message = f"Invalid JSON payload received. {problem.message}"
        violation = {"field": problem.field, "description": message}
        envelope = {
            "error": {
                "code": 400,
                "message": message,
                "status": "INVALID_ARGUMENT",
                "details": [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}],
            }
        }
        return 400, _JSON, msgspec.json.encode([envelope] if streamed else envelope)


_HISTORY_CODES = frozenset(
    {"CHANGE_DATE_RANGE_INFINITE", "CHANGE_DATE_RANGE_NEGATIVE", "LIMIT_NOT_SPECIFIED", "INVALID_LIMIT_CLAUSE"}
)


class _NoSuchPage(Exception):
    """Paths that Google's front end does not know: an ended version, a service that is none."""


def _exhausted(name: str, seconds: int) -> Problem:
    return Problem(429, "quotaError", name, f"Too many requests. Retry in {seconds} seconds.", retry=seconds)


def _error(group: str, name: str, message: str, location: object) -> dict[str, Any]:
    error: dict[str, Any] = {"errorCode": {group: name}, "message": message}
    if location is not None:
        error["location"] = {"fieldPathElements": location}
    return error


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


_Plan = tuple[tuple[str, tuple[str, ...], str], ...]
"""Flat field, the messages it is in, its name there."""


@lru_cache(maxsize=256)
def _understood(text: str) -> tuple[Query, _Plan, str]:
    """A query, where its fields go, and their mask: names of resources always go along. Raises QueryError."""
    query = parse(text)
    resources = dict.fromkeys(name.split(".")[0] for name in query.fields)
    named = [f"{each}.resource_name" for each in resources if each not in ("metrics", "segments")]
    plan = []
    for name in dict.fromkeys((*query.fields, *named)):
        *parts, last = (_camel(part) for part in name.split("."))
        plan.append((name, tuple(parts), last))
    return query, tuple(plan), ",".join(".".join((*parts, last)) for name, parts, last in plan if name in query.fields)


def _nested(plan: _Plan, row: Mapping[str, Value]) -> dict[str, Any]:
    """A row as JSON: nested, integers as text, zero and empty left out."""
    made: dict[str, Any] = {}
    for name, parts, last in plan:
        value = row.get(name)
        if not value:
            continue
        place = made
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = str(value) if type(value) is int else value
    return made
