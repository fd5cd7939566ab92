"""Money moved by hand, through a real agent and real HTTP on both sides: bad amounts, true reasons, 66 of 100."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

from .rig import Rig, running

WIDE = {"circuit": {"slow_call_ms": 600_000}, "rate_limit": {"calls": 100_000, "window_s": 60}}
META = {"meta": {"window_cap": "1000", **WIDE}}

NO_NUMBERS = [
    "NaN", "Infinity", "-Infinity", "01", ".5", "5.", "+5", "0x10", "5_0", "5'", "[" * 40 + "]" * 40,
]  # fmt: skip
"""No JSON, so 400."""
BAD_AMOUNTS = [
    "0", "-0", "0.0", "0e5", "-1", "-0.01", "-1e-6", "1e400", "-1e400", "1e-7", "0.0000001", "12.345", "12.3456789",
    "1000000000.01", "1e10", "1e30", "9" * 400, "1e999999999", "1e-999999999", "true", "false", "[]", "{}", "[5]",
    '{"amount":5}', '""', '"NaN"', '"Infinity"', '"inf"', '"-5"', '"0"', '"0.00"', '"+5"', '"1e3"', '"1E1"', '".5"',
    '"5."', '"1_000"', '" 5"', '"5 "', '"5,00"', '"0x10"', '"five"', '"\\u0665"', '"5\\u0000"', '"--5"', '"1e-3"',
    '"' + "1" * 41 + '"', '"12.345"', '"1000000000.01"',
]  # fmt: skip
"""JSON that is no amount of US dollars above 0, so 422; money without cents is tested where currencies are."""
BID = '"campaign_id":"c1","platform":"meta"'
TAKERS = {
    "/api/v1/allocate": ("budget", '"campaign_id":"new"'),
    "/api/v1/check": ("bid_amount", BID),
    "/api/v1/check?reserve": ("bid_amount", f'{BID},"reserve":true'),
    "/api/v1/spend": ("amount", BID),
    "/api/v1/bids": ("bid_amount", BID),
}


async def money(rig: Rig) -> tuple[object, ...]:
    """All that an amount could have moved."""
    meta = await rig.connector("meta")
    known = await (await rig.client.get("/api/v1/budget/c1")).json()
    new = (await rig.client.get("/api/v1/budget/new")).status
    return meta["window"], meta["day"], known, new, rig.vendors["meta"].bids


async def test_no_bad_amount_passes_any_door_to_money(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        made = await rig.client.post("/api/v1/allocate", json={"campaign_id": "c1", "budget": 100})
        assert made.status == 201
        before = await money(rig)
        for door, (field, rest) in TAKERS.items():
            for literals, status in ((NO_NUMBERS, 400), (BAD_AMOUNTS, 422)):
                for literal in literals:
                    body = f'{{{rest},"{field}":{literal}}}'.encode()
                    answer = await rig.client.post(
                        door.partition("?")[0], data=body, headers={"Content-Type": "application/json"}
                    )
                    told = await answer.json()
                    assert answer.status == status, (door, literal, told)
                    assert told["code"].isupper(), (door, literal, told)
                    assert status == 400 or told["errors"][0]["field"] == field, (door, literal, told)
        assert await money(rig) == before, "and nothing moved"


async def test_bodies_too_large_or_too_deep_are_refused_at_every_door(tmp_path: Path) -> None:
    doors = [("post", path) for path in ("allocate", "check", "spend", "release", "bids", "conversions")]
    doors += [("put", "connectors/meta"), ("put", "resilience"), ("post", "autonomy/meta")]
    large = json.dumps({"campaign_id": "c1", "budget": "1" * (1 << 20)}).encode()
    deep = b'{"budget":' * 2_000 + b"1" + b"}" * 2_000
    async with running(tmp_path, META) as rig:
        for method, path in doors:
            for body, status, code in ((large, 413, "BODY_TOO_LARGE"), (deep, 400, "TOO_DEEP")):
                answer = await rig.client.request(
                    method, f"/api/v1/{path}", data=io.BytesIO(body), headers={"Content-Type": "application/json"}
                )
                assert (answer.status, (await answer.json())["code"]) == (status, code), path


async def test_numbers_that_are_no_amounts_are_no_texts_and_no_truths_either(tmp_path: Path) -> None:
    wishes: list[tuple[str, str, dict[str, Any]]] = [
        ("post", "bids", {"campaign_id": "c1", "platform": "meta", "bid_amount": 1, "confidence": True}),
        ("post", "autonomy/meta", {"level": "act_limited", "reason": "x", "limit": True}),
        ("post", "autonomy/meta", {"level": "act_limited", "reason": "x", "limit": "0.1"}),
        ("post", "autonomy/meta", {"level": "act_limited", "reason": "x", "limit": 1e-7}),
        ("put", "resilience", {"multipliers": {"meta": True}}),
        ("put", "resilience", {"multipliers": {"meta": "1.5"}}),
        ("put", "connectors/meta", {"circuit": {"reset_timeout_s": "30"}}),
    ]
    async with running(tmp_path, META) as rig:
        for method, path, body in wishes:
            answer = await rig.client.request(method, f"/api/v1/{path}", json=body)
            assert answer.status == 422, (path, body, await answer.text())


async def test_a_slipped_digit_of_an_allocation_is_refused_with_its_reason(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:

        async def allocate(budget: float) -> tuple[int, str | None]:
            answer = await rig.client.post("/api/v1/allocate", json={"campaign_id": "c1", "budget": budget})
            return answer.status, (await answer.json()).get("code")

        assert await allocate(50) == (201, None)
        assert await allocate(50_000) == (409, "SLIPPED_DIGIT")
        assert await allocate(999_999_999) == (409, "ABOVE_MAXIMUM")
        found = await (await rig.client.get("/api/v1/budget/c1")).json()
        assert found["budget"] == 50.0


async def test_a_slipped_digit_of_a_window_is_refused_with_its_reason(tmp_path: Path) -> None:
    path = "/api/v1/connectors/meta"
    async with running(tmp_path, {"meta": {"window_cap": "100", **WIDE}}) as rig:
        assert (await rig.put(path, 409, max_budget=1_001))["code"] == "SLIPPED_DIGIT"
        assert (await rig.connector("meta"))["window"]["max_budget"] == 100.0
        assert (await rig.put(path, max_budget=1_000))["window"]["max_budget"] == 1_000.0
        assert (await rig.put(path, max_budget=0))["window"]["max_budget"] == 0.0
        assert (await rig.put(path, max_budget=5_000))["window"]["max_budget"] == 5_000.0, "nothing to compare with"


async def test_a_refusal_names_the_bound_and_when_it_frees(tmp_path: Path) -> None:
    async with running(tmp_path, {"meta": {"window_cap": "100", **WIDE}}) as rig:
        placed = await rig.bid("meta", 60)
        assert (placed["status"], placed["detail"], placed["remaining_budget"]) == ("ACCEPTED", None, 40.0)
        assert placed["bound"]["name"] == "window"
        refused = await rig.bid("meta", 41)
        assert (refused["reason"], refused["remaining_budget"]) == ("BUDGET_EXCEEDED", 40.0)
        bound = refused["bound"]
        assert bound.pop("frees_at") > "2026"
        assert bound == {"name": "window", "cap": 100.0, "spent": 60.0, "held": 0.0, "remaining": 40.0}
        assert refused["detail"].startswith("41.00 USD wanted, the window of meta has 40.00 left: 60.00 spent")
        await rig.client.post("/api/v1/allocate", json={"campaign_id": "c1", "budget": 20})
        refused = await rig.bid("meta", 21)
        assert (refused["bound"]["name"], refused["remaining_budget"]) == ("allocation", 20.0)
        spent = await rig.client.post("/api/v1/spend", json={"campaign_id": "c1", "platform": "meta", "amount": 21})
        assert spent.status == 409
        assert "the allocation of c1 is at most 20.00" in (await spent.json())["detail"]


async def test_what_is_placed_counts_as_spent_today_and_window_and_day_add_up(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        await rig.agent.read_platforms(10)
        assert (await rig.connector("meta"))["spent_today"] == 0.0
        await rig.bid("meta", 15)
        rig.vendors["meta"].fault = "500"
        assert (await rig.bid("meta", 30))["status"] == "PENDING"
        found = await rig.connector("meta")
        window, day = found["window"], found["day"]
        assert found["spent_today"] == day["spent"] == day["placed"] == 15.0
        assert window["max_budget"] == sum(
            window[each] for each in ("current_spend", "reserved", "exposed", "remaining_budget")
        )
        assert day["cap"] == sum(day[each] for each in ("spent", "reserved", "exposed", "remaining"))
        page = await (await rig.client.get("/api/v1/overview")).json()
        assert page["totals"]["spent_today"] == "15.00"


async def test_a_bid_that_is_not_sent_says_why_it_is_the_agent_that_holds_it_back(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        await rig.client.post("/api/v1/autonomy/meta", json={"level": "watch", "reason": "a look first"})
        refused = await rig.bid("meta", 1)
        assert (refused["status"], refused["reason"], refused["platform_reason"]) == ("REJECTED", "WATCH", None)
        assert "only watched" in refused["detail"]
        await rig.client.post("/api/v1/autonomy/meta", json={"level": "act", "reason": "seen"})
        await rig.put("/api/v1/connectors/meta", enabled=False)
        assert (await rig.bid("meta", 1))["reason"] == "DISABLED"
        assert rig.vendors["meta"].asked == []


async def test_a_reservation_of_one_platform_is_not_spent_on_another(tmp_path: Path) -> None:
    async with running(tmp_path, {**META, "tiktok": WIDE}) as rig:
        await rig.client.post("/api/v1/allocate", json={"campaign_id": "c1", "budget": 20})
        check = {"campaign_id": "c1", "platform": "meta", "bid_amount": 5, "reserve": True}
        held = (await (await rig.client.post("/api/v1/check", json=check)).json())["reservation_id"]
        wrong = {"campaign_id": "c1", "platform": "tiktok", "reservation_id": held}
        answer = await rig.client.post("/api/v1/spend", json=wrong)
        told = await answer.json()
        assert (answer.status, told["code"]) == (409, "CONFLICT")
        assert told["detail"] == f"reservation {held} is money of meta, not of tiktok"
        spent = await rig.client.post("/api/v1/spend", json={**wrong, "platform": "facebook"})
        assert (await spent.json())["spent"] == 5.0


async def test_an_allocation_is_scheduled_until_it_begins_and_null_begins_it_now(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        body = {"campaign_id": "c1", "budget": 20, "start": "2200-01-01T00:00:00Z", "end": "2200-02-01T00:00:00Z"}
        made = await rig.client.post("/api/v1/allocate", json=body)
        assert (made.status, (await made.json())["status"]) == (201, "scheduled")
        assert (await rig.bid("meta", 1))["reason"] == "NOT_ACTIVE"
        now = await rig.client.post("/api/v1/allocate", json={"campaign_id": "c1", "budget": 20, "start": None})
        assert (now.status, (await now.json())["status"]) == (200, "active")
        found = await (await rig.client.get("/api/v1/budget/c1")).json()
        assert found["start"][:2] == "20"
        assert found["end"] == "2200-02-01T00:00:00.000000Z", "what is left out stays"
        await rig.client.post("/api/v1/allocate", json={"campaign_id": "c1", "budget": 20, "end": None})
        assert (await (await rig.client.get("/api/v1/budget/c1")).json())["end"] is None
        assert (await rig.bid("meta", 1))["status"] == "ACCEPTED"


async def test_66_of_100_fit_again_and_again_at_a_platform_without_delay_con_37(tmp_path: Path) -> None:
    """Twenty times over, each time ten minutes later, when the window is free again."""
    async with running(tmp_path, {"meta": {"daily_cap": "100000", **META["meta"]}}) as rig:
        for _ in range(20):
            answers = await asyncio.gather(*(rig.bid("meta", 15) for _ in range(100)))
            counts = Counter((each["status"], each["reason"]) for each in answers)
            assert counts == {("ACCEPTED", None): 66, ("REJECTED", "BUDGET_EXCEEDED"): 34}
            assert (await rig.connector("meta"))["window"]["current_spend"] == 990.0
            rig.clock.ahead += 600_000_000
        assert len(rig.vendors["meta"].bids) == 20 * 66


async def test_a_predicted_value_outside_its_bounds_is_vetoed(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        await rig.client.post("/api/v1/allocate", json={"campaign_id": "c1", "budget": 100})
        for ltv in (9.99, 10_000.01, 20_000):
            refused = await rig.bid("meta", 1, predicted_ltv=ltv)
            assert (refused["status"], refused["reason"]) == ("REJECTED", "COMPLIANCE")
            assert "shield.max_ltv" in refused["detail"]
            body = {"campaign_id": "c1", "bid_amount": 1, "platform": "meta", "ltv": ltv, "reserve": True}
            checked = await (await rig.client.post("/api/v1/check", json=body)).json()
            assert (checked["allowed"], checked["reason"], checked["reservation_id"]) == (False, "COMPLIANCE", None)
        assert rig.vendors["meta"].bids == []
        for ltv in (10, 10_000):
            assert (await rig.bid("meta", 1, predicted_ltv=ltv))["status"] == "ACCEPTED"
