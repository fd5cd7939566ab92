"""The breaker step by step, and as a machine that Hypothesis drives against a model."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kiki_agent.runtime.breaker import SECOND, Breaker, BreakerRule, Circuit

T0 = 1_790_000_000_000_000
RULE = BreakerRule(failures=3, reset=30 * SECOND, successes=2, jitter=0.1)


def call(breaker: Breaker, now: int, ok: bool) -> bool:
    """One whole call; whether it was let in."""
    if breaker.enter(now):
        return False
    breaker.leave(now, ok, breaker.generation)
    return True


def test_two_failures_one_success_two_failures_leave_it_closed_and_three_in_a_row_open_it() -> None:
    breaker = Breaker(RULE)
    for ok in (False, False, True, False, False):
        assert call(breaker, T0, ok)
    assert breaker.state is Circuit.CLOSED
    call(breaker, T0, False)
    assert (breaker.state, breaker.failures, breaker.opened_at) == (Circuit.OPEN, 3, T0)


def opened(chance: float = 0.0) -> Breaker:
    breaker = Breaker(RULE, lambda: chance)
    for _ in range(3):
        call(breaker, T0, False)
    return breaker


def test_after_thirty_seconds_probes_go_through_and_two_successes_close_it() -> None:
    breaker = opened()
    due = T0 + 30 * SECOND
    assert breaker.enter(due - 1) == due
    assert breaker.peek(due - 1) == due
    assert breaker.peek(due) == 0
    assert breaker.state is Circuit.OPEN, "to look changes nothing"
    assert call(breaker, due, True)
    assert breaker.state is Circuit.HALF_OPEN
    assert call(breaker, due, True)
    assert (breaker.state, breaker.failures, breaker.opened_at) == (Circuit.CLOSED, 0, None)


def test_a_failed_probe_opens_it_for_another_thirty_seconds() -> None:
    breaker = opened()
    due = T0 + 30 * SECOND
    assert call(breaker, due, True)
    assert call(breaker, due + 5, False)
    assert breaker.state is Circuit.OPEN
    assert breaker.enter(due + 6) == due + 5 + 30 * SECOND


def test_only_so_many_probes_at_a_time() -> None:
    breaker = opened()
    due = T0 + 30 * SECOND
    assert [breaker.enter(due) for _ in range(2)] == [0, 0]
    assert breaker.enter(due) > due
    assert breaker.peek(due) > due
    breaker.withdraw(breaker.generation)
    assert breaker.enter(due) == 0, "a probe that was held back makes room"


def test_chance_adds_up_to_a_tenth() -> None:
    assert opened(0.999).enter(T0 + 32 * SECOND) == T0 + round(30 * SECOND * 1.0999)


def test_calls_that_began_before_a_change_no_longer_count() -> None:
    breaker = Breaker(RULE)
    old = breaker.generation
    for _ in range(3):
        call(breaker, T0, False)
    due = T0 + 30 * SECOND
    assert breaker.enter(due) == 0
    for _ in range(5):
        breaker.leave(due, True, old)
    assert breaker.state is Circuit.HALF_OPEN
    breaker.leave(due, False, old)
    assert breaker.state is Circuit.HALF_OPEN


def test_a_clock_put_back_does_not_keep_it_open() -> None:
    breaker = opened()
    back = T0 - 3_600 * SECOND
    assert breaker.enter(back) == back + 30 * SECOND
    assert breaker.enter(back + 30 * SECOND) == 0
    breaker = opened()
    assert breaker.peek(back) == back + 30 * SECOND, "who only looks is not told to wait for an hour either"
    assert breaker.peek(back + 30 * SECOND) == 0


def test_another_time_to_stay_open_holds_for_a_breaker_that_is_open() -> None:
    breaker = opened(0.5)
    breaker.rule = BreakerRule(failures=3, reset=7 * SECOND, successes=2, jitter=0.0)
    assert breaker.peek(T0 + 1) == T0 + 7 * SECOND
    assert breaker.enter(T0 + 7 * SECOND) == 0


def test_a_person_may_close_it_and_changes_are_told() -> None:
    breaker = opened()
    told: list[Circuit] = []
    breaker.on_change = told.append
    breaker.close()
    assert (breaker.state, breaker.failures, told) == (Circuit.CLOSED, 0, [Circuit.CLOSED])
    breaker.close()
    assert told == [Circuit.CLOSED]


@pytest.mark.parametrize("state", list(Circuit))
def test_states_have_the_words_of_the_interface(state: Circuit) -> None:
    assert state.word in ("closed", "half_open", "open")


class Machine(RuleBasedStateMachine):
    """Calls that overlap in every way, and what must hold whatever they do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.breaker = Breaker(RULE)
        self.running: list[tuple[int, Circuit]] = []
        self.in_a_row = 0
        self.reopens_at = 0

    @rule(seconds=st.sampled_from([0, 1, 10, 29, 30, 31]))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule()
    def begin(self) -> None:
        before = self.breaker.state
        free_at = self.breaker.enter(self.now)
        if before is Circuit.CLOSED:
            assert free_at == 0
        if before is Circuit.OPEN:
            assert (free_at == 0) == (self.now >= self.reopens_at)
        if free_at:
            assert free_at > self.now
        else:
            self.running.append((self.breaker.generation, self.breaker.state))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), ok=st.booleans())
    def end(self, data: st.DataObject, ok: bool) -> None:
        generation, _ = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        counts = generation == self.breaker.generation
        before = self.breaker.state
        self.breaker.leave(self.now, ok, generation)
        if not counts:
            assert self.breaker.state is before
            return
        if before is Circuit.CLOSED:
            self.in_a_row = 0 if ok else self.in_a_row + 1
            assert (self.breaker.state is Circuit.OPEN) == (self.in_a_row == 3)
        else:
            assert before is Circuit.HALF_OPEN
            assert ok or self.breaker.state is Circuit.OPEN
        if self.breaker.state is Circuit.OPEN:
            self.in_a_row = 0
            self.reopens_at = self.now + RULE.reset
        if self.breaker.state is Circuit.CLOSED and before is Circuit.HALF_OPEN:
            self.in_a_row = 0

    @invariant()
    def probes_are_few(self) -> None:
        if self.breaker.state is Circuit.HALF_OPEN:
            now = [each for each in self.running if each[0] == self.breaker.generation]
            assert len(now) <= RULE.successes

    @invariant()
    def it_says_since_when_it_is_not_closed(self) -> None:
        assert (self.breaker.opened_at is None) == (self.breaker.state is Circuit.CLOSED)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
