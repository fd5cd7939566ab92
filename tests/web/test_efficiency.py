"""The optimizer's last cycle over HTTP, and the value of customers."""

from __future__ import annotations

import pytest

from kiki_agent.model import SECOND, Instant
from kiki_agent.web import Services

from .conftest import Client
from .fakes import NOON, FakeOptimizer, FakeValue, snapshot


async def test_efficiency_of_the_last_cycle(client: Client) -> None:
    body = await (await client.get("/budget-efficiency")).json()
    assert body["timestamp"] == NOON // SECOND - 108
    assert body["average_efficiency"] == 2.87
    assert (body["best_platform"], body["best_efficiency"]) == ("PLATFORM_TIKTOK", 4.0)
    assert len(body["platform_details"]) == 6
    meta = next(each for each in body["platform_details"] if each["platform"] == "PLATFORM_META")
    assert meta == {"platform": "PLATFORM_META", "ltv": 450.0, "cac": 180.0, "efficiency": 2.5, "daily_budget": 500.0}
    assert body["next_run_in_s"] == 192.0


async def test_precise_is_not_rounded(client: Client) -> None:
    body = await (await client.get("/budget-efficiency?precise=true")).json()
    assert body["average_efficiency"] == pytest.approx(2.8662280, abs=1e-6)


async def test_before_the_first_cycle(client: Client, services: Services) -> None:
    assert isinstance(services.optimizer, FakeOptimizer)
    services.optimizer.snapshot = None
    answer = await client.get("/budget-efficiency")
    body = await answer.json()
    assert answer.status == 200
    assert body["platform_details"] == []
    assert body["best_platform"] is None
    assert body["next_run_in_s"] > 0


async def test_a_new_cycle_is_seen(client: Client, services: Services) -> None:
    assert isinstance(services.optimizer, FakeOptimizer)
    before = await (await client.get("/budget-efficiency")).json()
    services.optimizer.snapshot = snapshot(Instant(NOON + 300 * SECOND))
    after = await (await client.get("/budget-efficiency")).json()
    assert after["timestamp"] > before["timestamp"]


async def test_an_optimizer_that_is_off_is_503(client: Client, services: Services) -> None:
    services.settings = services.settings.model_copy(
        update={"optimizer": services.settings.optimizer.model_copy(update={"enabled": False})}
    )
    answer = await client.get("/budget-efficiency")
    assert (answer.status, (await answer.json())["code"]) == (503, "COMPONENT_OFF")


async def test_platform_ltv(client: Client, services: Services) -> None:
    assert isinstance(services.value, FakeValue)
    expected = {
        "platform": "PLATFORM_META", "average_ltv": 450.0, "p25_ltv": 320.0, "p75_ltv": 580.0, "sample_size": 1247,
    }  # fmt: skip
    body = {"client_id": "demo", "platform": "PLATFORM_META"}
    assert await (await client.post("/platform-ltv", json=body)).json() == expected
    assert await (await client.post("/platform-ltv", json={**body, "lookback_days": 90})).json() == expected
    assert await (await client.get("/platform-ltv/facebook?lookback_days=30")).json() == expected
    assert services.value.asked == [("meta", 90), ("meta", 90), ("meta", 30)]


@pytest.mark.parametrize("name", ["META", "GOOGLE", "TIKTOK", "LINKEDIN", "AMAZON", "MICROSOFT"])
async def test_all_six_platforms_answer(client: Client, name: str) -> None:
    answer = await client.post("/platform-ltv", json={"client_id": "demo", "platform": f"PLATFORM_{name}"})
    assert (answer.status, (await answer.json())["platform"]) == (200, f"PLATFORM_{name}")


async def test_no_predictions_are_nulls(client: Client) -> None:
    body = await (await client.get("/platform-ltv/x")).json()
    assert (body["average_ltv"], body["p25_ltv"], body["sample_size"]) == (None, None, 0)


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"client_id": "demo", "platform": "PLATFORM_MYSPACE"}, 422, "platform"),
        ({"client_id": "someone", "platform": "meta"}, 404, "client"),
        ({"client_id": "demo", "platform": "meta", "lookback_days": 0}, 422, "lookback_days"),
        ({"client_id": "demo", "platform": "meta", "lookback_days": 731}, 422, "lookback_days"),
        ({"client_id": "demo", "platform": "meta", "lookback_days": True}, 422, "lookback_days"),
        ({"client_id": "demo", "platform": "meta", "lookbackdays": 9}, 422, "lookbackdays"),
        ({"platform": "meta"}, 422, "client_id"),
    ],
)
async def test_wrong_questions_are_named(client: Client, body: object, status: int, named: str) -> None:
    answer = await client.post("/platform-ltv", json=body)
    assert answer.status == status
    assert named in (await answer.json())["detail"]
