"""The acceptance sequences of smart connectors, through real HTTP on both sides (CON-04, CON-11, CON-25 to CON-37)."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from .rig import running

WIDE = {"circuit": {"slow_call_ms": 600_000}}
"""A machine under test may be slow; whether a circuit opens is tested elsewhere."""


async def sequence(
    folder: Path, platform: str, cap: str, amounts: list[int], last: int
) -> tuple[list[str], dict[str, object], dict[str, object], list[int]]:
    table = {"plugin": f"vendor_{platform}", "window_cap": cap, **WIDE}
    async with running(folder, {platform: table}) as rig:
        states = [(await rig.bid(platform, amount))["status"] for amount in amounts]
        window = (await rig.connector(platform))["window"]
        refused = await rig.bid(platform, last)
        assert refused["remaining_budget"] == float(cap) - sum(amounts)
        return states, window, refused, rig.vendors[platform].bids


async def test_google_ads_takes_275_of_500_and_refuses_300_con_32(tmp_path: Path) -> None:
    states, window, refused, bids = await sequence(tmp_path, "google_ads", "500", [100, 75, 100], 300)
    assert states == ["ACCEPTED"] * 3
    assert (window["current_spend"], window["max_budget"], window["utilization"]) == (275.0, 500.0, 0.55)
    assert (window["remaining_budget"], window["record_count"], window["window_s"]) == (225.0, 3, 600.0)
    assert window["oldest_record"] is not None
    assert (refused["status"], refused["reason"]) == ("REJECTED", "BUDGET_EXCEEDED")
    assert bids == [100_000_000, 75_000_000, 100_000_000], "the fourth never reached the platform"


async def test_meta_takes_220_of_400_and_refuses_200_con_34(tmp_path: Path) -> None:
    states, window, refused, bids = await sequence(tmp_path, "meta", "400", [120, 100], 200)
    assert states == ["ACCEPTED"] * 2
    assert (window["current_spend"], window["utilization"]) == (220.0, 0.55)
    assert (refused["status"], refused["reason"]) == ("REJECTED", "BUDGET_EXCEEDED")
    assert len(bids) == 2


async def test_trade_desk_takes_450_of_600_and_refuses_200_con_35(tmp_path: Path) -> None:
    states, window, refused, bids = await sequence(tmp_path, "tradedesk", "600", [150, 150, 150], 200)
    assert states == ["ACCEPTED"] * 3
    assert (window["current_spend"], window["utilization"]) == (450.0, 0.75)
    assert (refused["status"], refused["reason"]) == ("REJECTED", "BUDGET_EXCEEDED")
    assert len(bids) == 3


async def test_three_platforms_have_budgets_of_their_own_con_36_con_40(tmp_path: Path) -> None:
    caps = {"google_ads": "300", "meta": "200", "tradedesk": "250"}
    tables = {name: {"plugin": f"vendor_{name}", "window_cap": cap, **WIDE} for name, cap in caps.items()}
    async with running(tmp_path, tables) as rig:
        placed = [await rig.bid(name, 100) for name in caps]
        listed = await (await rig.client.get("/api/v1/connectors")).json()
        windows = {each["id"]: each["window"] for each in listed["items"]}
        assert [each["status"] for each in placed] == ["ACCEPTED"] * 3
        assert [round(windows[name]["utilization"], 2) for name in caps] == [0.33, 0.50, 0.40]
        assert sum(each["current_spend"] for each in windows.values()) == 300.0
        assert (await rig.bid("meta", 150))["reason"] == "BUDGET_EXCEEDED"
        assert (await rig.bid("google_ads", 150))["status"] == "ACCEPTED", "one platform's end is not another's"
        assert {each["kind"] for each in listed["items"]} == {"smart"}
        assert all(each["status_text"] for each in listed["items"])


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.05])
async def test_of_100_concurrent_bids_of_15_against_1000_exactly_66_fit_con_37(tmp_path: Path, delay_s: float) -> None:
    async with running(tmp_path, {"meta": {"window_cap": "1000", **WIDE}}) as rig:
        rig.vendors["meta"].delay_s = delay_s
        answers = await asyncio.gather(*(rig.bid("meta", 15) for _ in range(100)))
        counts = Counter((each["status"], each["reason"]) for each in answers)
        assert counts == {("ACCEPTED", None): 66, ("REJECTED", "BUDGET_EXCEEDED"): 34}
        assert rig.vendors["meta"].bids == [15_000_000] * 66
        window = (await rig.connector("meta"))["window"]
        assert (window["current_spend"], window["remaining_budget"], window["record_count"]) == (990.0, 10.0, 66)


@pytest.mark.parametrize(
    ("platform", "calls", "window_s"), [("google_ads", 100, 60), ("meta", 200, 3_600), ("tradedesk", 300, 60)]
)
async def test_the_call_after_the_last_is_rate_limited_and_no_http_call_is_made_con_04_con_11(
    tmp_path: Path, platform: str, calls: int, window_s: int
) -> None:
    table = {"plugin": f"vendor_{platform}", "window_cap": "5000", **WIDE}
    async with running(tmp_path, {platform: table}) as rig:
        quota = rig.signals.subscribe(["quota"])
        answers = await asyncio.gather(*(rig.bid(platform, 1) for _ in range(calls)))
        assert Counter(each["status"] for each in answers) == {"ACCEPTED": calls}
        last = await rig.bid(platform, 1)
        assert (last["status"], last["reason"]) == ("REJECTED", "RATE_LIMITED")
        assert len(rig.vendors[platform].asked) == calls
        found = await rig.connector(platform)
        assert found["window"]["current_spend"] == float(calls), "the refused bid is not spent"
        limit = found["rate_limit"]
        assert (limit["calls"], limit["window_s"], limit["used"]) == (calls, window_s, calls)
        assert "next may go out" in found["status_text"]
        told = [signal.data for signal in quota.drain()]
        assert told == [{"connector": platform, "used": calls * 9 // 10, "limit": calls, "window_s": window_s}], "once"
        rig.clock.ahead = (window_s - 20) * 1_000_000
        assert (await rig.bid(platform, 1))["reason"] == "RATE_LIMITED", "the window is as long as stated"
        rig.clock.ahead = (window_s + 1) * 1_000_000
        assert (await rig.bid(platform, 1))["status"] == "ACCEPTED"


async def test_a_stress_never_passes_the_limit_calls_already_made_included_con_33(tmp_path: Path) -> None:
    table = {"plugin": "vendor_google_ads", "window_cap": "5000", **WIDE}
    async with running(tmp_path, {"google_ads": table}) as rig:
        caller = rig.agent.plugins.caller
        for _ in range(7):
            await caller.to("google_ads", "fetch_campaigns")
        answers = await asyncio.gather(*(rig.bid("google_ads", 1) for _ in range(150)))
        counts = Counter((each["status"], each["reason"]) for each in answers)
        assert counts == {("ACCEPTED", None): 93, ("REJECTED", "RATE_LIMITED"): 57}
        vendor = rig.vendors["google_ads"]
        assert len(vendor.asked) == 100
        assert (await rig.connector("google_ads"))["window"]["current_spend"] == 93.0


async def test_a_burst_is_spread_over_seconds_con_43(tmp_path: Path) -> None:
    table = {"rate_limit": {"calls": 50, "window_s": 60, "burst": 5}, **WIDE}
    async with running(tmp_path, {"meta": table}) as rig:
        begun = rig.clock.now()
        answers = await asyncio.gather(*(rig.bid("meta", 1) for _ in range(11)))
        assert Counter(each["status"] for each in answers) == {"ACCEPTED": 11}
        assert rig.clock.now() - begun >= 2_000_000, "five in each of two seconds, the eleventh in the third"
        assert (await rig.connector("meta"))["rate_limit"]["burst"] == 5


async def test_a_failed_call_releases_what_was_reserved_con_29(tmp_path: Path) -> None:
    async with running(tmp_path, {"meta": {"window_cap": "100"}}) as rig:
        rig.vendors["meta"].fault = "422"
        refused = await rig.bid("meta", 60)
        assert (refused["status"], refused["reason"], refused["platform_reason"]) == (
            "REJECTED",
            "PLATFORM_ERROR",
            "NO",
        )
        assert refused["remaining_budget"] == 100.0
        rig.vendors["meta"].fault = ""
        placed = await rig.bid("meta", 60)
        assert (placed["status"], placed["remaining_budget"]) == ("ACCEPTED", 40.0), "stats hold the bid at once"
        assert placed["circuit_state"] == "closed"
        rig.vendors["meta"].fault = "500"
        unknown = await rig.bid("meta", 30)
        assert (unknown["status"], unknown["remaining_budget"]) == ("PENDING", 10.0), "what is unknown stays reserved"


async def test_spend_is_free_again_after_ten_minutes_and_not_before_con_41(tmp_path: Path) -> None:
    async with running(tmp_path, {"meta": {"window_cap": "100", **WIDE}}) as rig:
        assert (await rig.bid("meta", 100))["status"] == "ACCEPTED"
        rig.clock.ahead = 580 * 1_000_000
        assert (await rig.bid("meta", 100))["reason"] == "BUDGET_EXCEEDED"
        rig.clock.ahead = 601 * 1_000_000
        assert (await rig.bid("meta", 100))["status"] == "ACCEPTED"


async def test_value_confidence_and_explanation_reach_the_platform_con_38(tmp_path: Path) -> None:
    async with running(tmp_path, {"meta": {}}) as rig:
        await rig.bid("meta", "1.50", predicted_ltv="1200", confidence=0.875, explanation="returns every month")
        (said,) = rig.vendors["meta"].bodies
        assert (said["after"], said["ltv"], said["confidence"]) == (1_500_000, 1_200_000_000, 875)
        assert said["note"] == "returns every month"


@pytest.mark.parametrize(
    "wrong", [{"confidence": 1.5}, {"confidence": -0.1}, {"confidence": "sure"}, {"predicted_ltv": -1}]
)
async def test_nonsense_in_a_bid_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    async with running(tmp_path, {"meta": {}}) as rig:
        body = {"campaign_id": "c1", "platform": "meta", "bid_amount": 1, **wrong}
        assert (await rig.client.post("/api/v1/bids", json=body)).status == 422
        assert rig.vendors["meta"].asked == []


async def test_a_smart_connector_shows_its_three_states_and_a_basic_one_has_none_con_25_con_31(tmp_path: Path) -> None:
    tables = {"meta": {"plugin": "vendor_meta"}, "tiktok": {"kind": "basic", "window_cap": None}}
    async with running(tmp_path, tables) as rig:
        for name in tables:
            await rig.agent.plugins.caller.to(name, "capabilities")
        smart, basic = await rig.connector("meta"), await rig.connector("tiktok")
        assert (smart["kind"], basic["kind"]) == ("smart", "basic")
        assert (smart["circuit"]["state"], smart["window"]["max_budget"]) == ("closed", 1000.0)
        assert (smart["rate_limit"]["calls"], smart["rate_limit"]["used"]) == (200, 1)
        assert (basic["circuit"], basic["window"], basic["rate_limit"]) == (None, None, None)
        assert smart["mode"] == "sandbox"
        latency = smart["latency_ms"]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
        assert (await rig.bid("tiktok", 1500))["status"] == "ACCEPTED", "its daily cap is all that binds"
        assert (await rig.bid("tiktok", 4000))["reason"] == "BUDGET_EXCEEDED"


FAULTS = {"500": "PENDING", "garbage": "PENDING", "reset": "PENDING", "422": "REJECTED", "429": "REJECTED"}


@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_every_kind_of_failure_is_an_answer_with_a_reason_con_53(tmp_path: Path, fault: str) -> None:
    async with running(tmp_path, {"meta": {}, "google_ads": {}}) as rig:
        rig.vendors["meta"].fault = fault
        failed = await rig.bid("meta", 10)
        assert failed["status"] == FAULTS[fault]
        assert failed["reason"]
        assert (await rig.bid("google_ads", 10))["status"] == "ACCEPTED"


async def test_a_bid_that_takes_too_long_is_unknown_con_53(tmp_path: Path) -> None:
    async with running(tmp_path, {"meta": {"timeout_s": 0.1}}) as rig:
        rig.vendors["meta"].fault = "hang"
        assert (await rig.bid("meta", 10))["status"] == "PENDING"
