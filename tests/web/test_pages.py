"""The page's files: served by name, cached by content, nothing else reachable."""

from __future__ import annotations

import asyncio

import pytest

from kiki_agent.model import Instant
from kiki_agent.web import Services, assets
from kiki_agent.web.app import HOUSE

from .conftest import Client
from .fakes import NOON, FakeOptimizer, snapshot


async def test_files_are_cached_by_content(client: Client) -> None:
    first = await client.get("/page/app.js")
    assert (first.status, first.content_type) == (200, "text/javascript")
    again = await client.get("/page/app.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, await again.read()) == (304, b"")
    other = await client.get("/page/app.js", headers={"If-None-Match": '"other"'})
    assert other.status == 200


@pytest.mark.parametrize("name", ["nope.js", "index.html", "..%2fapp.py", "%2e%2e%2fapp.py", ".", "app.js%00"])
async def test_nothing_else_is_reachable(client: Client, name: str) -> None:
    answer = await client.get(f"/page/{name}")
    assert answer.status in (404, 422)
    assert answer.content_type == "application/problem+json"


async def test_every_file_a_page_names_is_there(client: Client) -> None:
    for page in ("/", "/dashboard", "/docs"):
        text = await (await client.get(page)).text()
        for name in assets.load():
            if f"/page/{name}" in text:
                assert (await client.get(f"/page/{name}")).status == 200
    assert {"index.html", "docs.html", "app.js", "style.css"} <= set(assets.load())


async def test_head_is_answered_like_get(client: Client) -> None:
    for path in ("/health", "/", "/budget-efficiency"):
        answer = await client.head(path)
        assert (answer.status, await answer.read()) == (200, b"")


async def test_cycles_are_remembered_also_while_nobody_watches(client: Client, services: Services) -> None:
    assert isinstance(services.optimizer, FakeOptimizer)
    app = client.app
    assert app is not None
    for number in range(3):
        services.optimizer.snapshot = snapshot(Instant(NOON + number * 300_000_000), 0.1 * number)
        services.signals.publish("optimizer", {})
        while app[HOUSE].hub.last < services.signals.published:  # noqa: ASYNC110
            await asyncio.sleep(0)
    body = await (await client.get("/api/v1/overview")).json()
    assert len(body["optimizer"]["average_history"]) == 3
