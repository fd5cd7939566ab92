"""Allocations, checks, spend and bids by hand."""

from __future__ import annotations

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.model import IntentKind, Outcome
from kiki_agent.web import Services

from .conftest import Client
from .fakes import FakeOutbox, FakeShield


def shield(services: Services) -> FakeShield:
    assert isinstance(services.shield, FakeShield)
    return services.shield


def outbox(services: Services) -> FakeOutbox:
    assert isinstance(services.outbox, FakeOutbox)
    return services.outbox


async def test_an_allocation_is_made_changed_and_read(client: Client) -> None:
    body = {"campaign_id": "c1", "budget": "100.50", "currency": "USD"}
    made = await client.post("/api/v1/allocate", json=body)
    assert (made.status, await made.json()) == (
        201,
        {"campaign_id": "c1", "budget": 100.5, "currency": "USD", "spent": 0.0, "remaining": 100.5, "status": "active"},
    )
    changed = await client.post("/api/v1/allocate", json={**body, "budget": 200})
    assert (changed.status, (await changed.json())["budget"]) == (200, 200.0)
    found = await (await client.get("/api/v1/budget/c1")).json()
    assert (found["budget"], found["utilization"], found["status"]) == (200.0, 0.0, "active")


async def test_an_unknown_campaign_is_404(client: Client) -> None:
    assert (await client.get("/api/v1/budget/nope")).status == 404
    body = {"campaign_id": "nope", "bid_amount": 1, "platform": "meta"}
    answer = await client.post("/api/v1/check", json=body)
    assert (answer.status, (await answer.json())["code"]) == (404, "NOT_FOUND")


async def test_spending_ends_at_the_allocation(client: Client) -> None:
    await client.post("/api/v1/allocate", json={"campaign_id": "c1", "budget": 10})
    spend = {"campaign_id": "c1", "platform": "meta", "amount": 8}
    assert (await (await client.post("/api/v1/spend", json=spend)).json())["remaining"] == 2.0
    again = await client.post("/api/v1/spend", json=spend)
    assert (again.status, (await again.json())["code"]) == (409, "BUDGET_EXCEEDED")
    lower = await client.post("/api/v1/allocate", json={"campaign_id": "c1", "budget": 5})
    assert (lower.status, (await lower.json())["code"]) == (409, "CONFLICT")


async def test_check_reserves_only_when_asked(client: Client) -> None:
    await client.post("/api/v1/allocate", json={"campaign_id": "c1", "budget": 10})
    body = {"campaign_id": "c1", "bid_amount": 4, "platform": "PLATFORM_META"}
    plain = await (await client.post("/api/v1/check", json=body)).json()
    assert plain == {
        "allowed": True, "reason": None, "remaining": 10.0, "reservation_id": None, "detail": None, "bound": None,
    }  # fmt: skip
    held = await (await client.post("/api/v1/check", json={**body, "reserve": True})).json()
    assert held["reservation_id"] == "res-1"
    refused = await (await client.post("/api/v1/check", json={**body, "bid_amount": 7})).json()
    assert (refused["allowed"], refused["reason"], refused["remaining"]) == (False, "BUDGET_EXCEEDED", 6.0)
    freed = await client.post("/api/v1/release", json={"reservation_id": "res-1"})
    assert (await freed.json())["released"] is True
    assert (await client.post("/api/v1/release", json={"reservation_id": "res-9"})).status == 404


async def test_spend_takes_an_amount_or_a_reservation(client: Client) -> None:
    for extra in ({}, {"amount": 1, "reservation_id": "r"}):
        answer = await client.post("/api/v1/spend", json={"campaign_id": "c1", "platform": "meta", **extra})
        assert answer.status == 422
        assert "reservation_id" in (await answer.json())["detail"]


BID = {"campaign_id": "c1", "platform": "meta", "bid_amount": "1.25"}


async def test_an_accepted_bid_is_committed(client: Client, services: Services) -> None:
    answer = await client.post("/api/v1/bids", json=BID)
    body = await answer.json()
    assert (answer.status, body["status"], body["reason"], body["source"]) == (200, "ACCEPTED", None, "manual")
    assert shield(services).calls == ["place", "commit"]
    sent = outbox(services).sent[0]
    assert (sent.kind, sent.connector, sent.after) == (IntentKind.PLACE_BID, "meta", 1_250_000)
    assert body["bid_id"] == sent.key


@pytest.mark.parametrize(
    ("word", "reason", "said"),
    [
        ("BID_TOO_LOW", "PLATFORM_ERROR", "the platform refused it: BID_TOO_LOW"),
        ("", "PLATFORM_ERROR", "no reason given"),
        ("DRY_RUN", "DRY_RUN", "dry run"),
        ("WATCH", "WATCH", "only watched"),
        ("RATE_LIMITED", "RATE_LIMITED", "no more calls"),
    ],
)
async def test_a_refused_bid_is_released_and_says_who_refused_it(
    client: Client, services: Services, word: str, reason: str, said: str
) -> None:
    outbox(services).outcome, outbox(services).reason = Outcome.REJECTED, word
    body = await (await client.post("/api/v1/bids", json=BID)).json()
    assert (body["status"], body["reason"], body["platform_reason"]) == ("REJECTED", reason, word or None)
    assert said in body["detail"]
    assert shield(services).calls == ["place", "release"]


