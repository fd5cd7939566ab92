"""Performance by campaign and account day for the days that matter, dense and of fixed size."""

from __future__ import annotations

from datetime import date
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

IMPRESSIONS, CLICKS, CONVERSIONS, SPEND, REVENUE = range(5)
"""Positions of the metrics in a cell."""


@lru_cache(maxsize=2048)
def day_number(day: str) -> int:
    """Proleptic ordinal of a day, `YYYY-MM-DD`. Raises ValueError on anything else."""
    if len(day) != 10:
        raise ValueError(f"{day[:20]!r} is not a day such as 2026-01-31")
    return date.fromisoformat(day).toordinal()


class DayGrid:
    """`cells[campaign, day modulo width, metric]`, int64; a day older than `width` gives its place to a new one."""

    __slots__ = ("cells", "days", "width")

    def __init__(self, width: int, campaigns: int = 0) -> None:
        self.width = width
        self.days: Ints = np.zeros(width, dtype=np.int64)
        """The day number each slot holds now; 0 = none."""
        self.cells: Ints = np.zeros((campaigns, width, 5), dtype=np.int64)

    def put(self, campaign: int, day: int, values: tuple[int, int, int, int, int]) -> bool:
        """Store one cell; True when it differs from what was known. A day too old for the grid is ignored."""
        slot = day % self.width
        held = int(self.days[slot])
        if held != day:
            if held > day:
                return False
            self.days[slot] = day
            self.cells[:, slot] = 0
        cell = self.cells[campaign, slot]
        if tuple(cell.tolist()) == values:
            return False
        cell[:] = values
        return True

    def sums(self, low: int, high: int, first_day: int, last_day: int) -> Ints:
        """Sums over days first..last (included) for campaigns low..high: int64 of shape (campaigns, 5)."""
        slots = np.flatnonzero((self.days >= first_day) & (self.days <= last_day))
        summed: Ints = self.cells[low:high, slots].sum(axis=1)
        return summed

    def rearranged(self, origin: Ints) -> DayGrid:
        """A grid whose row i is this one's row `origin[i]`, or empty where `origin[i]` is -1."""
        other = DayGrid(self.width, len(origin))
        other.days[:] = self.days
        known = origin >= 0
        other.cells[known] = self.cells[origin[known]]
        return other
