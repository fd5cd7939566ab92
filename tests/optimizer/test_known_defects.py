"""Ways in which others lost money, each by name: those of moving budgets."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from kiki_agent.model import Campaign, CampaignStatus
from kiki_agent.optimizer.plan import decrease, increase, spending, total
from kiki_agent.optimizer.rule import Guards, judge

from .test_rule import NOW, facts

STEP = 10_000
GUARDED = Guards(Fraction("0.15"), Fraction("0.2"), 0, Fraction("0.3"), False, 10)
"""A floor of 30 %, and ten conversions before anything is said of a platform."""


def campaign(name: str, budget: int) -> Campaign:
    return Campaign(
        connector="c",
        campaign_id=name,
        platform="meta",
        name="",
        status=CampaignStatus.ACTIVE,
        daily_budget_micros=budget,
        bid_micros=STEP,
        min_budget_micros=50 * STEP,
    )


def test_defect_04_a_platform_that_is_new_is_read_as_one_without_capacity() -> None:
    """What has not spent yet has shown nothing: it neither loses its money nor draws that of others."""
    known = [facts("meta", 450, 180, 500), facts("tiktok", 420, 105, 400), facts("google_ads", 480, 150, 450)]
    new = replace(facts("linkedin", 440, 200, 300), spend_micros=0, conversions=0)
    verdict = judge([*known, new], GUARDED, {}, frozenset(), NOW)
    assert "linkedin" not in [each.connector for each in verdict.underperformers]
    assert verdict.best != "linkedin"
    assert verdict.mean == judge(known, GUARDED, {}, frozenset(), NOW).mean


def test_defect_04_floors_are_hard() -> None:
    poor = facts("linkedin", 440, 2_000, 31, start=100)
    verdict = judge([facts("meta", 450, 180, 500), poor], GUARDED, {}, frozenset(), NOW)
    amounts = {each.connector: each.amount_micros for each in verdict.underperformers}
    assert amounts["linkedin"] <= 1_000_000
    plans = decrease([campaign("a", 60 * STEP), campaign("b", 51 * STEP)], 1_000 * STEP, STEP)
    assert total(plans) == 11 * STEP
    assert {each.after_micros for each in plans} == {50 * STEP}


def test_defect_05_money_of_fixed_siblings_is_handed_out() -> None:
    siblings = [
        campaign("open", 100 * STEP),
        replace(campaign("fixed", 900 * STEP), steers_budget=False),
        replace(campaign("paused", 900 * STEP), status=CampaignStatus.PAUSED),
    ]
    assert [each.campaign_id for each in decrease(spending(siblings), 500 * STEP, STEP)] == ["open"]
    assert total(decrease(spending(siblings), 500 * STEP, STEP)) == 50 * STEP
    assert [each.campaign_id for each in increase(spending(siblings), 500 * STEP, STEP)] == ["open"]


def test_defect_14_conversions_that_are_still_to_come_count_as_none() -> None:
    """Two platforms that sell alike, one of which reports its conversions late, are alike; see also the accounts,
    which leave out the days whose conversions are not in."""
    matured = facts("meta", 450, 180, 500, conversions=70)
    late = facts("tiktok", 450, 180, 500, conversions=40)
    verdict = judge([matured, late], GUARDED, {}, frozenset(), NOW)
    assert verdict.underperformers == ()
    young = replace(late, conversions=4)
    assert "tiktok" not in [
        each.connector for each in judge([matured, young], GUARDED, {}, frozenset(), NOW).underperformers
    ]
