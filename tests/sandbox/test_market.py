"""The market itself: repeatable to the bit, never generous with money, and shaped like a market."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from kiki_agent.model import DAY, HOUR, MINUTE, SECOND, Instant
from kiki_agent.sandbox import Market
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.kernel import advance
from kiki_agent.sandbox.market import CustomerFacts
from kiki_agent.sandbox.wire import day_of

from .vendor import START, small_market

LATER = Instant(START + 2 * DAY + 5 * HOUR + 17 * MINUTE + 3 * SECOND)
RUN_ELSEWHERE = """
import sys
from kiki_agent.sandbox.market import Market
market = Market(7, int(sys.argv[1]), 6, 1, compiled=False)
market.advance_to(int(sys.argv[2]))
assert "numba" not in sys.modules
print(market.state_hash())
"""


def customers_of(market: Market) -> list[CustomerFacts]:
    """All the CRM knows."""
    found, position, more = market.customers(0, 10**6)
    assert not more
    assert position == market.counters[at.NOTES]
    return found


def settled(budget: float = 1.0, bid: float = 1.0, *, seed: int = 1, days: int = 8, rest: int = 16) -> tuple[int, int]:
    """Spend and revenue of a young market whose first levels are multiplied, after all restatements."""
    market = small_market(seed, 24, 0)
    market.control[at.BUDGET] = (market.control[at.BUDGET] * budget).astype(np.int64)
    market.control[at.BID] = (market.control[at.BID] * bid).astype(np.int64)
    market.advance_to(Instant(START + days * DAY))
    market.control[at.ACTIVE] = 0
    market.advance_to(Instant(START + (days + rest) * DAY))
    return int(market.days[at.SPEND].sum()), int(market.days[at.REVENUE].sum())


# ---- the same again


def test_the_same_seed_is_the_same_market_and_another_is_not() -> None:
    hashes = []
    for seed in (5, 5, 6):
        market = small_market(seed)
        market.advance_to(LATER)
        hashes.append(market.state_hash())
    assert hashes[0] == hashes[1] != hashes[2]


def test_start_and_size_belong_to_the_market() -> None:
    markets = [small_market(), small_market(campaigns=13), small_market(start=Instant(START + DAY))]
    for market in markets:
        market.advance_to(LATER)
    assert len({market.state_hash() for market in markets}) == 3


def test_machine_code_and_plain_python_make_the_same_market_in_any_process(monkeypatch: pytest.MonkeyPatch) -> None:
    end = START + 12 * HOUR
    command = [sys.executable, "-c", RUN_ELSEWHERE, str(START), str(end)]
    elsewhere = [
        subprocess.Popen(command, env=os.environ | {"PYTHONHASHSEED": number}, stdout=subprocess.PIPE, text=True)
        for number in ("1", "4242")
    ]
    assert advance.compiled
    compiled = Market(7, START, 6, 1)
    compiled.advance_to(Instant(end))
    assert compiled.counters[at.PEOPLE] > 0
    said = [process.communicate()[0].strip() for process in elsewhere]
    assert said == [compiled.state_hash()] * 2


def test_machine_code_and_plain_python_agree_over_weeks_of_a_tiny_market(monkeypatch: pytest.MonkeyPatch) -> None:
    def live() -> Market:
        market = Market(11, START, 6, 0, compiled=False)
        market.control[at.BUDGET] //= 3
        market.advance_to(Instant(START + 5 * DAY))
        market.control[at.ACTIVE] = 0
        market.advance_to(Instant(START + 8 * DAY))
        return market

    compiled = live()
    assert compiled.days[at.REVENUE].sum() > 0
    states = set(compiled.people[at.STATE].tolist())
    assert {at.CUSTOMER, at.GONE} <= states
    assert (compiled.people[at.PURCHASES] > 1).any()
    monkeypatch.setattr(advance, "calls", advance.twin)
    assert live().state_hash() == compiled.state_hash()


@settings(max_examples=12, deadline=None)
@given(some.lists(some.integers(0, 2 * DAY), max_size=12))
def test_it_does_not_matter_in_how_many_parts_time_passes(stops: list[int]) -> None:
    parts = small_market(history_days=0)
    for stop in sorted(stops):
        parts.advance_to(Instant(START + stop))
    parts.advance_to(LATER)
    whole = small_market(history_days=0)
    whole.advance_to(LATER)
    assert parts.state_hash() == whole.state_hash()


def test_minute_by_minute_is_the_same_as_in_one_go() -> None:
    parts, whole = small_market(), small_market()
    for minute in range(27 * 60):
        parts.advance_to(Instant(START + minute * MINUTE + 30 * SECOND))
    whole.advance_to(parts.now)
    assert parts.now == START + 27 * HOUR - MINUTE
    assert parts.state_hash() == whole.state_hash()


def test_history_is_lived_and_not_invented() -> None:
    born_old = small_market(history_days=3)
    grown = Market(1, Instant(START - 3 * DAY), born_old.size, 0)
    grown.advance_to(START)
    assert born_old.state_hash() == grown.state_hash()


def test_looking_changes_nothing() -> None:
    market, untouched = small_market(), small_market()
    for hours in range(0, 40, 3):
        now = Instant(START + hours * HOUR)
        market.advance_to(now)
        for place in range(6):
            market.report(place, now)
        market.customers(0, 50)
        market.advance_to(Instant(now - HOUR))
    untouched.advance_to(market.now)
    assert market.state_hash() == untouched.state_hash()


# ---- what one campaign does is nobody else's business


def everything(market: Market) -> None:
    market.control[at.BID] *= 3
    market.control[at.BUDGET] *= 5


def pause(market: Market) -> None:
    market.control[at.ACTIVE] = 0


@pytest.mark.parametrize("act", [everything, pause])
@pytest.mark.parametrize("quiet", [0, 13, 23])
def test_a_campaign_nobody_touches_sees_the_same_world(act: Callable[[Market], None], quiet: int) -> None:
    calm, busy = small_market(campaigns=24), small_market(campaigns=24)
    kept = busy.control[:, quiet].copy()
    act(busy)
    busy.control[:, quiet] = kept
    for market in (calm, busy):
        market.advance_to(Instant(START + 6 * DAY))
    others = np.arange(24) != quiet
    assert (calm.days[:, :, quiet] == busy.days[:, :, quiet]).all()
    assert calm.days[at.CLICKS, :, quiet].sum() > 0
    assert (calm.days[at.CLICKS][:, others] != busy.days[at.CLICKS][:, others]).any()

    def own(market: Market) -> list[CustomerFacts]:
        return [each for each in customers_of(market) if each.customer_id.startswith(f"c{quiet}-")]

    assert own(calm) == own(busy)


# ---- money


@settings(max_examples=15, deadline=None)
@given(
    some.lists(
        some.tuples(some.integers(0, 11), some.integers(5, 2_000), some.integers(1, 40), some.integers(1, 400)),
        min_size=1,
        max_size=10,
    )
)
def test_no_campaign_ever_spends_more_than_the_highest_budget_of_its_day(
    changes: list[tuple[int, int, int, int]],
) -> None:
    market = small_market(history_days=0)
    highest = {0: market.control[at.BUDGET].copy()}
    now = int(START)
    for campaign, cents, dollars, minutes in changes:
        market.set_level(at.BID, campaign, cents * 10_000)
        market.set_level(at.BUDGET, campaign, dollars * 1_000_000)
        day = (now - START) // DAY
        highest.setdefault(day, market.control[at.BUDGET].copy())
        highest[day] = np.maximum(highest[day], market.control[at.BUDGET])
        now += minutes * MINUTE
        market.advance_to(Instant(now))
        highest.setdefault((now - START) // DAY, market.control[at.BUDGET].copy())
    for day, allowed in highest.items():
        ring = (day_of(START) + day) % at.RING_DAYS
        assert (market.days[at.SPEND, ring] <= allowed).all()


def test_a_budget_below_what_is_spent_stops_the_day_and_no_more() -> None:
    market = small_market(history_days=0)
    noon = Instant(START + 12 * HOUR)
    market.advance_to(noon)
    spent = market.days[at.SPEND, day_of(START) % at.RING_DAYS].copy()
    assert (spent > 0).any()
    market.control[at.BUDGET] = 1_000_000
    market.advance_to(Instant(START + DAY))
    after = market.days[at.SPEND, day_of(START) % at.RING_DAYS]
    assert (after <= np.maximum(spent, 1_000_000)).all()
    market.advance_to(Instant(START + 2 * DAY))
    assert (market.days[at.SPEND, (day_of(START) + 1) % at.RING_DAYS] <= 1_000_000).all()


def test_no_click_costs_more_than_its_bid() -> None:
    market = small_market(campaigns=24, history_days=0)
    market.advance_to(Instant(START + 3 * DAY))
    clicks, spend = market.days[at.CLICKS].sum(axis=0), market.days[at.SPEND].sum(axis=0)
    assert (spend <= clicks * market.control[at.BID]).all()
    assert (spend[clicks > 0] > 0).all()


def test_all_metrics_are_whole_numbers_and_none_is_negative() -> None:
    market = small_market(campaigns=24, history_days=30)
    for part in (market.days, market.published, market.control, market.people):
        assert part.dtype == np.int64
    for day in range(20):
        market.advance_to(Instant(START + day * DAY))
        assert (market.days >= 0).all()
        assert (market.published >= 0).all()
        assert (market.days[at.CLICKS] <= market.days[at.IMPRESSIONS]).all()
        assert (market.days[at.CONVERSIONS] <= market.days[at.CLICKS]).all()
        assert ((market.days[at.CONVERSIONS] > 0) == (market.days[at.REVENUE] > 0)).all()
        assert (market.control[at.SPENT] <= market.control[at.BUDGET]).all()
    facts = customers_of(market)
    assert all(each.purchases >= 0 and each.revenue_micros >= 0 for each in facts)
    assert all((each.purchases == 0) == (each.revenue_micros == 0) for each in facts)
    assert all(each.acquired_at <= each.last_purchase_at <= each.updated_at <= market.now for each in facts)


# ---- what makes it a market


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_twice_the_budget_buys_less_than_twice_the_value(seed: int) -> None:
    half, usual, double = (settled(budget, seed=seed) for budget in (0.5, 1.0, 2.0))
    for less, more in ((half, usual), (usual, double)):
        assert less[0] < more[0] < 2.2 * less[0]
        assert less[1] < more[1] < 1.95 * less[1]
        assert more[1] / more[0] < 0.95 * less[1] / less[0]


def test_twice_the_bid_buys_less_than_twice_the_value_where_budgets_do_not_bind() -> None:
    usual, double = settled(1_000.0, 1.0), settled(1_000.0, 2.0)
    assert usual[0] < double[0]
    assert usual[1] < double[1] < 1.5 * usual[1]
    assert double[1] / double[0] < usual[1] / usual[0]


def test_a_bid_nobody_can_win_with_buys_nothing() -> None:
    assert settled(1.0, 0.001, days=2, rest=1) == (0, 0)


def test_traffic_follows_the_hour_of_the_week() -> None:
    market = small_market(campaigns=24, history_days=0)
    market.control[at.BUDGET] *= 1_000
    clicks = []
    for hour in range(7 * 24):
        before = market.days[at.CLICKS].sum()
        market.advance_to(Instant(START + (hour + 1) * HOUR))
        clicks.append(int(market.days[at.CLICKS].sum() - before))
    by_hour = np.array(clicks).reshape(7, 24).sum(axis=0)
    assert by_hour.max() > 1.5 * by_hour.min()


def test_conversions_arrive_late_and_some_are_taken_back() -> None:
    market = small_market(campaigns=36, history_days=0)
    column = day_of(START) % at.RING_DAYS
    known: list[list[int]] = []
    for day in range(1, 20):
        market.advance_to(Instant(START + day * DAY))
        known.append(market.days[at.CONVERSIONS, column].tolist())
    totals = [sum(each) for each in known]
    assert 0 < totals[0] < 0.8 * max(totals)
    assert max(totals) > totals[-1]
    assert any((np.array(after) < before).any() for before, after in pairwise(known))
    clicks = market.days[at.CLICKS, column].copy()
    market.advance_to(Instant(START + 25 * DAY))
    assert (market.days[at.CLICKS, column] == clicks).all()


def test_days_called_final_never_change_again() -> None:
    market = small_market(campaigns=36, history_days=25)
    kept: dict[int, np.ndarray] = {}
    for day in range(0, 40, 2):
        market.advance_to(Instant(START + day * DAY))
        today = day_of(market.now)
        last_final = today - at.WINDOW_DAYS + 3 - 1
        for each in range(day_of(START) - 20, last_final + 1):
            seen = market.days[:, each % at.RING_DAYS].copy()
            assert (kept.setdefault(each, seen) == seen).all()
    assert len(kept) > 30


def test_reports_have_an_age_and_every_platform_its_own_rhythm() -> None:
    market = small_market(history_days=1)
    ages: dict[int, set[int]] = {place: set() for place in range(6)}
    for minute in range(24 * 60):
        now = Instant(START + minute * MINUTE)
        market.advance_to(now)
        for place in range(6):
            ages[place].add(now - market.report(place, now)[1])
    for place, seen in ages.items():
        period, lag = (int(market.reports[row, place]) * MINUTE for row in (at.PERIOD, at.LAG))
        assert min(seen) == lag > 0
        assert max(seen) == period + lag - MINUTE
    assert len({frozenset(seen) for seen in ages.values()}) > 3


def test_a_report_is_what_was_known_at_its_instant() -> None:
    market = small_market(campaigns=24, history_days=4)
    place = 1
    refreshed = Instant(START + 10 * HOUR)
    market.advance_to(refreshed)
    first, last = market.span(place)
    known = market.days[:, :, first:last].copy()
    now = Instant(refreshed + int(market.reports[at.LAG, place]) * MINUTE)
    market.advance_to(now)
    shown, as_of = market.report(place, now)
    assert as_of == refreshed
    window = [(day_of(START) - back) % at.RING_DAYS for back in range(5)]
    assert (shown[:, window] == known[:, window]).all()
    assert (market.days[at.IMPRESSIONS, :, first:last] != known[at.IMPRESSIONS]).any()


def test_customers_buy_again_and_none_is_lost() -> None:
    market = small_market(campaigns=24, history_days=40)
    facts = customers_of(market)
    assert len({each.customer_id for each in facts}) == len(facts)
    assert sum(each.purchases > 1 for each in facts) > 0.3 * len(facts)
    assert any(each.purchases == 0 for each in facts)
    assert {each.platform for each in facts} == set(range(6))
    assert market.counters[at.DROPPED] == 0


def test_memory_does_not_grow_with_time() -> None:
    market = small_market(history_days=0)

    def shapes() -> dict[str, object]:
        return {
            name: (value.shape, value.dtype, value.ctypes.data) if isinstance(value, np.ndarray) else type(value)
            for name, value in vars(market).items()
        }

    before = shapes()
    market.advance_to(Instant(START + 400 * DAY))
    assert shapes() == before
    assert market.counters[at.NOTES] > 0
    assert market.counters[at.DROPPED] == 0
    assert (market.days >= 0).all()
    alive = market.people[at.STATE]
    assert ((alive == at.CUSTOMER) | (alive == at.CLICKED) | (alive == at.REVERSED)).sum() < 0.9 * market.people.shape[
        1
    ]


@pytest.mark.parametrize(
    ("campaigns", "history_days", "platforms"), [(5, 0, 6), (12, -1, 6), (12, at.RING_DAYS, 6), (12, 0, 5)]
)
def test_a_market_that_cannot_be_is_refused(campaigns: int, history_days: int, platforms: int) -> None:
    with pytest.raises(ValueError):
        Market(1, START, campaigns, history_days, platforms)
