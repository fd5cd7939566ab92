"""A whole day on a market that does not stop spending by itself (FLW-03)."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from kiki_agent.model import DAY, HOUR, MINUTE, SECOND

from .conftest import Make
from .market import MIDNIGHT, TODAY, Entity, campaign

HOUR_OF_DAY = [1 + 0.6 * math.sin((hour - 9) / 24 * 2 * math.pi) for hour in range(24)]
FAST = {"interval_s": 10.0}
"""The rule is the same at any interval; a longer one saves the tests' time."""


def entities() -> list[Entity]:
    """Six campaigns on two platforms whose first bids are up to three times wrong either way."""
    appetites = [(400, 1.0), (1500, 1.3), (700, 1.8), (300, 1.3), (2000, 1.0), (1200, 1.6)]
    bids = [200_000, 90_000, 300_000, 600_000, 150_000, 70_000]
    return [
        Entity(
            campaign(f"c{number}", ("meta", "google")[number % 2], bid_micros=bids[number], bid_step_micros=1_000),
            clicks_per_hour=appetite,
            elasticity=elasticity,
        )
        for number, (appetite, elasticity) in enumerate(appetites)
    ]


@pytest.mark.parametrize("traffic", [[1.0] * 24, HOUR_OF_DAY], ids=["flat", "hour of day"])
async def test_a_day_is_spent_evenly_and_never_above_the_daily_budget(make_rig: Make, traffic: list[float]) -> None:
    rig = await make_rig(entities(), **FAST).start()
    rig.market.traffic = traffic
    off: list[float] = []

    def look(now: int) -> None:
        if now % HOUR == 0 and now >= MIDNIGHT + 2 * HOUR:
            for (connector, name), each in rig.market.entities.items():
                budget = each.campaign.daily_budget_micros
                spent = rig.market.spend.get((connector, name, TODAY), 0)
                off.append(abs(spent - budget * (now - MIDNIGHT) / DAY) / budget)
                assert spent <= budget

    await rig.run(MIDNIGHT + DAY - SECOND, look)
    assert len(off) == 6 * 22
    assert max(off) <= 0.05
    for key, each in rig.market.entities.items():
        spent = rig.market.spend[*key, TODAY]
        assert 0.95 * each.campaign.daily_budget_micros <= spent <= each.campaign.daily_budget_micros
    assert rig.shield.status("meta", rig.now).overshoot_micros == 0


async def test_accelerated_spends_earlier(make_rig: Make) -> None:
    rig = await make_rig(entities()[:2], **FAST).start(weights=[4] * 6 + [1] * 18)
    await rig.run(MIDNIGHT + 6 * HOUR)
    for key, each in rig.market.entities.items():
        assert rig.market.spend[*key, TODAY] >= 0.5 * each.campaign.daily_budget_micros


async def test_decisions_follow_spend_but_do_not_flap(make_rig: Make) -> None:
    rig = await make_rig(entities(), **FAST).start()
    rig.market.traffic = HOUR_OF_DAY
    await rig.run(MIDNIGHT + 4 * HOUR)
    last: dict[str, int] = {}
    changes = rig.changes()
    for at, decision in changes:
        assert at - last.get(decision.campaign_id, -DAY) >= rig.bidder.pace.hold
        last[decision.campaign_id] = at
    assert len(changes) >= 6 * 4 * HOUR / (10 * MINUTE), "a decision stands ten minutes at most, on average"


async def test_writes_are_rare_and_only_the_last_value_goes_out(make_rig: Make) -> None:
    rig = await make_rig(entities(), **FAST).start()
    await rig.run(MIDNIGHT + 4 * HOUR)
    sent: dict[str, list[tuple[int, int, int]]] = {}
    for at, intent in rig.market.writes:
        sent.setdefault(intent.campaign_id, []).append((at, intent.before, intent.after))
    assert set(sent) == {f"c{number}" for number in range(6)}
    for writes in sent.values():
        for (earlier, _, value), (later, before, after) in pairwise(writes):
            assert later - earlier >= (5 if after < 0.75 * before else 15) * MINUTE
            assert before == value
            assert abs(after - before) >= 0.05 * before
    assert sum(map(len, sent.values())) < len(rig.changes())
