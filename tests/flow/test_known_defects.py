"""Ways in which others lost money, each by name: those of bidding through a day."""

from __future__ import annotations

from kiki_agent.model import HOUR, IntentKind

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
