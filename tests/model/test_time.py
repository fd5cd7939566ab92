"""Days belong to a time zone; instants are text and back."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.model import DAY, HOUR, Platform, day_bounds, iso, local_day, parse_iso

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "America/St_Johns"]


@given(st.integers(0, 4_102_444_800_000_000))
def test_iso_reads_back_and_sorts_like_time(instant: int) -> None:
    assert parse_iso(iso(instant)) == instant
    assert (iso(instant) < iso(instant + 1)) is True


@given(st.integers(1_577_836_800, 1_893_456_000), st.sampled_from(ZONES))
def test_a_day_contains_its_instants(second: int, zone: str) -> None:
    instant = second * 1_000_000
    day = local_day(instant, zone)
    assert day == datetime.fromtimestamp(second, UTC).astimezone(ZoneInfo(zone)).date().isoformat()
    start, end = day_bounds(day, zone)
    assert start <= instant < end


def test_days_of_23_and_25_hours() -> None:
    assert [
        end - start
        for start, end in [day_bounds("2026-03-29", "Europe/Berlin"), day_bounds("2026-10-25", "Europe/Berlin")]
    ] == [
        DAY - HOUR,
        DAY + HOUR,
    ]


@pytest.mark.parametrize(
    ("text", "platform"),
    [("meta", "meta"), ("PLATFORM_GOOGLE", "google_ads"), ("Bing", "microsoft"), ("ttd", "tradedesk"), (" x ", "x")],
)
def test_platform_spellings(text: str, platform: str) -> None:
    assert Platform.parse(text) == platform


def test_unknown_platform_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="google_ads"):
        Platform.parse("myspace")
