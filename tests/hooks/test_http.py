"""HTTP for plugins, over real sockets and in process: same bytes, bounded answers, honest errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.errors import Temporary
from kiki_agent.hooks.http import HttpAnswer, HttpClient, InProcessHttp, NoAnswer, prepare, retry_at
from kiki_agent.hooks.http_aiohttp import AiohttpHttp
from kiki_agent.model import DAY, SECOND, Instant, parse_iso
from kiki_agent.runtime.clock import SimClock

NOW = parse_iso("2026-01-31T12:00:00")
Seen = list[tuple[str, str, dict[str, str], bytes]]


@contextlib.asynccontextmanager
async def tcp_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A raw server, for answers no HTTP library would give."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()


@pytest.fixture
async def client() -> AsyncIterator[AiohttpHttp]:
    http = AiohttpHttp(max_answer_bytes=100_000)
    yield http
    await http.close()


async def test_sockets_and_process_carry_the_same_bytes(client: AiohttpHttp) -> None:
    seen: Seen = []

    def handler(
        method: str, target: str, headers: Mapping[str, str], body: bytes, now: Instant
    ) -> tuple[int, Mapping[str, str], bytes]:
        mine = {name: value for name, value in headers.items() if name.startswith("x-") or name == "content-type"}
        seen.append((method, target, mine, body))
        return 207, {"X-Request-Id": "7", "Retry-After": "3"}, b'{"odd": "\xc3\xa9"}' + body

    async def serve(request: web.Request) -> web.Response:
        lowered = {name.lower(): value for name, value in request.headers.items()}
        status, headers, body = handler(request.method, request.raw_path, lowered, await request.read(), NOW)
        return web.Response(status=status, headers=headers, body=body)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    async with TestServer(app) as server:
        origin = str(server.make_url("/")).rstrip("/")
        answers: list[HttpAnswer] = []
        clients: list[HttpClient] = [client, InProcessHttp(handler, SimClock(NOW))]
        for http in clients:
            for path, params in [("/v1/a%20b/c?x=1", {"q": "a&b =é", "n": "1"}), ("", {"q": "1+1"}), ("/p", None)]:
                answers.append(
                    await http.request(
                        "post",
                        origin + path,
                        params=params,
                        headers={"X-Key": "k", "Content-Type": "application/json"},
                        body=b"\x00\xff body",
                    )
                )
    assert seen[:3] == seen[3:]
    assert seen[0][:2] == ("POST", "/v1/a%20b/c?x=1&q=a%26b%20%3D%C3%A9&n=1")
    for by_socket, in_process in zip(answers[:3], answers[3:], strict=True):
        assert (by_socket.status, by_socket.body) == (in_process.status, in_process.body)
        for name in ("x-request-id", "retry-after"):
            assert by_socket.headers[name] == in_process.headers[name]


async def test_a_redirect_is_an_answer(client: AiohttpHttp) -> None:
    async def serve(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestServer(app) as server:
        answer = await client.request("GET", str(server.make_url("/")))
    assert (answer.status, answer.headers["location"]) == (302, "http://169.254.169.254/")


async def test_nobody_there_means_certainly_not_sent(client: AiohttpHttp, unused_tcp_port: int) -> None:
    with pytest.raises(NoAnswer, match=rf"POST 127\.0\.0\.1:{unused_tcp_port}/x: cannot connect") as caught:
        await client.request("POST", f"http://127.0.0.1:{unused_tcp_port}/x", body=b"1")
    assert not caught.value.sent


async def test_a_slow_answer_may_have_taken_effect(client: AiohttpHttp) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with tcp_server(silent) as origin:
        with pytest.raises(NoAnswer, match=r"PUT .*/slow: no answer within 0\.05 s") as caught:
            await client.request("PUT", f"{origin}/slow", body=b"1", timeout_s=0.05)
    assert caught.value.sent


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_write_is_never_repeated_when_the_connection_breaks(client: AiohttpHttp, method: str) -> None:
    requests: list[bytes] = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the first request of a connection, swallow the second and hang up."""
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        requests.append(await reader.readuntil(b"\r\n\r\n"))

    async with tcp_server(once) as origin:
        assert (await client.request(method, f"{origin}/1")).status == 200
        with pytest.raises(NoAnswer, match="closed the connection without an answer") as caught:
            await client.request(method, f"{origin}/2")
    assert caught.value.sent
    assert [request.split(b" ")[1] for request in requests] == [b"/1", b"/2"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", "the answer broke off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the answer is not HTTP"),
        (b"", "the server closed the connection without an answer"),
    ],
)
async def test_a_broken_answer(client: AiohttpHttp, answer: bytes, expected: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with tcp_server(serve) as origin:
        with pytest.raises(NoAnswer, match=expected) as caught:
            await client.request("POST", f"{origin}/x?access_token=canary", headers={"Authorization": "canary"})
    assert caught.value.sent
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__, "the library's own error, which may quote the URL, is not shown"


@pytest.mark.parametrize("encoding", ["identity", "deflate"])
async def test_an_answer_without_end_is_cut_off(client: AiohttpHttp, encoding: str) -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if encoding == "deflate":
            response.enable_compression(web.ContentCoding.deflate)
        await response.prepare(request)
        with contextlib.suppress(ConnectionError, aiohttp.ClientConnectionResetError):
            for _ in range(1_000):
                await response.write(b"x" * 10_000)
        return response

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestServer(app) as server:
        with pytest.raises(NoAnswer, match="longer than 100000 bytes"):
            await client.request("GET", str(server.make_url("/")))


async def test_a_closed_client_sends_nothing(client: AiohttpHttp) -> None:
    await client.close()
    with pytest.raises(NoAnswer) as caught:
        await client.request("GET", "http://127.0.0.1:1/")
    assert not caught.value.sent


async def test_a_service_in_process_that_raises_broke_the_connection() -> None:
    def handler(*request: object) -> tuple[int, Mapping[str, str], bytes]:
        raise RuntimeError("inside")

    with pytest.raises(NoAnswer, match=r"POST vendor/x: broken connection") as caught:
        await InProcessHttp(handler, SimClock(NOW)).request("POST", "http://vendor/x?token=canary")
    assert caught.value.sent
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "url", "headers"),
    [
        ("GET /x", "http://a/", {}),
        ("GET", "ftp://a/", {}),
        ("GET", "/relative", {}),
        ("GET", "http:///path", {}),
        ("GET", "http://a/b c", {}),
        ("GET", "http://a/\r\nHost: b", {}),
        ("GET", "http://a/é", {}),
        ("GET", "http://a/", {"X-A": "1\r\nX-B: 2"}),
        ("GET", "http://a/", {"X A": "1"}),
    ],
)
async def test_malformed_requests_are_refused_both_ways(
    client: AiohttpHttp, method: str, url: str, headers: dict[str, str]
) -> None:
    clients: list[HttpClient] = [client, InProcessHttp(lambda *request: (200, {}, b""), SimClock(NOW))]
    for http in clients:
        with pytest.raises(ValueError):
            await http.request(method, url, headers=headers)


