"""The outermost layer: request ids, errors as problems, security headers, request metrics."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from itertools import count

from aiohttp import web
from aiohttp.typedefs import Middleware

from kiki_agent.errors import Denied, StoreError
from kiki_agent.runtime.clock import Stopwatch
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.web.problem import Problem, of_http_exception, of_refusal

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]

_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
_log = get_logger("web")

API_POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # not no-referrer: forms would then send `Origin: null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


class Edge:
    """The middleware every request passes first and every answer last."""

    def __init__(self, metrics: Metrics, origin: str) -> None:
        self._metrics = metrics
        self._origin = origin
        self._numbers = count(1)

    @property
    def middleware(self) -> Middleware:
        """The function for aiohttp."""

        @web.middleware
        async def edge(request: web.Request, handler: Next) -> web.StreamResponse:
            watch = Stopwatch()
            request[REQUEST_ID] = self._request_id(request)
            try:
                response = await handler(request)
            except Problem as problem:
                response = problem.response(request[REQUEST_ID])
            except web.HTTPException as error:
                response = of_http_exception(error).response(request[REQUEST_ID])
            except Denied as denied:
                response = of_refusal(denied).response(request[REQUEST_ID])
            except StoreError as error:
                _log.error("request_failed", "The database could not be used", error=error, path=request.path[:200])
                unwritten = Problem(503, f"the database could not be read or written: {error}", "STORE_UNAVAILABLE")
                response = unwritten.response(request[REQUEST_ID])
            except (ConnectionError, TimeoutError):
                raise
            except Exception as error:
                _log.error(
                    "request_failed",
                    "An endpoint raised something unexpected",
                    error=error,
                    request_id=request[REQUEST_ID],
                    path=request.path[:200],
                )
                unexpected = Problem(500, "something unexpected happened inside; the log has it under this request_id")
                response = unexpected.response(request[REQUEST_ID])
            streaming = isinstance(response, web.StreamResponse) and not isinstance(response, web.Response)
            self._note(request, response.status, None if streaming else watch.seconds())
            return response

        return edge

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Signal handler: headers every answer carries, set just before they go out."""
        headers = response.headers
        if REQUEST_ID in request:
            headers["X-Request-Id"] = request[REQUEST_ID]
        for name, value in _HEADERS.items():
            headers[name] = value
        headers.setdefault("Cache-Control", "no-store")
        headers.setdefault("Content-Security-Policy", API_POLICY)
        headers.popall("Server", None)

    def _note(self, request: web.Request, status: int, seconds: float | None) -> None:
        """Count one answer by route template, so that the number of series is bounded by the route table.

        `seconds` is None for streams, whose length says nothing.
        """
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unmatched"
        method = request.method if request.method in _METHODS else "OTHER"
        self._metrics.http_requests(method, route, str(status)).inc()
        if seconds is not None:
            self._metrics.http_seconds(method, route).observe(seconds)

    def _request_id(self, request: web.Request) -> str:
        given = request.headers.get("X-Request-Id", "")
        return given if _GIVEN_ID.fullmatch(given) else f"{self._origin}-{next(self._numbers):06d}"