async def test_an_unknown_outcome_stays_reserved(client: Client, services: Services) -> None:
    outbox(services).outcome = Outcome.UNKNOWN
    body = await (await client.post("/api/v1/bids", json=BID)).json()
    assert (body["status"], body["reason"]) == ("PENDING", "UNKNOWN_OUTCOME")
    assert shield(services).calls == ["place"]
    assert shield(services).reserved


async def test_a_veto_is_an_answer(client: Client, services: Services) -> None:
    shield(services).killed = True
    answer = await client.post("/api/v1/bids", json=BID)
    body = await answer.json()
    assert (answer.status, body["status"], body["reason"]) == (200, "REJECTED", "KILL_SWITCH")
    assert outbox(services).sent == []


async def test_a_bid_about_a_person_without_consent_is_vetoed(client: Client, services: Services) -> None:
    body = await (await client.post("/api/v1/bids", json={**BID, "customer_id": "cust-1"})).json()
    assert (body["status"], body["reason"]) == ("REJECTED", "CONSENT")
    assert outbox(services).sent == []


async def test_the_window_ends_it(client: Client, services: Services) -> None:
    limit = shield(services).window["meta"]
    shield(services).used["meta"] = limit - 2_000_000
    answers = [await (await client.post("/api/v1/bids", json=BID)).json() for _ in range(3)]
    assert [each["status"] for each in answers] == ["ACCEPTED", "REJECTED", "REJECTED"]
    assert answers[1]["reason"] == "BUDGET_EXCEEDED"
    assert shield(services).used["meta"] <= limit


async def test_two_bids_of_one_instant_are_two(client: Client) -> None:
    first, second = [await (await client.post("/api/v1/bids", json=BID)).json() for _ in range(2)]
    assert first["bid_id"] != second["bid_id"]


async def test_a_repeated_idempotency_key_is_one_bid(client: Client, services: Services) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = await (await client.post("/api/v1/bids", json=BID, headers=headers)).json()
    second = await (await client.post("/api/v1/bids", json=BID, headers=headers)).json()
    assert first == second
    assert len(outbox(services).sent) == 1
    assert shield(services).calls == ["place", "commit"]
    other = await client.post("/api/v1/bids", json={**BID, "bid_amount": 2}, headers=headers)
    assert (other.status, (await other.json())["code"]) == (409, "IDEMPOTENCY_KEY_REUSED")


async def test_nothing_stays_reserved_when_the_journal_fails(client: Client, services: Services) -> None:
    outbox(services).error = StoreError("disk full")
    answer = await client.post("/api/v1/bids", json=BID)
    assert (answer.status, (await answer.json())["code"]) == (503, "STORE_UNAVAILABLE")
    assert shield(services).calls == ["place", "release"]


@pytest.mark.parametrize(
    ("change", "field"),
    [({"platform": "x"}, "platform"), ({"connector": "meta-2"}, "connector"), ({"bid_amount": 0}, "bid_amount")],
)
async def test_bids_that_go_nowhere_are_422(client: Client, change: dict[str, object], field: str) -> None:
    answer = await client.post("/api/v1/bids", json={**BID, **change})
    assert answer.status == 422
    assert (await answer.json())["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("budget", "currency", "status"),
    [
        ("1100.5", "JPY", 422),
        (1100.5, "JPY", 422),
        ("1100.0", "JPY", 201),
        ("1.005", "USD", 422),
        ("1.05", "USD", 201),
        ("1.0005", "KWD", 422),
        ("1.005", "KWD", 201),
    ],
)
async def test_an_amount_has_the_decimals_of_its_currency(
    client: Client, services: Services, budget: object, currency: str, status: int
) -> None:
    body = {"campaign_id": "c1", "budget": budget, "currency": currency}
    answer = await client.post("/api/v1/allocate", json=body)
    assert answer.status == status
    if status == 422:
        told = await answer.json()
        assert (told["errors"][0]["field"], currency in told["detail"]) == ("budget", True)
        assert shield(services).allocations == {}


async def test_a_change_that_names_no_currency_keeps_the_one_there_is(client: Client, services: Services) -> None:
    for body, status in (({"budget": 1000, "currency": "JPY"}, 201), ({"budget": 1100}, 200), ({"budget": 1.5}, 422)):
        answer = await client.post("/api/v1/allocate", json={"campaign_id": "c1", **body})
        assert answer.status == status, await answer.text()
    assert [each.currency for each in shield(services).allocations.values()] == ["JPY"]


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        ("bids", "bid_amount", {**BID, "bid_amount": "1.255"}),
        ("bids", "predicted_ltv", {**BID, "predicted_ltv": "1.255"}),
        ("check", "bid_amount", {**BID, "bid_amount": "1.255"}),
        ("spend", "amount", {"campaign_id": "c1", "platform": "meta", "amount": "1.255"}),
        (
            "conversions",
            "value",
            {"connector": "meta", "customer_id": "k", "click_id": "x", "value": "10.5", "currency": "JPY"},
        ),
    ],
)
async def test_every_amount_by_hand_has_the_decimals_of_its_currency(
    client: Client, services: Services, path: str, field: str, body: dict[str, object]
) -> None:
    answer = await client.post(f"/api/v1/{path}", json=body)
    assert (answer.status, (await answer.json())["errors"][0]["field"]) == (422, field)
    assert shield(services).calls == []
