"""What refuses a bid is named: which bound, what it has left, and when time makes room (SHD-02, SHD-10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.errors import Denied
from kiki_agent.model import DAY, HOUR, Instant
from kiki_agent.shield import Bound, Exceeded
from kiki_agent.shield.bounds import freed_by

from .conftest import NOON, SECOND, UNIT, House, Opens, caps, refused, settings

WINDOW = 600 * SECOND


def later(span: int) -> Instant:
    return Instant(NOON + span)


async def bound(house: House, amount: int, now: Instant = NOON, *, on: str = "meta", campaign: str = "c1") -> Bound:
    """What refuses a bid of so many units, which is also refused up to the instant it says, and fits from then on."""
    with pytest.raises(Exceeded) as denied:
        await house.shield.place(on, campaign, amount * UNIT, now)
    found = denied.value.bound
    assert str(found) in str(denied.value)
    if found.frees_at is not None:
        with pytest.raises(Denied):
            await house.shield.place(on, campaign, amount * UNIT, Instant(found.frees_at - 1))
        permit = await house.shield.place(on, campaign, amount * UNIT, found.frees_at)
        await house.shield.release(permit, found.frees_at)
    return found


async def spend(house: House, amount: int, now: Instant = NOON, on: str = "meta", campaign: str = "c1") -> None:
    await house.shield.commit(await house.shield.place(on, campaign, amount * UNIT, now), now)


async def test_the_window_says_when_enough_has_left_it(opens: Opens) -> None:
    async with opens() as house:
        for second in range(3):
            await spend(house, 300, later(second * SECOND))
        await house.shield.place("meta", "c1", 50 * UNIT, later(3 * SECOND))
        found = await bound(house, 400, later(4 * SECOND))
        assert (found.name, found.cap_micros, found.spent_micros) == ("window", 1_000 * UNIT, 900 * UNIT)
        assert (found.held_micros, found.remaining_micros) == (50 * UNIT, 50 * UNIT)
        assert found.frees_at == later(SECOND + WINDOW), "the second of the three has to leave as well"
        assert str(found) == (
            "the window of meta has 50.00 left: 900.00 spent and 50.00 held of 1000.00;"
            " there is room for it from 2026-03-10T12:10:01.000000Z at the earliest"
        )
        never = await bound(house, 951, later(WINDOW + 5 * SECOND))
        assert (never.frees_at, never.remaining_micros) == (None, 950 * UNIT), "what is held does not age"


async def test_the_day_ends_at_midnight_of_the_account(opens: Opens) -> None:
    async with opens({"meta": caps(daily=100, timezone="America/New_York")}) as house:
        await spend(house, 90)
        found = await bound(house, 11)
        assert (found.name, found.remaining_micros) == ("day", 10 * UNIT)
        assert found.frees_at == later(16 * HOUR), "noon in UTC is eight o'clock there"


async def test_an_overshoot_says_which_cap_is_passed(opens: Opens) -> None:
    async with opens() as house:
        permit = await house.shield.place("meta", "c1", 900 * UNIT, NOON)
        await house.shield.commit(permit, NOON, spent_micros=1_100 * UNIT)
        assert await refused(house.shield.place("meta", "c1", 1, NOON)) == "OVERSHOOT"
        found = await bound(house, 1)
        assert (found.name, found.remaining_micros, found.frees_at) == ("window", -100 * UNIT, later(WINDOW))


@pytest.mark.parametrize(("cap", "name"), [("client_daily_cap", "client_day"), ("client_window_cap", "client_window")])
async def test_the_clients_caps_over_all_platforms(opens: Opens, cap: str, name: str) -> None:
    config = settings(shield={cap: "100"})
    async with opens({"meta": caps(), "google": caps()}, config=config) as house:
        await spend(house, 60)
        await spend(house, 30, later(SECOND), on="google")
        found = await bound(house, 15, later(2 * SECOND), on="google")
        assert (found.name, found.spent_micros, found.remaining_micros) == (name, 90 * UNIT, 10 * UNIT)
        assert found.frees_at == (later(DAY // 2) if name == "client_day" else later(WINDOW))


async def test_allocation_and_pace_are_bounds_too(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.allocate("c1", 20 * UNIT, "USD", NOON)
        await spend(house, 15)
        found = await bound(house, 6)
        assert (found.name, found.remaining_micros, found.frees_at) == ("allocation", 5 * UNIT, None)
        await house.shield.allocate("c2", 100 * UNIT, "USD", NOON, start_at=NOON, end_at=later(10 * HOUR))
        await spend(house, 5, campaign="c2")
        found = await bound(house, 10, campaign="c2")
        assert (found.name, found.cap_micros, found.spent_micros) == ("pacing", 5 * UNIT, 5 * UNIT)
        assert found.frees_at == later(HOUR)


async def test_the_tightest_of_several_that_refuse_is_named_and_is_what_remains(opens: Opens) -> None:
    async with opens({"meta": caps(daily=90, window=80)}) as house:
        await house.shield.allocate("c1", 70 * UNIT, "USD", NOON)
        assert (await bound(house, 95)).name == "allocation"
        assert (await bound(house, 95, campaign="free")).name == "window"
        answer = await house.shield.check("c1", 95 * UNIT, "meta", True, NOON)
        assert answer.bound is not None
        assert (answer.reason, answer.bound.name, answer.remaining_micros) == (
            "BUDGET_EXCEEDED",
            "allocation",
            70 * UNIT,
        )
        assert answer.detail == "95.00 USD wanted, the allocation of c1 is at most 70.00"
        assert house.shield.tightest("meta", "c1", NOON).name == "allocation"


async def test_window_and_day_add_up(opens: Opens) -> None:
    async with opens() as house:
        await spend(house, 300)
        await house.shield.place("meta", "c1", 20 * UNIT, NOON)
        house.shield._books["meta"].expose(70 * UNIT, 40 * UNIT)
        stats = house.shield.status("meta", NOON)
        held = stats.reserved_micros + stats.window_exposure_micros
        assert stats.max_budget_micros == stats.current_spend_micros + held + stats.remaining_micros
        held = stats.reserved_micros + stats.exposure_micros
        assert stats.daily_cap_micros == stats.spent_today_micros + held + stats.daily_remaining_micros
        assert (stats.placed_micros, stats.window_exposure_micros, stats.exposure_micros) == (
            300 * UNIT,
            40 * UNIT,
            70 * UNIT,
        )


async def test_a_reservation_is_spent_on_its_own_platform_only(opens: Opens) -> None:
    async with opens({"meta": caps(), "google": caps()}) as house:
        await house.shield.allocate("c1", 10 * UNIT, "USD", NOON)
        held = (await house.shield.check("c1", UNIT, "meta", True, NOON)).reservation_id
        assert await refused(house.shield.spend("c1", None, held, "google_ads", NOON)) == "CONFLICT"
        assert await refused(house.shield.spend("c1", None, held, "nonsense", NOON)) == "UNKNOWN_CONNECTOR"
        assert house.shield.status("meta", NOON).reserved_micros == UNIT
        assert (await house.shield.spend("c1", None, held, "PLATFORM_META", NOON)).spent_micros == UNIT


async def test_an_allocation_that_has_not_begun_is_scheduled_also_after_a_restart(opens: Opens) -> None:
    async with opens() as house:
        made = await house.shield.allocate("c1", 10 * UNIT, "USD", NOON, start_at=later(HOUR), end_at=later(2 * HOUR))
        assert made.status == "scheduled"
    async with opens() as house:
        states = [(await house.shield.budget("c1", later(each * HOUR))) for each in range(3)]
        assert [each and each.status for each in states] == ["scheduled", "active", "expired"]


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 10)), max_size=20),
    st.integers(-5, 120),
)
def test_gains_add_up_to_what_is_needed_at_the_first_such_instant(gains: list[tuple[int, int]], needed: int) -> None:
    gains = sorted(gains)
    found = freed_by(gains, needed)
    freed = {at: sum(micros for other, micros in gains if other <= at) for at, _ in gains}
    enough = [at for at in sorted(freed) if freed[at] >= needed]
    assert found == (None if needed <= 0 or not enough else enough[0])
