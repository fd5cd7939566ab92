"""Many spends against one sliding window: one pass over a log of instants and amounts, in integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kiki_agent.kernels.compile import kernel

Column = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]

# cells of `state`
FIRST, COUNT, TOTAL, NOW = range(4)


@kernel(
    "int64(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64, int64, uint8[::1])",
)
def spend_all(
    times: Column,
    held: Column,
    state: Column,
    at: Column,
    amounts: Column,
    limit: int,
    span: int,
    accepted: Flags,
) -> int:
    """Check and record n spends in order; returns how many were counted.

    `times` and `held` are the window's log (microseconds, micros) with room for n more; records FIRST up to COUNT of
    it count and sum up to TOTAL. A spend at t is free at exactly t + `span`, and is counted if the window then holds
    at most `limit`; `accepted` says which were.
    """
    first = state[FIRST]
    count = state[COUNT]
    total = state[TOTAL]
    now = state[NOW]
    found = 0
    for i in range(len(at)):
        if at[i] > now:
            now = at[i]
        while first < count and times[first] <= now - span:
            total -= held[first]
            first += 1
        if total + amounts[i] <= limit:
            times[count] = now
            held[count] = amounts[i]
            count += 1
            total += amounts[i]
            accepted[i] = 1
            found += 1
    state[FIRST] = first
    state[COUNT] = count
    state[TOTAL] = total
    state[NOW] = now
    return found
