"""Money over HTTP through the real store, ledger, outbox and shield: caps hold, and all of it is on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kiki_agent.errors import Rejected, UnknownOutcome
from kiki_agent.ledger import DecisionBook, Ledger, Outbox, Records
from kiki_agent.model import Intent, Outcome, Receipt
from kiki_agent.shield import Caps, Shield
from kiki_agent.store import Store
from kiki_agent.web import Services

from .conftest import Client
from .fakes import NOON, UNIT
from .fakes import services as well


@dataclass
class Platform:
    """Stands behind the outbox and answers bids."""

    error: Exception | None = None
    bids: list[Intent] = field(default_factory=list)

    async def call(self, connector: str, verb: str, arguments: tuple[object, ...]) -> object:
        (intents,) = arguments
        assert isinstance(intents, tuple)
        if self.error is not None:
            raise self.error
        self.bids += intents
        return [Receipt(each.key, Outcome.ACCEPTED) for each in intents]


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
async def services(tmp_path: Path, platform: Platform) -> AsyncIterator[Services]:
    made = well()
    store = await Store.open(tmp_path / "agent.db", synchronous="OFF", readers=1, now=NOON)
    ledger = await Ledger.open(store, tmp_path / "head", client_id="demo", now=NOON)
    caps = {name: Caps(10_000 * UNIT, 1_000 * UNIT) for name in made.settings.connector}
    made.store, made.ledger, made.records = store, ledger, Records(store)
    made.decisions = DecisionBook(store, ledger)
    made.outbox = Outbox(store, ledger, platform.call)
    made.shield = await Shield.open(store, ledger, made.settings, caps, NOON)
    yield made
    await store.drain()
    assert (await ledger.verify()).ok
    await store.close()


async def bid(client: Client, amount: float = 15, **more: object) -> dict[str, object]:
    answer = await client.post(
        "/api/v1/bids", json={"campaign_id": "c1", "platform": "meta", "bid_amount": amount, **more}
    )
    assert answer.status == 200, await answer.text()
    body: dict[str, object] = await answer.json()
    return body


async def window(client: Client) -> dict[str, float]:
    body: dict[str, dict[str, float]] = await (await client.get("/api/v1/connectors/meta")).json()
    return body["window"]


async def test_66_of_100_bids_fit_the_window(client: Client, platform: Platform) -> None:
    answers = await asyncio.gather(*(bid(client) for _ in range(100)))
    placed = [each for each in answers if each["status"] == "ACCEPTED"]
    refused = {each["reason"] for each in answers if each["status"] == "REJECTED"}
    assert len(placed) == len(platform.bids) == 66
    assert refused == {"BUDGET_EXCEEDED"}
    assert (await window(client))["current_spend"] == 990.0
    assert len({each["bid_id"] for each in answers}) == 100


async def test_a_refusal_of_the_platform_frees_the_amount(client: Client, platform: Platform) -> None:
    platform.error = Rejected("too low", "BID_TOO_LOW")
    assert (await bid(client))["reason"] == "PLATFORM_ERROR"
    assert (await window(client))["remaining_budget"] == 1000.0


async def test_an_unknown_outcome_keeps_the_amount(client: Client, platform: Platform) -> None:
    platform.error = UnknownOutcome("no answer")
    assert (await bid(client))["status"] == "PENDING"
    assert (await window(client))["remaining_budget"] == 985.0
    assert (await window(client))["current_spend"] == 0.0


async def test_the_allocation_binds_as_well(client: Client, platform: Platform) -> None:
    await client.post("/api/v1/allocate", json={"campaign_id": "c1", "budget": 20})
    assert (await bid(client))["status"] == "ACCEPTED"
    assert (await bid(client))["reason"] == "BUDGET_EXCEEDED"
    found = await (await client.get("/api/v1/budget/c1")).json()
    assert (found["spent"], found["reserved"], found["remaining"]) == (15.0, 0.0, 5.0)
    assert len(platform.bids) == 1


async def test_a_whole_allocation(client: Client) -> None:
    made = await client.post("/api/v1/allocate", json={"campaign_id": "c2", "budget": "10.00"})
    assert made.status == 201
    check = {"campaign_id": "c2", "bid_amount": 4, "platform": "google"}
    held = await (await client.post("/api/v1/check", json={**check, "reserve": True})).json()
    assert (held["allowed"], held["remaining"]) == (True, 6.0)
    spent = await client.post(
        "/api/v1/spend", json={"campaign_id": "c2", "platform": "google", "reservation_id": held["reservation_id"]}
    )
    assert (await spent.json())["spent"] == 4.0
    again = await client.post("/api/v1/release", json={"reservation_id": held["reservation_id"]})
    assert again.status == 404
    over = await client.post("/api/v1/spend", json={"campaign_id": "c2", "platform": "google", "amount": 7})
    assert (over.status, (await over.json())["code"]) == (409, "BUDGET_EXCEEDED")
    lower = await client.post("/api/v1/allocate", json={"campaign_id": "c2", "budget": 3})
    assert (lower.status, (await lower.json())["code"]) == (409, "CONFLICT")
    nowhere = await client.post("/api/v1/spend", json={"campaign_id": "c2", "platform": "x", "amount": 1})
    assert (nowhere.status, (await nowhere.json())["errors"][0]["field"]) == (422, "platform")


async def test_an_allocation_has_a_beginning_an_end_and_a_pace(client: Client) -> None:
    body = {"campaign_id": "c3", "budget": 100, "start": "2020-01-01T00:00:00Z", "end": "2200-01-01T00:00:00Z"}
    assert (await client.post("/api/v1/allocate", json=body)).status == 201
    found = await (await client.get("/api/v1/budget/c3")).json()
    assert (found["start"][:10], found["pacing"]["kind"], found["pacing"]["actual"]) == ("2020-01-01", "even", 0.0)
    assert 0 < found["pacing"]["expected"] < 50
    check = {"campaign_id": "c3", "bid_amount": 40, "platform": "google"}
    assert (await (await client.post("/api/v1/check", json=check)).json())["reason"] == "PACING"
    fast = {"campaign_id": "c3", "budget": 90, "pacing": "accelerated"}
    assert (await client.post("/api/v1/allocate", json=fast)).status == 200
    assert (await (await client.post("/api/v1/check", json=check)).json())["allowed"]
    found = await (await client.get("/api/v1/budget/c3")).json()
    assert (found["budget"], found["end"][:10]) == (90.0, "2200-01-01"), "what is left out stays"
    for wrong in ({"end": "2019-01-01T00:00:00Z"}, {"pacing": "hasty"}, {"start": "tomorrow"}):
        refused = await client.post("/api/v1/allocate", json={**fast, **wrong})
        assert refused.status == 422, wrong


async def test_the_kill_switch_stops_bids_and_is_on_record(client: Client, platform: Platform) -> None:
    await client.post("/admin/kill-switch", json={"on": True, "reason": "holiday"})
    assert (await bid(client))["reason"] == "KILL_SWITCH"
    assert platform.bids == []
    assert (await (await client.get("/admin/kill-switch")).json())["reason"] == "holiday"
    await client.post("/admin/kill-switch", json={"on": False})
    assert (await bid(client))["status"] == "ACCEPTED"
    verified = await (await client.get("/api/v1/ledger/verify")).json()
    assert verified["ok"]


async def test_a_bid_about_a_person_has_no_basis(client: Client, platform: Platform) -> None:
    assert (await bid(client, customer_id="cust-1"))["reason"] == "CONSENT"
    assert platform.bids == []


async def test_a_key_is_one_bid_also_after_a_restart(
    client: Client, services: Services, platform: Platform, client_for: Callable[[Services], Awaitable[Client]]
) -> None:
    body = {"campaign_id": "c1", "platform": "meta", "bid_amount": 15}
    headers = {"Idempotency-Key": "order-17"}
    first = await (await client.post("/api/v1/bids", json=body, headers=headers)).json()
    restarted = await client_for(services)
    second = await (await restarted.post("/api/v1/bids", json=body, headers=headers)).json()
    assert (first["bid_id"], first["status"]) == (second["bid_id"], second["status"])
    assert len(platform.bids) == 1
    assert (await window(client))["current_spend"] == 15.0


async def test_the_page_tells_of_the_bid(client: Client) -> None:
    made = await bid(client)
    body = await (await client.get("/api/v1/overview")).json()
    (placed,) = [each for each in body["actions"] if each["kind"] == "placed"]
    assert placed["id"] == made["bid_id"]
    assert placed["changes"][0]["after"] == "15.00"
    assert placed["why"] == "asked for by a person"
