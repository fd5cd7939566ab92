"""What a person tunes while the agent runs holds at once, outlives a restart, is on record; nonsense does nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kiki_agent.errors import Temporary
from kiki_agent.resilience.windows import read_windows

from .rig import Tables, running

META: Tables = {"meta": {"plugin": "vendor_meta"}}
PATH = "/api/v1/connectors/meta"


async def test_a_new_window_budget_holds_at_once_and_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        answer = await rig.put(PATH, max_budget="150.50")
        assert answer["window"]["max_budget"] == 150.5
        assert (await rig.bid("meta", 200))["reason"] == "BUDGET_EXCEEDED"
    async with running(tmp_path, META) as rig:
        assert (await rig.connector("meta"))["window"]["max_budget"] == 150.5
        assert (await rig.bid("meta", 200))["reason"] == "BUDGET_EXCEEDED"
        await rig.put(PATH, max_budget=None)
        assert (await rig.connector("meta"))["window"]["max_budget"] == 1000.0
        tuned = [each for each in rig.controls() if each["control"] == "connector"]
        assert [each["set"] for each in tuned] == [{"max_budget_micros": 150_500_000}, {"max_budget_micros": None}]
        assert (await rig.agent.ledger.verify(whole=True)).ok
    async with running(tmp_path, META) as rig:
        assert (await rig.connector("meta"))["window"]["max_budget"] == 1000.0


async def test_a_new_call_limit_counts_what_was_called_before(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        assert [(await rig.bid("meta", 1))["status"] for _ in range(3)] == ["ACCEPTED"] * 3
        answer = await rig.put(PATH, rate_limit={"calls": 4})
        limit = answer["rate_limit"]
        assert (limit["calls"], limit["window_s"], limit["used"]) == (4, 3_600, 3)
        assert (await rig.bid("meta", 1))["status"] == "ACCEPTED"
        assert (await rig.bid("meta", 1))["reason"] == "RATE_LIMITED"
    async with running(tmp_path, META) as rig:
        limit = (await rig.connector("meta"))["rate_limit"]
        assert (limit["calls"], limit["window_s"]) == (4, 3_600)
        assert (await rig.put(PATH, rate_limit=None))["rate_limit"]["calls"] == 200


async def test_a_connector_switched_off_is_left_alone_until_it_is_switched_on(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        answer = await rig.put(PATH, enabled=False)
        assert (answer["enabled"], answer["connected"], answer["status_text"]) == (
            False,
            False,
            "switched off by a person; its campaigns run on as they are",
        )
        refused = await rig.bid("meta", 1)
        assert (refused["status"], refused["platform_reason"]) == ("REJECTED", "DISABLED")
        assert refused["remaining_budget"] == 1000.0
    async with running(tmp_path, META) as rig:
        assert not (await rig.connector("meta"))["enabled"]
        states = rig.agent.supervisor.health
        assert [states[name].paused for name in ("poll:meta", "write:meta")] == [True, True]
        assert rig.vendors["meta"].asked == []
        await rig.put(PATH, enabled=True)
        assert [states[name].paused for name in ("poll:meta", "write:meta")] == [False, False]
        assert (await rig.bid("meta", 1))["status"] == "ACCEPTED"


async def fail(rig: Any, times: int) -> None:
    rig.vendors["meta"].fault = "500"
    for _ in range(times):
        with pytest.raises(Temporary):
            await rig.agent.plugins.caller.to("meta", "capabilities")
    rig.vendors["meta"].fault = ""


QUICK = {"read_retries": 0}


async def test_thresholds_of_a_circuit_are_tuned_for_one_connector(tmp_path: Path) -> None:
    async with running(tmp_path, META, resilience=QUICK) as rig:
        await rig.put(PATH, circuit={"failure_threshold": 2, "reset_timeout_s": 1.5})
        await fail(rig, 2)
        circuit = (await rig.connector("meta"))["circuit"]
        assert (circuit["state"], circuit["read"], circuit["write"]) == ("open", "open", "closed")
        assert circuit["failures"] == 2
        assert circuit["opened_at"] is not None
        closed = (await rig.put(PATH, circuit={"state": "closed"}))["circuit"]
        assert (closed["state"], closed["failures"], closed["opened_at"]) == ("closed", 0, None)
    async with running(tmp_path, META, resilience=QUICK) as rig:
        await fail(rig, 2)
        assert (await rig.connector("meta"))["circuit"]["state"] == "open", "remembered"
        assert rig.controls()[-1]["set"] == {"circuit": {"failure_threshold": 2, "reset_timeout_us": 1_500_000}}


async def test_what_holds_everywhere_is_shown_and_tuned_res_04_res_06(tmp_path: Path) -> None:
    async with running(tmp_path, {"meta": {}, "tiktok": {}}) as rig:
        shown = await (await rig.client.get("/api/v1/resilience")).json()
        assert (shown["failure_threshold"], shown["slow_call_ms"], shown["reset_timeout_s"]) == (3, 500, 30)
        assert (shown["half_open_successes"], shown["max_history"], shown["min_samples"]) == (2, 100, 1)
        assert shown["multipliers"] == {
            "google_ads": 1.0, "meta": 1.0, "tradedesk": 1.0, "amazon": 1.0, "microsoft": 1.0, "x": 0.75,
            "linkedin": 1.2, "tiktok": 1.5,
        }  # fmt: skip
        assert [(each["id"], each["multiplier"]) for each in shown["connectors"]] == [("meta", 1.0), ("tiktok", 1.5)]
        body = {"failure_threshold": 5, "reset_timeout_s": 0.5, "multipliers": {"PLATFORM_TIKTOK": 1.25}}
        changed = await rig.put("/api/v1/resilience", **body, max_history=50)
        assert (changed["failure_threshold"], changed["reset_timeout_s"], changed["max_history"]) == (5, 0.5, 50)
        assert rig.agent.value.fallback_micros("tiktok")[0] == 300_000_000, "no history yet: the default value"
        rig.agent.value._history = [100, 300, 200]
        assert rig.agent.value.fallback_micros("tiktok")[0] == 250
        assert rig.agent.value.fallback_micros("nowhere")[0] == 200
        rule = rig.agent.resilience.guards["meta"].rule
        assert rule is not None
        assert (rule.failures, rule.reset_s) == (5, 0.5)
    async with running(tmp_path, {"meta": {}, "tiktok": {}}) as rig:
        again = await (await rig.client.get("/api/v1/resilience")).json()
        assert (again["failure_threshold"], again["multipliers"]["tiktok"], again["max_history"]) == (5, 1.25, 50)
        (row,) = [each for each in rig.controls() if each["control"] == "resilience"]
        assert row["set"]["rules"] == {"failure_threshold": 5, "reset_timeout_us": 500_000}


async def test_null_takes_each_change_back_to_what_is_configured(tmp_path: Path) -> None:
    path = "/api/v1/resilience"
    configured = {"resilience": {"failure_threshold": 7, "multipliers": {"meta": 0.5}}}
    async with running(tmp_path, META, **configured) as rig:
        first = await (await rig.client.get(path)).json()
        assert (first["failure_threshold"], first["multipliers"]["meta"]) == (7, 0.5)
        tuned = await rig.put(
            path, failure_threshold=2, reset_timeout_s=0.5, read_retries=1, multipliers={"meta": 2, "x": 3},
            max_history=50, min_samples=20,
        )  # fmt: skip
        assert (tuned["failure_threshold"], tuned["multipliers"]["x"], tuned["min_samples"]) == (2, 3.0, 20)
        part = await rig.put(path, failure_threshold=None, multipliers={"meta": None}, max_history=None)
        assert (part["failure_threshold"], part["reset_timeout_s"], part["max_history"]) == (7, 0.5, 100)
        assert (part["multipliers"]["meta"], part["multipliers"]["x"]) == (0.5, 3.0)
        guard = rig.agent.resilience.guards["meta"]
        assert guard.rule is not None
        assert (guard.rule.failures, guard.rule.reset_s) == (7, 0.5)
        await rig.put(path, 422, max_history=10)  # less than the 20 samples that are still asked for
        await rig.put(path, min_samples=None, max_history=10)
    async with running(tmp_path, META, **configured) as rig:
        kept = await (await rig.client.get(path)).json()
        assert (kept["failure_threshold"], kept["reset_timeout_s"], kept["max_history"]) == (7, 0.5, 10)
        back = dict.fromkeys(("reset_timeout_s", "read_retries", "multipliers", "max_history"))
        assert await rig.put(path, **back) == first
    async with running(tmp_path, META, **configured) as rig:
        assert await (await rig.client.get(path)).json() == first
        assert rig.agent.resilience._overrides.of("") == {}


async def test_null_takes_parts_of_a_limit_and_a_circuit_back(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        await rig.put(PATH, circuit={"failure_threshold": 2, "slow_call_ms": 900})
        await rig.put(PATH, circuit={"slow_call_ms": None})
        rule = rig.agent.resilience.guards["meta"].rule
        assert rule is not None
        assert (rule.failures, rule.slow_bid_s) == (2, 0.5)
        await rig.put(PATH, circuit={"failure_threshold": None})
        assert rig.agent.resilience._overrides.of("meta") == {}
        await rig.put(PATH, rate_limit={"calls": 50, "window_s": 10, "burst": 5})
        assert (await rig.put(PATH, rate_limit={"burst": None}))["rate_limit"]["burst"] is None


@pytest.mark.parametrize(
    ("currency", "amount", "status"),
    [("USD", "150.50", 200), ("USD", "150.505", 422), ("JPY", 150, 200), ("JPY", "150.5", 422)],
)
async def test_a_budget_has_the_decimals_of_its_currency(
    tmp_path: Path, currency: str, amount: object, status: int
) -> None:
    async with running(tmp_path, META, currency=currency) as rig:
        answer = await rig.client.put(PATH, json={"max_budget": amount})
        assert answer.status == status
        body = await answer.json()
        if status == 422:
            assert (body["code"], [each["field"] for each in body["errors"]]) == ("DECIMALS", ["max_budget"])
            assert f"decimals than {currency} has" in body["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, None),
        ({"max_budget": -1}, "max_budget"),
        ({"max_budget": "NaN"}, "max_budget"),
        ({"max_budget": 5_000.01}, "max_budget"),
        ({"rate_limit": {"calls": 0}}, "rate_limit.calls"),
        ({"rate_limit": {"calls": 1.5}}, "rate_limit.calls"),
        ({"rate_limit": {"calls": True}}, "rate_limit.calls"),
        ({"rate_limit": {"window_s": 0}}, "rate_limit.window_s"),
        ({"rate_limit": {"cals": 5}}, "rate_limit.cals"),
        ({"circuit": {"failure_threshold": 0}}, "circuit.failure_threshold"),
        ({"circuit": {"state": "open"}}, "circuit.state"),
        ({"circuit": {"reset_timeout_s": 1e9}}, "circuit.reset_timeout_s"),
        ({"enabled": "no"}, "enabled"),
        ({"mode": "live"}, "mode"),
        ({"rate_limit": {"calls": 50}, "enabled": 3}, "enabled"),
    ],
)
async def test_nonsense_changes_nothing(tmp_path: Path, body: dict[str, object], field: str | None) -> None:
    async with running(tmp_path, META) as rig:
        before = await rig.connector("meta")
        answer = await rig.client.put(PATH, json=body)
        assert answer.status == 422
        problem = await answer.json()
        if field is not None:
            assert field in [each["field"] for each in problem["errors"]]
        after = await rig.connector("meta")
        assert {key: after[key] for key in ("rate_limit", "circuit", "enabled")} == {
            key: before[key] for key in ("rate_limit", "circuit", "enabled")
        }
        assert after["window"]["max_budget"] == before["window"]["max_budget"]
        assert [each for each in rig.controls() if each["control"] == "connector"] == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"failure_threshold": 0},
        {"multipliers": {"mars": 2}},
        {"multipliers": {"meta": 0}},
        {"min_samples": 101},
        {"max_history": 0},
        {"slow_call_ms": "fast"},
        {"unknown": 1},
    ],
)
async def test_nonsense_changes_nothing_everywhere(tmp_path: Path, body: dict[str, object]) -> None:
    async with running(tmp_path, META) as rig:
        before = await (await rig.client.get("/api/v1/resilience")).json()
        assert (await rig.client.put("/api/v1/resilience", json=body)).status == 422
        assert await (await rig.client.get("/api/v1/resilience")).json() == before
        assert rig.controls() == [each for each in rig.controls() if each["control"] != "resilience"]


async def test_half_a_limit_or_a_circuit_of_a_basic_connector_cannot_be(tmp_path: Path) -> None:
    tables: Tables = {"meta": {"kind": "basic", "window_cap": None}, "tiktok": {}}
    async with running(tmp_path, tables) as rig:
        await rig.put("/api/v1/connectors/tiktok", 422, rate_limit={"calls": 50})
        both = await rig.put("/api/v1/connectors/tiktok", rate_limit={"calls": 50, "window_s": 10})
        assert both["rate_limit"]["calls"] == 50
        await rig.put(PATH, 422, circuit={"failure_threshold": 2})
        await rig.put(PATH, 422, max_budget=10)
        await rig.put("/api/v1/connectors/nowhere", 404, enabled=False)
        limited = await rig.put(PATH, rate_limit={"calls": 5, "window_s": 1})
        assert limited["rate_limit"]["calls"] == 5, "a vendor's limit binds a basic connector too"


async def test_a_connector_the_configuration_switched_off_needs_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, {"meta": {}, "tiktok": {"enabled": False}}) as rig:
        await rig.put("/api/v1/connectors/tiktok", 409, enabled=True)
        assert (await rig.connector("tiktok"))["enabled"] is False


async def test_a_restart_does_not_begin_the_window_of_calls_anew(tmp_path: Path) -> None:
    table: Tables = {"meta": {"rate_limit": {"calls": 5, "window_s": 3_600}}}
    async with running(tmp_path, table) as rig:
        for _ in range(4):
            assert (await rig.bid("meta", 1))["status"] == "ACCEPTED"
    async with running(tmp_path, table) as rig:
        assert (await rig.connector("meta"))["rate_limit"]["used"] == 4
        assert (await rig.bid("meta", 1))["status"] == "ACCEPTED"
        assert (await rig.bid("meta", 1))["reason"] == "RATE_LIMITED"
    async with running(tmp_path, table) as rig:
        rig.clock.ahead = 3_601 * 1_000_000
        assert (await rig.bid("meta", 1))["status"] == "ACCEPTED"


async def test_a_process_that_is_killed_forgets_few_calls_of_a_short_window(tmp_path: Path) -> None:
    tables: Tables = {
        "meta": {"rate_limit": {"calls": 90, "window_s": 60}},
        "tiktok": {"rate_limit": {"calls": 90, "window_s": 3_600}},
    }
    async with running(tmp_path, tables) as rig:
        windows, store = rig.agent.resilience.windows, rig.agent.store
        assert windows.period == 5_000_000

        async def kept() -> dict[str, int]:
            return {name: len(calls) for name, calls in (await store.read(read_windows)).items()}

        async def calls() -> None:
            for name in tables:
                await rig.agent.plugins.caller.to(name, "capabilities")
            rig.clock.ahead += 5_000_000
            await windows.tick(rig.clock.now())

        before = {name: guard.limiter.used(rig.clock.now()) for name, guard in rig.agent.resilience.guards.items()
                  if guard.limiter is not None}  # fmt: skip
        await calls()
        assert await kept() == {name: used + 1 for name, used in before.items()}
        await calls()
        assert await kept() == {"meta": before["meta"] + 2, "tiktok": before["tiktok"] + 1}
        rig.clock.ahead += 55_000_000
        await calls()
        assert (await kept())["tiktok"] == before["tiktok"] + 3
        await calls()
        await windows.keep(rig.clock.now())
        assert (await kept())["tiktok"] == before["tiktok"] + 4, "and at the end all is kept"
