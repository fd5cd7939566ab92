"""With somebody else at the same accounts all the time: no money is made, and nothing of theirs is overwritten (M4)."""

from __future__ import annotations

import numpy as np

from kiki_agent.accounts import Lever
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.faults import Fault

from .conftest import Start

UNIT = 1_000_000
ALONE = ("tiktok", "linkedin", "amazon", "microsoft")
"""Platforms whose campaigns each have a budget of their own in this market."""


async def test_the_sum_of_budgets_is_never_above_what_people_made_of_it(start: Start) -> None:
    restless = {
        "optimizer__cooldown_s": "0",
        "optimizer__consume_evidence": "false",
        "optimizer__threshold": "0.02",
        "governor__budget_rest_s": "0",
    }
    house = await start(seed=2, **restless)
    chance = np.random.default_rng(2)
    allowed = int(house.market.control[at.BUDGET].sum())
    theirs: dict[int, int] = {}
    house.faults.order(Fault.LOST, path="/budgets", times=3)
    house.faults.order(Fault.FAILED, path="/budgets", times=2)
    for _ in range(12):
        await house.run(4)
        assert int(house.market.control[at.BUDGET].sum()) <= allowed
        assert {index: int(house.market.control[at.BUDGET, index]) for index in theirs} == theirs
        name = str(chance.choice(ALONE))
        low, high = house.agent.accounts.table.bounds[name]
        campaign = house.agent.accounts.table.rows[int(chance.integers(low, high))]
        if house.agent.outbox.unsettled(name, campaign.campaign_id):
            continue
        found = [
            index
            for index in range(len(house.market.homes))
            if (int(house.market.control[at.BUDGET, index]), int(house.market.control[at.BID, index]))
            == (campaign.daily_budget_micros, campaign.bid_micros)
        ]
        if len(found) != 1:
            continue
        wanted = max(5, int(chance.integers(5, 90))) * UNIT + 10_000
        allowed += wanted - int(house.market.control[at.BUDGET, found[0]])
        house.edit(found[0], at.BUDGET, wanted)
        theirs[found[0]] = wanted
        await house.reread(name)  # an edit that nobody could have seen yet cannot be respected
    await house.run(0.1)
    assert len(theirs) > 3
    held = {hold.campaign_id for hold in house.agent.governor.holds.all() if hold.lever is Lever.BUDGET}
    assert len(held) >= len(theirs)
    assert house.rows("SELECT count(*) > 1 FROM shifts WHERE state = 'done'") == [(1,)]
    assert house.rows("SELECT count(DISTINCT campaign_id) FROM external_edits") >= [(len(theirs),)]
