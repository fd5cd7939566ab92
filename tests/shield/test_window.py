"""The sliding window against a plain list."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kiki_agent.shield import SlidingWindow

SPAN = 600


class WindowAgainstList(RuleBasedStateMachine):
    """A list that is scanned from end to end is slow and obviously right."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10_000
        self.window = SlidingWindow(SPAN)
        self.window.advance(self.now)
        self.model: list[tuple[int, int]] = []

    def move(self, to: int) -> None:
        if to < self.now:
            self.model = [(min(at, to), amount) for at, amount in self.model]
        self.now = to
        self.model = [(at, amount) for at, amount in self.model if to < at + SPAN]

    @rule(step=st.one_of(st.integers(0, 5), st.integers(0, 2 * SPAN), st.just(SPAN)), amount=st.integers(0, 100))
    def record(self, step: int, amount: int) -> None:
        self.move(self.now + step)
        self.window.record(self.now, amount)
        self.model.append((self.now, amount))

    @rule(back=st.integers(0, 2 * SPAN), amount=st.integers(0, 100))
    def insert(self, back: int, amount: int) -> None:
        at = max([self.now - back, *(at for at, _ in self.model)])
        counted_from = self.window.insert(self.now - back, amount)
        assert counted_from == at
        if self.now < at + SPAN:
            self.model.append((at, amount))

    @rule(back=st.integers(1, 3 * SPAN))
    def clock_jumps_back(self, back: int) -> None:
        self.move(self.now - back)
        self.window.advance(self.now)

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


@pytest.mark.parametrize("wrong", [lambda: SlidingWindow(0), lambda: SlidingWindow(1).record(0, -1)])
def test_nonsense_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError):
        wrong()  # type: ignore[operator]
