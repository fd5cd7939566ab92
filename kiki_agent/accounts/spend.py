"""How fast campaigns spend, from one cumulated report to the next. Pure, over columns.

Between reports the agent must assume something about money it cannot see: pacing works with the smoothed mean, the
shield's exposures with an upper estimate, which is never below the rate of the last report or the even rate of the
budget (a campaign without history has shown no evidence that it spends less).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kiki_agent.model.time import MILLISECOND, SECOND

Ints = npt.NDArray[np.int64]

SMOOTHING_S = 600
"""Weight of the past in the mean: a report spanning d seconds counts d / (d + 600)."""
SHORTEST = 20 * SECOND
"""Reports closer together than this say too little about a rate."""
UPPER_FACTOR = 2
"""The upper estimate is at least this multiple of the mean."""
_DAY_SECONDS = 86_400


def smoothed_rates(mean_per_ks: Ints, spent_micros: Ints, span: int) -> Ints:
    """The mean rates (micros per 1,000 s) after `spent_micros` were spent within `span` microseconds."""
    seconds = span / SECOND
    observed = np.maximum(spent_micros, 0) * (1_000.0 / seconds)
    weight = seconds / (seconds + SMOOTHING_S)
    return np.rint(mean_per_ks + (observed - mean_per_ks) * weight).astype(np.int64)


def upper_rates(mean_per_ks: Ints, spent_micros: Ints, span: int, daily_budget_micros: Ints) -> Ints:
    """Upper estimates of the speed of spending, micros per second."""
    last = np.maximum(spent_micros, 0) * SECOND // max(span, SHORTEST) + 1
    even = daily_budget_micros // _DAY_SECONDS + 1
    upper: Ints = np.maximum(np.maximum(UPPER_FACTOR * mean_per_ks // 1_000 + 1, last), even)
    return upper


def expected_spend(mean_per_ks: Ints, age: Ints) -> Ints:
    """Spend expected within `age` microseconds at the mean rates."""
    expected: Ints = mean_per_ks * (np.maximum(age, 0) // MILLISECOND) // 1_000_000
    return expected
