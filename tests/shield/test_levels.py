"""The level decision: machine code against its twin, exposures against the room, bids in proportion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki_agent.kernels import permits
from kiki_agent.kernels.permits import STEPS, permit
from kiki_agent.model import MINUTE, SECOND
from kiki_agent.shield import LevelReason

POLL, WINDOW = 60 * SECOND, 600 * SECOND
HUGE = 2**62
amount = st.one_of(st.integers(-2, 50), st.integers(0, 10**10), st.integers(-HUGE, HUGE))
row = st.tuples(
    st.integers(-1, 3),
    amount,
    amount,
    amount,
    amount,
    amount,
    st.one_of(amount, st.integers(0, 10**9)),
    st.integers(0, 1),
)
sane = st.tuples(
    st.integers(0, 2),
    st.integers(0, 5_000_000),
    st.integers(0, 100_000),
    st.integers(0, 10**10),
    st.integers(0, 10**9),
    st.integers(0, 10**7),
    st.integers(0, 10**10),
    st.just(1),
)
room = st.tuples(st.integers(0, 10**15), st.integers(0, 10**15), st.sampled_from([0, 0, 0, 7, 8]))
tight = st.tuples(st.integers(0, 10**10), st.integers(0, 10**10), st.just(0))


def decide(call: Any, rows: list[tuple[int, ...]], rooms: list[tuple[int, int, int]]) -> list[np.ndarray]:
    n, k = len(rows), len(rooms)
    columns = np.array(rows, dtype=np.int64).reshape(n, 8).T.copy()
    out = [np.full(n, 77, dtype=np.int64) for _ in range(3)]
    reason = np.full(n, 77, dtype=np.uint8)
    held = np.full((k, 2), 77, dtype=np.int64)
    shape = np.array(rooms, dtype=np.int64).reshape(k, 3)
    standing = call(*columns[:7], columns[7].astype(np.uint8), shape, POLL, WINDOW, *out, reason, held)
    return [*out, reason, held, np.array(standing)]


@pytest.fixture(scope="module")
def compiled() -> Any:
    permit.compile(cache=False)
    assert permit.compiled
    return permit.calls


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(row, sane), max_size=30), st.lists(st.one_of(room, tight), min_size=1, max_size=3))
def test_machine_code_and_twin_agree(compiled: Any, rows: list[Any], rooms: list[Any]) -> None:
    for fast, slow in zip(decide(compiled, rows, rooms), decide(permit.twin, rows, rooms), strict=True):
        assert np.array_equal(fast, slow)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(row, sane), max_size=30), st.lists(st.one_of(room, tight), min_size=3, max_size=3))
def test_exposures_never_pass_the_room_nor_what_a_campaign_has_left(
    compiled: Any, rows: list[Any], rooms: list[Any]
) -> None:
    bid, exposure, inside, reason, held, standing = decide(compiled, rows, rooms)
    sums = [[0, 0] for _ in rooms]
    for i, (connector, wanted, least, budget, spent, _rate, _age, active) in enumerate(rows):
        assert (bid[i] > 0) == (exposure[i] > 0)
        if bid[i] == 0:
            assert exposure[i] == inside[i] == 0
            assert reason[i] != LevelReason.PERMITTED
            continue
        assert active
        assert max(1, least) <= bid[i] <= wanted
        assert 0 <= inside[i] <= exposure[i] <= budget - spent
        assert (reason[i] == LevelReason.PERMITTED) == (bid[i] == wanted)
        sums[connector][0] += int(exposure[i])
        sums[connector][1] += int(inside[i])
    assert held.tolist() == sums
    for (day, window, block), (whole, part) in zip(rooms, sums, strict=True):
        assert whole <= day
        assert part <= window
        assert not block or whole == 0
    assert standing == np.count_nonzero(bid)


def one(**changes: int) -> tuple[int, ...]:
    names = ("connector", "wanted", "least", "budget", "spent", "rate", "age", "active")
    values = dict(zip(names, (0, 1_000_000, 10_000, 100_000_000, 0, 1_000, 0, 1), strict=True))
    return tuple((values | changes).values())


def test_the_exposure_is_rate_times_age_and_interval_rounded_up() -> None:
    rows = [one(rate=100_001, age=3 * SECOND + 1), one(rate=0), one(rate=10**9, spent=99_000_000)]
    bid, exposure, inside, _, _, _ = decide(permit.twin, rows, [(10**12, 10**12, 0)])
    assert exposure.tolist() == [6_300_164, 1_000_000, 1_000_000]  # 63.001 s; one click; what is left
    assert bid.tolist() == [1_000_000] * 3
    assert inside.tolist() == exposure.tolist()


def test_the_window_counts_only_its_own_span_of_an_exposure() -> None:
    _, exposure, inside, _, _, _ = decide(permit.twin, [one(rate=1_000, age=60 * MINUTE)], [(10**12, 10**12, 0)])
    assert (exposure[0], inside[0]) == (3_660_000, 1_000_000)  # 600 s would be 600,000; one click is more


@pytest.mark.parametrize(
    ("rooms", "reason"), [((500, 10**6, 0), LevelReason.DAILY_CAP), ((10**6, 500, 0), LevelReason.WINDOW_CAP)]
)
def test_levels_that_do_not_fit_are_lowered_in_proportion(rooms: tuple[int, int, int], reason: LevelReason) -> None:
    rows = [one(wanted=100, least=1, rate=0, budget=10**6) for _ in range(10)]
    bid, exposure, _, why, held, standing = decide(permit.twin, rows, [rooms])
    assert bid.tolist() == [50] * 10
    assert exposure.tolist() == [50] * 10
    assert set(why.tolist()) == {reason}
    assert (held[0, 0], standing) == (500, 10)


@pytest.mark.parametrize("rooms", [(10_000, 10**9, 0), (10**9, 10_000, 0)])
@pytest.mark.parametrize("large", [1, 2, 3])
def test_a_few_huge_levels_do_not_take_the_place_of_the_others(rooms: tuple[int, int, int], large: int) -> None:
    """Each of them gets a like part, and one such part is left for the rest."""
    rows = [one(wanted=20_000, least=1, rate=0, budget=10**6) for _ in range(large)]
    rows += [one(wanted=100, least=60, rate=0) for _ in range(10)]
    bid, exposure, _, why, held, _ = decide(permit.twin, rows, [rooms])
    assert bid[large:].tolist() == [100] * 10
    assert set(why[large:].tolist()) == {LevelReason.PERMITTED}
    assert len(set(exposure[:large].tolist())) == 1
    assert 10_000 // (large + 1) * 0.6 <= exposure[0] <= 10_000 // (large + 1)
    assert int(held.max()) <= 10_000


def test_a_level_that_would_fall_below_the_minimum_is_paused() -> None:
    rows = [one(wanted=100, least=60, rate=0), one(wanted=100, least=40, rate=0)]
    bid, _, _, why, _, _ = decide(permit.twin, rows, [(100, 100, 0)])
    assert bid.tolist() == [0, 50]
    assert set(why.tolist()) == {LevelReason.DAILY_CAP}


def test_bids_fall_in_sixteenths_so_that_they_do_not_change_on_every_tick() -> None:
    bids = {
        int(decide(permit.twin, [one(wanted=1_600, least=1, rate=0)], [(left, 10**9, 0)])[0][0])
        for left in range(1_700)
    }
    assert bids == {100 * step for step in range(STEPS + 1)}


@pytest.mark.parametrize(
    ("changes", "block", "reason"),
    [
        ({"active": 0}, 0, LevelReason.INACTIVE),
        ({"wanted": 0}, 0, LevelReason.NOT_WANTED),
        ({"least": 1_000_001}, 0, LevelReason.BELOW_MINIMUM),
        ({"spent": 100_000_000}, 0, LevelReason.DAILY_BUDGET),
        ({}, LevelReason.OVERSHOOT, LevelReason.OVERSHOOT),
        ({}, LevelReason.KILL_SWITCH, LevelReason.KILL_SWITCH),
        ({"rate": -1}, 0, LevelReason.BAD_INPUT),
        ({"connector": 1}, 0, LevelReason.BAD_INPUT),
        ({"connector": -1}, 0, LevelReason.BAD_INPUT),
        ({"wanted": 10**15 + 1, "budget": 10**15}, 0, LevelReason.BAD_INPUT),
    ],
)
def test_every_refusal_has_its_reason(changes: dict[str, int], block: int, reason: LevelReason) -> None:
    bid, exposure, _, why, _, standing = decide(permit.twin, [one(**changes)], [(10**12, 10**12, block)])
    assert (bid[0], exposure[0], why[0], standing) == (0, 0, reason, 0)


def test_reason_numbers_are_those_of_the_kernel() -> None:
    for reason in LevelReason:
        assert getattr(permits, reason.name) == reason.value
