"""The simulated market looks like the data it comes from, and the page that says so shows what the code prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kiki_agent.sandbox.fit import real_slopes, simulated_slopes
from kiki_agent.sandbox.fit_report import report, tails, week

PAGE = Path(__file__).parents[2] / "docs" / "market.md"


def test_clicks_and_prices_answer_a_bid_as_in_the_experiment() -> None:
    real, made = real_slopes(), simulated_slopes()
    assert abs(made.clicks - real.clicks) < 2 * real.clicks_error
    assert abs(made.price - real.price) < 2 * real.price_error


@pytest.mark.parametrize("name", ["cost a campaign", "clicks a campaign", "value a conversion"])
def test_campaigns_are_as_uneven_as_real_ones(name: str) -> None:
    real, made = tails()[name]
    assert np.abs(np.log(made / real)).max() < np.log(1.7)


def test_the_week_has_the_shape_of_real_traffic() -> None:
    shape, clicks = week()
    assert np.corrcoef(shape, clicks)[0, 1] > 0.97


def test_the_page_shows_what_the_code_prints() -> None:
    text = PAGE.read_text()
    missing = [line for line in report().splitlines() if line.startswith("| ") and line not in text]
    assert missing == []
