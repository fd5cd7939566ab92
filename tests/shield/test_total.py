"""The client's own caps over all connectors, reservations that end by themselves, and even pacing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.model import HOUR, MINUTE, Instant
from kiki_agent.shield import LevelRequest
from kiki_agent.shield.total import shared

from .conftest import NOON, SECOND, UNIT, Opens, caps, refused, settings

TWO = {"meta": caps(10_000, 1_000), "google": caps(10_000, 1_000)}


def later(span: int) -> Instant:
    return Instant(NOON + span)


def levels(rate: int) -> LevelRequest:
    """One campaign of each connector, each spending `rate` micros a second."""
    column: Any = lambda *values: np.array(values, dtype=np.int64)  # noqa: E731
    return LevelRequest(
        connector=column(0, 1),
        wanted_bid=column(UNIT, UNIT),
        min_bid=column(10_000, 10_000),
        daily_budget=column(5_000 * UNIT, 5_000 * UNIT),
        spend_today=column(0, 0),
        spend_rate=column(rate, rate),
        data_age=column(0, 0),
        active=np.ones(2, dtype=np.uint8),
    )


@given(st.lists(st.integers(0, 10**12), max_size=8), st.one_of(st.none(), st.integers(-(10**9), 10**13)))
def test_shared_rooms_never_pass_the_whole_nor_grow(rooms: list[int], most: int | None) -> None:
    lowered = shared(list(rooms), most)
    assert all(0 <= after <= before for after, before in zip(lowered, rooms, strict=True))
    if most is None or sum(rooms) <= max(0, most):
        assert lowered == rooms
    else:
        assert sum(lowered) <= max(0, most)
        assert sum(lowered) > max(0, most) - len(rooms) or most <= 0, "and only rounding is lost"


@pytest.mark.parametrize("cap", ["client_daily_cap", "client_window_cap"])
async def test_bids_of_all_platforms_share_the_clients_cap(opens: Opens, cap: str) -> None:
    config = settings(shield={cap: "1000"})
    async with opens(TWO, config=config) as house:

        async def bid(number: int) -> bool:
            try:
                await house.shield.place("meta" if number % 2 else "google", "c1", 15 * UNIT, NOON)
            except Exception:
                return False
            return True

        done = await asyncio.gather(*(bid(number) for number in range(100)))
        assert sum(done) == 66
        assert await refused(house.shield.place("meta", "c1", 15 * UNIT, NOON)) == "BUDGET_EXCEEDED"
        assert house.shield.status("meta", NOON).remaining_micros > 15 * UNIT, "its own caps have room"
    async with opens(TWO, now=later(SECOND), config=config) as house:
        assert await refused(house.shield.place("google", "c1", 15 * UNIT, later(SECOND))) == "BUDGET_EXCEEDED"
        await house.shield.place("google", "c1", 10 * UNIT, later(SECOND))


@pytest.mark.parametrize("cap", ["client_daily_cap", "client_window_cap"])
async def test_levels_of_all_platforms_share_it_too(opens: Opens, cap: str) -> None:
    async with opens(TWO, config=settings(shield={cap: "300"})) as house:
        await house.shield.place("meta", "c9", 100 * UNIT, NOON)
        answer = await house.shield.permit_levels(NOON, levels(10 * UNIT))
        assert 0 < answer.exposure_micros.sum() <= 200 * UNIT
        assert await refused(house.shield.place("google", "c9", 200 * UNIT, NOON)) == "BUDGET_EXCEEDED"
    async with opens(TWO) as house:
        free = await house.shield.permit_levels(NOON, levels(10 * UNIT))
        assert free.exposure_micros.sum() > answer.exposure_micros.sum()


async def test_a_reservation_nobody_comes_back_for_is_given_back(opens: Opens) -> None:
    async with opens(config=settings(shield={"reservation_s": "60"})) as house:
        await house.shield.allocate("c1", 100 * UNIT, "USD", NOON)
        kept = await house.shield.place("meta", "c1", 30 * UNIT, NOON)
        held = await house.shield.check("c1", 60 * UNIT, "meta", True, NOON)
        assert held.reservation_id is not None
        await house.shield.permit_levels(later(MINUTE - 1), levels(0))
        assert (await house.shield.check("c1", 60 * UNIT, "meta", False, later(MINUTE - 1))).allowed is False
        await house.shield.permit_levels(later(MINUTE), levels(0))
        assert (await house.shield.check("c1", 60 * UNIT, "meta", False, later(MINUTE))).allowed is True
        late = house.shield.spend("c1", None, held.reservation_id, "meta", later(MINUTE))
        assert await refused(late) == "NOT_FOUND"
        assert house.shield.open_permits() == [kept], "what a platform may have taken stays set aside"
        bodies = await house.rows("SELECT body FROM ledger_entries WHERE kind = 'permit' ORDER BY seq")
        assert [json.loads(body)["state"] for (body,) in bodies] == ["reserved", "reserved", "expired"]


async def test_it_is_given_back_after_a_crash_as_well(opens: Opens) -> None:
    async with opens() as house:
        await house.shield.allocate("c1", 100 * UNIT, "USD", NOON)
        assert (await house.shield.check("c1", 60 * UNIT, "meta", True, NOON)).reservation_id
    async with opens(now=later(MINUTE)) as house:
        assert len(house.shield.open_permits()) == 1
        await house.shield.permit_levels(later(10 * MINUTE), levels(0))
        assert house.shield.open_permits() == []


async def test_an_even_allocation_does_not_run_ahead_of_its_pace(opens: Opens) -> None:
    """Spend that piles up after midnight and is gone by the afternoon."""
    async with opens() as house:
        end = later(10 * HOUR)
        await house.shield.allocate("even", 100 * UNIT, "USD", NOON, start_at=NOON, end_at=end)
        await house.shield.place("meta", "even", 5 * UNIT, NOON)
        assert await refused(house.shield.place("meta", "even", 1, NOON)) == "PACING"
        await house.shield.place("meta", "even", 10 * UNIT, later(HOUR))
        assert await refused(house.shield.place("meta", "even", 1, later(HOUR))) == "PACING"
        await house.shield.place("meta", "even", 85 * UNIT, later(9.5 * HOUR))  # type: ignore[arg-type]
        assert await refused(house.shield.place("meta", "even", 1, Instant(end - 1))) == "BUDGET_EXCEEDED"
        await house.shield.allocate("fast", 100 * UNIT, "USD", NOON, pacing="accelerated", start_at=NOON, end_at=end)
        await house.shield.place("meta", "fast", 100 * UNIT, NOON)


async def test_what_all_platforms_together_spend_is_told_once_at_the_clients_caps(opens: Opens) -> None:
    config = settings(shield={"client_daily_cap": "1000", "client_window_cap": "500"})

    def together(house: Any) -> list[tuple[object, object]]:
        return [(data["scope"], data["level"]) for _, data in house.events if str(data["scope"]).startswith("client")]

    async def spend(house: Any, connector: str, units: int, now: Instant) -> None:
        permit = await house.shield.place(connector, "c1", units * UNIT, now)
        await house.shield.commit(permit, now)

    async with opens(TWO, config=config) as house:
        for connector, units in (("meta", 200), ("google", 195), ("meta", 5), ("google", 75), ("meta", 1)):
            await spend(house, connector, units, NOON)
        assert together(house) == [("client_window", "warning"), ("client_window", "critical")]
        later_on = later(10 * MINUTE)
        await spend(house, "google", 330, later_on)
        assert together(house)[2:] == [("client_day", "warning")]
        facts = [data["fact"] for _, data in house.events if data["scope"] == "client_day"]
    async with opens(TWO, config=config, now=later(11 * MINUTE)) as house:
        await spend(house, "meta", 1, later(11 * MINUTE))
        await spend(house, "google", 1, later(11 * MINUTE))
        assert together(house) == [("client_day", "warning")]
        assert [data["fact"] for _, data in house.events if data["scope"] == "client_day"] == facts
        await spend(house, "meta", 143, later(11 * MINUTE))
        assert together(house)[1:] == [("client_day", "critical"), ("client_window", "critical")]
        tomorrow = later(24 * HOUR)
        for step in range(2):
            for connector in ("meta", "google"):
                await spend(house, connector, 220, Instant(tomorrow + step * 10 * MINUTE))
        window = ("client_window", "warning")
        assert together(house)[3:] == [window, ("client_day", "warning"), window], (
            "yesterday's spend is no more counted"
        )
