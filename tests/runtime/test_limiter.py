"""The moving window against an exact list; bursts, priorities, tuning, and what vendors say of their patience."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.runtime.limiter import SECOND, Limiter, Patience, Priority, RateLimit, VendorWord, spacing

T0 = 1_790_000_000_000_000


class ListModel:
    """The same promises, kept by looking at every call ever made."""

    def __init__(self, limit: RateLimit) -> None:
        self.calls: list[int] = []
        self.configure(limit)

    def configure(self, limit: RateLimit) -> None:
        self.limit = limit
        calls = limit.calls
        reads = calls - max(1, calls // 10)
        self.rooms = (max(1, reads), max(1, calls - calls // 20), calls)
        self.window = round(limit.window_s * SECOND)

    def used(self, now: int) -> int:
        return sum(at > now - self.window for at in self.calls)

    def take(self, now: int, priority: int) -> bool:
        self.calls = [min(at, now) for at in self.calls]
        burst = self.limit.burst or self.limit.calls
        if self.used(now) >= self.rooms[priority] or sum(at > now - SECOND for at in self.calls) >= burst:
            return False
        self.calls = [*self.calls, now][-self.limit.calls :]  # only a clock put back could tell more from less
        return True


limits = st.builds(
    RateLimit,
    calls=st.integers(1, 40),
    window_s=st.sampled_from([1.0, 2.5, 10.0, 60.0]),
    burst=st.none() | st.integers(1, 12),
)
steps = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 999, 100_000, SECOND - 1, SECOND, 2_500_000, 10 * SECOND, 60 * SECOND, -3 * SECOND]),
        st.integers(0, 2),
    ),
    max_size=120,
)


@given(limits, steps)
def test_it_is_the_exact_list(limit: RateLimit, moves: list[tuple[int, int]]) -> None:
    limiter, model = Limiter(limit), ListModel(limit)
    now = T0
    for move, priority in moves:
        now += move
        free_at = limiter.take(now, priority)
        assert (free_at == 0) == model.take(now, priority)
        assert free_at == 0 or free_at > now
        assert limiter.used(now) == model.used(now)


@given(limits, limits, steps, steps)
def test_another_limit_keeps_what_was_called(
    before: RateLimit, after: RateLimit, first: list[tuple[int, int]], then: list[tuple[int, int]]
) -> None:
    limiter, model = Limiter(before), ListModel(before)
    now = T0
    for move, priority in first:
        now += move
        limiter.take(now, priority)
        model.take(now, priority)
    limiter.configure(after)
    model.configure(after)
    for move, priority in then:
        now += move
        assert (limiter.take(now, priority) == 0) == model.take(now, priority)


@given(limits, st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=200))
def test_no_span_of_the_window_ever_holds_more(limit: RateLimit, gaps: list[int]) -> None:
    limiter = Limiter(limit)
    now, made = T0, []
    for gap in gaps:
        now += gap
        if limiter.take(now) == 0:
            made.append(now)
    window = round(limit.window_s * SECOND)
    for begin in made:
        assert sum(begin <= at < begin + window for at in made) <= limit.calls
        if limit.burst is not None:
            assert sum(begin <= at < begin + SECOND for at in made) <= limit.burst


def test_call_101_within_60_seconds_and_the_boundary() -> None:
    limiter = Limiter(RateLimit(100, 60))
    assert [limiter.take(T0 + index) for index in range(100)] == [0] * 100
    assert limiter.take(T0 + 59_999_999) == T0 + 60 * SECOND
    assert limiter.take(T0 + 60 * SECOND) == 0, "free again at exactly the window's length"
    assert limiter.take(T0 + 60 * SECOND) == T0 + 60 * SECOND + 1


def test_the_window_of_200_an_hour_is_an_hour() -> None:
    limiter = Limiter(RateLimit(200, 3_600))
    for index in range(200):
        assert limiter.take(T0 + index * SECOND) == 0
    assert limiter.take(T0 + 300 * SECOND) == T0 + 3_600 * SECOND
    assert limiter.take(T0 + 3_600 * SECOND) == 0


def test_a_burst_waits_for_its_second() -> None:
    limiter = Limiter(RateLimit(100, 60, burst=3))
    assert [limiter.take(T0) for _ in range(4)] == [0, 0, 0, T0 + SECOND]
    assert limiter.window_free_at(T0) <= T0, "the window itself has room"
    assert limiter.take(T0, burst=False) == 0, "where time stands still a second says nothing"
    assert limiter.take(T0 + SECOND) == 0


def test_reads_leave_a_reserve_and_changes_a_smaller_one() -> None:
    limiter = Limiter(RateLimit(100, 60))
    for _ in range(90):
        assert limiter.take(T0, Priority.READ) == 0
    assert limiter.take(T0, Priority.READ) > 0
    for _ in range(5):
        assert limiter.take(T0, Priority.CHANGE) == 0
    assert limiter.take(T0, Priority.CHANGE) > 0
    for _ in range(5):
        assert limiter.take(T0, Priority.FIRST) == 0
    assert limiter.take(T0, Priority.FIRST) > 0
    assert limiter.used(T0) == 100


def test_even_one_call_serves_everyone() -> None:
    limiter = Limiter(RateLimit(1, 60))
    assert [limiter.room(each) for each in Priority] == [1, 1, 1]
    assert limiter.take(T0, Priority.READ) == 0
    assert limiter.take(T0, Priority.FIRST) == T0 + 60 * SECOND


def test_nine_tenths_are_told_once_for_each_crossing() -> None:
    limiter = Limiter(RateLimit(10, 60))
    told = []
    for index in range(10):
        limiter.take(T0 + index)
        told.append(limiter.crossed(T0 + index))
    assert told == [False] * 8 + [True, False]
    later = T0 + 60 * SECOND + 1  # two became free: still above seven tenths, so nothing new
    assert not limiter.crossed(later)
    limiter.take(later)
    assert not limiter.crossed(later)
    empty = T0 + 200 * SECOND
    for index in range(9):
        limiter.take(empty + index)
        assert limiter.crossed(empty + index) == (index == 8)


def test_a_clock_put_back_frees_nothing_early_and_blocks_nothing_long() -> None:
    limiter = Limiter(RateLimit(5, 60))
    for _ in range(5):
        limiter.take(T0)
    back = T0 - 3_600 * SECOND
    assert limiter.take(back) == back + 60 * SECOND
    assert limiter.take(back + 60 * SECOND) == 0


@pytest.mark.parametrize(
    ("calls", "window_s", "burst"),
    [(0, 60, None), (-1, 60, None), (10, 0, None), (10, -5, None), (10, 60, 0), (True, 60, None), (10**7, 60, None)],
)
def test_a_limit_that_makes_no_sense_is_refused(calls: int, window_s: float, burst: int | None) -> None:
    with pytest.raises(ValueError, match="must be"):
        RateLimit(calls, window_s, burst)


# -- the vendor's own word ------------------------------------------------------------------------------------------


def test_a_wait_the_vendor_asked_for_is_kept() -> None:
    word = VendorWord()
    word.take(T0, None, T0 + 30 * SECOND)
    word.take(T0 + 1, None, T0 + 5 * SECOND)
    assert word.free_at(T0 + 2, T0, SECOND) == T0 + 30 * SECOND, "a shorter wait named later does not shorten it"


def test_calls_are_spaced_out_as_usage_rises_and_end_near_all_of_it() -> None:
    gap = 10 * SECOND
    waits = []
    for percent in (0, 50, 75, 80, 85, 90, 94):
        word = VendorWord()
        word.take(T0, percent / 100, None)
        waits.append(max(0, word.free_at(T0, T0, gap) - T0))
    assert waits[:3] == [0, 0, 0]
    assert waits[4] == gap, "halfway between threshold and stop the pace is the usual one"
    assert waits[2:] == sorted(waits[2:])
    assert len(set(waits[2:])) == 5
    word = VendorWord()
    word.take(T0, 1.0, None)
    until = word.free_at(T0, T0 - 3_600 * SECOND, gap)
    assert until == T0 + 180 * SECOND, "a twentieth of the hour after which the word says nothing"
    assert word.share(until + 1) < 0.95


def test_a_usage_is_believed_less_with_age_and_nonsense_never() -> None:
    word = VendorWord(span=100 * SECOND)
    word.take(T0, 0.9, None)
    assert word.share(T0) == 0.9
    assert word.share(T0 + 50 * SECOND) == pytest.approx(0.45)
    assert word.share(T0 + 200 * SECOND) == 0.0
    for nonsense in (float("nan"), float("inf"), -1.0, 5_000.0):
        word.take(T0 + SECOND, nonsense, None)
    assert (word.usage, word.usage_at) == (0.9, T0)


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_usage_never_shortens_the_pause(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert spacing(SECOND, low, 0.5, 1.0) <= spacing(SECOND, high, 0.5, 1.0) <= 1_000 * SECOND


@given(limits, steps)
def test_what_was_called_can_be_taken_along(limit: RateLimit, moves: list[tuple[int, int]]) -> None:
    limiter, now = Limiter(limit), T0
    for move, priority in moves:
        now += abs(move)
        limiter.take(now, priority)
    other = Limiter(limit)
    other.restore(limiter.instants(now), now)
    assert other.used(now) == limiter.used(now)
    for later in (now, now + SECOND, now + 5 * SECOND, now + 61 * SECOND):
        assert (other.take(later) == 0) == (limiter.take(later) == 0)


def test_calls_that_seem_to_lie_ahead_count_as_made_now() -> None:
    limiter = Limiter(RateLimit(3, 60))
    limiter.restore([T0 + 3_600 * SECOND] * 3, T0)
    assert limiter.used(T0) == 3
    assert limiter.take(T0 + 60 * SECOND) == 0


def test_what_stays_short_is_told_again_the_next_day_and_not_before() -> None:
    limiter = Limiter(RateLimit(10, 2 * 86_400))
    for index in range(9):
        limiter.take(T0 + index)
    told = [hour for hour in range(48) if limiter.crossed(T0 + 10 + hour * 3_600 * SECOND)]
    assert told == [0, 24]


def test_a_quota_only_the_vendor_counts_is_told_once_a_crossing_and_again_the_next_day() -> None:
    word = VendorWord(span=3_600 * SECOND)
    told = []
    for minute in range(26 * 60):
        now = T0 + minute * 60 * SECOND
        word.take(now, 0.93 if minute else 0.2, None)
        if word.crossed(now):
            told.append(minute)
    assert told == [1, 1 + 24 * 60]
    later = T0 + 26 * 3_600 * SECOND
    word.take(later, 0.5, None)
    assert not word.crossed(later)
    word.take(later + 1, 0.95, None)
    assert word.crossed(later + 1), "it was clearly below meanwhile"


def test_nobody_is_left_alone_for_more_than_a_day() -> None:
    word = VendorWord()
    word.take(T0, None, T0 + 400 * 86_400 * SECOND)
    assert word.free_at(T0, T0, SECOND) == T0 + 86_400 * SECOND


@given(st.integers(0, 40), st.integers(1, 10**7))
def test_a_clock_put_back_makes_no_wait_longer(waited_s: int, back_s: int) -> None:
    word = VendorWord()
    word.take(T0, None, T0 + 40 * SECOND)
    now = T0 + (waited_s - back_s) * SECOND
    assert word.free_at(now, T0, SECOND) - now <= 40 * SECOND
    word.take(T0, 1.0, None)
    assert word.free_at(now, T0, SECOND) - now <= max(40 * SECOND, word.span // 20)
    word.take(T0, 0.85, None)
    assert word.free_at(now, T0, SECOND) - now <= 40 * SECOND


def test_a_refusal_that_names_no_instant_is_followed_by_a_longer_pause_each_time() -> None:
    patience = Patience()
    now, pauses = T0, []
    for _ in range(8):
        patience.refuse(now, now - 5)
        pauses.append((patience.left_alone_until(now) - now) // SECOND)
        now = patience.left_alone_until(now)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    patience.refuse(now, now + 7 * SECOND)
    assert patience.left_alone_until(now) == now + 7 * SECOND
    patience.welcome()
    now += 7 * SECOND
    patience.refuse(now, 0)
    assert patience.left_alone_until(now) == now + SECOND
