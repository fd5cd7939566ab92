"""What every campaign should bid now: one pass over all campaigns.

    worth   = customer value x conversion rate x share of the value that may be paid
    needed  = speed of spending that brings the day back on its plan within the horizon
    wish    = bid in force x sqrt(needed / observed speed), never above worth

The bid in force carries what was learned about the auction, so there is no hidden state to wind up or to lose: a
restarted agent goes on where the platforms stand. The square root is there because price and volume both follow the
bid, so spend follows its square. Conversion rates are shrunk to their platform's rate (beta-binomial with
a prior worth `PRIOR_CLICKS` clicks; Casella, "An introduction to empirical Bayes data analysis", 1985).

Sums and differences are integers; ratios are IEEE doubles from + - x / and sqrt alone, which round the same way in
machine code and in Python.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
import numpy.typing as npt

from kiki_agent.kernels.compile import kernel

ON_PLAN = 0
AHEAD_OF_PLAN = 1
BEHIND_PLAN = 2
VALUE_LIMIT = 3
BUDGET_SPENT = 4
NO_BUDGET = 5
PAUSED = 6
BELOW_MINIMUM = 7

# cells of `policy`
(
    VALUE_SHARE_PPM,
    MAX_BID,
    HOLD,
    HORIZON,
    TARGET_PPM,
    STOP_PPM,
    TOLERANCE_PPM,
    DEAD_BAND_PPM,
    PRIOR_CLICKS,
    RATE_WEIGHT_S,
) = range(10)
POLICY_CELLS = 10
HOURS = 24
"""Equal parts of an account day a plan is drawn over."""
LEAST_HORIZON = 900_000_000
"""Near midnight the plan is still met over a quarter of an hour, not within the last second."""
LEAST_SPEED = 0.25
"""However far ahead of its plan, a campaign keeps this part of the even speed: a bid at nothing has nothing to learn
from, and finding back from there takes hours."""
LOWEST_RATIO = 0.25
HIGHEST_RATIO = 1.5625
"""One wish moves at most from half the bid in force to a quarter above it."""

Column = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]
Table = npt.NDArray[np.int64]


def conversion_rate(clicks: int, conversions: int, all_clicks: int, all_conversions: int, prior_clicks: int) -> float:
    """Conversions per click, pulled to the platform's rate; the platform's own is pulled to 1 % by 100 clicks."""
    platform = (all_conversions + 1.0) / (all_clicks + 100.0)
    return (conversions + prior_clicks * platform) / (clicks + float(prior_clicks))


def planned_share(elapsed: int, length: int, curve: Column) -> float:
    """Part of a daily budget that should be spent after `elapsed` of `length` microseconds of the account day."""
    if elapsed <= 0:
        return 0.0
    if elapsed >= length:
        return 1.0
    hour = elapsed * HOURS // length
    rest = elapsed * HOURS - hour * length
    low = int(curve[hour])
    return (low + (int(curve[hour + 1]) - low) * (rest / float(length))) / 1e6


def correction(needed: float, even: float, rate: float, bid: int, weight_s: int) -> float:
    """Factor on the bid in force; speeds in micros a second. One click at the even speed is prior evidence."""
    needed = max(needed, LEAST_SPEED * even)
    if needed <= 0.0:
        return sqrt(LOWEST_RATIO)
    observed = (rate * weight_s + bid) / (weight_s + bid / even) if even > 0.0 else rate
    if observed <= 0.0:
        return sqrt(HIGHEST_RATIO)
    ratio = needed / observed
    if ratio < LOWEST_RATIO:
        ratio = LOWEST_RATIO
    if ratio > HIGHEST_RATIO:
        ratio = HIGHEST_RATIO
    return sqrt(ratio)


def on_grid(wish: float, base: int, grid: Column, step: int, least: int, most: int) -> int:
    """The nearest point of the grid, as a multiple of the platform's step, from `least` to `most`.

    Where the platform's step is so coarse that a wish above the bid in force would be rounded back to it, one step up.
    """
    low = 0
    high = len(grid) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if grid[middle] <= wish:
            low = middle
        else:
            high = middle - 1
    found = int(grid[low])
    if low + 1 < len(grid) and int(grid[low + 1]) - wish < wish - found:
        found = int(grid[low + 1])
    if found > most:
        found = most
    found = found // step * step
    above = (base // step + 1) * step
    if found <= base and wish > base and int(grid[low]) > base and above <= most:
        found = above
    if found < least:
        found = (least + step - 1) // step * step
    return found if found <= most else 0


@kernel(
    "void(int64, int64[::1], int64[::1], int64[:,::1], int64[:,::1],"
    " int64[::1], uint8[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1],"
    " int64[::1], int64[::1], int64[::1], uint8[::1], int64[::1], int64[::1], uint8[::1])",
    inline=(conversion_rate, planned_share, correction, on_grid),
)
def decide_bids(
    now: int,
    policy: Column,
    grid: Column,
    platforms: Table,
    curves: Table,
    connector: Column,
    eligible: Flags,
    budget: Column,
    bid: Column,
    min_bid: Column,
    bid_step: Column,
    spend_today: Column,
    spend_as_of: Column,
    rate_per_ks: Column,
    clicks: Column,
    conversions: Column,
    held_bid: Column,
    held_reason: Flags,
    held_at: Column,
    wanted: Column,
    reason: Flags,
) -> None:
    """Fill `wanted` (micros, 0 = do not bid) and `reason` of n campaigns.

    `platforms[k] = (customer value micros, clicks, conversions, start of day, end of day)` and `curves[k]` = 25 parts
    per million of the day's budget planned to be spent by each full hour, per connector. `bid` is in force at the
    platform, 0 = none known. `held_*` is what was decided last and when; a decision stands at least `policy[HOLD]`
    microseconds unless it would break a limit.
    """
    value_share = policy[VALUE_SHARE_PPM] / 1e6
    target_share = policy[TARGET_PPM] / 1e6
    stop_share = policy[STOP_PPM] / 1e6
    tolerated_share = policy[TOLERANCE_PPM] / 1e6
    dead_band = policy[DEAD_BAND_PPM] / 1e6
    share_now = np.zeros(len(platforms))
    share_then = np.zeros(len(platforms))
    seconds_left = np.ones(len(platforms))
    for k in range(len(platforms)):
        length = int(platforms[k, 4]) - int(platforms[k, 3])
        elapsed = min(max(now - int(platforms[k, 3]), 0), length)
        horizon = max(min(int(policy[HORIZON]), length - elapsed), LEAST_HORIZON)
        share_now[k] = planned_share(elapsed, length, curves[k])
        share_then[k] = planned_share(elapsed + horizon, length, curves[k])
        seconds_left[k] = horizon / 1e6
    for i in range(len(connector)):
        k = int(connector[i])
        amount = int(budget[i])
        if eligible[i] == 0:
            wanted[i] = 0
            reason[i] = PAUSED
            continue
        if amount <= 0:
            wanted[i] = 0
            reason[i] = NO_BUDGET
            continue
        unseen = max(now - max(int(spend_as_of[i]), int(platforms[k, 3])), 0) // 1_000
        rate = int(rate_per_ks[i])
        spent = int(spend_today[i]) + rate * unseen // 1_000_000
        holding = held_at[i] > 0 and now - held_at[i] < policy[HOLD]
        if spent >= amount * stop_share:
            wanted[i] = 0
            reason[i] = BUDGET_SPENT
            continue
        share = conversion_rate(
            int(clicks[i]), int(conversions[i]), int(platforms[k, 1]), int(platforms[k, 2]), int(policy[PRIOR_CLICKS])
        )
        worth = min(int(platforms[k, 0]) * share * value_share, float(policy[MAX_BID]))
        most = int(worth)
        least = int(min_bid[i])
        step = max(int(bid_step[i]), 1)
        if most < least or most < step:
            wanted[i] = 0
            reason[i] = BELOW_MINIMUM
            continue
        held = int(held_bid[i])
        if holding and held <= most and (held > 0 or held_reason[i] == BUDGET_SPENT):
            wanted[i] = held
            reason[i] = held_reason[i]
            continue
        seconds = float(seconds_left[k])
        plan_now = amount * float(share_now[k])
        plan_then = amount * float(share_then[k])
        needed = (plan_then * target_share - spent) / seconds
        even = (plan_then - plan_now) / seconds
        base = int(bid[i])
        if base <= 0:
            base = max(most // 2, least)
        wish = base * correction(needed, even, rate / 1_000.0, base, int(policy[RATE_WEIGHT_S]))
        band = held * dead_band
        if held > 0 and held <= most and held - band < wish and wish < held + band:
            chosen = held
        else:
            chosen = on_grid(min(wish, worth), base, grid, step, least, most)
        wanted[i] = chosen
        tolerance = amount * tolerated_share
        if chosen == 0:
            reason[i] = BELOW_MINIMUM
        elif wish > worth:
            reason[i] = VALUE_LIMIT
        elif spent - plan_now > tolerance:
            reason[i] = AHEAD_OF_PLAN
        elif plan_now - spent > tolerance:
            reason[i] = BEHIND_PLAN
        else:
            reason[i] = ON_PLAN
