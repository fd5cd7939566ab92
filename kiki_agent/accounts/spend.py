"""How fast campaigns spend, from one cumulated report to the next. Pure, over columns.

Between reports the agent must assume something about money it cannot see: pacing works with the smoothed mean, the
shield's exposures with an upper estimate, which is never below the rate of the last report or the even rate of the
budget (a campaign without history has shown no evidence that it spends less).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kiki_agent.model.time import SECOND

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


def rates_after_bid(mean_per_ks: int, upper: int, before_micros: int, after_micros: int) -> tuple[int, int]:
    """Mean and upper rate to expect after a bid changed, until reports tell: price and volume both follow the bid.

    So spend follows its square, at most fourfold; the upper estimate only ever rises by it.
    """
    if before_micros <= 0 or after_micros == before_micros:
        return mean_per_ks, upper
    square = min((after_micros / before_micros) ** 2, 4.0)
    return int(mean_per_ks * square), max(upper, int(upper * square))
