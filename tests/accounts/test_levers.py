"""Telling our own changes from those of others, over single statements of a platform."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.accounts import Lever
from kiki_agent.accounts.levers import READ_BACK_GRACE, Levers
from kiki_agent.model import MINUTE, SECOND, Campaign, CampaignStatus, Instant, Intent, IntentKind, intent_key

from .platform import NOON, campaign

CENT = 10_000
KINDS = {Lever.BUDGET: IntentKind.SET_BUDGET, Lever.BID: IntentKind.ADJUST_BID, Lever.STATUS: IntentKind.SET_STATUS}


def ours(kind: IntentKind, before: int, after: int, name: str = "a", budget_id: str = "") -> Intent:
    key = intent_key("meta", name, kind, NOON, str(after))
    return Intent(key, kind, "meta", name, before, after, "USD", "", NOON, budget_id=budget_id)


def later(micros: int) -> Instant:
    return Instant(NOON + micros)


def levers(*campaigns: Campaign) -> Levers:
    made = Levers()
    made.baseline(campaigns or (campaign("a"),))
    return made


def seen(made: Levers, stated: Campaign, at: int = NOON) -> list[tuple[Lever, int, int]]:
    return [(each.lever, each.before, each.after) for each in made.judge(stated, Instant(at))[1]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"daily_budget_micros": 90_000_000}, [(Lever.BUDGET, 100_000_000, 90_000_000)]),
        ({"bid_micros": 1_010_000}, [(Lever.BID, 1_000_000, 1_010_000)]),
        ({"status": CampaignStatus.PAUSED}, [(Lever.STATUS, 1, 0)]),
        ({"bid_micros": 1_009_999}, []),  # less than the platform's step: rounding
        ({"name": "renamed"}, []),
        ({"bid_micros": 2_000_000, "steers_bid": False}, []),  # the platform bids by itself there
        ({"daily_budget_micros": 1, "steers_budget": False}, []),
    ],
)
def test_a_difference_is_an_edit_unless_it_is_the_platforms_own(changes: dict[str, Any], expected: object) -> None:
    made = levers()
    stated = replace(campaign("a"), **changes)
    assert seen(made, stated) == expected
    assert seen(made, stated) == []  # once


def test_a_late_read_shows_what_stood_before_our_change_and_is_not_believed() -> None:
    made = levers()
    made.confirmed(ours(IntentKind.ADJUST_BID, 1_000_000, 1_200_000), campaign("a"), NOON)
    made.confirmed(ours(IntentKind.ADJUST_BID, 1_200_000, 1_500_000), campaign("a"), later(60 * SECOND))
    for old in (1_000_000, 1_200_000):
        believed, edits = made.judge(campaign("a", bid_micros=old), later(120 * SECOND))
        assert (believed.bid_micros, edits) == (1_500_000, [])
    assert seen(made, campaign("a", bid_micros=1_500_000), later(180 * SECOND)) == []
    # when it goes on stating the old value, somebody has put it back
    after = later(60 * SECOND + READ_BACK_GRACE)
    assert seen(made, campaign("a", bid_micros=1_200_000), after) == [(Lever.BID, 1_500_000, 1_200_000)]


def test_an_unsettled_change_is_judged_when_it_is_settled() -> None:
    made, open_ones = levers(), {("meta", "a")}
    made.unsettled = lambda campaign, lever: (campaign.connector, campaign.campaign_id) in open_ones
    stated = campaign("a", daily_budget_micros=80_000_000)
    assert seen(made, stated) == []
    assert made.unjudged == {("meta", "a")}
    open_ones.clear()
    made.confirmed(ours(IntentKind.SET_BUDGET, 100_000_000, 80_000_000), campaign("a"), NOON)
    assert seen(made, stated) == []  # it was ours
    assert made.unjudged == set()
    open_ones.add(("meta", "a"))
    assert seen(made, campaign("a", daily_budget_micros=70_000_000)) == []
    open_ones.clear()  # refused: what stands is not ours
    assert seen(made, campaign("a", daily_budget_micros=70_000_000)) == [(Lever.BUDGET, 80_000_000, 70_000_000)]


def test_a_shared_budget_is_one_lever() -> None:
    both = (campaign("a", budget_id="b1"), campaign("b", budget_id="b1"))
    made = levers(*both)
    made.confirmed(ours(IntentKind.SET_BUDGET, 100_000_000, 60_000_000, budget_id="b1"), both[0], NOON)
    for each in both:
        assert seen(made, replace(each, daily_budget_micros=60_000_000)) == []
    edits = [seen(made, replace(each, daily_budget_micros=50_000_000)) for each in both]
    assert edits == [[(Lever.BUDGET, 60_000_000, 50_000_000)], []]


def test_a_placed_bid_may_become_the_bid_level() -> None:
    made = levers()
    made.confirmed(ours(IntentKind.PLACE_BID, 0, 3_000_000), campaign("a"), NOON)
    believed, edits = made.judge(campaign("a", bid_micros=3_000_000), later(3_600 * SECOND))
    assert (believed.bid_micros, edits) == (3_000_000, [])


@given(st.lists(st.tuples(st.sampled_from(["ours", "theirs", "late"]), st.integers(1, 400)), max_size=30))
def test_every_edit_of_others_and_none_of_ours_is_seen(script: list[tuple[str, int]]) -> None:
    """Against the plain truth of a lever, in cents, that is read once a minute."""
    made = levers()
    truth, before, at = 1_000_000, 1_000_000, int(NOON)
    stale = {1_000_000: 0}
    for who, cents in script:
        at += 60 * SECOND
        value = cents * CENT
        if who == "ours":
            made.confirmed(ours(IntentKind.ADJUST_BID, truth, value), campaign("a"), Instant(at))
            stale[truth] = at
            truth = value
            assert seen(made, campaign("a", bid_micros=truth), at) == []
        elif who == "late":
            assert seen(made, campaign("a", bid_micros=before), at) in ([], [(Lever.BID, truth, before)])
            if not (before in stale and at - stale[before] < READ_BACK_GRACE) and before != truth:
                truth = before
                stale = {}
        else:
            fresh = value == truth or (value in stale and at - stale[value] < READ_BACK_GRACE and stale[value] > 0)
            expected = [] if fresh else [(Lever.BID, truth, value)]
            assert seen(made, campaign("a", bid_micros=value), at) == expected
            if expected:
                before, truth, stale = truth, value, {}


def test_a_stop_that_a_read_contradicts_is_doubted_until_it_is_sent_again_or_confirmed() -> None:
    made, stopped = levers(), replace(campaign("a"), status=CampaignStatus.PAUSED)
    made.confirmed(ours(IntentKind.SET_STATUS, 1, 0), campaign("a"), NOON)
    assert seen(made, stopped) == []
    assert made.doubted == set()
    assert seen(made, campaign("a"), NOON + MINUTE) == []  # not believed, but not forgotten either
    assert made.doubted == {("meta", "a")}
    assert seen(made, stopped, NOON + 2 * MINUTE) == []
    assert made.doubted == set()
    seen(made, campaign("a"), NOON + 3 * MINUTE)
    again = NOON + 4 * MINUTE
    made.confirmed(ours(IntentKind.SET_STATUS, 1, 0), stopped, Instant(again))
    assert made.doubted == set()
    # the second stop is as young as the second time it was sent: a late read still shows what stood before the first
    assert seen(made, campaign("a"), again + READ_BACK_GRACE - 1) == []
    assert seen(made, campaign("a"), again + READ_BACK_GRACE) == [(Lever.STATUS, 0, 1)]
    assert made.doubted == set()
