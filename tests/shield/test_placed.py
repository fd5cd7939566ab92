"""Placed permits: nothing passes a cap, whoever tries at once, and nothing stays reserved by accident."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from kiki_agent.errors import Denied, StoreError
from kiki_agent.model import DAY, Instant
from kiki_agent.shield import Permit, Shield
from tests.shield.conftest import NOON, SECOND, UNIT, Opens, caps, refused

WINDOW = 600 * SECOND


def later(span: int) -> Instant:
    return Instant(NOON + span)


@pytest.mark.parametrize("delay_ms", [0, 5, 50])
async def test_of_100_tries_of_15_against_1000_exactly_66_are_permitted(opens: Opens, delay_ms: int) -> None:
    async with opens() as house:

        async def bid() -> str:
            try:
                permit = await house.shield.place("meta", "c1", 15 * UNIT, NOON)
            except Denied as denied:
                return denied.reason
            await asyncio.sleep(delay_ms / 1000)
            await house.shield.commit(permit, NOON)
            return "permitted"

        outcomes = await asyncio.gather(*(bid() for _ in range(100)))
        assert outcomes.count("permitted") == 66
        assert outcomes.count("BUDGET_EXCEEDED") == 34
        stats = house.shield.status("meta", NOON)
        assert (stats.current_spend_micros, stats.reserved_micros, stats.record_count) == (990 * UNIT, 0, 66)
        assert stats.remaining_micros == 10 * UNIT
        assert await house.rows("SELECT sum(amount_micros), count(*) FROM spend_window") == [(990 * UNIT, 66)]


async def test_failing_bids_give_their_amounts_back(opens: Opens) -> None:
    async with opens() as house:

        async def bid(number: int) -> bool:
            try:
                permit = await house.shield.place("meta", "c1", 100 * UNIT, NOON)
            except Denied:
                return False
            if number % 2:
                await house.shield.release(permit, NOON)
            else:
                await house.shield.commit(permit, NOON)
            return True

        for number in range(40):
            await bid(number)
        stats = house.shield.status("meta", NOON)
        assert (stats.current_spend_micros, stats.reserved_micros) == (1_000 * UNIT, 0)


async def test_an_amount_that_fits_exactly_is_permitted_and_one_micro_more_is_not(opens: Opens) -> None:
    async with opens() as house:
        assert await refused(house.shield.place("meta", "c1", 1_000 * UNIT + 1, NOON)) == "BUDGET_EXCEEDED"
        permit = await house.shield.place("meta", "c1", 1_000 * UNIT, NOON)
        assert await refused(house.shield.place("meta", "c1", 1, NOON)) == "BUDGET_EXCEEDED"
        await house.shield.commit(permit, NOON)
        assert await refused(house.shield.place("meta", "c1", 1, later(WINDOW - 1))) == "BUDGET_EXCEEDED"
        await house.shield.place("meta", "c1", 1_000 * UNIT, later(WINDOW))


async def test_the_day_holds_when_the_window_is_free_and_ends_at_midnight(opens: Opens) -> None:
    async with opens({"meta": caps(daily=1_500)}) as house:
        await house.shield.commit(await house.shield.place("meta", "c1", 1_000 * UNIT, NOON), NOON)
        assert await refused(house.shield.place("meta", "c1", 501 * UNIT, later(WINDOW))) == "BUDGET_EXCEEDED"
        permit = await house.shield.place("meta", "c1", 500 * UNIT, later(WINDOW))
        await house.shield.commit(permit, later(WINDOW))
        assert await refused(house.shield.place("meta", "c1", 1, later(DAY // 2 - 1))) == "BUDGET_EXCEEDED"
        await house.shield.place("meta", "c1", 1_000 * UNIT, later(DAY // 2))
        back = house.shield.place("meta", "c1", 1 * UNIT, NOON)
        assert await refused(back) == "OVERSHOOT", "a clock that jumped back finds all that was spent in its window"


async def test_what_a_bid_cost_is_booked_also_above_its_amount(opens: Opens) -> None:
    async with opens() as house:
        cheap = await house.shield.place("meta", "c1", 500 * UNIT, NOON)
        await house.shield.commit(cheap, NOON, spent_micros=100 * UNIT)
        assert house.shield.status("meta", NOON).current_spend_micros == 100 * UNIT
        dear = await house.shield.place("meta", "c1", 900 * UNIT, NOON)
        await house.shield.commit(dear, NOON, spent_micros=950 * UNIT)
        stats = house.shield.status("meta", NOON)
        assert (stats.current_spend_micros, stats.overshoot_micros) == (1_050 * UNIT, 50 * UNIT)
        assert await refused(house.shield.place("meta", "c1", 1, NOON)) == "OVERSHOOT"


async def test_a_permit_ends_once(opens: Opens) -> None:
    async with opens() as house:
        permit = await house.shield.place("meta", "c1", 10 * UNIT, NOON)
        await house.shield.commit(permit, NOON)
        assert await refused(house.shield.commit(permit, NOON)) == "CONFLICT"
        assert await refused(house.shield.release(permit, NOON)) == "CONFLICT"
        forged = replace(permit, reservation_id="0" * 32)
        assert await refused(house.shield.release(forged, NOON)) == "CONFLICT"
        assert house.shield.status("meta", NOON).current_spend_micros == 10 * UNIT


@pytest.mark.parametrize("basis", ["denied", "", "consent:", "personal", "not_personal "])
async def test_without_a_legal_basis_there_is_no_permit(opens: Opens, basis: str) -> None:
    async with opens() as house:
        assert await refused(house.shield.place("meta", "c1", UNIT, NOON, basis=basis)) == "CONSENT"
        assert await house.rows("SELECT count(*) FROM reservations") == [(0,)]


async def test_the_basis_stands_in_the_row_and_in_the_record(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.place("meta", "c1", UNIT, NOON, basis="consent:42")
        assert await house.rows("SELECT basis FROM reservations") == [("consent:42",)]
        bodies = await house.rows("SELECT body FROM ledger_entries WHERE kind = 'permit'")
        assert len(bodies) == 1
        assert '"basis":"consent:42"' in bodies[0][0]


@pytest.mark.parametrize("amount", [0, -1, 10**15 + 1, 1.5, float("nan"), True, "5"])
async def test_amounts_that_are_none_are_refused(opens: Opens, amount: int) -> None:
    async with opens() as house:
        assert await refused(house.shield.place("meta", "c1", amount, NOON)) == "BAD_INPUT"


async def test_without_a_cap_or_a_connector_nothing_is_permitted(opens: Opens) -> None:
    async with opens({"meta": caps(daily=None)}) as house:
        assert await refused(house.shield.place("meta", "c1", 1, NOON)) == "NO_CAP"
        assert await refused(house.shield.place("nobody", "c1", 1, NOON)) == "UNKNOWN_CONNECTOR"


async def test_a_bid_cancelled_while_it_waits_keeps_nothing(opens: Opens) -> None:
    async with opens() as house:
        bids = [asyncio.ensure_future(house.shield.place("meta", "c1", 10 * UNIT, NOON)) for _ in range(20)]
        await asyncio.sleep(0)
        for bid in bids[::2]:
            bid.cancel()
        permits = [each for each in await asyncio.gather(*bids, return_exceptions=True) if isinstance(each, Permit)]
        assert len(permits) == 10
        assert house.shield.status("meta", NOON).reserved_micros == 100 * UNIT
        rows = await house.rows("SELECT state, count(*) FROM reservations GROUP BY state ORDER BY state")
        assert rows == [("released", 10), ("reserved", 10)]


async def test_reservations_windows_and_days_are_rebuilt_after_a_crash(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.commit(await house.shield.place("meta", "c1", 300 * UNIT, NOON), NOON)
        kept = await house.shield.place("meta", "c1", 200 * UNIT, later(SECOND))
        before = house.shield.status("meta", later(SECOND))
    async with opens(now=later(2 * SECOND)) as house:
        assert house.shield.status("meta", later(SECOND)) == before
        assert await refused(house.shield.place("meta", "c1", 501 * UNIT, later(2 * SECOND))) == "BUDGET_EXCEEDED"
        fresh = await house.shield.place("meta", "c1", 500 * UNIT, later(2 * SECOND))
        assert fresh.reservation_id != kept.reservation_id
        await house.shield.commit(kept, later(3 * SECOND))
        assert house.shield.status("meta", later(3 * SECOND)).current_spend_micros == 500 * UNIT
    async with opens(now=later(WINDOW + SECOND)) as house:
        stats = house.shield.status("meta", later(WINDOW + SECOND))
        assert (stats.current_spend_micros, stats.spent_today_micros) == (200 * UNIT, 500 * UNIT)
        assert stats.reserved_micros == 500 * UNIT


async def test_a_crash_after_the_clock_jumped_back_loses_no_record(opens: Opens) -> None:
    async with opens() as house:
        for now in (NOON, later(-WINDOW)):
            await house.shield.commit(await house.shield.place("meta", "c1", UNIT, now), now)
    async with opens(now=later(-WINDOW)) as house:
        assert house.shield.status("meta", later(-WINDOW)).current_spend_micros == 2 * UNIT


async def test_a_reservation_outlives_its_day_and_its_connector(opens: Opens) -> None:
    async with opens() as house:
        permit = await house.shield.place("meta", "c1", 200 * UNIT, NOON)
    async with opens({"google": caps()}, now=later(DAY)) as house:
        await house.shield.release(permit, later(DAY))
        assert await house.rows("SELECT state FROM reservations") == [("released",)]
    async with opens(now=later(2 * DAY)) as house:
        assert house.shield.status("meta", later(2 * DAY)).reserved_micros == 0


async def test_the_databases_own_guard_refuses_what_memory_would_have_let_through(opens: Opens) -> None:
    async with opens({"meta": caps(daily=100, window=None)}) as house:
        permit = await house.shield.place("meta", "c1", 60 * UNIT, NOON)
        _forget_reservations(house.shield)
        assert await refused(house.shield.place("meta", "c1", 60 * UNIT, NOON)) == "BUDGET_EXCEEDED"
        assert await house.rows("SELECT sum(amount_micros), count(*) FROM reservations") == [(60 * UNIT, 1)]
        with pytest.raises(sqlite3.IntegrityError, match="BUDGET_EXCEEDED"):
            await house.store.write(lambda c: c.execute("UPDATE spend_days SET reserved_micros = 100000001"))
        await house.store.write(lambda c: c.execute("UPDATE spend_days SET cap_micros = 1, reported_micros = 500"))
        assert house.shield.hold_reason is None
        assert permit.amount_micros == 60 * UNIT


def _forget_reservations(shield: Shield) -> None:
    shield._books["meta"].release(60 * UNIT)


async def test_a_day_cannot_begin_twice_or_early_in_the_database(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.place("meta", "c1", UNIT, NOON)
        insert = "INSERT INTO spend_days (connector, day, currency, updated_at) VALUES ('meta', ?, 'USD', 0)"
        for day in ("2026-03-10", "2026-03-09"):
            with pytest.raises(sqlite3.IntegrityError, match="DAY_REPEATED"):
                await house.store.write(lambda c, day=day: c.execute(insert, (day,)))
        with pytest.raises(sqlite3.IntegrityError, match="DAY_REPEATED"):
            await house.store.write(lambda c: c.execute("UPDATE spend_days SET day = '2026-03-11'"))


async def test_when_nothing_can_be_written_nothing_is_permitted_and_nothing_stays_reserved(opens: Opens) -> None:
    async with opens() as house:

        def full(connection: sqlite3.Connection) -> None:
            raise StoreError("the disk is full")

        house.store.before_commit.append(full)
        assert await refused(house.shield.place("meta", "c1", UNIT, NOON)) == "SAFE_HOLD"
        assert house.shield.status("meta", NOON).reserved_micros == 0
        assert "disk is full" in (house.shield.hold_reason or "")
        house.store.before_commit.remove(full)
        assert await refused(house.shield.place("meta", "c1", UNIT, NOON)) == "SAFE_HOLD"
        await house.store.probe()
        assert house.shield.hold_reason is None
        await house.shield.place("meta", "c1", UNIT, NOON)
