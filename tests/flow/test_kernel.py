"""The bidding kernel against its twin in plain Python, and against the formula written down a second time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki_agent.config import BiddingSettings
from kiki_agent.flow.pacing import EVEN, Pace, bid_grid, plan_curve, policy_cells
from kiki_agent.kernels import bids
from kiki_agent.kernels.bids import conversion_rate, decide_bids, on_grid, planned_share
from kiki_agent.model import DAY, HOUR, SECOND

from .market import MIDNIGHT

POLICY = policy_cells(BiddingSettings(value_share=0.3, bid_step_percent=5), Pace(hold=120 * SECOND, dead_band=0.75))
GRID = bid_grid(5.0, 50_000_000)
amounts = st.integers(0, 10**11)
rows = st.lists(
    st.tuples(
        st.integers(0, 2),  # connector
        st.integers(0, 1),  # eligible
        amounts,  # budget
        st.integers(0, 10**8),  # bid in force
        st.integers(0, 10**6),  # least bid
        st.sampled_from([1, 10_000, 50_000, 1_000_000]),  # platform's step
        amounts,  # spend today
        st.integers(-HOUR, 3 * DAY),  # age of the spend
        st.integers(0, 10**9),  # rate
        st.integers(0, 10**6),  # clicks
        st.integers(0, 10**5),  # conversions
        st.integers(-1, 10**8),  # standing bid
        st.integers(0, 80),  # standing reason
        st.integers(0, DAY),  # age of the decision
    ),
    min_size=1,
    max_size=12,
)
platforms = st.lists(
    st.tuples(st.integers(0, 10**11), st.integers(0, 10**7), st.integers(0, 10**6), st.sampled_from([23, 24, 25])),
    min_size=3,
    max_size=3,
)


def columns(now: int, drawn: list[tuple[int, ...]], facts: list[tuple[int, int, int, int]]) -> list[object]:
    made = [np.array(column, dtype=np.int64) for column in zip(*drawn, strict=True)]
    made[1] = made[1].astype(np.uint8)
    made[7] = np.where(made[7] < DAY * 2, now - made[7], 0)
    made[12] = made[12].astype(np.uint8)
    made[13] = now - made[13]
    table = np.array([[*fact[:3], MIDNIGHT, MIDNIGHT + fact[3] * HOUR] for fact in facts], dtype=np.int64)
    curves = np.tile(plan_curve(EVEN), (3, 1))
    n = len(drawn)
    return [now, POLICY, GRID, table, curves, *made, np.zeros(n, np.int64), np.zeros(n, np.uint8)]


@pytest.fixture(scope="module", autouse=True)
def _machine_code() -> None:
    decide_bids.compile(cache=False)
    assert decide_bids.compiled


@settings(max_examples=300, deadline=None)
@given(rows, platforms, st.integers(0, 25 * HOUR))
def test_machine_code_and_python_agree_to_the_last_micro(
    drawn: list[tuple[int, ...]], facts: list[tuple[int, int, int, int]], into_day: int
) -> None:
    args = columns(MIDNIGHT + into_day, drawn, facts)
    decide_bids(*args)  # type: ignore[arg-type]
    compiled = [args[-2].copy(), args[-1].copy()]  # type: ignore[attr-defined]
    decide_bids.twin(*args)  # type: ignore[arg-type]
    assert compiled[0].tolist() == args[-2].tolist()  # type: ignore[attr-defined]
    assert compiled[1].tolist() == args[-1].tolist()  # type: ignore[attr-defined]


@settings(max_examples=300, deadline=None)
@given(rows, platforms, st.integers(0, 25 * HOUR))
def test_no_bid_is_above_what_a_customer_is_worth_or_off_the_platforms_step(
    drawn: list[tuple[int, ...]], facts: list[tuple[int, int, int, int]], into_day: int
) -> None:
    args = columns(MIDNIGHT + into_day, drawn, facts)
    decide_bids(*args)  # type: ignore[arg-type]
    wanted, reason = args[-2], args[-1]
    standing = args[16]
    for i, row in enumerate(drawn):
        ltv, all_clicks, all_conversions, _ = facts[row[0]]
        worth = ltv * conversion_rate(row[9], row[10], all_clicks, all_conversions, 200) * 0.3
        bid = int(wanted[i])  # type: ignore[index]
        assert 0 <= bid <= min(math.floor(worth), 50_000_000)
        if bid and bid != standing[i]:  # type: ignore[index]
            assert bid % row[5] == 0
            assert bid >= row[4]
        if not row[1] or row[2] == 0:
            assert bid == 0
        assert int(reason[i]) < 8 or bid == standing[i]  # type: ignore[index]


def wish(**changes: int) -> tuple[int, int]:
    """One campaign at noon: 100 a day, 50 spent, at an even speed; (bid, reason)."""
    facts = {
        "connector": 0,
        "eligible": 1,
        "budget": 100_000_000,
        "bid": 1_000_000,
        "least": 10_000,
        "step": 1,
        "spent": 50_000_000,
        "age": 0,
        "rate": 1_157_407,
        "clicks": 1_000,
        "conversions": 20,
        "held": -1,
        "held_reason": 0,
        "held_age": HOUR,
    } | changes
    args = columns(MIDNIGHT + 12 * HOUR, [tuple(facts.values())], [(500_000_000, 10_000, 200, 24)] * 3)
    decide_bids.twin(*args)  # type: ignore[arg-type]
    return int(args[-2][0]), int(args[-1][0])  # type: ignore[index]


def test_on_plan_the_bid_in_force_stays() -> None:
    bid, reason = wish()
    assert reason == bids.ON_PLAN
    assert abs(bid - 1_000_000) <= 50_000


def test_ahead_of_plan_bids_less_and_behind_bids_more() -> None:
    ahead, behind = wish(spent=56_000_000), wish(spent=44_000_000)
    assert ahead[1] == bids.AHEAD_OF_PLAN
    assert ahead[0] < 900_000
    assert behind[1] == bids.BEHIND_PLAN
    assert behind[0] > 1_100_000


def test_one_wish_moves_at_most_by_half_down_and_a_quarter_up() -> None:
    assert 480_000 <= wish(spent=95_000_000, rate=10**8)[0] <= 520_000
    assert 1_190_000 <= wish(spent=0, rate=0)[0] <= 1_310_000


def test_nothing_above_worth() -> None:
    bid, reason = wish(spent=30_000_000, bid=2_900_000)
    assert reason == bids.VALUE_LIMIT
    assert 2_850_000 <= bid <= 3_000_000, "500 x 2 % x 30 % = 3"


def test_spend_since_the_report_is_assumed_and_stops_the_day() -> None:
    assert wish(spent=99_600_000)[0] > 0
    assert wish(spent=99_600_000, age=10 * 60 * SECOND) == (0, bids.BUDGET_SPENT)


def test_a_decision_stands_unless_it_breaks_a_limit() -> None:
    held = {"held": 1_100_000, "held_reason": bids.BEHIND_PLAN, "held_age": 60 * SECOND}
    assert wish(spent=56_000_000, **held) == (1_100_000, bids.BEHIND_PLAN)
    assert wish(spent=56_000_000, **(held | {"held_age": 121 * SECOND}))[0] < 1_000_000
    assert wish(spent=100_000_000, **held) == (0, bids.BUDGET_SPENT)
    assert wish(conversions=0, clicks=10_000, **held)[0] < 1_100_000


def test_a_wish_within_the_dead_band_changes_nothing() -> None:
    at = wish()[0]
    assert wish(held=at, spent=50_100_000)[0] == at


def test_the_conversion_rate_is_pulled_to_its_platforms() -> None:
    assert conversion_rate(0, 0, 0, 0, 200) == pytest.approx(0.01)
    assert conversion_rate(0, 0, 10_000, 200, 200) == pytest.approx(201 / 10_100)
    assert conversion_rate(200, 0, 10_000, 200, 200) == pytest.approx(201 / 10_100 / 2)
    assert conversion_rate(10**6, 30_000, 10_000, 200, 200) == pytest.approx(0.03, rel=0.001)


@pytest.mark.parametrize("hours", [23, 24, 25])
def test_a_plan_spends_everything_whatever_the_length_of_the_day(hours: int) -> None:
    weights = [1] * 12 + [3] * 12
    curve = plan_curve(weights)
    length = hours * HOUR
    assert planned_share(0, length, curve) == 0
    assert planned_share(length // 2, length, curve) == pytest.approx(0.25, rel=1e-5)
    assert planned_share(length, length, curve) == 1
    shares = [planned_share(length * part // 100, length, curve) for part in range(101)]
    assert shares == sorted(shares)


@pytest.mark.parametrize("weights", [[1] * 23, [0] * 24, [1] * 23 + [-1]])
def test_a_plan_of_nonsense_is_refused(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="24 non-negative"):
        plan_curve(weights)


@given(st.floats(0, 10**8), st.sampled_from([1, 10_000, 30_000]), st.integers(0, 10**5), st.integers(0, 10**8))
def test_a_point_of_the_grid_is_near_and_within_bounds(wanted: float, step: int, least: int, most: int) -> None:
    point = on_grid(wanted, 0, GRID, step, least, most)
    assert point % step == 0
    assert point == 0 or least <= point <= most
    if most > 2 * wanted and 100 * step < wanted < 50_000_000 and wanted > least + step:
        assert abs(point - wanted) <= 0.03 * wanted + step


def test_a_coarse_step_does_not_trap_a_bid() -> None:
    assert on_grid(12_500.0, 10_000, GRID, 10_000, 10_000, 10**6) == 20_000
    assert on_grid(10_100.0, 10_000, GRID, 10_000, 10_000, 10**6) == 10_000


def test_the_grid_rises_by_its_step() -> None:
    assert GRID[0] == 1_000
    assert GRID[-1] >= 50_000_000
    ratios = GRID[1:] / GRID[:-1]
    assert ratios.max() < 1.052
    assert ratios.min() > 1.048
