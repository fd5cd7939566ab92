"""Is what a platform does far outside its own history? Two robust tests over plain numbers; the caller acts.

Spend: the hour's share of the daily budget against like hours (same hour of the day, one to each side). A modified
z-score: distance from the median in units of 1.4826 x MAD, which is the standard deviation of a normal sample
(Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993, use 3.5; hours of ad spend have heavy tails, so 8).

Cost per action: given the spend of a day whose conversions are in, the conversions its own history lets expect are a
Poisson count; the chance of so few or fewer is the cumulative Poisson distribution. The history's own uncertainty is
taken off first (two standard errors of its count).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

SIGMAS = 8.0
TIMES = 3.0
"""An hour must also be so many times the median of like hours, a cost per action so many times its history's."""
LEAST_SHARE = 0.25
"""And an hour must have cost at least this share of the daily budgets: six times an even pace."""
LEAST_OF_THREE = 0.45
"""Three hours together are judged by the same rule, from this share on: a spike that no single hour shows."""
PAST_WORST = 1.5
"""And so many times the dearest like hour."""
LEAST_HOURS = 12
MOST_HOURS = 14 * 24 + 1
LEAST_ACTIONS = 30
LEAST_CHANCE = 1e-6
MAD_TO_SIGMA = 1.4826
_HOURS = 24


def like_hours(hour: int, history: Sequence[tuple[int, float]]) -> list[float]:
    """Values of hours at the same hour of the day or one to each side; `hour` counts hours since 1970."""
    like = ((hour - 1) % _HOURS, hour % _HOURS, (hour + 1) % _HOURS)
    return [value for each, value in history if each != hour and each % _HOURS in like]


def three_together(history: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Each hour with the two before it, where all three are known."""
    triples = zip(history, history[1:], history[2:], strict=False)
    return [
        (last, first + second + third) for (begin, first), (_, second), (last, third) in triples if last == begin + 2
    ]


def unbelievable(history: Sequence[tuple[int, float]]) -> tuple[int, float, float] | None:
    """Hours, their share of the daily budgets and its limit, when the newest hour of a history ends too dear a time.

    Three hours are not compared with three that share some of theirs.
    """
    for hours, series, least in ((1, history, LEAST_SHARE), (3, three_together(history[-MOST_HOURS:]), LEAST_OF_THREE)):
        if not series or series[-1][0] != history[-1][0]:
            continue
        hour, share = series[-1]
        limit = spend_limit(like_hours(hour, series[:-hours]), least) if share > least else None
        if limit is not None and share > limit:
            return hours, share, limit
    return None


def spend_limit(like: Sequence[float], least: float = LEAST_SHARE) -> float | None:
    """Largest believable share of the daily budget in an hour, from like hours; None with too few of them."""
    if len(like) < LEAST_HOURS:
        return None
    middle = median(like)
    spread = median([abs(each - middle) for each in like])
    return max(least, TIMES * middle, middle + SIGMAS * MAD_TO_SIGMA * spread, PAST_WORST * max(like))


def poisson_at_most(count: int, expected: float) -> float:
    """Chance of `count` or fewer events where `expected` are expected."""
    if expected <= 0:
        return 1.0
    term = math.exp(-expected) if expected < 700 else 0.0
    total = term
    for number in range(1, count + 1):
        term *= expected / number
        total += term
    return min(1.0, total)


def too_dear(spend: int, actions: int, past_spend: int, past_actions: int) -> bool:
    """Whether a day's actions cost far more than the history's."""
    if past_actions < LEAST_ACTIONS or past_spend <= 0 or spend <= 0:
        return False
    careful = past_actions - 2 * math.sqrt(past_actions)
    expected = spend * careful / past_spend
    return actions * TIMES < expected and poisson_at_most(actions, expected) < LEAST_CHANCE
