"""A real HTTP/1.1 proxy between an agent and a platform, that does what bad networks do, and counts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from kiki_agent.model import SECOND
from kiki_agent.runtime.clock import SystemClock
from kiki_agent.testing.trouble import WRITES, Rule, Trouble, Weather

MAX_BODY = 64 * 1024 * 1024
ELSEWHERE = "/moved-by-the-fault-proxy"
_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "host"}
)
"""Headers that belong to one connection (RFC 9110, 7.6.1), and those that are made anew."""
_STATUSES = (500, 502, 503, 504)


@dataclass(slots=True)
class Exchange:
    """One request on its way through, as the proxy's watchers see it."""

    method: str
    path: str
    """With the query."""
    body: bytes
    status: int = 0
    """Of the server's answer; 0 before it has come."""
    headers: dict[str, str] = field(default_factory=dict)
    """What a watcher wants to be passed on instead; it may also change `body`."""

    @property
    def writes(self) -> bool:
        """Whether its method may change something."""
        return self.method in WRITES


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: CIMultiDict[str]
    body: bytes


class Dropped(Exception):
    """A watcher wants the exchange to end here, without an answer."""


Watcher = Callable[[Exchange], Awaitable[None]]
"""Looks at an exchange; it may wait, which holds the exchange up, and raise `Dropped`, which breaks it off."""


class FaultProxy:
    """Passes everything on to `upstream`, except where the weather or a watcher is against it.

    `before` sees each request before it is passed on, `after` sees it when the server has answered and the answer was
    not passed back yet. `/v1/health`, where a sandbox says who it is, is always passed on as it is.
    """

    def __init__(
        self, upstream: str, rules: Sequence[Rule] = (), *, seed: int = 0, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.upstream = upstream.rstrip("/")
        """Where requests go; may be changed while it runs."""
        self.weather = Weather(rules, seed)
        self.counts: Counter[str] = Counter()
        """What it did: `passed`, each trouble by its name, `dropped` (by a watcher), `unreachable`, `followed`."""
        self.statuses: Counter[int] = Counter()
        """Statuses of the server's own answers."""
        self.port = 0
        """Where it listens, once started."""
        self.before: Watcher | None = None
        self.after: Watcher | None = None
        self._host, self._wanted = host, port
        self._clock = SystemClock()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def base_url(self) -> str:
        """Where clients find it."""
        return f"http://{self._host}:{self.port}"

    async def start(self) -> FaultProxy:
        """Bind and listen. Raises OSError when the port is taken."""
        application = web.Application(client_max_size=MAX_BODY)
        application.router.add_route("*", "/{path:.*}", self._pass)
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
        )
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._wanted).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    # -- one exchange -------------------------------------------------------------------------------------------

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.read()
            exchange = Exchange(request.method, request.path_qs, body)
            if request.path == "/v1/health":
                return _response(await self._ask(request, exchange))
            if request.path == ELSEWHERE:
                self.counts["followed"] += 1
                return web.Response(status=404)
            rule = self.weather.next(exchange.method, exchange.path)
            if self.before is not None:
                await self.before(exchange)
            return await self._meet(request, exchange, rule)
        except Dropped:
            self.counts["dropped"] += 1
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            self.counts["unreachable"] += 1
        return _reset(request)

    async def _meet(self, request: web.Request, exchange: Exchange, rule: Rule | None) -> web.StreamResponse:
        self.counts["passed" if rule is None else rule.trouble.value] += 1
        trouble = None if rule is None else rule.trouble
        if rule is not None and (instead := self._instead(request, rule)) is not None:
            return instead
        if trouble is Trouble.LATENCY and rule is not None:
            await self._wait(rule.seconds / 2)
        answer = await self._ask(request, exchange)
        if trouble is Trouble.TWICE:
            answer = await self._ask(request, exchange)
        exchange.status = answer.status
        self.statuses[answer.status] += 1
        if self.after is not None:
            await self.after(exchange)
        match trouble:
            case Trouble.LOST:
                return _reset(request)
            case Trouble.TRUNCATED:
                return await self._in_pieces(request, answer, 0.0, whole=False)
            case Trouble.SLOW if rule is not None:
                return await self._in_pieces(request, answer, rule.seconds, whole=True)
            case Trouble.WRONG_TYPE:
                return web.Response(text="<html><body>Just a moment...</body></html>", content_type="text/html")
            case Trouble.LATENCY if rule is not None:
                await self._wait(rule.seconds / 2)
        return _response(answer)

    def _instead(self, request: web.Request, rule: Rule) -> web.StreamResponse | None:
        """The answer to a request that the server never sees; None when it is passed on."""
        match rule.trouble:
            case Trouble.RESET:
                return _reset(request)
            case Trouble.THROTTLED | Trouble.THROTTLED_DATE:
                seconds = max(1, -int(-rule.seconds // 1))
                after = str(seconds)
                if rule.trouble is Trouble.THROTTLED_DATE:
                    at = datetime.fromtimestamp(self._clock.now() / SECOND + seconds, UTC)
                    after = format_datetime(at, usegmt=True)
                return web.json_response(
                    {"error": {"code": "RATE_LIMITED"}}, status=429, headers={"Retry-After": after}
                )
            case Trouble.BROKEN:
                return web.Response(status=_STATUSES[self.weather.requests % len(_STATUSES)], text="upstream is unwell")
            case Trouble.REDIRECT:
                return web.Response(status=307, headers={"Location": self.base_url + ELSEWHERE})
        return None

    async def _ask(self, request: web.Request, exchange: Exchange) -> _Answer:
        assert self._session is not None, "the proxy was started"
        headers = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() not in _HOP)
        headers.update(exchange.headers)
        async with self._session.request(
            request.method,
            URL(self.upstream + request.raw_path, encoded=True),
            headers=headers,
            data=exchange.body or None,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        ) as answer:
            kept = CIMultiDict((name, value) for name, value in answer.headers.items() if name.lower() not in _HOP)
            return _Answer(answer.status, kept, await answer.read())

    async def _in_pieces(
        self, request: web.Request, answer: _Answer, seconds: float, *, whole: bool
    ) -> web.StreamResponse:
        """The answer piece by piece; not whole, the connection closes after half of what was announced."""
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(answer.body)
        await response.prepare(request)
        body = answer.body if whole else answer.body[: len(answer.body) // 2]
        size = max(1, len(body) // 8)
        for begin in range(0, len(body), size):
            await response.write(body[begin : begin + size])
            if seconds:
                await self._wait(seconds / 8)
        if whole:
            await response.write_eof()
        elif request.transport is not None:
            request.transport.close()
        return response

    async def _wait(self, seconds: float) -> None:
        await self._clock.sleep_for(seconds * SECOND)


def _reset(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _response(answer: _Answer) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
