"""Errors as RFC 9457 problem bodies: stable `code`, a `detail` a person can act on, the `request_id`; no internals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from kiki_agent.errors import Denied
from kiki_agent.model.money import MICROS, minor_exponent

PROBLEM_TYPE = "application/problem+json"

CODES = {
    400: "MALFORMED",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "BODY_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "INVALID",
    429: "RATE_LIMITED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
"""The code of a status when nothing more precise is known."""


_PHRASES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""As RFC 9110 calls them; older versions of Python have the names of the RFCs before it."""


def phrase_of(status: int) -> str:
    """The name of a status, the same whatever runs the agent."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field."""

    field: str
    """Dotted place in the body, or the name of a query or path parameter."""
    message: str


class Problem(Exception):
    """Ends a request with a problem body; everything in it is shown to the caller."""

    def __init__(
        self,
        status: int,
        detail: str,
        code: str | None = None,
        *,
        fields: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or CODES.get(status, f"HTTP_{status}")
        self.fields = tuple(fields)
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> web.Response:
        """The answer to send."""
        body: dict[str, object] = {
            "type": "about:blank",
            "title": phrase_of(self.status),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.fields:
            body["errors"] = [{"field": each.field, "message": each.message} for each in self.fields]
        return web.Response(
            status=self.status,
            body=json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"),
            content_type=PROBLEM_TYPE,
            headers=self.headers,
        )


_REFUSALS = {
    "NOT_FOUND": 404,
    "UNKNOWN_CONNECTOR": 422,
    "CURRENCY": 422,
    "BAD_INPUT": 422,
    "UNKNOWN_VALUE": 422,
    "SAFE_HOLD": 503,
    "CHECK_FAILED": 503,
}
_FIELDS = {"CURRENCY": "currency", "UNKNOWN_CONNECTOR": "platform", "UNKNOWN_VALUE": "value"}


def of_refusal(denied: Denied) -> Problem:
    """The problem that says what the shield said; 409 when the wish contradicts what is there."""
    detail = str(denied)
    field = _FIELDS.get(denied.reason)
    fields = [FieldProblem(field, detail)] if field else []
    return Problem(_REFUSALS.get(denied.reason, 409), detail, str(denied.reason), fields=fields)


def require_decimals(field: str, micros: int | None, currency: str) -> None:
    """Refuse an amount with more decimals than its currency has. Raises Problem 422 that names the field."""
    exponent = minor_exponent(currency)
    if micros is None or micros % (MICROS // 10**exponent) == 0:
        return
    most = "no decimals" if exponent == 0 else f"at most {exponent} decimals"
    message = f"has more decimals than {currency} has, which is {most}"
    raise Problem(422, f"{field}: {message}", "DECIMALS", fields=[FieldProblem(field, message)])


def of_http_exception(error: web.HTTPException) -> Problem:
    """The problem that says the same as an exception of aiohttp."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    phrase = phrase_of(error.status)
    detail = {
        404: "Not Found: there is nothing at this path; /openapi.json lists what is",
        405: f"Method Not Allowed: this path takes {headers.get('Allow', 'other methods')}",
        413: "the body is larger than http.max_body",
    }.get(error.status, phrase)
    return Problem(error.status, detail, headers=headers)
