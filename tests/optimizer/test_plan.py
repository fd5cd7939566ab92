"""Splitting a shift over campaigns keeps every micro, every step and every minimum."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.model import Campaign, CampaignStatus
from kiki_agent.optimizer.plan import common_step, decrease, increase, spending, total

STEP = 10_000


def campaign(
    index: int, budget: int, *, minimum: int = STEP, status: CampaignStatus = CampaignStatus.ACTIVE
) -> Campaign:
    return Campaign(
        connector="c",
        campaign_id=f"c{index}",
        platform="meta",
        name="",
        status=status,
        daily_budget_micros=budget,
        bid_micros=STEP,
        min_budget_micros=minimum,
    )


budgets = st.lists(st.integers(1, 100_000).map(lambda cents: cents * STEP), min_size=1, max_size=12)


@given(budgets, st.integers(0, 200_000), st.integers(1, 5_000))
def test_decrease_takes_the_amount_or_all_there_is(sizes: list[int], cents: int, minimum: int) -> None:
    known = [campaign(index, size, minimum=minimum * STEP) for index, size in enumerate(sizes)]
    changes = decrease(known, cents * STEP, STEP)
    room = sum(max(0, each.daily_budget_micros - each.min_budget_micros) for each in known)
    assert total(changes) == min(cents * STEP, room)
    for change in changes:
        assert change.after_micros % STEP == 0
        assert minimum * STEP <= change.after_micros < change.before_micros


@given(budgets, st.integers(0, 200_000))
def test_increase_adds_up_exactly(sizes: list[int], cents: int) -> None:
    known = [campaign(index, size) for index, size in enumerate(sizes)]
    changes = increase(known, cents * STEP, STEP)
    assert total(changes) == cents * STEP
    assert all(change.after_micros > change.before_micros for change in changes)


def test_paused_campaigns_neither_give_nor_get() -> None:
    known = [campaign(2, 500 * STEP), campaign(1, 900 * STEP), campaign(0, 7 * STEP, status=CampaignStatus.PAUSED)]
    assert [each.campaign_id for each in spending(known)] == ["c1", "c2"]


def test_the_coarsest_step_wins() -> None:
    assert common_step([]) == 1
    assert common_step([campaign(0, STEP)]) == STEP


def test_increase_without_campaigns_places_nothing() -> None:
    assert increase([], 100 * STEP, STEP) == []


def test_a_shared_budget_is_planned_once_and_a_fixed_one_never() -> None:
    known = [
        replace(campaign(0, 100 * STEP), budget_id="b1"),
        replace(campaign(1, 100 * STEP), budget_id="b1"),
        replace(campaign(2, 50 * STEP), steers_budget=False),
        campaign(3, 100 * STEP),
    ]
    assert [each.campaign_id for each in spending(known)] == ["c0", "c3"]
    changes = increase(spending(known), 40 * STEP, STEP)
    assert [(each.campaign_id, each.budget_id, each.after_micros) for each in changes] == [
        ("c0", "b1", 120 * STEP),
        ("c3", "", 120 * STEP),
    ]


def test_a_shared_budget_is_planned_by_a_campaign_that_runs() -> None:
    paused = replace(campaign(0, 100 * STEP, status=CampaignStatus.PAUSED), budget_id="b1")
    assert [each.campaign_id for each in spending([paused, replace(campaign(1, 100 * STEP), budget_id="b1")])] == ["c1"]
