"""Amounts are exact, and nothing that is not an amount passes."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.model import Money, decimal_text, micros_from_text
from kiki_agent.model.money import round_to_step, split_by_weight


@given(st.integers(-(10**18), 10**18))
def test_text_of_six_decimals_reads_back(micros: int) -> None:
    text = f"{Decimal(micros).scaleb(-6):f}"
    assert micros_from_text(text) == micros


@pytest.mark.parametrize(
    ("text", "micros"), [("0.1", 100_000), ("12.34", 12_340_000), ("-0.000001", -1), ("-0", 0), ("007.50", 7_500_000)]
)
def test_amounts(text: str, micros: int) -> None:
    assert micros_from_text(text) == micros


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1e3", "nan", "inf", "1.", ".5", "+1", "1,5", "1.0000001", "٣", "0x1"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        micros_from_text(text)


@pytest.mark.parametrize(("currency", "text"), [("USD", "1.23"), ("JPY", "1"), ("KWD", "1.234")])
def test_decimals_follow_the_currency(currency: str, text: str) -> None:
    assert decimal_text(1_234_499, currency) == text


def test_sums_stay_in_one_currency() -> None:
    assert str(Money(100_000) + Money(200_000)) == "0.30"
    with pytest.raises(ValueError, match="cannot combine"):
        Money(1, "USD") + Money(1, "EUR")


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=20), st.sampled_from([1, 10, 1000]))
def test_parts_add_up_to_the_total(units: int, weights: list[int], step: int) -> None:
    if sum(weights) == 0:
        with pytest.raises(ValueError, match="positive sum"):
            split_by_weight(units * step, weights, step)
        return
    parts = split_by_weight(units * step, weights, step)
    assert sum(parts) == units * step
    assert all(part % step == 0 and part >= 0 for part in parts)
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - units * step * weight / sum(weights)) <= step * (1 + 1e-9) + 1e-3


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_rounding_to_a_step_is_the_nearest_half_to_even(micros: int, step: int) -> None:
    assert round_to_step(micros, step) == round(Decimal(micros) / step) * step
