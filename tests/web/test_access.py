"""Who may call, from where, and what every answer carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from kiki_agent.errors import ConfigError
from kiki_agent.web import create_app
from kiki_agent.web.auth import COOKIE, is_loopback
from kiki_agent.web.endpoint import Permission
from kiki_agent.web.routes import ENDPOINTS
from kiki_agent.web.services import Services

from .conftest import Client
from .fakes import services as well

TOKEN = "a-long-token-of-this-agent"
ClientFor = Callable[[Services], Awaitable[Client]]


@pytest.fixture
async def guarded(client_for: ClientFor) -> Client:
    return await client_for(well(token=TOKEN))


def _path(path: str) -> str:
    return path.replace("{", "").replace("}", "")


def test_the_router_and_the_table_are_the_same() -> None:
    app = create_app(well())
    routed = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert routed == {(each.method, each.path) for each in ENDPOINTS}


def test_open_routes_are_these_and_no_others() -> None:
    opened = {(each.method, each.path) for each in ENDPOINTS if each.permission is Permission.OPEN}
    assert opened == {
        ("GET", "/health"), ("GET", "/healthz"), ("GET", "/ready"), ("POST", "/sign-in"), ("POST", "/sign-out"),
        ("GET", "/approvals/{token}"), ("POST", "/approvals/{token}"),
    }  # fmt: skip


def test_whatever_changes_something_needs_more_than_view() -> None:
    reading = {"/platform-ltv"}
    for each in ENDPOINTS:
        if each.method != "GET" and each.permission is not Permission.OPEN and each.path not in reading:
            assert each.permission in (Permission.OPERATE, Permission.ADMIN), each.path


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: f"{each.method} {each.path}")
async def test_every_route_asks_for_the_token(guarded: Client, endpoint: object) -> None:
    method, path, permission = endpoint.method, endpoint.path, endpoint.permission  # type: ignore[attr-defined]
    answer = await guarded.request(method, _path(path))
    if permission is Permission.OPEN:
        assert answer.status in (200, 401, 303, 503)
        return
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_unknown_paths_tell_nothing_without_the_token(guarded: Client) -> None:
    assert (await guarded.get("/no-such")).status == 401


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"bearer {TOKEN}"}, {"X-API-Key": TOKEN}],
)
async def test_the_token_opens(guarded: Client, headers: dict[str, str]) -> None:
    assert (await guarded.get("/status", headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"X-API-Key": ""},
     {"X-API-Key": TOKEN + "x"}, {"X-API-Key": "ünï"}, {"Cookie": f"{COOKIE}={TOKEN}"}, {"Cookie": f"{COOKIE}="}],
)  # fmt: skip
async def test_anything_else_does_not(guarded: Client, headers: dict[str, str]) -> None:
    assert (await guarded.get("/status", headers=headers)).status == 401


def test_a_listener_others_can_reach_needs_a_token() -> None:
    with pytest.raises(ConfigError, match=r"http\.token"):
        create_app(well(host="0.0.0.0"))
    create_app(well(host="0.0.0.0", token=TOKEN))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.8.8.8", True), ("0.0.0.0", False),
     ("10.0.0.1", False), ("kiki.example", False), ("", False), ("localhost.evil.example", False)],
)  # fmt: skip
def test_what_loopback_is(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "a b", "[::1"])
async def test_other_host_names_are_refused_on_loopback(client: Client, host: str) -> None:
    answer = await client.get("/status", headers={"Host": host})
    assert answer.status in (400, 403)


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8080"])
async def test_own_host_names_are_fine(client: Client, host: str) -> None:
    assert (await client.get("/status", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
     {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}],
)  # fmt: skip
async def test_other_sites_change_nothing(client: Client, services: Services, headers: dict[str, str]) -> None:
    answer = await client.post("/admin/kill-switch", json={"on": True}, headers=headers)
    assert (answer.status, (await answer.json())["code"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert services.shield is not None
    assert not services.shield.killed


async def test_the_own_page_may_change_things(client: Client, services: Services) -> None:
    origin = f"http://{client.host}:{client.port}"
    headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    answer = await client.post("/admin/kill-switch", json={"on": True}, headers=headers)
    assert answer.status == 200
    assert services.shield is not None
    assert services.shield.killed


@pytest.mark.parametrize("path", ["/", "/status", "/no-such", "/docs", "/page/app.js", "/health"])
async def test_every_answer_carries_the_security_headers(client: Client, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Request-Id"]
    assert "Server" not in headers
    assert headers["Cache-Control"] in ("no-store", "no-cache")


async def test_api_answers_are_not_stored(client: Client) -> None:
    assert (await client.get("/api/v1/overview")).headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in (await client.get("/api/v1/overview")).headers


async def test_signing_in_and_out(guarded: Client) -> None:
    html = {"Accept": "text/html"}
    form = await guarded.get("/", headers=html)
    assert form.status == 401
    assert 'action="/sign-in"' in await form.text()
    assert (await guarded.post("/sign-in", data={"token": "wrong"})).status == 401
    done = await guarded.post("/sign-in", data={"token": TOKEN}, allow_redirects=False)
    assert (done.status, done.headers["Location"]) == (303, "/")
    cookie = done.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    session = {"Cookie": cookie.partition(";")[0]}
    page = await guarded.get("/", headers={**html, **session})
    assert page.status == 200
    assert "Stop spending" in await page.text()
    out = await guarded.post("/sign-out", allow_redirects=False)
    assert out.status == 303
    assert f'{COOKIE}=""' in out.headers["Set-Cookie"]


async def test_a_session_dies_with_its_token(guarded: Client, client_for: ClientFor) -> None:
    done = await guarded.post("/sign-in", data={"token": TOKEN}, allow_redirects=False)
    session = {"Cookie": done.headers["Set-Cookie"].partition(";")[0]}
    other = await client_for(well(token="another-token"))
    assert (await other.get("/status", headers=session)).status == 401


async def test_tokens_cannot_be_tried_in_bulk(guarded: Client) -> None:
    answers = [await guarded.post("/sign-in", data={"token": f"guess-{number}"}) for number in range(11)]
    assert [each.status for each in answers[:10]] == [401] * 10
    assert answers[10].status == 429
    assert answers[10].headers["Retry-After"]


async def test_the_token_stands_in_no_answer(guarded: Client) -> None:
    headers = {"X-API-Key": TOKEN}
    for endpoint in ENDPOINTS:
        if endpoint.method == "GET" and endpoint.path != "/events":
            answer = await guarded.get(_path(endpoint.path), headers=headers)
            assert TOKEN not in await answer.text()
            assert TOKEN not in str(answer.headers)
