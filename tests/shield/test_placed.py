"""Placed permits: nothing passes a cap, whoever tries at once, and nothing stays reserved by accident."""

from __future__ import annotations

import asyncio

import pytest

from kiki_agent.errors import Denied
from tests.shield.conftest import NOON, UNIT, Opens


@pytest.mark.parametrize("delay_ms", [0, 5, 50])
async def test_of_100_tries_of_15_against_1000_exactly_66_are_permitted(opens: Opens, delay_ms: int) -> None:
    async with opens() as house:

        async def bid() -> bool:
            try:
                permit = await house.shield.place("meta", "c1", 15 * UNIT, NOON)
            except Denied as denied:
                assert denied.reason == "BUDGET_EXCEEDED"
                return False
            await asyncio.sleep(delay_ms / 1000)
            await house.shield.commit(permit, NOON)
            return True

        won = await asyncio.gather(*(bid() for _ in range(100)))
        assert sum(won) == 66
        stats = house.shield.status("meta", NOON)
        assert (stats.current_spend_micros, stats.reserved_micros, stats.record_count) == (990 * UNIT, 0, 66)
        assert stats.remaining_micros == 10 * UNIT
