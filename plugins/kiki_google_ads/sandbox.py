"""Google's side for tests and the demo: the REST API over the simulated market, as strict as the real one.

Headers, version, query language, field masks, units and partial failures as Google has them; what it does not know it
refuses, in Google's own envelopes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from kiki_agent.model import DAY, MINUTE, Instant
from kiki_agent.sandbox import Answer, AnswerLost, Desk, Fault
from kiki_google_ads.sandbox_account import GoogleAccount
from kiki_google_ads.sandbox_gaql import QueryError, Value, parse
from kiki_google_ads.sandbox_mutate import Mutator, Refused

CUSTOMER = "1234567890"
VERSIONS = ("v23", "v24", "v25", "v26")
"""What Google's library 34.0.0 speaks."""
OPERATIONS_PER_DAY = 15_000
"""Basic access: operations a day and developer token, reads included (Google's quota page)."""
REQUESTS_PER_MINUTE = 240
PAGE_ROWS = 10_000
_JSON = {"content-type": "application/json; charset=UTF-8"}
_HTML = {"content-type": "text/html; charset=UTF-8"}
_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED",
           500: "INTERNAL", 503: "UNAVAILABLE"}  # fmt: skip


class _Rest(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Body of a search; `pageSize` is known, to be refused by name."""

    query: str
    page_token: str = ""
    page_size: int | str | None = None
    validate_only: bool = False
    search_settings: dict[str, Any] | None = None


class _Stream(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    query: str
    summary_row_setting: str = ""


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
    ) -> None:
        self.desk = desk
        self.account = GoogleAccount(desk, CUSTOMER, currency, timezone)
        self.mutator = Mutator(self.account)
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
                if failed:
                    raise Problem(503, "internalError", "TRANSIENT_ERROR", "The service is busy.")
                return self._stream(body, now)
        change = self.mutator.services.get((service, verb))
        if change is None:
            raise _NoSuchPage
        return self._change(change, version, body, now, failed)

    def _change(self, change: Callable[..., Any], version: str, body: bytes, now: Instant, failed: bool) -> Answer:
        try:
            results, errors, operations = change(body, now, failed)
        except Refused as refusal:
            raise Problem(400, refusal.group, refusal.name, refusal.message, location=refusal.location) from None
        self._count(operations, now)
        made: dict[str, Any] = {"results": results}
        if errors:
            made["partialFailureError"] = {
                "code": 3,
                "message": f"Multiple errors in 'details'. First error: {errors[0].message}",
                "details": [
                    {
                        "@type": f"type.googleapis.com/google.ads.googleads.{version}.errors.GoogleAdsFailure",
                        "errors": [_error(each.group, each.name, each.message, each.location) for each in errors],
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
        asked = _decoded(body, _Rest)
        if asked.page_size is not None:
            raise Problem(400, "requestError", "PAGE_SIZE_NOT_SUPPORTED", "Setting the page size is not supported.")
        rows, mask = self._rows(asked.query, now)
        offset = 0
        if asked.page_token:
            text = asked.page_token.removeprefix("page-")
            if text == asked.page_token or not text.isdecimal() or not text.isascii() or int(text[:9]) >= len(rows):
                raise Problem(400, "requestError", "INVALID_PAGE_TOKEN", "The page token is not valid.")
            offset = int(text)
        page: dict[str, Any] = {"results": rows[offset : offset + PAGE_ROWS], "fieldMask": mask}
        if offset + PAGE_ROWS < len(rows):
            page["nextPageToken"] = f"page-{offset + PAGE_ROWS}"
        return 200, _JSON, msgspec.json.encode(page)

    def _stream(self, body: bytes, now: Instant) -> Answer:
        rows, mask = self._rows(_decoded(body, _Stream).query, now)
        chunk = {"results": rows, "fieldMask": mask, "requestId": f"req{self.requests}"}
        return 200, _JSON, msgspec.json.encode([chunk] if rows else [])

    def _rows(self, text: str, now: Instant) -> tuple[list[dict[str, Any]], str]:
        try:
            query = parse(text)
        except QueryError as error:
            raise Problem(400, "queryError", error.code, str(error)) from None
        found = query.ordered(self.account.rows(query, now))
        if len(query.fields) > 1 or query.fields[0] != "campaign.id":
            found = [row for row in found if any(row.get(name) not in (None, "") for name in query.fields)]
        return [_nested(query.fields, row) for row in found], ",".join(_camel(name) for name in query.fields)

    # -- errors -----------------------------------------------------------------------------------------------------

    def _refuse(self, problem: Problem, streamed: bool) -> Answer:
        error = _error(problem.group, problem.name, problem.message, problem.extra.get("location"))
        if "retry" in problem.extra:
            details = {"rateName": "requests", "rateScope": "DEVELOPER", "retryDelay": f"{problem.extra['retry']}s"}
            error["details"] = {"quotaErrorDetails": details}
        envelope = {
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
        return problem.status, _JSON, msgspec.json.encode([envelope] if streamed else envelope)


class _NoSuchPage(Exception):
    """Paths that Google's front end does not know: an ended version, a service that is none."""


def _exhausted(name: str, seconds: int) -> Problem:
    return Problem(429, "quotaError", name, f"Too many requests. Retry in {seconds} seconds.", retry=seconds)


def _error(group: str, name: str, message: str, location: object) -> dict[str, Any]:
    error: dict[str, Any] = {"errorCode": {group: name}, "message": message}
    if location is not None:
        error["location"] = {"fieldPathElements": location}
    return error


def _decoded(body: bytes, shape: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "requestError", "UNKNOWN", f"Invalid JSON payload received. {error}"[:300]) from None


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _nested(fields: tuple[str, ...], row: Mapping[str, Value]) -> dict[str, Any]:
    """A row as JSON: nested by dots, integers as text, zero and empty left out, names of resources always there."""
    made: dict[str, Any] = {}
    for name in _with_names(fields):
        value = row.get(name)
        if value is None or value in (0, "") or value is False:
            continue
        parts = name.split(".")
        place = made
        for part in parts[:-1]:
            place = place.setdefault(_camel(part), {})
        whole = isinstance(value, int) and not isinstance(value, bool)
        place[_camel(parts[-1])] = str(value) if whole else value
    return made


def _with_names(fields: tuple[str, ...]) -> tuple[str, ...]:
    """The selected fields, and the resource name of every resource among them."""
    resources = dict.fromkeys(name.split(".")[0] for name in fields)
    return (*fields, *(f"{each}.resource_name" for each in resources if each not in ("metrics", "segments")))
