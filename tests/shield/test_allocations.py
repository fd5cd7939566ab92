"""Allocations by hand: allocate, check, spend and release never pass what was allocated (SHD-01, SHD-08 to SHD-10)."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.model import DAY, HOUR, Instant
from tests.shield.conftest import NOON, UNIT, House, Opens, caps, refused


def later(span: int) -> Instant:
    return Instant(NOON + span)


async def balanced(house: House) -> None:
    """The transactions of every campaign add up to what it has spent and reserved."""
    rows = await house.rows(
        "SELECT a.spent_micros, a.reserved_micros, coalesce(sum(t.spent_delta_micros), 0),"
        " coalesce(sum(t.reserved_delta_micros), 0) FROM budget_allocations a"
        " LEFT JOIN budget_transactions t USING (campaign_id) GROUP BY a.campaign_id"
    )
    assert rows
    for spent, reserved, moved_spent, moved_reserved in rows:
        assert (spent, reserved) == (moved_spent, moved_reserved)


async def test_allocate_check_spend_and_release_work_together(opens: Opens) -> None:
    async with opens() as house:
        shield = house.shield
        assert await shield.budget("c1") is None
        view = await shield.allocate("c1", 100 * UNIT, "USD", NOON)
        assert (view.budget_micros, view.spent_micros, view.remaining_micros, view.status) == (
            100 * UNIT,
            0,
            100 * UNIT,
            "active",
        )
        looked = await shield.check("c1", 60 * UNIT, "PLATFORM_META", False, NOON)
        assert (looked.allowed, looked.reason, looked.remaining_micros, looked.reservation_id) == (
            True,
            None,
            100 * UNIT,
            None,
        )
        held = await shield.check("c1", 60 * UNIT, "meta", True, NOON)
        assert (held.allowed, held.remaining_micros) == (True, 40 * UNIT)
        assert held.reservation_id is not None
        again = await shield.check("c1", 41 * UNIT, "facebook", True, NOON)
        assert (again.allowed, again.reason, again.reservation_id) == (False, "BUDGET_EXCEEDED", None)
        view = await shield.spend("c1", None, held.reservation_id, "meta", NOON)
        assert (view.spent_micros, view.reserved_micros, view.utilization) == (60 * UNIT, 0, 0.6)
        assert await refused(shield.spend("c1", None, held.reservation_id, "meta", NOON)) == "NOT_FOUND"
        other = await shield.check("c1", 40 * UNIT, "meta", True, NOON)
        assert other.reservation_id is not None
        freed = await shield.release_reservation(other.reservation_id, NOON)
        assert freed is not None
        assert freed.remaining_micros == 40 * UNIT
        view = await shield.spend("c1", 40 * UNIT, None, "meta", NOON)
        assert (view.status, view.remaining_micros) == ("exhausted", 0)
        assert await refused(shield.spend("c1", 1, None, "meta", NOON)) == "BUDGET_EXCEEDED"
        await balanced(house)
        kinds = await house.rows("SELECT kind, count(*) FROM budget_transactions GROUP BY kind ORDER BY kind")
        assert kinds == [("commit", 2), ("release", 1), ("reserve", 3)]


async def test_the_same_campaign_again_changes_its_allocation(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.allocate("c1", 100 * UNIT, "USD", NOON)
        await house.shield.spend("c1", 60 * UNIT, None, "meta", NOON)
        assert await refused(house.shield.allocate("c1", 60 * UNIT - 1, "USD", NOON)) == "CONFLICT"
        assert await refused(house.shield.allocate("c1", 200 * UNIT, "EUR", NOON)) == "CONFLICT"
        assert (await house.shield.allocate("c1", 60 * UNIT, "USD", NOON)).status == "exhausted"
        raised = await house.shield.allocate("c1", 600 * UNIT, "USD", later(HOUR))
        assert (raised.remaining_micros, raised.status, raised.updated_at) == (540 * UNIT, "active", later(HOUR))
    async with opens(now=later(HOUR)) as house:
        assert await house.shield.budget("c1") == raised
        await balanced(house)


@pytest.mark.parametrize(
    ("budget", "currency", "reason"),
    [
        (0, "USD", "BAD_INPUT"),
        (-1, "USD", "BAD_INPUT"),
        (10**15 + 1, "USD", "BAD_INPUT"),
        (1.5, "USD", "BAD_INPUT"),
        (UNIT, "usd", "CURRENCY"),
        (UNIT, "DOLLAR", "CURRENCY"),
    ],
)
async def test_wishes_that_make_no_sense_are_refused(opens: Opens, budget: int, currency: str, reason: str) -> None:
    async with opens() as house:
        assert await refused(house.shield.allocate("c1", budget, currency, NOON)) == reason
        assert await house.shield.budget("c1") is None


async def test_the_least_of_allocation_window_and_day_binds_and_nothing_is_taken_in_part(opens: Opens) -> None:
    async with opens({"meta": caps(daily=120, window=80)}) as house:
        await house.shield.allocate("c1", 100 * UNIT, "USD", NOON)
        answer = await house.shield.check("c1", 81 * UNIT, "meta", True, NOON)
        assert (answer.allowed, answer.reason, answer.remaining_micros) == (False, "BUDGET_EXCEEDED", 80 * UNIT)
        view = await house.shield.budget("c1")
        assert view is not None
        assert view.reserved_micros == 0
        assert house.shield.status("meta", NOON).reserved_micros == 0
        await house.shield.spend("c1", 80 * UNIT, None, "meta", NOON)
        answer = await house.shield.check("c1", 30 * UNIT, "meta", True, later(HOUR))
        assert (answer.reason, answer.remaining_micros) == ("BUDGET_EXCEEDED", 20 * UNIT)
        assert house.shield.status("meta", later(HOUR)).reserved_micros == 0


async def test_concurrent_reservations_share_one_allocation(opens: Opens) -> None:
    async with opens({"meta": caps(), "google": caps()}) as house:
        await house.shield.allocate("c1", 100 * UNIT, "USD", NOON)
        checks = (house.shield.check("c1", 15 * UNIT, ("meta", "google_ads")[n % 2], True, NOON) for n in range(40))
        allowed = [each for each in await asyncio.gather(*checks) if each.allowed]
        assert len(allowed) == 6
        assert len({each.reservation_id for each in allowed}) == 6
        assert house.shield.status("google", NOON).reserved_micros == 45 * UNIT
        await balanced(house)


async def test_a_bid_on_an_allocated_campaign_is_held_to_its_allocation(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.allocate("c1", 10 * UNIT, "USD", NOON)
        assert await refused(house.shield.place("meta", "c1", 11 * UNIT, NOON)) == "BUDGET_EXCEEDED"
        await house.shield.place("meta", "c2", 11 * UNIT, NOON)
        permit = await house.shield.place("meta", "c1", 10 * UNIT, NOON)
        await house.shield.commit(permit, NOON, spent_micros=12 * UNIT)
        view = await house.shield.budget("c1")
        assert view is not None
        assert (view.spent_micros, view.overshoot_micros, view.remaining_micros) == (12 * UNIT, 2 * UNIT, 0)
        assert await refused(house.shield.place("meta", "c1", 1, NOON)) == "BUDGET_EXCEEDED"
        await balanced(house)


async def test_checks_say_why_not(opens: Opens) -> None:
    async with opens({"meta": caps(), "google": caps(daily=None)}) as house:
        assert await refused(house.shield.check("c1", UNIT, "meta", False, NOON)) == "NOT_FOUND"
        await house.shield.allocate("c1", 10 * UNIT, "USD", NOON)
        await house.shield.allocate("c2", 10 * UNIT, "EUR", NOON)

        async def why(campaign: str, platform: str, amount: int = UNIT) -> str | None:
            return (await house.shield.check(campaign, amount, platform, True, NOON)).reason

        assert await why("c1", "google_ads") == "NO_CAP"
        assert await why("c1", "tiktok") == "UNKNOWN_CONNECTOR"
        assert await why("c1", "nonsense") == "UNKNOWN_CONNECTOR"
        assert await why("c1", "meta", -1) == "BAD_INPUT"
        assert await why("c2", "meta") == "CURRENCY"
        await house.shield.kill(True, "test", NOON)
        assert await why("c1", "meta") == "KILL_SWITCH"
        assert (await house.shield.check("c1", 0, "meta", False, NOON)).allowed is False


async def test_an_amount_or_a_reservation_of_this_campaign_is_spent(opens: Opens) -> None:
    async with opens() as house:
        for campaign in ("c1", "c2"):
            await house.shield.allocate(campaign, 10 * UNIT, "USD", NOON)
        held = (await house.shield.check("c1", UNIT, "meta", True, NOON)).reservation_id
        assert await refused(house.shield.spend("c1", UNIT, held, "meta", NOON)) == "BAD_INPUT"
        assert await refused(house.shield.spend("c1", None, None, "meta", NOON)) == "BAD_INPUT"
        assert await refused(house.shield.spend("c2", None, held, "meta", NOON)) == "CONFLICT"
        assert await refused(house.shield.spend("c3", UNIT, None, "meta", NOON)) == "NOT_FOUND"
        assert await refused(house.shield.release_reservation("nothing", NOON)) == "NOT_FOUND"


async def test_an_allocation_has_a_beginning_an_end_and_a_pace(opens: Opens) -> None:
    async with opens() as house:
        start, end = later(HOUR), later(11 * HOUR)
        await house.shield.allocate("c1", 100 * UNIT, "USD", NOON, start_at=start, end_at=end)
        assert await refused(house.shield.place("meta", "c1", UNIT, NOON)) == "NOT_ACTIVE"
        await house.shield.place("meta", "c1", UNIT, start)
        assert await refused(house.shield.place("meta", "c1", UNIT, end)) == "NOT_ACTIVE"
        view = await house.shield.budget("c1", later(2 * HOUR))
        assert view is not None
        assert (view.expected_micros, view.status) == (10 * UNIT, "active")
        assert (await house.shield.budget("c1", later(DAY))).status == "expired"  # type: ignore[union-attr]
        wrong = house.shield.allocate("c2", UNIT, "USD", NOON, start_at=end, end_at=start)
        assert await refused(wrong) == "BAD_INPUT"
        assert await refused(house.shield.allocate("c2", UNIT, "USD", NOON, pacing="hasty")) == "BAD_INPUT"


async def test_thresholds_of_an_allocation_are_told_once_also_across_a_restart(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.allocate("c1", 100 * UNIT, "USD", NOON)
        for amount in (79, 1, 5, 10):
            await house.shield.spend("c1", amount * UNIT, None, "meta", NOON)
        told = [data["level"] for _, data in house.events if data["scope"] == "allocation"]
        assert told == ["warning", "critical"]
        assert await house.rows("SELECT status, last_warning_at FROM budget_allocations") == [("warning", NOON)]
    async with opens() as house:
        await house.shield.spend("c1", UNIT, None, "meta", NOON)
        assert [data for _, data in house.events if data["scope"] == "allocation"] == []
        await house.shield.allocate("c1", 1_000 * UNIT, "USD", NOON)
        await house.shield.spend("c1", 704 * UNIT, None, "meta", NOON)
        assert [data["level"] for _, data in house.events if data["scope"] == "allocation"] == ["warning"]


async def test_an_allocation_that_cannot_be_written_is_not_given(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.allocate("c1", 10 * UNIT, "USD", NOON)

        def full(connection: sqlite3.Connection) -> None:
            raise StoreError("the disk is full")

        house.store.before_commit.append(full)
        for campaign in ("c1", "c2"):
            with pytest.raises(StoreError):
                await house.shield.allocate(campaign, 20 * UNIT, "USD", NOON)
        house.store.before_commit.remove(full)
        view = await house.shield.budget("c1")
        assert view is not None
        assert view.budget_micros == 10 * UNIT
        assert await house.shield.budget("c2") is None


async def test_the_databases_guard_is_on_raising_a_reservation_only(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.allocate("c1", 10 * UNIT, "USD", NOON)
        raise_it = "UPDATE budget_allocations SET reserved_micros = reserved_micros + 10000001"
        with pytest.raises(sqlite3.IntegrityError, match="BUDGET_EXCEEDED"):
            await house.store.write(lambda c: c.execute(raise_it))
        await house.store.write(lambda c: c.execute("UPDATE budget_allocations SET spent_micros = 12000000"))
        await house.store.write(lambda c: c.execute("UPDATE budget_allocations SET budget_micros = 1"))
        await house.shield.allocate("c3", 10 * UNIT, "USD", NOON)
        await house.shield.spend("c3", UNIT, None, "meta", NOON)
        for change in ("UPDATE budget_transactions SET at = 0", "DELETE FROM budget_transactions"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                await house.store.write(lambda c, change=change: c.execute(change))
