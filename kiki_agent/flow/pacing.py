"""How a daily budget is spread over the account day, and the numbers the bidding rule works with. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kiki_agent.config import BiddingSettings
from kiki_agent.kernels import bids
from kiki_agent.model import MINUTE, SECOND, micros_from_text

Ints = npt.NDArray[np.int64]

EVEN: tuple[int, ...] = (1,) * bids.HOURS
"""Every hour of the account day gets the same part of the budget."""
MILLION = 1_000_000
LARGEST_GRID = 4_096


@dataclass(frozen=True, slots=True)
class Pace:
    """How budgets are paced; the defaults were chosen by one-day simulations, see tests/flow."""

    horizon: int = 60 * MINUTE
    """The time within which a deviation from the plan is made good."""
    hold: int = 2 * SECOND
    """A decision stands at least this long, unless a limit falls below it."""
    target_share: float = 0.995
    """Part of the daily budget that is planned; the rest is for clicks under way at midnight."""
    stop_share: float = 0.9975
    """Estimated spend above this part of the budget ends the bidding of the day."""
    tolerance: float = 0.01
    """Deviations from the plan up to this part of the budget are `ON_PLAN`."""
    dead_band: float = 0.02
    """Part of a grid step a wish may move around the standing bid without changing it."""
    prior_clicks: int = 200
    """Weight of the platform's conversion rate in a campaign's."""
    rate_weight_s: int = 900
    """Seconds of observed spending that count against one click at the even speed."""


def plan_curve(weights: Sequence[int] = EVEN) -> Ints:
    """Cumulated parts per million of the budget by each full hour: 25 values from 0 to 1,000,000.

    `weights` are 24 non-negative shares of the hours of an account day (on days of 23 or 25 hours, of its 24 equal
    parts). Raises ValueError otherwise.
    """
    if len(weights) != bids.HOURS or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError("a plan needs 24 non-negative weights with a positive sum")
    total = sum(weights)
    return np.array([MILLION * sum(weights[:hour]) // total for hour in range(bids.HOURS + 1)], dtype=np.int64)


def bid_grid(step_percent: float, largest_micros: int, smallest_micros: int = 1_000) -> Ints:
    """A geometric grid of bids from `smallest_micros` to at least `largest_micros`, strictly rising."""
    grid = [smallest_micros]
    exact = float(smallest_micros)
    while grid[-1] < largest_micros and len(grid) < LARGEST_GRID:
        exact *= 1.0 + step_percent / 100.0
        grid.append(max(round(exact), grid[-1] + 1))
    return np.array(grid, dtype=np.int64)


def policy_cells(settings: BiddingSettings, pace: Pace) -> Ints:
    """The numbers of the rule as the kernel wants them, see `kernels.bids`."""
    cells = np.zeros(bids.POLICY_CELLS, dtype=np.int64)
    cells[bids.VALUE_SHARE_PPM] = round(settings.value_share * MILLION)
    cells[bids.MAX_BID] = micros_from_text(settings.max_bid)
    cells[bids.HOLD] = pace.hold
    cells[bids.HORIZON] = pace.horizon
    cells[bids.TARGET_PPM] = round(pace.target_share * MILLION)
    cells[bids.STOP_PPM] = round(pace.stop_share * MILLION)
    cells[bids.TOLERANCE_PPM] = round(pace.tolerance * MILLION)
    cells[bids.DEAD_BAND_PPM] = round(pace.dead_band * settings.bid_step_percent / 100.0 * MILLION)
    cells[bids.PRIOR_CLICKS] = pace.prior_clicks
    cells[bids.RATE_WEIGHT_S] = pace.rate_weight_s
    return cells
