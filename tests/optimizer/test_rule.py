"""The threshold rule and its guards: the reference client, the boundary, and each guard alone."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.model import DAY, HOUR, Instant
from kiki_agent.optimizer.rule import Guards, LastShift, PlatformFacts, judge

NOW = Instant(1_700_000_000_000_000)
LITERAL = Guards(Fraction("0.15"), Fraction("0.2"), 0, Fraction(0), False, 0)
REFERENCE = {
    "meta": (450, 180, 500),
    "google_ads": (480, 150, 450),
    "tiktok": (420, 105, 400),
    "linkedin": (440, 200, 300),
    "amazon": (460, 175, 200),
    "microsoft": (470, 190, 150),
}


def facts(
    connector: str, ltv: int | None, cac: int, budget: int, *, conversions: int = 100, start: int | None = None
) -> PlatformFacts:
    return PlatformFacts(
        connector=connector,
        platform=connector,
        ltv_micros=None if ltv is None else ltv * 1_000_000,
        spend_micros=cac * 1_000_000 * conversions,
        conversions=conversions,
        daily_budget_micros=budget * 1_000_000,
        start_budget_micros=(start if start is not None else budget) * 1_000_000,
        as_of=NOW,
    )


def reference() -> list[PlatformFacts]:
    return [facts(name, *values) for name, values in REFERENCE.items()]


def test_average_efficiency_of_the_reference_client() -> None:
    verdict = judge(reference(), LITERAL, {}, frozenset(), NOW)
    assert verdict.mean is not None
    assert round(float(verdict.mean), 2) == 2.83


def test_best_platform_of_the_reference_client() -> None:
    assert judge(reference(), LITERAL, {}, frozenset(), NOW).best == "tiktok"


def test_only_linkedin_underperforms_and_gives_sixty() -> None:
    verdict = judge(reference(), LITERAL, {}, frozenset(), NOW)
    (found,) = verdict.underperformers
    assert found.connector == "linkedin"
    assert found.amount_micros == 60_000_000
    assert round(float(found.deviation) * 100, 1) == -22.4


def test_exactly_the_threshold_is_not_flagged() -> None:
    # 85 and 115 have mean 100; 85 is exactly 15 % below.
    verdict = judge([facts("a", 85, 1, 10), facts("b", 115, 1, 10)], LITERAL, {}, frozenset(), NOW)
    assert verdict.underperformers == ()
    lower = PlatformFacts("a", "a", 84_999_999, 100_000_000, 100, 10_000_000, 10_000_000, NOW)
    higher = PlatformFacts("b", "b", 115_000_001, 100_000_000, 100, 10_000_000, 10_000_000, NOW)
    assert [each.connector for each in judge([lower, higher], LITERAL, {}, frozenset(), NOW).underperformers] == ["a"]


@pytest.mark.parametrize(
    ("guards", "last", "busy", "start", "reason"),
    [
        (Guards(Fraction("0.15"), Fraction("0.2"), DAY, Fraction(0), False, 0), HOUR, (), 300, "COOLDOWN"),
        (Guards(Fraction("0.15"), Fraction("0.2"), 0, Fraction(0), True, 0), HOUR, (), 300, "EVIDENCE"),
        (Guards(Fraction("0.15"), Fraction("0.2"), 0, Fraction("0.3"), False, 0), None, (), 1000, "FLOOR"),
        (LITERAL, None, ("tiktok",), 300, "IN_FLIGHT"),
    ],
)
def test_each_guard_holds_alone(
    guards: Guards, last: int | None, busy: tuple[str, ...], start: int, reason: str
) -> None:
    known = [each for each in reference() if each.connector != "linkedin"]
    known.append(facts("linkedin", 440, 200, 300, start=start))
    history = {} if last is None else {"linkedin": LastShift(Instant(NOW - last), NOW)}
    (found,) = judge(known, guards, history, frozenset(busy), NOW).underperformers
    assert (found.amount_micros, found.held_by) == (0, reason)


def test_the_floor_caps_the_amount() -> None:
    guards = Guards(Fraction("0.15"), Fraction("0.2"), 0, Fraction("0.3"), False, 0)
    known = [each for each in reference() if each.connector != "linkedin"]
    known.append(facts("linkedin", 440, 200, 100, start=300))
    (found,) = judge(known, guards, {}, frozenset(), NOW).underperformers
    assert found.amount_micros == 10_000_000


def test_platforms_without_a_say_are_left_out_with_a_reason() -> None:
    guards = Guards(Fraction("0.15"), Fraction("0.2"), 0, Fraction(0), False, 10)
    few = facts("few", 400, 100, 10, conversions=9)
    never = PlatformFacts("never", "never", 1, 1, 100, 1, 1, None)
    verdict = judge([facts("a", 400, 100, 10), facts("b", None, 100, 10), few, never], guards, {}, frozenset(), NOW)
    assert verdict.left_out == {"b": "NO_VALUE", "few": "TOO_FEW_CONVERSIONS", "never": "NO_REPORT"}
    assert verdict.best == "a"


def test_nothing_to_compare() -> None:
    assert judge([], LITERAL, {}, frozenset(), NOW).mean is None


@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 500), st.integers(1, 10_000)), min_size=1, max_size=8))
def test_no_verdict_takes_more_than_its_share(rows: list[tuple[int, int, int]]) -> None:
    known = [facts(f"p{index}", *row) for index, row in enumerate(rows)]
    verdict = judge(known, LITERAL, {}, frozenset(), NOW)
    budgets = {each.connector: each.daily_budget_micros for each in known}
    for each in verdict.underperformers:
        assert each.connector != verdict.best
        assert 0 <= each.amount_micros * 5 <= budgets[each.connector]
