"""HTTP over real sockets: a session of its own per plugin instance, bounded answers, typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Final

import aiohttp
from yarl import URL

from kiki_agent.hooks.http import MAX_ANSWER_BYTES, HttpAnswer, NoAnswer, Request, prepare
from kiki_agent.hooks.tasks import unowned, work

_CHUNK: Final = 64 * 1024
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class _Flight:
    """How far one request got; aiohttp reports it through tracing."""

    __slots__ = ("begun", "repeatable", "sent")

    def __init__(self, *, repeatable: bool) -> None:
        self.begun = 0.0
        """When the request got a connection, or began to make one; 0 while it waits for one to become free."""
        self.sent = False
        """True from the moment a connection was there to write to."""
        self.repeatable = repeatable


class _SecondAttempt(Exception):
    """aiohttp was about to repeat a write whose connection broke."""


class AiohttpHttp:
    """An `HttpClient` that owns one session; it opens on the first request, within the running loop."""

    def __init__(self, *, max_answer_bytes: int = MAX_ANSWER_BYTES, connections: int = 8) -> None:
        self._max_answer_bytes = max_answer_bytes
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10,
    ) -> HttpAnswer:
        """As `HttpClient.request`; `timeout_s` is wall time for the whole exchange."""
        request = prepare(method, url, headers, params, body)
        flight = _Flight(repeatable=request.method in _REPEATABLE)
        mine = work.get()
        try:
            with unowned():
                return await self._exchange(request, flight, timeout_s)
        except TimeoutError:
            raise NoAnswer(f"{request.place}: no answer within {timeout_s:g} s", sent=flight.sent) from None
        except (aiohttp.ClientError, _SecondAttempt, OSError) as error:
            raise NoAnswer(f"{request.place}: {_failure(error)}", sent=flight.sent) from None
        finally:
            if mine is not None and flight.begun:
                mine.slowest_s = max(mine.slowest_s, asyncio.get_running_loop().time() - flight.begun)

    async def close(self) -> None:
        """Close the session and its connections; later requests fail."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, request: Request, flight: _Flight, timeout_s: float) -> HttpAnswer:
        async with self._open().request(
            request.method,
            URL(request.origin + request.target, encoded=True),
            headers=request.headers,
            data=request.body or None,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            allow_redirects=False,
            trace_request_ctx=flight,
        ) as response:
            parts: list[bytes] = []
            size = 0
            async for chunk in response.content.iter_chunked(_CHUNK):
                size += len(chunk)
                if size > self._max_answer_bytes:
                    response.close()
                    text = f"{request.place}: the answer is longer than {self._max_answer_bytes} bytes"
                    raise NoAnswer(text, sent=True)
                parts.append(chunk)
            answered: dict[str, str] = {}
            for name, value in response.headers.items():
                key = name.lower()
                answered[key] = f"{answered[key]}, {value}" if key in answered else value
            return HttpAnswer(response.status, answered, b"".join(parts))

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise NoAnswer("the HTTP session of this plugin is closed", sent=False)
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_create_start.append(_before_connecting)
            tracing.on_connection_create_end.append(_connected)
            tracing.on_connection_reuseconn.append(_connected)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[tracing],
                auto_decompress=True,
            )
        return self._session


async def _before_connecting(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    flight: _Flight = context.trace_request_ctx
    _refuse_second_attempt(flight)
    flight.begun = flight.begun or asyncio.get_running_loop().time()


async def _connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    flight: _Flight = context.trace_request_ctx
    _refuse_second_attempt(flight)
    flight.sent = True
    flight.begun = flight.begun or asyncio.get_running_loop().time()


def _refuse_second_attempt(flight: _Flight) -> None:
    """aiohttp repeats PUT and DELETE by itself on a broken connection; an effect must never be asked for twice."""
    if flight.sent and not flight.repeatable:
        raise _SecondAttempt


def _failure(error: Exception) -> str:
    """What went wrong in words that cannot hold a secret: aiohttp's own texts may quote the URL."""
    match error:
        case _SecondAttempt() | aiohttp.ServerDisconnectedError():
            return "the server closed the connection without an answer"
        case aiohttp.ClientConnectorDNSError():
            return "the host name does not resolve"
        case aiohttp.ClientSSLError():
            return "no trusted TLS connection"
        case OSError() if error.strerror:
            return error.strerror.lower() if not isinstance(error, aiohttp.ClientConnectorError) else "cannot connect"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case aiohttp.ClientResponseError():
            return "the answer is not HTTP"
    return f"broken connection ({type(error).__name__})"
