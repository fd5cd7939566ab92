"""The sliding window against a plain list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kiki_agent.kernels.windows import spend_all
from kiki_agent.shield import SlidingWindow

SPAN = 600


@contextmanager
def one_way(compiled: bool) -> Iterator[None]:
    """Let the batch go through the machine code, or through its twin."""
    before = spend_all.calls, spend_all.compiled
    if compiled:
        spend_all.compile()
    else:
        spend_all.calls = spend_all.twin
    try:
        yield
    finally:
        if not compiled:
            spend_all.calls, spend_all.compiled = before


class WindowAgainstList(RuleBasedStateMachine):
    """A list that is scanned from end to end is slow and obviously right."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10_000
        self.window = SlidingWindow(SPAN)
        self.window.advance(self.now)
        self.model: list[tuple[int, int]] = []

    def move(self, to: int) -> None:
        self.now = to
        self.model = [(at, amount) for at, amount in self.model if to < at + SPAN]

    @rule(step=st.one_of(st.integers(0, 5), st.integers(0, 2 * SPAN), st.just(SPAN)), amount=st.integers(0, 100))
    def record(self, step: int, amount: int) -> None:
        self.move(self.now + step)
        self.window.record(self.now, amount)
        self.model.append((self.now, amount))

    @rule(step=st.one_of(st.integers(0, 5), st.just(SPAN)), amount=st.integers(0, 100), limit=st.integers(0, 300))
    def try_spend(self, step: int, amount: int, limit: int) -> None:
        self.move(self.now + step)
        fits = sum(each for _, each in self.model) + amount <= limit
        assert self.window.try_spend(self.now, amount, limit) is fits
        if fits:
            self.model.append((self.now, amount))

    @rule(
        steps=st.lists(st.tuples(st.integers(-SPAN, 2 * SPAN), st.integers(0, 100)), min_size=1, max_size=40),
        limit=st.integers(0, 600),
        compiled=st.booleans(),
    )
    def try_spend_all(self, steps: list[tuple[int, int]], limit: int, compiled: bool) -> None:
        at = [self.now + abs(steps[0][0])]
        for step, _ in steps[1:]:
            at.append(at[-1] + step)
        expected = []
        for instant, (_, amount) in zip(at, steps, strict=True):
            self.move(max(self.now, instant))
            fits = sum(each for _, each in self.model) + amount <= limit
            expected.append(fits)
            if fits:
                self.model.append((self.now, amount))
        amounts = np.array([amount for _, amount in steps], dtype=np.int64)
        with one_way(compiled):
            assert self.window.try_spend_all(np.array(at, dtype=np.int64), amounts, limit) == expected

    @rule(back=st.integers(0, 2 * SPAN), amount=st.integers(0, 100))
    def insert(self, back: int, amount: int) -> None:
        at = max([self.now - back, *(at for at, _ in self.model)])
        counted_from = self.window.insert(self.now - back, amount)
        assert counted_from == at
        if self.now < at + SPAN:
            self.model.append((at, amount))

    @rule(forward=st.integers(1, 100 * SPAN))
    def clock_jumps_forward(self, forward: int) -> None:
        self.move(self.now + forward)
        self.window.advance(self.now)

    @rule(count=st.just(1_025))
    def many_at_once(self, count: int) -> None:
        for _ in range(count):
            self.window.record(self.now, 1)
        self.model.extend([(self.now, 1)] * count)

    @invariant()
    def they_agree(self) -> None:
        assert self.window.total == sum(amount for _, amount in self.model)
        assert self.window.count == len(self.model)
        assert list(self.window.records()) == self.model
        assert self.window.oldest == (self.model[0][0] if self.model else None)


WindowAgainstList.TestCase.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
TestWindowAgainstList = WindowAgainstList.TestCase


STEADY = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 1, 2, 20]), st.integers(0, 9), st.integers(0, 40), st.integers(0, 3)),
    min_size=40,
    max_size=80,
)
"""Steps of time, none long but the last kind, what is spent, up to which limit, and by which call."""


@settings(max_examples=300, deadline=None)
@given(story=STEADY)
def test_records_that_leave_one_by_one_leave_when_a_list_lets_them_go(story: list[tuple[int, int, int, int]]) -> None:
    span, now = 20, 1_000
    window = SlidingWindow(span)
    model: list[tuple[int, int]] = []
    for step, amount, limit, way in story:
        now += step
        model = [(at, each) for at, each in model if now < at + span]
        if way == 0:
            assert window.advance(now) == sum(each for _, each in model)
        elif way == 1:
            window.record(now, amount)
            model.append((now, amount))
        else:
            fits = sum(each for _, each in model) + amount <= limit
            assert window.try_spend(now, amount, limit) is fits
            if fits:
                model.append((now, amount))
        assert list(window.records()) == model
        assert (window.total, window.count) == (sum(each for _, each in model), len(model))


def test_after_an_empty_window_no_record_leaves_early() -> None:
    window = SlidingWindow(20)
    window.advance(1_000)
    assert window.try_spend(1_002, 5, 10)
    assert window.try_spend(1_002, 5, 10)
    for now in range(1_003, 1_022):
        assert not window.try_spend(now, 1, 10), now
    assert window.try_spend(1_022, 10, 10)


def test_one_record_freed_by_a_long_step_is_back_when_the_clock_is() -> None:
    window = SlidingWindow(20)
    window.record(1_000, 7)
    window.record(1_015, 1)
    assert window.try_spend(1_025, 1, 2)
    assert window.advance(1_016) == 9


