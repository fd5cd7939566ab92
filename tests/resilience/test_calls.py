"""Guards in the path of every call: circuits, retries, waits, priorities, and that nobody else notices."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.errors import PluginError, RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.hooks.caller import MAX_RUNNING
from kiki_agent.hooks.guard import Guard
from kiki_agent.model import DecisionSource, Intent, IntentKind, Receipt
from kiki_agent.runtime.breaker import Circuit
from kiki_agent.runtime.driver import LiveDriver

from .rig import Rig, Tables, running

META: Tables = {"meta": {"circuit": {"slow_call_ms": 600_000}}}
NO_RETRY = {"read_retries": 0}


def intent(after: int = 0, before: int = 1, key: str = "k", kind: IntentKind = IntentKind.SET_STATUS) -> Intent:
    return Intent(key, kind, "meta", "c1", before, after, "USD", "TEST", Any)  # type: ignore[arg-type]


async def ask(rig: Rig, verb: str = "capabilities") -> object:
    return await rig.agent.plugins.caller.to("meta", verb)


async def write(rig: Rig, *intents: Intent, verb: str = "set_status") -> object:
    return await rig.agent.plugins.caller.to("meta", verb, list(intents))


def guard_of(rig: Rig) -> Guard:
    return rig.agent.resilience.guards["meta"]


async def test_three_failed_reads_open_the_circuit_and_then_nothing_is_sent_res_01(tmp_path: Path) -> None:
    async with running(tmp_path, META, resilience=NO_RETRY) as rig:
        rig.vendors["meta"].fault = "500"
        for _ in range(3):
            with pytest.raises(Temporary, match="500"):
                await ask(rig)
        with pytest.raises(Temporary, match="nothing is sent to it") as held:
            await ask(rig)
        assert not isinstance(held.value, RateLimited)
        assert len(rig.vendors["meta"].asked) == 3
        rig.vendors["meta"].fault = ""
        assert await write(rig, intent(1, 0)), "the circuit of changes is another one"
        found = await rig.connector("meta")
        assert "reads failed 3 times in a row and are given up for now" in found["status_text"]
        assert found["calls"]["circuit_open"] == 1


async def test_after_its_time_probes_decide_res_02(tmp_path: Path) -> None:
    async with running(tmp_path, META, resilience=NO_RETRY) as rig:
        rig.vendors["meta"].fault = "500"
        for _ in range(3):
            with pytest.raises(Temporary):
                await ask(rig)
        rig.clock.ahead = 33_100_000  # the jitter adds a tenth at most
        rig.vendors["meta"].fault = ""
        await ask(rig)
        assert (await rig.connector("meta"))["circuit"]["state"] == "half_open"
        await ask(rig)
        assert (await rig.connector("meta"))["circuit"]["state"] == "closed"


async def test_a_write_before_an_open_circuit_was_certainly_not_sent_but_a_stop_goes_out(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        rig.vendors["meta"].fault = "500"
        for _ in range(3):
            with pytest.raises(UnknownOutcome):
                await write(rig, intent(1, 0))
        sent = len(rig.vendors["meta"].asked)
        with pytest.raises(Rejected) as refused:
            await write(rig, intent(1, 0))
        assert refused.value.reason == "CIRCUIT_OPEN"
        assert len(rig.vendors["meta"].asked) == sent
        bid = await rig.bid("meta", 1)
        assert (bid["reason"], bid["platform_reason"], bid["circuit_state"]) == (
            "PLATFORM_ERROR",
            "CIRCUIT_OPEN",
            "open",
        )
        rig.vendors["meta"].fault = ""
        assert await write(rig, intent(0, 1)), "a stop of spending is sent all the same"
        assert guard_of(rig).breakers["write"].state is Circuit.OPEN


async def test_a_slow_success_counts_as_a_failure_and_a_refusal_does_not(tmp_path: Path) -> None:
    slow: Tables = {"meta": {"circuit": {"slow_call_ms": 1, "failure_threshold": 2}}}
    async with running(tmp_path, slow) as rig:
        rig.vendors["meta"].delay_s = 0.01
        for _ in range(2):
            assert (await rig.bid("meta", 1))["status"] == "ACCEPTED"
        assert (await rig.connector("meta"))["circuit"]["write"] == "open"
    async with running(tmp_path / "other", META) as rig:
        rig.vendors["meta"].fault = "422"
        for _ in range(6):
            with pytest.raises(Rejected):
                await write(rig, intent(1, 0))
        assert (await rig.connector("meta"))["circuit"]["write"] == "closed"


async def test_a_failed_read_is_asked_again_and_a_change_never(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        vendor = rig.vendors["meta"]
        vendor.fault = "500"
        with pytest.raises(Temporary):
            await ask(rig)
        assert vendor.asked == ["capabilities"] * 3
        assert guard_of(rig).breakers["read"].failures == 1, "a call counts once, however often it was tried"
        with pytest.raises(UnknownOutcome):
            await write(rig, intent(1, 0))
        assert vendor.asked.count("set_status") == 1
        assert (await rig.connector("meta"))["calls"]["retries"] == 2


async def test_a_read_that_works_the_second_time_is_a_success(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        vendor = rig.vendors["meta"]
        vendor.fault = "reset"
        asked = asyncio.create_task(ask(rig))
        while not vendor.asked:  # noqa: ASYNC110 - the vendor's side tells nobody
            await asyncio.sleep(0.001)
        vendor.fault = ""
        assert getattr(await asked, "api_version") == "v7"  # noqa: B009
        assert guard_of(rig).breakers["read"].failures == 0


async def test_a_vendor_that_asks_for_patience_is_left_alone_until_then(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        vendor = rig.vendors["meta"]
        vendor.fault, vendor.retry_after = "429", "40"
        with pytest.raises(RateLimited, match="429"):
            await ask(rig)
        vendor.fault = ""
        with pytest.raises(RateLimited, match="nothing was sent"):
            await ask(rig)
        assert len(vendor.asked) == 1
        rig.clock.ahead = 41_000_000
        await ask(rig)
        assert guard_of(rig).breakers["read"].failures == 0, "a wish for patience is no failure"


@pytest.mark.parametrize("after", ["0", "soon", "", "Sat, 21 Nov 2020 10:00:00 GMT", "1" + "0" * 30 + "x"])
async def test_a_vendor_that_names_no_time_is_not_asked_again_at_once(tmp_path: Path, after: str) -> None:
    async with running(tmp_path, META) as rig:
        vendor = rig.vendors["meta"]
        vendor.fault, vendor.retry_after = "429", after
        for seconds, asked in ((0, 1), (0.5, 1), (1, 2), (2.5, 2), (3.5, 3)):
            rig.clock.ahead = round(seconds * 1_000_000)
            with pytest.raises(RateLimited):
                await ask(rig)
            assert len(vendor.asked) == asked


async def test_a_clock_put_back_holds_no_call_for_longer(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        vendor = rig.vendors["meta"]
        await ask(rig)
        rig.clock.ahead = -3_600_000_000
        await ask(rig)
        vendor.fault, vendor.retry_after = "429", "40"
        with pytest.raises(RateLimited):
            await ask(rig)
        vendor.fault = ""
        rig.clock.ahead -= 3_600_000_000
        with pytest.raises(RateLimited, match="nothing was sent"):
            await ask(rig)
        rig.clock.ahead += 41_000_000
        await ask(rig)


async def test_nine_tenths_of_a_quota_the_vendor_counts_are_told_once(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        told = rig.signals.subscribe(("quota",))
        for usage in (0.5, 0.91, 0.92, 0.93):
            guard_of(rig).hints.take(rig.clock.now(), usage, None)
            await write(rig, intent(1, 0))
        assert [each.data for each in told.drain()] == [{"connector": "meta", "usage": 0.91}]


async def test_usage_the_vendor_tells_of_slows_reads_and_stops_them_near_the_end(tmp_path: Path) -> None:
    async with running(tmp_path, META) as rig:
        guard = guard_of(rig)
        await ask(rig)
        guard.hints.take(rig.clock.now(), 0.7, None)
        await ask(rig)
        guard.hints.take(rig.clock.now(), 0.9, None)
        with pytest.raises(RateLimited):
            await ask(rig)
        assert await write(rig, intent(1, 0)), "changes go on"
        rig.clock.ahead = 60_000_000
        await ask(rig)
        guard.hints.take(rig.clock.now(), 1.0, None)
        with pytest.raises(RateLimited):
            await write(rig, intent(1, 0))
        assert await write(rig, intent(0, 1)), "a stop of spending is tried even then"


async def test_reads_are_spaced_out_and_leave_room_for_changes_and_stops(tmp_path: Path) -> None:
    table: Tables = {"meta": {"rate_limit": {"calls": 40, "window_s": 60}}}
    async with running(tmp_path, table) as rig:
        done = 0
        for _ in range(60):
            try:
                await ask(rig)
                done += 1
            except RateLimited:
                break
        assert done == 19, "half of the 36 that reads may use go at once, and one more"
        for second in range(1, 61):
            rig.clock.ahead = second * 1_000_000
            try:
                await ask(rig)
                done += 1
            except RateLimited:
                continue
        assert 25 <= done <= 36
        limiter = guard_of(rig).limiter
        assert limiter is not None
        assert limiter.used(rig.clock.now()) <= 36
        assert await write(rig, intent(1, 0))


async def test_a_batch_that_ends_in_the_middle_is_not_called_unsent(tmp_path: Path) -> None:
    table: Tables = {"meta": {"rate_limit": {"calls": 5, "window_s": 60}}}
    async with running(tmp_path, table) as rig:
        many = [intent(1, 0, key=f"k{index}") for index in range(8)]
        with pytest.raises(UnknownOutcome) as unknown:
            await write(rig, *many)
        assert unknown.value.keys == tuple(f"k{index}" for index in range(8))
        assert len(rig.vendors["meta"].asked) == 5
        with pytest.raises(RateLimited):
            await write(rig, *many)
        assert len(rig.vendors["meta"].asked) == 5


async def test_a_plugin_that_calls_it_unsent_is_understood(tmp_path: Path) -> None:
    table: Tables = {"meta": {"plugin": "vendor_wrapping", "rate_limit": {"calls": 1, "window_s": 60}}}
    async with running(tmp_path, table) as rig:
        both = await asyncio.gather(write(rig, intent(1, 0)), write(rig, intent(1, 0)), return_exceptions=True)
        assert [type(each).__name__ for each in both] == ["list", "Held"], "both were let in before either was sent"
        assert isinstance(both[1], RateLimited)
        assert len(rig.vendors["meta"].asked) == 1


async def test_a_call_that_never_began_says_nothing_about_the_vendor(tmp_path: Path) -> None:
    async with running(tmp_path, META, resilience=NO_RETRY) as rig:
        vendor, caller = rig.vendors["meta"], rig.agent.plugins.caller
        vendor.fault = "hang"
        hanging = [asyncio.create_task(ask(rig)) for _ in range(MAX_RUNNING)]
        await asyncio.sleep(0)
        for _ in range(5):
            with pytest.raises(Temporary, match="nothing was sent"):
                await caller.to("meta", "fetch_campaigns", deadline_s=0.01)
        assert guard_of(rig).breakers["read"].failures == 0
        vendor.released.set()
        await asyncio.gather(*hanging)
        assert guard_of(rig).breakers["read"].failures == 0


async def test_the_outbox_records_what_was_held_back_as_rejected(tmp_path: Path) -> None:
    table: Tables = {"meta": {"rate_limit": {"calls": 1, "window_s": 60}}}
    async with running(tmp_path, table) as rig:
        now = rig.clock.now()
        made = [
            Intent(f"key-{index}", IntentKind.PLACE_BID, "meta", "c1", 0, 2, "USD", "TEST", now) for index in range(2)
        ]
        first: list[Receipt] = await rig.agent.outbox.send(now, "meta", IntentKind.PLACE_BID, made[:1])
        second = await rig.agent.outbox.send(now, "meta", IntentKind.PLACE_BID, made[1:])
        assert [(each.outcome.value, each.reason) for each in first] == [("accepted", "")]
        assert [(each.outcome.value, each.reason) for each in second] == [("rejected", "RATE_LIMITED")]
        assert rig.agent.outbox.unsettled_count == 0
        assert rig.agent.patience.until("meta", now) > now


async def test_bids_fall_back_to_the_median_while_a_circuit_is_open_res_03(tmp_path: Path) -> None:
    async with running(tmp_path, {"tiktok": {}, "meta": {}}, resilience=NO_RETRY) as rig:
        agent = rig.agent
        agent.value._history = [100_000_000, 300_000_000, 200_000_000]
        for poller in agent.pollers:
            await poller.tick(rig.clock.now())
        rig.vendors["tiktok"].fault = "500"
        rescue = agent.resilience
        assert rescue.fallback("tiktok", "tiktok") is None
        for _ in range(3):
            with pytest.raises(Temporary):
                await agent.plugins.caller.to("tiktok", "capabilities")
        found = rescue.fallback("tiktok", "tiktok")
        assert found is not None
        assert found[:2] == (300_000_000, DecisionSource.FALLBACK)
        assert rescue.fallback("meta", "meta") is None, "the others go on with what is predicted"
        await agent.flow.bidder.tick(rig.clock.now())
        await agent.store.drain()
        listed = await (await rig.client.get("/api/v1/decisions?platform=tiktok")).json()
        assert {(each["source"], each["predicted_ltv"]) for each in listed["items"]} == {("fallback", 300.0)}
        assert (await rig.connector("tiktok"))["circuit"]["fallbacks"] == 1
        text = await (await rig.client.get("/metrics")).text()
        assert 'syncflow_fallback_total{platform="tiktok"} 1.0' in text
        assert 'syncflow_circuit_breaker_transitions_total{platform="tiktok"} 1.0' in text


@pytest.mark.parametrize("fault", ["hang", "500", "garbage", "reset", "429"])
async def test_others_tick_on_beside_a_platform_that_fails_m14(tmp_path: Path, fault: str) -> None:
    """Counted in ticks: while one connector is under its fault the others do all of theirs."""
    tables: Tables = {name: {"timeout_s": 5} for name in ("meta", "tiktok", "linkedin")}
    async with running(tmp_path, tables) as rig:
        agent = rig.agent
        rig.vendors["meta"].fault = fault
        pollers = {poller.connector: poller for poller in agent.pollers}
        ticks: dict[str, int] = dict.fromkeys(pollers, 0)

        async def drive(name: str) -> None:
            while ticks[name] < 20:
                try:
                    await pollers[name].tick(rig.clock.now())
                except PluginError:
                    assert name == "meta"
                ticks[name] += 1
                await asyncio.sleep(0)

        driven = {name: asyncio.create_task(drive(name)) for name in pollers}
        others = [task for name, task in driven.items() if name != "meta"]
        await asyncio.wait_for(asyncio.gather(*others), 60)
        assert [ticks["tiktok"], ticks["linkedin"]] == [20, 20]
        if fault == "hang":
            assert ticks["meta"] == 0, "its first call still waits, and nobody else does"
        assert rig.vendors["tiktok"].asked == rig.vendors["linkedin"].asked
        assert len(rig.vendors["tiktok"].asked) >= 20
        for name in ("tiktok", "linkedin"):
            found = await rig.connector(name)
            assert (found["circuit"]["state"], found["connected"], found["api_version"]) == ("closed", True, "v7")
        rig.vendors["meta"].released.set()
        driven["meta"].cancel()


async def test_under_the_live_driver_the_loops_of_others_keep_their_rhythm_m14(tmp_path: Path) -> None:
    """A platform that never answers holds up its own loop; that of each other one, and the bidding, tick on."""
    tables: Tables = {name: {"timeout_s": 30} for name in ("meta", "tiktok", "linkedin")}
    often = {"interval_s": 0.1, "deadline_s": 0.1, "poll_interval_s": 0.1}
    async with running(tmp_path, tables, bidding=often) as rig:
        rig.vendors["meta"].fault = "hang"
        health, driver = rig.agent.supervisor.health, LiveDriver()
        driven = asyncio.create_task(driver.run(rig.agent.supervisor, rig.clock))
        others = ("poll:tiktok", "poll:linkedin", "bidding")
        while min(health[name].ticks for name in others) < 15:  # noqa: ASYNC110 - loops tell nobody that they ticked
            await asyncio.sleep(0.01)
        assert (health["poll:meta"].ticks, health["poll:meta"].last_success) == (1, None)
        assert rig.vendors["meta"].asked == ["capabilities"], "its first call is still under way"
        assert [health[name].failures for name in others] == [0, 0, 0]
        rig.vendors["meta"].released.set()
        await driver.stop(5)
        await driven
