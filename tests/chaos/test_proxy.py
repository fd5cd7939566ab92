"""The fault proxy does what it says, over real sockets, and counts it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
from aiohttp import web

from kiki_agent.hooks.http import NoAnswer
from kiki_agent.hooks.http_aiohttp import AiohttpHttp
from kiki_agent.testing.proxy import Dropped, Exchange, FaultProxy
from kiki_agent.testing.trouble import Rule, Trouble, Weather


class Echo:
    """A server that counts, and says what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.seen.append((request.method, request.raw_path, body, request.headers.get("x-key", "")))
        return web.Response(status=201, headers={"X-Count": str(len(self.seen))}, body=b"0123456789" * 100)


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, FaultProxy]]:
    echo = Echo()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy = await FaultProxy(f"http://127.0.0.1:{runner.addresses[0][1]}").start()
    yield echo, proxy
    await proxy.close()
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[AiohttpHttp]:
    client = AiohttpHttp()
    yield client
    await client.close()


async def test_fair_weather_changes_nothing(echo: tuple[Echo, FaultProxy], http: AiohttpHttp) -> None:
    server, proxy = echo
    answer = await http.request(
        "POST", proxy.base_url + "/a%2Fb?q=1%202", headers={"x-key": "k"}, body=b'{"a":1}', timeout_s=5
    )
    assert (answer.status, answer.headers["x-count"], len(answer.body)) == (201, "1", 1000)
    assert server.seen == [("POST", "/a%2Fb?q=1%202", b'{"a":1}', "k")]
    assert proxy.counts == {"passed": 1}


@pytest.mark.parametrize(
    ("trouble", "status", "done"),
    [
        (Trouble.LATENCY, 201, 1),
        (Trouble.RESET, None, 0),
        (Trouble.LOST, None, 1),
        (Trouble.THROTTLED, 429, 0),
        (Trouble.THROTTLED_DATE, 429, 0),
        (Trouble.BROKEN, (500, 502, 503, 504), 0),
        (Trouble.TRUNCATED, None, 1),
        (Trouble.SLOW, 201, 1),
        (Trouble.WRONG_TYPE, 200, 1),
        (Trouble.TWICE, 201, 2),
        (Trouble.REDIRECT, 307, 0),
    ],
)
async def test_each_trouble_is_what_it_says(
    echo: tuple[Echo, FaultProxy], http: AiohttpHttp, trouble: Trouble, status: object, done: int
) -> None:
    server, proxy = echo
    proxy.weather.order(trouble, seconds=1.5 if trouble.value.startswith("throttled") else 0.05)
    if status is None:
        with pytest.raises(NoAnswer) as error:
            await http.request("POST", proxy.base_url + "/x", body=b"{}", timeout_s=5)
        assert error.value.sent
    else:
        answer = await http.request("POST", proxy.base_url + "/x", body=b"{}", timeout_s=5)
        assert answer.status in status if isinstance(status, tuple) else answer.status == status
        if trouble is Trouble.THROTTLED:
            assert answer.headers["retry-after"] == "2"
        if trouble is Trouble.THROTTLED_DATE:
            assert parsedate_to_datetime(answer.headers["retry-after"]).tzinfo is not None
        if trouble in (Trouble.SLOW, Trouble.LATENCY, Trouble.TWICE):
            assert len(answer.body) == 1000
        if trouble is Trouble.WRONG_TYPE:
            assert answer.headers["content-type"].startswith("text/html")
    assert len(server.seen) == done
    assert proxy.counts == {trouble.value: 1}
    assert (await http.request("GET", proxy.base_url + "/x", timeout_s=5)).status == 201, "and then all is well"


async def test_watchers_see_the_moment_between_done_and_told(echo: tuple[Echo, FaultProxy], http: AiohttpHttp) -> None:
    server, proxy = echo
    seen: list[tuple[str, int, int]] = []

    async def before(exchange: Exchange) -> None:
        seen.append((exchange.path, exchange.status, len(server.seen)))

    async def after(exchange: Exchange) -> None:
        seen.append((exchange.path, exchange.status, len(server.seen)))
        raise Dropped

    proxy.before, proxy.after = before, after
    with pytest.raises(NoAnswer):
        await http.request("POST", proxy.base_url + "/w", body=b"{}", timeout_s=5)
    assert seen == [("/w", 0, 0), ("/w", 201, 1)]
    assert proxy.counts == {"passed": 1, "dropped": 1}


async def test_an_unreachable_server_is_a_reset(http: AiohttpHttp) -> None:
    proxy = await FaultProxy("http://127.0.0.1:9").start()
    try:
        with pytest.raises(NoAnswer):
            await http.request("POST", proxy.base_url + "/x", timeout_s=5)
        assert proxy.counts["unreachable"] == 1
    finally:
        await proxy.close()


async def test_a_redirect_that_is_followed_is_counted(echo: tuple[Echo, FaultProxy]) -> None:
    _, proxy = echo
    proxy.weather.order(Trouble.REDIRECT)
    async with aiohttp.ClientSession() as careless, careless.get(proxy.base_url + "/x") as answer:
        assert answer.status == 404
    assert proxy.counts["followed"] == 1


def test_weather_is_a_function_of_its_seed() -> None:
    rules = [Rule(Trouble.LOST, 0.2, ("POST",)), Rule(Trouble.BROKEN, 0.1, path="/v1/", burst=3)]

    def run(seed: int) -> list[str]:
        weather = Weather(rules, seed)
        asked = [("POST", "/v1/x"), ("GET", "/v1/x"), ("GET", "/v2/x")]
        met = [weather.next(*asked[number % 3]) for number in range(3_000)]
        return ["" if rule is None else rule.trouble.value for rule in met]

    assert run(1) == run(1) != run(2)
    met = run(1)
    assert all(each in ("", "broken", "lost") for each in met[0::3])
    assert all(each in ("", "broken") for each in met[1::3])
    assert not any(met[2::3])
    lost = sum(each == "lost" for each in met[0::3])
    assert 150 < lost < 250
    reads = [bool(each) for index, each in enumerate(met) if index % 3 != 2 and each != "lost"]
    assert sum(reads) > 0.2 * len(reads), "bursts of three make a tenth into more"
