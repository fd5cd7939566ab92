"""Live events: numbered, resumable, bounded, and never waiting for a reader."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import ClientResponse

from kiki_agent.web import Services
from kiki_agent.web.app import HOUSE
from kiki_agent.web.events import QUEUE, READERS, RING, EventHub

from .conftest import Client
from .fakes import RunningClock
from .fakes import services as well


async def take(answer: ClientResponse, events: int) -> list[dict[str, str]]:
    """The next events that are no comment."""
    found: list[dict[str, str]] = []
    current: dict[str, str] = {}
    while len(found) < events:
        line = (await answer.content.readline()).decode().rstrip("\n")
        if line.startswith(":"):
            continue
        if not line:
            if "event" in current:
                found.append(current)
            current = {}
            continue
        name, _, value = line.partition(": ")
        current[name] = value
    return found


def hub(client: Client) -> EventHub:
    assert client.server.app is not None  # type: ignore[attr-defined]
    return client.server.app[HOUSE].hub  # type: ignore[attr-defined,no-any-return]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_facts_arrive_with_numbers(client: Client, services: Services) -> None:
    async with client.get("/events") as answer:
        assert answer.content_type == "text/event-stream"
        services.signals.publish("decision", {"campaign": "c1", "bid": 5})
        services.signals.publish("optimizer", {"shifts": 1})
        first, second = await take(answer, 2)
    assert (first["event"], second["event"]) == ("decision", "optimizer")
    assert first["data"] == '{"topic":"decision","campaign":"c1","bid":5}'
    assert int(second["id"].rpartition("-")[2]) == int(first["id"].rpartition("-")[2]) + 1


async def test_a_reader_that_comes_back_gets_what_it_missed(client: Client, services: Services) -> None:
    async with client.get("/events") as answer:
        services.signals.publish("control", {"n": 1})
        (seen,) = await take(answer, 1)
    for number in (2, 3):
        services.signals.publish("control", {"n": number})
    async with client.get("/events", headers={"Last-Event-ID": seen["id"]}) as answer:
        missed = await take(answer, 2)
    assert [each["data"][-4:] for each in missed] == ['":2}', '":3}']
    async with client.get("/events", params={"since": missed[0]["id"]}) as answer:
        assert (await take(answer, 1))[0]["id"] == missed[1]["id"]


@pytest.mark.parametrize("known", ["other-5", "5", "x-", "-", "1-99999999999999999999", "69af63b0-%"])
async def test_an_unknown_past_is_a_reset(client: Client, known: str) -> None:
    async with client.get("/events", headers={"Last-Event-ID": known}) as answer:
        (first,) = await take(answer, 1)
    assert first["event"] == "reset"


async def test_a_past_that_is_gone_is_a_reset(client: Client, services: Services) -> None:
    async with client.get("/events") as answer:
        services.signals.publish("control", {"n": 0})
        (seen,) = await take(answer, 1)
    for number in range(RING + 5):
        services.signals.publish("control", {"n": number})
        await asyncio.sleep(0)
    async with client.get("/events", headers={"Last-Event-ID": seen["id"]}) as answer:
        (first,) = await take(answer, 1)
    assert first["event"] == "reset"


async def test_topics_are_chosen(client: Client, services: Services) -> None:
    async with client.get("/events?topics=alert,control") as answer:
        services.signals.publish("decision", {})
        services.signals.publish("alert", {})
        assert (await take(answer, 1))[0]["event"] == "alert"
    assert (await client.get("/events?topics=a%20b")).status == 422


async def test_the_state_of_the_page_is_pushed(client_for: Callable[[Services], Awaitable[Client]]) -> None:
    client = await client_for(well(RunningClock(speed=1.0)))
    async with client.get("/events?topics=overview") as answer:
        (state,) = await take(answer, 1)
    assert state["event"] == "overview"
    assert "id" not in state
    assert '"sentence":"On plan. Nothing needs you."' in state["data"]


async def test_a_slow_reader_is_dropped_and_others_are_not(client: Client, services: Services) -> None:
    cut = []
    events = hub(client)
    slow = events.attach(None, None, lambda: cut.append("slow"))
    quick = events.attach(None, None, lambda: cut.append("quick"))
    assert slow is not None
    assert quick is not None
    got = 0
    for number in range(QUEUE + 10):
        services.signals.publish("control", {"n": number})
        await asyncio.sleep(0)
        got += (await quick.next()).count(b"event: control")
    assert cut == ["slow"]
    assert slow.closed
    assert not quick.closed
    assert got == QUEUE + 10
    assert events.dropped == 1


async def test_readers_are_bounded(client: Client) -> None:
    events = hub(client)
    for _ in range(READERS):
        events.attach(None, None, lambda: None)
    answer = await client.get("/events")
    assert (answer.status, (await answer.json())["code"]) == (503, "TOO_MANY_READERS")


async def test_a_page_that_goes_is_forgotten(client: Client, services: Services) -> None:
    async with client.get("/events"):
        await until(lambda: len(hub(client).readers) == 1)

    def gone() -> bool:
        services.signals.publish("control", {})
        return not hub(client).readers

    await until(gone)


async def test_closing_the_application_ends_the_streams(client: Client) -> None:
    async with client.get("/events") as answer:
        await until(lambda: len(hub(client).readers) == 1)
        await hub(client).close(client.app)
        rest = await answer.content.read()
    assert b"event" not in rest


async def test_what_cannot_be_encoded_hurts_nobody(client: Client, services: Services) -> None:
    async with client.get("/events") as answer:
        services.signals.publish("control", {"odd": object(), "nan": float("nan")})
        services.signals.publish("control", {"n": 2})
        odd, fine = await take(answer, 2)
    assert '"nan":null' in odd["data"]
    assert '"n":2' in fine["data"]
