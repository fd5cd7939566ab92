"""The thin model, the quartiles and the fallback."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.model import DAY, Customer, Instant, parse_iso
from kiki_agent.value.distribution import between, fallback_ltv, median, quartile_place
from kiki_agent.value.model import PRIOR, WEEK, Group, Model, train

NOW = parse_iso("2026-03-10T12:00:00Z")
DEFAULT = 300_000_000


def customer(age: int = 0, purchases: int = 1, revenue: int = 40_000_000, platform: str = "meta") -> Customer:
    return Customer("c", platform, Instant(NOW - age), purchases, revenue, NOW, NOW)


def cohort(platform: str = "meta", orders: int = 50_000_000) -> list[Group]:
    """100 customers a week for six weeks: one purchase at first, half a one more each week."""
    return [Group(platform, week, 100, 100 + 50 * week, (100 + 50 * week) * orders) for week in range(6)]


def test_untrained_the_prior_speaks_and_says_so() -> None:
    model = Model(DEFAULT)
    assert (model.version, model.trained) == (PRIOR, False)
    made = model.estimate(customer(), NOW)
    assert (made.predicted_micros, made.confidence) == (DEFAULT, 0.0)
    assert model.estimate(customer(revenue=900_000_000), NOW).predicted_micros == 900_000_000
    assert model.estimate(customer(age=365 * DAY), NOW).predicted_micros == 40_000_000


def test_a_new_customer_is_worth_what_mature_ones_bought() -> None:
    model = train(cohort(), DEFAULT, "v1", NOW)
    assert model is not None
    made = model.estimate(customer(revenue=50_000_000), NOW)
    assert made.predicted_micros == pytest.approx(50_000_000 * 3.5, rel=1e-6), "1 purchase, 2.5 to come, 50 each"
    assert made.lower_micros < made.predicted_micros < made.upper_micros
    grown = model.estimate(customer(age=5 * WEEK, purchases=4, revenue=200_000_000), NOW)
    assert grown.predicted_micros == 200_000_000, "nothing is extrapolated past the oldest group"


def test_own_history_counts_the_more_of_it_there_is() -> None:
    model = train(cohort(), DEFAULT, "v1", NOW)
    assert model is not None
    few = model.estimate(customer(purchases=1, revenue=200_000_000), NOW)
    many = model.estimate(customer(purchases=9, revenue=9 * 200_000_000), NOW)
    assert (few.predicted_micros - 200_000_000) / 2.5 == pytest.approx(87_500_000, rel=1e-6)
    assert (many.predicted_micros - 1_800_000_000) / 2.5 == pytest.approx(162_500_000, rel=1e-6)
    assert (few.confidence, many.confidence) == (0.25, 0.75)


def test_a_small_platform_is_pulled_to_all_platforms() -> None:
    model = train([*cohort(), Group("x", 0, 2, 2, 2 * 50_000_000)], DEFAULT, "v1", NOW)
    assert model is not None
    meta = model.estimate(customer(revenue=50_000_000), NOW).predicted_micros
    other = model.estimate(customer(revenue=50_000_000, platform="x"), NOW).predicted_micros
    unknown = model.estimate(customer(revenue=50_000_000, platform=""), NOW).predicted_micros
    assert other == pytest.approx(meta, rel=0.02)
    assert unknown == pytest.approx(meta, rel=0.02)


@pytest.mark.parametrize(
    "groups",
    [[], [Group("meta", 0, 1_000, 1_000, 10**9)], [Group("meta", 0, 100, 100, 1), Group("meta", 3, 90, 100, 1)]],
    ids=["nobody", "all of one age", "too few"],
)
def test_too_little_to_learn_from_gives_no_model(groups: list[Group]) -> None:
    assert train(groups, DEFAULT, "v1", NOW) is None


def test_a_model_survives_its_description() -> None:
    model = train(cohort(), DEFAULT, "v1", NOW)
    assert model is not None
    assert Model.from_json("v1", model.to_json()) == model


@given(
    st.lists(
        st.tuples(st.sampled_from(["meta", "x", ""]), st.integers(0, 200), st.integers(1, 500), st.integers(0, 2_000)),
        max_size=40,
    ),
    st.integers(0, 500 * DAY),
    st.integers(0, 50),
    st.integers(0, 10**12),
)
def test_a_prediction_is_never_below_what_was_already_paid(
    drawn: list[tuple[str, int, int, int]], age: int, purchases: int, revenue: int
) -> None:
    model = train([Group(*each, each[3] * 30_000_000) for each in drawn], DEFAULT, "v1", NOW) or Model(DEFAULT)
    made = model.estimate(customer(age, purchases, revenue), NOW)
    assert revenue <= made.lower_micros <= made.predicted_micros <= made.upper_micros


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=60))
def test_quartiles_interpolate_between_order_statistics(values: list[int]) -> None:
    ordered = sorted(values)

    def quartile(quarter: int) -> int:
        place, fourths = quartile_place(len(ordered), quarter)
        return between(ordered[place], ordered[min(place + 1, len(ordered) - 1)], fourths)

    if len(values) > 1:
        exact = statistics.quantiles(values, n=4, method="inclusive")
        assert quartile(1) == pytest.approx(exact[0], abs=0.51, rel=1e-12)
        assert quartile(3) == pytest.approx(exact[2], abs=0.51, rel=1e-12)
    assert ordered[0] <= quartile(1) <= quartile(3) <= ordered[-1]


@pytest.mark.parametrize(
    ("platform", "ltv"),
    [("tiktok", 300), ("linkedin", 240), ("x", 150), ("meta", 200), ("microsoft", 200), ("google_ads", 200)],
)
def test_the_fallback_is_the_median_times_the_platforms_multiplier(platform: str, ltv: int) -> None:
    assert fallback_ltv([100, 300, 200], platform, 999, 1) == ltv


def test_without_history_the_default_speaks_as_it_is() -> None:
    assert fallback_ltv([], "tiktok", 300, 1) == 300
    assert fallback_ltv([100, 200], "tiktok", 300, 3) == 300


def test_the_median_of_an_even_number_is_half_way() -> None:
    assert median([4, 1, 3, 2]) == 2
    assert median([10, 13]) == 12, "halves to even"
