"""Ways in which others lost money, each by name. Numbers 4, 5 and 14 are the optimizer's, 12 and 13 the bidder's."""

from __future__ import annotations

import asyncio

import pytest

from kiki_agent.errors import Denied
from kiki_agent.kernels import permits
from kiki_agent.model import DAY, HOUR, Instant, IntentKind, day_bounds, parse_iso
from kiki_agent.shield import LevelReason
from kiki_agent.shield.book import Book

from .conftest import NOON, UNIT, Opens, caps, refused, settings
from .test_governor import answer, intent
from .test_levels import decide, one


def later(span: int) -> Instant:
    return Instant(NOON + span)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (0, "BAD_INPUT"),
        (-5_000 * UNIT, "BAD_INPUT"),
        (float("nan"), "BAD_INPUT"),
        (float("inf"), "BAD_INPUT"),
        (5_000_000 * UNIT, "ABOVE_MAXIMUM"),
        (50_001 * UNIT, "SLIPPED_DIGIT"),
    ],
)
async def test_defect_01_a_budget_of_nothing_or_a_slipped_digit_goes_live(
    opens: Opens, after: int, reason: str
) -> None:
    async with opens({"meta": caps(daily=900_000, window=None)}, config=settings()) as house:
        assert answer(house, intent(before=5_000 * UNIT, after=after)) == reason
        await house.shield.allocate("c1", 5_000 * UNIT, "USD", NOON)
        assert await refused(house.shield.allocate("c1", after, "USD", NOON)) == reason
        view = await house.shield.budget("c1", NOON)
        assert view.budget_micros == 5_000 * UNIT


async def test_defect_01_holds_for_allocations_up_to_the_bounds(opens: Opens) -> None:
    config = settings(shield={"max_budget": "20000", "max_budget_ratio": 10})
    async with opens(config=config) as house:
        assert await refused(house.shield.allocate("new", 20_001 * UNIT, "USD", NOON)) == "ABOVE_MAXIMUM"
        await house.shield.allocate("c1", 1_000 * UNIT, "USD", NOON)
        assert await refused(house.shield.allocate("c1", 10_000 * UNIT + 1, "USD", NOON)) == "SLIPPED_DIGIT"
        assert (await house.shield.allocate("c1", 10_000 * UNIT, "USD", NOON)).budget_micros == 10_000 * UNIT
        assert await refused(house.shield.allocate("c1", 20_001 * UNIT, "USD", NOON)) == "ABOVE_MAXIMUM"
        assert (await house.shield.allocate("c1", UNIT, "USD", NOON)).budget_micros == UNIT, "a cut of any size"


async def test_defect_02_guards_are_off_until_they_are_configured(opens: Opens) -> None:
    async with opens({"meta": caps(daily=None, window=None)}) as house:
        assert await refused(house.shield.place("meta", "c1", 1, NOON)) == "NO_CAP"
        for kind, before, after in [
            (IntentKind.SET_BUDGET, UNIT, 2 * UNIT),
            (IntentKind.ADJUST_BID, UNIT, 2 * UNIT),
            (IntentKind.SET_STATUS, 0, 1),
        ]:
            assert answer(house, intent(kind, before=before, after=after)) == "NO_CAP"
    assert decide(permits.permit.twin, [one()], [(0, 0, LevelReason.NO_CAP)])[0].tolist() == [0]


