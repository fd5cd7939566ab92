"""Account days that begin once, reports that are always booked, leases and what is presumed after a start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.model import DAY, HOUR, MINUTE, SECOND, Instant, SpendReport, SpendRow, day_bounds, local_day, parse_iso
from kiki_agent.shield import Caps
from kiki_agent.shield.book import Book

ZONES = [
    "America/New_York",
    "America/Santiago",
    "America/Havana",
    "Europe/Berlin",
    "Europe/Lisbon",
    "Africa/Cairo",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "Asia/Kolkata",
]
NOON = parse_iso("2026-03-10T12:00:00")
WINDOW = 600 * SECOND


def book(now: int = NOON, daily: int | None = 1_000, window: int | None = None, timezone: str = "UTC") -> Book:
    return Book("meta", Caps(daily, window, timezone), WINDOW, Instant(now))


def report(as_of: int, **spend: int) -> SpendReport:
    day = local_day(as_of, "UTC")
    return SpendReport(tuple(SpendRow(name, day, micros) for name, micros in spend.items()), Instant(as_of))


def shift_days(zone: str) -> list[str]:
    """All days of 2025 to 2027 that do not last 24 hours."""
    first = datetime(2025, 1, 1, tzinfo=UTC)
    days = [(first + timedelta(days=number)).date().isoformat() for number in range(365 * 3)]
    return [day for day in days if day_bounds(day, zone)[1] - day_bounds(day, zone)[0] != DAY]


@pytest.mark.parametrize("zone", ZONES)
def test_every_day_of_three_years_begins_once_and_carries_the_full_cap(zone: str) -> None:
    now = parse_iso("2025-01-01T00:00:00")
    kept = book(now, timezone=zone)
    begun = [kept.day]
    while now < parse_iso("2028-01-01T00:00:00"):
        for before in (now - SECOND, now):
            if kept.roll(before):
                begun.append(kept.day)
                assert kept.day_room() == 1_000
                kept.placed_micros += 1_000
                assert local_day(before, zone) == kept.day
                assert local_day(before - HOUR // 2, zone) <= kept.day
        now += HOUR // 2
    expected = sorted(
        {local_day(parse_iso("2025-01-01T00:00:00") + number * HOUR, zone) for number in range(365 * 24 * 3)}
    )
    assert begun == expected


@pytest.mark.parametrize("zone", [zone for zone in ZONES if zone != "Asia/Kolkata"])
def test_days_of_other_lengths_are_one_day(zone: str) -> None:
    shifted = shift_days(zone)
    assert len(shifted) == 6
    for day in shifted:
        start, end = day_bounds(day, zone)
        kept = book(start, timezone=zone)
        for minute in range((end - start) // MINUTE):
            assert not kept.roll(start + minute * MINUTE)
        assert not kept.roll(end - 1)
        assert kept.roll(end)
        assert kept.day == (datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat()


@given(st.lists(st.integers(-366 * 24, 366 * 24), max_size=40), st.sampled_from(ZONES))
def test_no_jump_of_the_clock_begins_a_day_twice_or_goes_back(jumps: list[int], zone: str) -> None:
    kept = book(NOON, timezone=zone)
    days = [kept.day, *(kept.day for hours in jumps if kept.roll(NOON + hours * HOUR))]
    assert days == sorted(set(days))


def test_after_a_jump_to_the_future_and_back_spend_still_counts_for_the_stored_day() -> None:
    kept = book()
    kept.roll(NOON + 366 * DAY)
    stored = kept.day
    kept.roll(NOON)
    kept.book(report(NOON, c1=600), NOON)
    kept.roll(NOON + DAY)
    kept.book(report(NOON + DAY, c1=500), NOON + DAY)
    assert (kept.day, kept.spent_micros, kept.overshoot(NOON)) == (stored, 1_100, 100)


def test_rows_of_a_day_that_has_not_begun_here_count_now_and_then() -> None:
    midnight = parse_iso("2026-03-11T00:00:00")
    kept = book(midnight - SECOND)
    kept.book(report(midnight + SECOND, c1=30), midnight - SECOND)
    assert kept.spent_micros == 30
    kept.roll(midnight)
    assert kept.spent_micros == 30


def test_rows_of_yesterday_count_in_the_window_and_not_today() -> None:
    midnight = parse_iso("2026-03-11T00:00:00")
    kept = book(midnight - HOUR)
    kept.book(report(midnight - MINUTE, c1=100), midnight - MINUTE)
    kept.roll(midnight + MINUTE)
    kept.book(SpendReport((SpendRow("c1", "2026-03-10", 140),), Instant(midnight + MINUTE)), midnight + MINUTE)
    assert kept.spent_micros == 0
    assert kept.window.total >= 40


def test_a_report_is_booked_once_however_often_it_comes() -> None:
    kept = book()
    for _ in range(3):
        kept.book(report(NOON, c1=10, c2=20), NOON)
    assert (kept.spent_micros, kept.window.count) == (30, 1)
    kept.book(report(NOON + MINUTE, c1=15), NOON + MINUTE)
    assert kept.spent_micros == 35


def test_spend_taken_back_lowers_the_day_and_a_late_older_report_does_not() -> None:
    kept = book()
    kept.book(report(NOON, c1=100), NOON)
    kept.book(report(NOON - MINUTE, c1=80), NOON)
    assert kept.spent_micros == 100
    kept.book(report(NOON + MINUTE, c1=90), NOON + MINUTE)
    assert kept.spent_micros == 90


def test_rows_that_make_no_sense_are_counted_and_left_out() -> None:
    kept = book()
    rows = (SpendRow("c1", kept.day, -5), SpendRow("c2", "soon", 5), SpendRow("c3", kept.day, 5))
    assert kept.book(SpendReport(rows, NOON), NOON).bad_rows == 2
    assert kept.spent_micros == 5


def test_spend_of_a_long_time_is_taken_as_even_and_only_the_windows_part_counts() -> None:
    kept = book(daily=10_000)
    kept.book(report(NOON, c1=7_200), NOON)  # twelve hours: 10 a minute
    assert kept.window.total == 100
    kept.book(report(NOON + MINUTE, c1=7_300), NOON + MINUTE)  # one minute: all of it
    assert kept.window.total == 200


def test_overshoot_is_booked_and_then_nothing_fits() -> None:
    kept = book()
    kept.book(report(NOON, c1=1_001), NOON)
    assert kept.overshoot(NOON) == 1
    assert kept.shortage(0, NOON) == "overshoot"
    assert kept.roll(NOON + DAY)
    assert kept.shortage(1_000, NOON + DAY) is None


def test_a_lowered_cap_binds_at_once() -> None:
    kept = book()
    kept.reserve(600)
    kept.change_caps(Caps(500, None))
    assert kept.shortage(1, NOON) == "day"
    kept.release(600)
    assert kept.shortage(500, NOON) is None
    kept.spend(600, NOON)
    assert kept.shortage(0, NOON) == "overshoot"


def test_a_report_moves_exposure_into_spend() -> None:
    kept = book()
    kept.expose(300, 100)
    kept.book(report(NOON, c1=40), NOON)
    assert (kept.exposure_micros, kept.window_exposure_micros, kept.spent_micros) == (260, 60, 40)


def test_the_lease_grows_in_slices_and_covers_the_day_in_some_seventeen() -> None:
    kept = book(daily=16_000)
    renewals = 0
    for spent in range(0, 15_900, 10):
        kept.book(report(NOON + spent, c1=spent), NOON + spent)
        kept.expose(100, 0)
        lease = kept.wanted_lease()
        if lease is not None:
            assert spent + 100 <= lease <= 16_000
            kept.lease_micros = lease
            renewals += 1
    assert 10 <= renewals <= 17


def test_after_a_start_the_rest_of_the_lease_counts_as_spent_until_a_report_tells() -> None:
    kept = book()
    kept.lease_micros, kept.reported_micros = 400, 250
    kept.presume(NOON)
    assert (kept.spent_micros, kept.day_room(), kept.window_room(NOON)) == (400, 600, 850)
    assert kept.window_room(NOON + WINDOW) == 1_000
    assert kept.overshoot(NOON) == 0
    kept.book(report(NOON + SECOND, c1=0), NOON + SECOND)
    assert kept.spent_micros == 250


def test_without_a_daily_cap_nothing_fits() -> None:
    kept = book(daily=None, window=500)
    assert (kept.day_room(), kept.window_room(NOON)) == (0, 0)
    assert kept.shortage(1, NOON) is not None
