"""Ways in which others lost money, each by name: those of bidding through a day."""

from __future__ import annotations

import numpy as np
import pytest

from kiki_agent.flow.reasons import PLATFORM_BIDS
from kiki_agent.flow.rule import STOPPED, Standing, settle
from kiki_agent.kernels import bids
from kiki_agent.model import DAY, HOUR, MINUTE, SECOND, IntentKind
from kiki_agent.shield import LevelReason

from .conftest import Make
from .market import MIDNIGHT, TODAY, Entity, campaign


async def test_defect_12_spend_piles_up_after_midnight_and_is_gone_by_the_afternoon(make_rig: Make) -> None:
    rig = await make_rig([Entity(campaign("a", bid_step_micros=1_000), 4_000)], interval_s=10.0).start()
    shares = []
    for hour in (3, 9, 15, 21):
        await rig.run(MIDNIGHT + hour * HOUR)
        budget = rig.market.entities["meta", "a"].campaign.daily_budget_micros
        shares.append(rig.market.spend["meta", "a", TODAY] / budget - hour / 24)
    assert max(map(abs, shares)) <= 0.06, shares


async def test_defect_13_pausing_and_reactivating_makes_the_platform_learn_again(make_rig: Make) -> None:
    """A campaign that is far ahead of its plan is bid down; nobody pauses it."""
    rig = await make_rig([Entity(campaign("a", bid_step_micros=1_000), 4_000)], interval_s=10.0).start()
    await rig.run(MIDNIGHT + 3 * HOUR)
    kinds = [intent.kind for _, intent in rig.market.writes]
    assert kinds.count(IntentKind.SET_STATUS) == 0
    assert kinds.count(IntentKind.ADJUST_BID) > 0
    assert rig.market.entities["meta", "a"].campaign.bid_micros < campaign("a").bid_micros


@pytest.mark.parametrize(
    ("elapsed", "resumed"), [(2 * SECOND, False), (MINUTE, False), (STOPPED - 1, False), (STOPPED, True), (DAY, True)]
)
async def test_defect_13_a_day_that_is_spent_by_estimate_does_not_flap_with_each_report(
    make_rig: Make, elapsed: int, resumed: bool
) -> None:
    """The next report says that a little is left after all; a quarter of an hour later, or tomorrow, is soon enough."""
    rig = await make_rig([Entity(campaign("a", steers_bid=False), 300)]).start()
    await rig.run(MIDNIGHT + 2 * SECOND)
    standing, noon = Standing(1), MIDNIGHT + 12 * HOUR

    def decided(now: int, wanted: int, own: int, refused: int = LevelReason.PERMITTED) -> tuple[int, int]:
        day_start = np.array([now - now % DAY])
        wish, why, no = np.array([wanted]), np.array([own], dtype=np.uint8), np.array([refused], dtype=np.uint8)
        permitted = np.array([0 if refused else wanted])
        got = settle(now, 2 * SECOND, day_start, rig.accounts.table, wish, why, permitted, no, standing)
        if len(rows := standing.changed(*got)):
            standing.take(rows, *got, now)
        return int(got[0][0]), int(got[1][0])

    assert decided(noon, 0, bids.BUDGET_SPENT) == (0, bids.BUDGET_SPENT)
    again = (300_000, PLATFORM_BIDS) if resumed else (0, bids.BUDGET_SPENT)
    assert decided(noon + elapsed, 300_000, PLATFORM_BIDS) == again
    assert decided(noon + elapsed + 1, 0, bids.PAUSED) == (0, bids.PAUSED), "what is no estimate is said at once"
    assert decided(noon + elapsed + 2, 300_000, PLATFORM_BIDS) == (300_000, PLATFORM_BIDS)