async def test_defect_03_pending_spend_is_counted_twice_when_a_campaign_ends(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.allocate("c1", 100 * UNIT, "USD", NOON)
        permits_held = [await house.shield.place("meta", "c1", 25 * UNIT, NOON) for _ in range(4)]
        assert await refused(house.shield.place("meta", "c1", 1, NOON)) == "BUDGET_EXCEEDED"
        for each in permits_held:
            await house.shield.commit(each, NOON)
        view = await house.shield.budget("c1", NOON)
        assert (view.spent_micros, view.reserved_micros, view.status) == (100 * UNIT, 0, "exhausted")
        status = house.shield.status("meta", NOON)
        assert (status.spent_today_micros, status.reserved_micros) == (100 * UNIT, 0)


async def test_defect_06_check_and_commit_are_two_steps_over_several_budgets(opens: Opens) -> None:
    """Client, day, window and allocation all bind at once, and whatever binds, nothing is taken from the others."""
    config = settings(shield={"client_window_cap": "995"})
    async with opens({"meta": caps(), "google": caps()}, config=config) as house:
        await house.shield.allocate("c1", 300 * UNIT, "USD", NOON)

        async def bid(number: int) -> str:
            try:
                await house.shield.place(("meta", "google")[number % 2], f"c{number % 3}", 15 * UNIT, NOON)
            except Denied as denied:
                return denied.reason
            return ""

        answers = await asyncio.gather(*(bid(number) for number in range(150)))
        assert answers.count("") == 66
        held = [house.shield.status(name, NOON).reserved_micros for name in ("meta", "google")]
        assert sum(held) == 66 * 15 * UNIT
        allocated = await house.shield.budget("c1", NOON)
        assert allocated.reserved_micros == 20 * 15 * UNIT


async def test_defect_07_nobody_knows_what_happens_at_equality(opens: Opens) -> None:
    async with opens({"meta": caps(daily=100, window=100)}) as house:
        permit = await house.shield.place("meta", "c1", 100 * UNIT, NOON)
        await house.shield.commit(permit, NOON)
        just_before, just_then = later(600 * 1_000_000 - 1), later(600 * 1_000_000)
        assert house.shield.status("meta", just_before).current_spend_micros == 100 * UNIT
        assert house.shield.status("meta", just_then).current_spend_micros == 0
        assert await refused(house.shield.place("meta", "c1", 1, just_then)) == "BUDGET_EXCEEDED", "the day is full"
        midnight = parse_iso("2026-03-11T00:00:00")
        await house.shield.place("meta", "c1", 100 * UNIT, midnight)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Pacific/Kiritimati", "America/Los_Angeles"])
def test_defect_08_an_offset_turns_a_hundred_a_day_into_75(zone: str) -> None:
    start, end = day_bounds("2026-03-08", zone)  # a day of 23 hours in New York and Los Angeles
    assert (end - start) // HOUR == (23 if zone.startswith("America") else 24)
    book = Book("meta", caps(daily=100, window=None, timezone=zone), 600 * 1_000_000, start)
    for instant in range(start, end, HOUR):
        book.roll(instant)
        if book.shortage(10 * UNIT, instant) is None:
            book.spend(10 * UNIT, instant)
    assert book.spent_micros == 100 * UNIT, "the whole cap, in one day as the account has it"
    assert book.shortage(1, end - 1) == "day"
    book.roll(end)
    assert book.shortage(100 * UNIT, end) is None


async def test_defect_09_a_reservation_stays_when_its_call_fails(opens: Opens) -> None:
    async with opens() as house:
        for number in range(500):
            permit = await house.shield.place("meta", "c1", 15 * UNIT, later(number))
            await house.shield.release(permit, later(number))
        assert house.shield.status("meta", later(500)).reserved_micros == 0
        await house.shield.place("meta", "c1", 1_000 * UNIT, later(500))


async def test_defect_10_a_spike_finds_no_window(opens: Opens) -> None:
    """The day has room for ten times as much; the window lets through what belongs to ten minutes."""
    async with opens({"meta": caps(daily=10_000, window=1_000)}) as house:
        granted = 0
        for second in range(600):
            for _ in range(5):
                try:
                    permit = await house.shield.place("meta", "c1", UNIT, later(second * 1_000_000))
                except Denied:
                    continue
                await house.shield.commit(permit, later(second * 1_000_000))
                granted += 1
        assert granted == 1_000


def test_defect_11_campaigns_together_pass_the_cap() -> None:
    rows = [one(wanted=1_600, least=least, rate=0, budget=10**6) for least in (1, 1, 1_200)]
    bids, exposures, *_ = decide(permits.permit.twin, rows, [(2_400, 10**6, 0)])
    assert exposures.sum() <= 2_400
    assert bids[0] == bids[1] > 0, "in proportion"
    assert bids[2] in (0, *range(1_200, 1_601)), "and never below what the platform takes"


async def test_defect_12_an_allocation_is_gone_by_the_afternoon(opens: Opens) -> None:
    midnight = parse_iso("2026-03-10T00:00:00")
    async with opens({"meta": caps(daily=10_000, window=None)}, now=midnight) as house:
        await house.shield.allocate(
            "c1", 240 * UNIT, "USD", midnight, start_at=midnight, end_at=Instant(midnight + DAY)
        )
        spent_by: list[int] = []
        for hour in range(24):
            now = Instant(midnight + hour * HOUR)
            for _ in range(240):
                try:
                    await house.shield.commit(await house.shield.place("meta", "c1", UNIT, now), now)
                except Denied:
                    break
            view = await house.shield.budget("c1", now)
            spent_by.append(view.spent_micros // UNIT)
        assert all(10 * hour <= spent <= 10 * hour + 12 for hour, spent in enumerate(spent_by)), spent_by
