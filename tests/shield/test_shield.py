"""Levels under leases, switches that survive, reports that are always booked, and no for everything that breaks."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kiki_agent.errors import StoreError
from kiki_agent.model import DAY, MINUTE, Instant, SpendReport, SpendRow, local_day
from kiki_agent.shield import LevelAnswer, LevelReason, LevelRequest, Shield
from tests.shield.conftest import NOON, SECOND, UNIT, House, Opens, caps, refused, settings


def later(span: int) -> Instant:
    return Instant(NOON + span)


def request(
    connector: Sequence[int] = (0,),
    *,
    wanted: int = UNIT,
    budget: int = 10_000 * UNIT,
    rate: int = UNIT // 100,
    age: int = 0,
    **columns: Any,
) -> LevelRequest:
    """One row per connector index; a cent a second for a minute is 0.60, less than one click of 1.00."""
    n = len(connector)
    defaults = {
        "wanted_bid": wanted,
        "min_bid": 10_000,
        "daily_budget": budget,
        "spend_today": 0,
        "spend_rate": rate,
        "data_age": age,
        "active": 1,
    } | columns
    made = {
        name: np.full(n, value, dtype=np.uint8 if name == "active" else np.int64) for name, value in defaults.items()
    }
    return LevelRequest(connector=np.array(connector, dtype=np.int64), **made)


def spend(at: int, day: str | None = None, **campaigns: int) -> SpendReport:
    day = day or local_day(at, "UTC")
    return SpendReport(tuple(SpendRow(name, day, micros) for name, micros in campaigns.items()), Instant(at))


def reasons(answer: LevelAnswer) -> list[str]:
    return [LevelReason(code).name for code in answer.reason.tolist()]


async def commits(house: House) -> int:
    await house.store.drain()
    return house.store.commits


async def test_levels_stand_and_their_exposures_are_renewed_and_never_added(opens: Opens) -> None:
    async with opens() as house:
        for tick in range(50):
            answer = await house.shield.permit_levels(later(2 * SECOND * tick), request([0] * 20))
            assert answer.bid_micros.tolist() == [UNIT] * 20
            assert answer.exposure_micros.tolist() == [UNIT] * 20
            assert set(reasons(answer)) == {"PERMITTED"}
            assert house.shield.status("meta", NOON).exposure_micros == 20 * UNIT


async def test_a_tick_that_needs_no_lease_neither_writes_nor_waits(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.permit_levels(NOON, request([0] * 20))
        before = await commits(house)
        for tick in range(1, 1_000):
            ticking = house.shield.permit_levels(later(2 * SECOND * tick), request([0] * 20))
            with pytest.raises(StopIteration):
                ticking.send(None)
        assert await commits(house) == before
        assert await house.rows("SELECT count(*) FROM ledger_entries WHERE kind = 'lease'") == [(1,)]


async def test_a_day_of_spending_needs_some_seventeen_leases(opens: Opens) -> None:
    async with opens({"meta": caps(daily=1_600, window=None)}) as house:
        for minute in range(160):
            now = later(minute * MINUTE)
            await house.shield.book("meta", spend(now, c1=minute * 10 * UNIT), now)
            await house.shield.permit_levels(now, request([0] * 5))
        ((leases, highest),) = await house.rows(
            "SELECT count(*), max(json_extract(body, '$.lease_micros')) FROM ledger_entries WHERE kind = 'lease'"
        )
        assert 10 <= leases <= 17
        assert highest <= 1_600 * UNIT


async def test_spent_and_exposed_never_pass_the_cap(opens: Opens) -> None:
    async with opens({"meta": caps(daily=100, window=None), "google": caps(daily=50, window=None)}) as house:
        spent = [0, 0]
        seen = set()
        for minute in range(120):
            now = later(minute * MINUTE)
            answer = await house.shield.permit_levels(now, request([0] * 6 + [1] * 6, rate=UNIT // 60))
            for k, (name, cap) in enumerate((("meta", 100), ("google", 50))):
                exposed = int(answer.exposure_micros[6 * k : 6 * k + 6].sum())
                stats = house.shield.status(name, now)
                assert stats.exposure_micros == exposed
                assert spent[k] + exposed <= cap * UNIT
                spent[k] += exposed  # the platform uses all it may
                await house.shield.book(name, spend(now, c1=spent[k]), now)
                assert house.shield.status(name, now).overshoot_micros == 0
            seen.update(reasons(answer))
        assert spent[0] > 99 * UNIT
        assert {"PERMITTED", "DAILY_CAP"} <= seen


async def test_levels_leave_no_room_to_placed_bids_and_placed_bids_none_to_levels(opens: Opens) -> None:
    async with opens({"meta": caps(daily=100, window=None)}) as house:
        await house.shield.permit_levels(NOON, request([0] * 60))
        assert await refused(house.shield.place("meta", "c1", 40 * UNIT + 1, NOON)) == "BUDGET_EXCEEDED"
        await house.shield.place("meta", "c1", 40 * UNIT, NOON)
        answer = await house.shield.permit_levels(NOON, request([0] * 80))
        assert int(answer.exposure_micros.sum()) == 60 * UNIT
        assert set(reasons(answer)) == {"DAILY_CAP"}
        assert answer.bid_micros.tolist() == [UNIT * 12 // 16] * 80


async def test_the_window_lowers_levels_too_and_frees_them_again(opens: Opens) -> None:
    async with opens({"meta": caps(daily=10_000, window=100)}) as house:
        await house.shield.book("meta", spend(NOON - MINUTE, c1=0), NOON)
        await house.shield.book("meta", spend(NOON, c1=90 * UNIT), NOON)
        answer = await house.shield.permit_levels(NOON, request([0] * 40))
        assert set(reasons(answer)) == {"WINDOW_CAP"}
        assert int(answer.exposure_micros.sum()) == 40 * UNIT * 4 // 16
        answer = await house.shield.permit_levels(later(10 * MINUTE), request([0] * 40))
        assert set(reasons(answer)) == {"PERMITTED"}


async def test_overshoot_is_booked_and_then_nothing_is_permitted_until_the_next_day(opens: Opens) -> None:
    async with opens({"meta": caps(daily=100, window=None)}) as house:
        await house.shield.permit_levels(NOON, request())
        await house.shield.book("meta", spend(NOON, c1=175 * UNIT), NOON)
        stats = house.shield.status("meta", NOON)
        assert (stats.spent_today_micros, stats.overshoot_micros) == (175 * UNIT, 75 * UNIT)
        answer = await house.shield.permit_levels(later(SECOND), request([0, 0]))
        assert (answer.bid_micros.tolist(), reasons(answer)) == ([0, 0], ["OVERSHOOT"] * 2)
        assert await refused(house.shield.place("meta", "c1", 1, later(SECOND))) == "OVERSHOOT"
        assert reasons(await house.shield.permit_levels(later(DAY), request())) == ["PERMITTED"]
        booked = await house.rows(
            "SELECT json_extract(body, '$.overshoot_micros') FROM ledger_entries WHERE kind = 'spend' ORDER BY seq"
        )
        assert (75 * UNIT,) in booked


async def test_a_lowered_cap_binds_at_once_and_a_raised_one_frees(opens: Opens) -> None:
    async with opens({"meta": caps(daily=100, window=None)}) as house:
        await house.shield.permit_levels(NOON, request([0] * 80))
        await house.shield.set_caps("meta", caps(daily=40, window=None), NOON)
        answer = await house.shield.permit_levels(NOON, request([0] * 80))
        assert int(answer.exposure_micros.sum()) == 40 * UNIT
        assert await refused(house.shield.place("meta", "c1", 1, NOON)) == "BUDGET_EXCEEDED"
        await house.shield.set_caps("meta", caps(daily=200, window=None), NOON)
        assert set(reasons(await house.shield.permit_levels(NOON, request([0] * 80)))) == {"PERMITTED"}
        await house.shield.set_caps("meta", caps(daily=None, window=None), NOON)
        assert set(reasons(await house.shield.permit_levels(NOON, request([0] * 80)))) == {"NO_CAP"}


async def test_after_a_crash_the_rest_of_the_lease_counts_as_spent_until_a_report(opens: Opens) -> None:
    async with opens({"meta": caps(daily=160, window=None)}) as house:
        await house.shield.book("meta", spend(NOON, c1=20 * UNIT), NOON)
        await house.shield.permit_levels(NOON, request([0] * 30))
        assert house.shield.status("meta", NOON).lease_micros == 60 * UNIT
    async with opens({"meta": caps(daily=160, window=None)}, now=later(MINUTE)) as house:
        stats = house.shield.status("meta", later(MINUTE))
        assert (stats.spent_today_micros, stats.presumed_micros) == (60 * UNIT, 40 * UNIT)
        answer = await house.shield.permit_levels(later(MINUTE), request([0] * 200))
        assert int(answer.exposure_micros.sum()) <= 100 * UNIT
        await house.shield.book("meta", spend(NOON + MINUTE, c1=25 * UNIT), later(MINUTE))
        stats = house.shield.status("meta", later(MINUTE))
        assert (stats.spent_today_micros, stats.presumed_micros) == (25 * UNIT, 0)


async def test_after_an_orderly_end_only_the_exposures_are_presumed(opens: Opens) -> None:
    async with opens({"meta": caps(daily=160, window=None)}) as house:
        await house.shield.book("meta", spend(NOON, c1=20 * UNIT), NOON)
        await house.shield.permit_levels(NOON, request([0] * 30))
        await house.shield.book("meta", spend(NOON + MINUTE, c1=30 * UNIT), later(MINUTE))
        await house.shield.close(later(MINUTE))
    async with opens({"meta": caps(daily=160, window=None)}, now=later(MINUTE)) as house:
        stats = house.shield.status("meta", later(MINUTE))
        assert (stats.spent_today_micros, stats.presumed_micros) == (50 * UNIT, 20 * UNIT)


async def test_crash_after_crash_permits_no_more_than_the_cap_in_all(opens: Opens) -> None:
    connectors = {"meta": caps(daily=100, window=None)}
    spent = 0
    for crash in range(12):
        now = later(crash * MINUTE)
        async with opens(connectors, now=now) as house:
            if crash % 4 == 3:
                await house.shield.book("meta", spend(now, c1=spent), now)
            answer = await house.shield.permit_levels(now, request([0] * 10))
            spent += int(answer.exposure_micros.sum())  # all of it is used and nothing of it is reported
    assert 50 * UNIT < spent <= 100 * UNIT


async def test_reports_are_rebuilt_with_their_window_and_counted_once(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.book("meta", spend(NOON, c1=0), NOON)
        await house.shield.book("meta", spend(NOON + MINUTE, c1=30 * UNIT, c2=5 * UNIT), later(MINUTE))
        await house.shield.close(later(MINUTE))
    async with opens(now=later(2 * MINUTE)) as house:
        await house.shield.book("meta", spend(NOON + 2 * MINUTE, c1=31 * UNIT, c2=5 * UNIT), later(2 * MINUTE))
        stats = house.shield.status("meta", later(2 * MINUTE))
        assert (stats.spent_today_micros, stats.current_spend_micros) == (36 * UNIT, 36 * UNIT)
        assert stats.oldest_record == NOON + MINUTE


async def test_the_stored_day_outlives_a_restart_on_an_earlier_clock(opens: Opens) -> None:
    async with opens({"meta": caps(daily=100, window=None)}, now=later(DAY)) as house:
        permit = await house.shield.place("meta", "c1", 100 * UNIT, later(DAY))
        await house.shield.commit(permit, later(DAY))
    for back in (MINUTE, DAY, 366 * DAY):
        async with opens({"meta": caps(daily=100, window=None)}, now=later(DAY - back)) as house:
            assert house.shield.status("meta", later(DAY - back)).day == "2026-03-11"
            assert await refused(house.shield.place("meta", "c1", 1, later(DAY - back))) == "BUDGET_EXCEEDED"


async def test_the_kill_switch_survives_a_restart_and_blocks_every_bid(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.permit_levels(NOON, request())
        await house.shield.kill(True, "fire drill", NOON)
        await house.shield.kill(True, "again", NOON)
        assert reasons(await house.shield.permit_levels(NOON, request([0, 0]))) == ["KILL_SWITCH"] * 2
        assert house.shield.status("meta", NOON).exposure_micros == 0
        assert ("shield", {"kill_switch": True, "reason": "fire drill", "at": NOON}) in house.events
    async with opens(now=later(MINUTE)) as house:
        assert (house.shield.killed, house.shield.kill_reason) == (True, "fire drill")
        assert await refused(house.shield.place("meta", "c1", 1, later(MINUTE))) == "KILL_SWITCH"
        await house.shield.kill(False, "drill over", later(MINUTE))
        assert reasons(await house.shield.permit_levels(later(MINUTE), request())) == ["PERMITTED"]
    async with opens(now=later(MINUTE)) as house:
        assert not house.shield.killed
        entries = await house.rows("SELECT count(*) FROM ledger_entries WHERE kind = 'control'")
        assert entries == [(2,)]


async def test_a_kill_switch_that_cannot_be_written_is_on_all_the_same(opens: Opens) -> None:
    async with opens() as house:
        house.store.before_commit.append(_full)
        with pytest.raises(StoreError):
            await house.shield.kill(True, "stop", NOON)
        assert house.shield.killed
        with pytest.raises(StoreError):
            await house.shield.kill(False, "go", NOON)
        assert house.shield.killed
        house.store.before_commit.remove(_full)


async def test_in_safe_hold_nothing_is_permitted(opens: Opens) -> None:
    async with opens() as house:
        house.shield.hold("the ledger is damaged")
        assert house.shield.hold_reason == "the ledger is damaged"
        assert reasons(await house.shield.permit_levels(NOON, request())) == ["SAFE_HOLD"]
        assert await refused(house.shield.place("meta", "c1", 1, NOON)) == "SAFE_HOLD"
        house.shield.hold(None)
        assert reasons(await house.shield.permit_levels(NOON, request())) == ["PERMITTED"]
        house.ledger.hold_reason = "the known head is missing"
        assert reasons(await house.shield.permit_levels(NOON, request())) == ["SAFE_HOLD"]


def _full(connection: sqlite3.Connection) -> None:
    raise StoreError("the disk is full")


async def test_without_a_durable_lease_no_level_stands_and_a_cured_disk_is_noticed(opens: Opens) -> None:
    async with opens({"meta": caps(), "google": caps()}) as house:
        await house.shield.permit_levels(NOON, request([0]))
        house.store.before_commit.append(_full)
        answer = await house.shield.permit_levels(NOON, request([0, 1, 1]))
        assert reasons(answer) == ["PERMITTED", "NO_LEASE", "NO_LEASE"]
        assert (answer.bid_micros.tolist(), answer.exposure_micros.tolist()) == ([UNIT, 0, 0], [UNIT, 0, 0])
        assert house.shield.status("google", NOON).exposure_micros == 0
        assert reasons(await house.shield.permit_levels(NOON, request([0, 1]))) == ["SAFE_HOLD"] * 2
        house.store.before_commit.remove(_full)
        await house.store.drain()
        await house.shield.permit_levels(NOON, request([0, 1]))
        await house.store.drain()
        assert reasons(await house.shield.permit_levels(NOON, request([0, 1]))) == ["PERMITTED"] * 2


async def test_reports_that_could_not_be_written_are_written_later(opens: Opens) -> None:
    async with opens() as house:
        house.store.before_commit.append(_full)
        await house.shield.book("meta", spend(NOON, c1=0, c2=7 * UNIT), NOON)
        await house.store.drain()
        house.store.before_commit.remove(_full)
        await house.shield.book("meta", spend(NOON + MINUTE, c1=9 * UNIT), later(MINUTE))
        rows = await house.rows("SELECT campaign_id, spend_micros FROM reported_spend ORDER BY 1")
        assert rows == [("c1", 9 * UNIT), ("c2", 7 * UNIT)]


async def test_a_check_that_breaks_says_no(opens: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opens() as house:
        await house.shield.permit_levels(NOON, request())
        wrong = request()
        object.__setattr__(wrong, "min_bid", np.zeros(5, dtype=np.int64))
        answer = await house.shield.permit_levels(NOON, wrong)
        assert (reasons(answer), answer.bid_micros.tolist()) == (["CHECK_FAILED"], [0])
        assert house.shield.status("meta", NOON).exposure_micros == 0
        monkeypatch.setattr("kiki_agent.shield.book.Book.shortage", _break)
        assert await refused(house.shield.place("meta", "c1", 1, NOON)) == "CHECK_FAILED"


def _break(*args: object) -> str:
    raise ZeroDivisionError


async def test_columns_of_any_layout_are_taken(opens: Opens) -> None:
    async with opens() as house:
        wide = request([0] * 10)
        object.__setattr__(wide, "wanted_bid", np.full(20, UNIT, dtype=np.int64)[::2])
        assert set(reasons(await house.shield.permit_levels(NOON, wide))) == {"PERMITTED"}
        assert reasons(await house.shield.permit_levels(NOON, request([]))) == []


async def test_thresholds_are_told_once_a_day(opens: Opens) -> None:
    async with opens({"meta": caps(daily=100, window=None)}) as house:
        for step, total in enumerate((50, 79, 80, 85, 95, 99, 101, 102)):
            now = later(step * MINUTE)
            await house.shield.book("meta", spend(now, c1=total * UNIT), now)
        day = [data["level"] for topic, data in house.events if topic == "budget" and data["scope"] == "day"]
        assert day == ["warning", "critical", "overshoot"]
        first = [data["fact"] for _, data in house.events if data["scope"] == "day"]
    async with opens({"meta": caps(daily=100, window=None)}, now=later(10 * MINUTE)) as house:
        for micros in (103 * UNIT, 104 * UNIT):
            await house.shield.book("meta", spend(NOON + 10 * MINUTE, c1=micros), later(10 * MINUTE))
        again = [data["fact"] for _, data in house.events if data["scope"] == "day"]
        assert again == [first[-1]], "the same fact by its name, in case the process ended before it was written down"
        await house.shield.book("meta", spend(later(DAY), c1=81 * UNIT), later(DAY))
        (fact,) = [data["fact"] for _, data in house.events if data["scope"] == "day"][1:]
        assert fact not in first, "a new day is told of anew"


async def test_a_cap_that_is_raised_is_told_of_anew(opens: Opens) -> None:
    async with opens({"meta": caps(daily=100, window=None)}) as house:
        await house.shield.book("meta", spend(NOON, c1=96 * UNIT), NOON)
        await house.shield.set_caps("meta", caps(daily=200, window=None), NOON)
        for total in (150, 161, 191):
            await house.shield.book("meta", spend(NOON + total, c1=total * UNIT), later(total))
        told = [(data["level"], data["limit_micros"]) for _, data in house.events if data["scope"] == "day"]
        assert told == [("critical", 100 * UNIT), ("warning", 200 * UNIT), ("critical", 200 * UNIT)]
        assert len({data["fact"] for _, data in house.events if data["scope"] == "day"}) == 3


async def test_a_window_that_is_lowered_is_told_of_at_once_and_once_over_restarts(opens: Opens) -> None:
    async with opens({"meta": caps(window=100)}) as house:
        permit = await house.shield.place("meta", "c1", 50 * UNIT, NOON)
        await house.shield.commit(permit, NOON)
        assert [data for _, data in house.events] == []
        await house.shield.set_caps("meta", caps(window=52), NOON)
        told = [(data["scope"], data["level"]) for _, data in house.events]
        assert told == [("window", "critical")]
    for minute in (1, 2):
        async with opens({"meta": caps(window=52)}, now=later(minute * MINUTE)) as house:
            await house.shield.book("meta", spend(NOON + MINUTE, c1=0), later(minute * MINUTE))
            assert [data for _, data in house.events] == []
    async with opens({"meta": caps(window=52)}, now=later(11 * MINUTE)) as house:
        for minute in (11, 12):
            permit = await house.shield.place("meta", "c1", 22 * UNIT, later(minute * MINUTE))
            await house.shield.commit(permit, later(minute * MINUTE))
        assert [data["level"] for _, data in house.events if data["scope"] == "window"] == ["warning"]


async def test_a_window_warns_again_only_after_it_has_been_clearly_below(opens: Opens) -> None:
    async with opens({"meta": caps(daily=10_000, window=100)}) as house:
        for step in range(30):
            now = later(step * MINUTE)
            permit = await house.shield.place("meta", "c1", 9 * UNIT, now)
            await house.shield.commit(permit, now)
        told = [data["level"] for _, data in house.events if data["scope"] == "window"]
        assert told == ["warning"]


async def test_a_listener_that_raises_changes_nothing(opens: Opens, capsys: pytest.CaptureFixture[str]) -> None:
    async with opens({"meta": caps(daily=100, window=None)}) as house:

        def raises(topic: str, data: object) -> None:
            raise RuntimeError("deaf")

        deaf = await Shield.open(
            house.store, house.ledger, settings(), {"meta": caps(daily=100, window=None)}, NOON, on_event=raises
        )
        await deaf.book("meta", spend(NOON, c1=101 * UNIT), NOON)
        assert deaf.status("meta", NOON).overshoot_micros == UNIT
        assert "deaf" in capsys.readouterr().err


async def test_unknown_connectors_are_denied(opens: Opens) -> None:
    async with opens() as house:
        assert await refused(house.shield.book("nobody", spend(NOON), NOON)) == "UNKNOWN_CONNECTOR"
        assert house.shield.connectors == ("meta",)


async def test_a_bid_placed_while_a_lease_is_written_does_not_undo_it(opens: Opens) -> None:
    async with opens() as house:
        ticking = asyncio.ensure_future(house.shield.permit_levels(NOON, request([0] * 20)))
        await asyncio.sleep(0)
        await house.shield.place("meta", "c1", UNIT, NOON)
        await ticking
        lease = house.shield.status("meta", NOON).lease_micros
        assert lease > 0
        assert await house.rows("SELECT lease_micros FROM spend_days") == [(lease,)]