def test_memory_follows_what_the_window_holds_and_not_what_it_has_held() -> None:
    window = SlidingWindow(SPAN)
    for number in range(20_000):
        window.record(1_000 + number // 100, 1)
    assert window.count == 20_000
    for number in range(2_000):
        assert window.try_spend(10_000 + 10 * number, 1, 100)
    assert window.count == 60
    for number in range(30_000):  # room is made anew when the old is used up, and is as small as what counts then
        assert window.try_spend(40_000 + 10 * number, 1, 100)
    assert len(window._times) <= 256


def test_a_spend_counts_until_just_before_its_span_has_passed() -> None:
    window = SlidingWindow(SPAN)
    window.record(1_000, 7)
    assert window.advance(1_000 + SPAN - 1) == 7
    assert window.advance(1_000 + SPAN) == 0
    assert window.count == 0


def test_a_clock_that_jumps_back_frees_nothing_and_keeps_nothing_for_good() -> None:
    window = SlidingWindow(SPAN)
    window.record(1_000_000, 7)
    assert window.advance(5) == 7
    assert window.advance(5 + SPAN - 1) == 7
    assert window.advance(5 + SPAN) == 0


JUMPS = st.lists(
    st.tuples(
        st.integers(0, SPAN // 2),
        st.sampled_from([0, 0, 0, -7, 5, -SPAN // 2, SPAN // 2, -3 * SPAN, 3 * SPAN, -(10**6), 10**6]),
        st.integers(0, 50),
        st.booleans(),
    ),
    max_size=40,
)
"""Steps of true time, where the clock stands then (from the true time), what is spent, and by which call."""


@settings(max_examples=400, deadline=None)
@given(story=JUMPS)
def test_a_clock_that_comes_back_has_freed_nothing_early(story: list[tuple[int, int, int, bool]]) -> None:
    """Whatever the clock did meanwhile: while it is right, what was spent while it was right counts for its span."""
    window = SlidingWindow(SPAN)
    now = 10**9
    made: list[tuple[int, int]] = []
    window.advance(now)
    for step, offset, amount, tried in story:
        now += step
        if tried:
            assert window.try_spend(now + offset, amount, 10**9)
        else:
            window.record(now + offset, amount)
        if offset == 0:
            made.append((now, amount))
            assert window.total >= sum(each for at, each in made if now < at + SPAN)
        assert window.total == sum(each for _, each in window.records())
        assert window.count == len(list(window.records()))
    steady = max(now, now + story[-1][1] if story else now)
    for step in range(0, 3 * SPAN, SPAN // 20):
        window.advance(steady + step)
    for step in (2 * 10**6, 2 * 10**6 + SPAN):  # past all that was written down by a clock that ran ahead
        window.advance(steady + step)
    assert window.total == 0, "and nothing is kept for good"


def test_an_hour_back_and_forth_again_frees_nothing() -> None:
    for there in (-3_600, 3_600, -5, 5, 300, -300):
        window = SlidingWindow(SPAN)
        window.record(10_000, 7)
        window.advance(10_001 + there)
        assert window.advance(10_002) == 7, there
        assert window.advance(10_000 + SPAN - 1) == 7, there
        assert window.advance(10_000 + SPAN) == 0, there


def test_a_clock_that_comes_back_in_two_steps_frees_nothing() -> None:
    window = SlidingWindow(SPAN)
    window.record(10_000, 7)
    window.advance(10_000 - 3 * SPAN)
    assert window.advance(9_993) == 0, "aged enough there, as far as that clock knows"
    assert window.advance(10_000) == 7, "and here it is again"
    assert window.advance(10_000 + SPAN - 1) == 7
    assert window.advance(10_000 + SPAN) == 0


def test_a_batch_counts_what_the_clock_jumped_over() -> None:
    window = SlidingWindow(SPAN)
    window.record(10_000, 7)
    window.advance(9_000)
    assert window.try_spend_all(np.array([9_001, 9_002]), np.array([3, 1]), 10) == [True, False]
    assert list(window.records()) == [(9_000, 7), (9_001, 3)]
    assert window.oldest == 9_000


@pytest.mark.parametrize("wrong", [lambda: SlidingWindow(0), lambda: SlidingWindow(1).record(0, -1)])
def test_nonsense_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError):
        wrong()  # type: ignore[operator]


def test_a_batch_that_makes_no_sense_counts_nothing() -> None:
    window = SlidingWindow(SPAN)
    with pytest.raises(ValueError, match="not negative"):
        window.try_spend_all(np.array([1, 2]), np.array([5, -1]), 10)
    with pytest.raises(ValueError, match="2 instants for 1 amounts"):
        window.try_spend_all(np.array([1, 2]), np.array([5]), 10)
    with pytest.raises(ValueError, match="not negative"):
        window.try_spend(1, -5, 10)
    assert window.try_spend_all(np.array([], dtype=np.int64), np.array([], dtype=np.int64), 10) == []
    assert (window.total, window.count) == (0, 0)


def test_sixty_six_of_a_hundred_spends_of_15_fit_into_1000_one_by_one_and_in_a_batch() -> None:
    single, batch = SlidingWindow(SPAN), SlidingWindow(SPAN)
    assert sum(single.try_spend(5, 15, 1_000) for _ in range(100)) == 66
    taken = batch.try_spend_all(np.full(100, 5, dtype=np.int64), np.full(100, 15, dtype=np.int64), 1_000)
    assert taken == [True] * 66 + [False] * 34
    assert (single.total, batch.total) == (990, 990)