def test_an_error_shows_neither_user_nor_query() -> None:
    assert prepare("get", "https://user:pass@host:8/p?t=1#f", None, None, None).place == "GET host:8/p"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", NOW),
        ("120", NOW + 120 * SECOND),
        (" 7 ", NOW + 7 * SECOND),
        ("Sat, 31 Jan 2026 12:01:00 GMT", NOW + 60 * SECOND),
        ("Saturday, 31-Jan-26 12:01:00 GMT", NOW + 60 * SECOND),
        ("Sat, 31 Jan 2026 11:00:00 GMT", NOW),
        ("99999999999999999999", NOW + DAY),
        ("Sat, 31 Jan 2099 11:00:00 GMT", NOW + DAY),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Sat, 31 Jan 2026 12:01:00 +99999999999999999999", None),
    ],
)
def test_retry_after(value: str | None, expected: int | None) -> None:
    assert retry_at(value, NOW) == expected
    headers = {} if value is None else {"retry-after": value}
    assert HttpAnswer(429, headers, b"").retry_at(NOW) == expected


@given(st.text(max_size=40))
def test_no_retry_after_header_breaks_anything(value: str) -> None:
    found = retry_at(value, NOW)
    assert found is None or NOW <= found <= NOW + DAY


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"\xff\xfe", b"[" * 100_000])
def test_garbled_json_is_temporary(body: bytes) -> None:
    with pytest.raises(Temporary, match="not JSON"):
        HttpAnswer(200, {}, body).json()


def test_json() -> None:
    assert HttpAnswer(200, {}, b'{"a": [1, "b", null]}').json() == {"a": [1, "b", None]}
