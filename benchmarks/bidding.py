"""Deciding the bids of one tick: compiled kernel, numpy and plain Python beside each other, at growing sizes.

python benchmarks/bidding.py [--json] [--largest 100000]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from kiki_agent.config import BiddingSettings
from kiki_agent.flow.pacing import Pace, bid_grid, plan_curve, policy_cells
from kiki_agent.kernels import bids
from kiki_agent.kernels.bids import decide_bids
from kiki_agent.model import HOUR, MINUTE, SECOND, parse_iso

START = parse_iso("2026-03-10T00:00:00Z")
NOW = START + 13 * HOUR


def columns(n: int) -> tuple[object, ...]:
    """A tick at 13:00 with n campaigns on six platforms, in every state of their day."""
    row = np.arange(n, dtype=np.int64)
    spread = row * 2_654_435_761 % 1_000
    budget = 50_000_000 + spread * 400_000
    platforms = np.array([[300_000_000, 50_000, 1_000, START, START + 24 * HOUR]] * 6, dtype=np.int64)
    held = 200_000 + spread * 700
    return (
        NOW,
        policy_cells(BiddingSettings(), Pace()),
        bid_grid(5.0, 50_000_000),
        platforms,
        np.tile(plan_curve(), (6, 1)),
        row * 6 // max(n, 1),
        np.ones(n, dtype=np.uint8),
        budget,
        200_000 + spread * 700,
        np.full(n, 10_000, dtype=np.int64),
        np.full(n, 10_000, dtype=np.int64),
        budget * (450 + spread % 190) // 1_000,
        np.full(n, NOW - 30 * SECOND, dtype=np.int64),
        budget * 1_000 // 86_400,
        200 + spread,
        spread // 40,
        held // 10_000 * 10_000,
        np.zeros(n, dtype=np.uint8),
        np.full(n, NOW - 3 * MINUTE, dtype=np.int64),
        np.zeros(n, dtype=np.int64),
        np.zeros(n, dtype=np.uint8),
    )


def by_numpy(*args: object) -> None:
    """The same rule in whole-column numpy; written for this comparison alone, and checked against the kernel."""
    (now, policy, grid, platforms, curves, connector, eligible, budget, bid, least, step, today, as_of, rate, clicks,
     conversions, held, _, held_at, wanted, reason) = args  # fmt: skip
    share = (platforms[:, 2] + 1.0) / (platforms[:, 1] + 100.0)
    prior = policy[bids.PRIOR_CLICKS]
    converted = (conversions + prior * share[connector]) / (clicks + float(prior))
    value_share = policy[bids.VALUE_SHARE_PPM] / 1e6
    worth = np.minimum(platforms[connector, 0] * converted * value_share, policy[bids.MAX_BID])
    most = worth.astype(np.int64)
    start = platforms[connector, 3]
    length = platforms[connector, 4] - start
    elapsed = np.clip(now - start, 0, length)
    spent = today + rate * (np.maximum(now - np.maximum(as_of, start), 0) // 1_000) // 1_000_000
    horizon = np.maximum(np.minimum(policy[bids.HORIZON], length - elapsed), bids.LEAST_HORIZON)

    def planned(until: np.ndarray) -> np.ndarray:
        until = np.minimum(until, length)
        hour = np.minimum(until * bids.HOURS // length, bids.HOURS - 1)
        rest = until * bids.HOURS - hour * length
        low, high = curves[connector, hour], curves[connector, hour + 1]
        return budget * ((low + (high - low) * (rest / length)) / 1e6)

    plan_now, plan_then = planned(elapsed), planned(elapsed + horizon)
    seconds = horizon / 1e6
    even = (plan_then - plan_now) / seconds
    needed = (plan_then * (policy[bids.TARGET_PPM] / 1e6) - spent) / seconds
    base = np.where(bid > 0, bid, np.maximum(most // 2, least))
    weight = policy[bids.RATE_WEIGHT_S]
    observed = (rate / 1_000.0 * weight + base) / (weight + base / even)
    ratio = np.maximum(needed, bids.LEAST_SPEED * even) / observed
    wish = base * np.sqrt(np.clip(ratio, bids.LOWEST_RATIO, bids.HIGHEST_RATIO))
    target = np.minimum(wish, worth)
    low = np.clip(np.searchsorted(grid, target, side="right") - 1, 0, len(grid) - 2)
    near = np.where(grid[low + 1] - target < target - grid[low], grid[low + 1], grid[low])
    found = np.minimum(near, most) // step * step
    above = (base // step + 1) * step
    found = np.where((found <= base) & (target > base) & (grid[low] > base) & (above <= most), above, found)
    found = np.where(found < least, (least + step - 1) // step * step, found)
    found = np.where(found <= most, found, 0)
    band = held * (policy[bids.DEAD_BAND_PPM] / 1e6)
    chosen = np.where((held > 0) & (held <= most) & (held - band < wish) & (wish < held + band), held, found)
    holding = (held_at > 0) & (now - held_at < policy[bids.HOLD]) & (held <= most) & (held > 0)
    stop = spent >= budget * (policy[bids.STOP_PPM] / 1e6)
    wanted[:] = np.where(holding, held, chosen)
    wanted[stop | (eligible == 0) | (budget <= 0) | (most < np.maximum(least, step))] = 0
    tolerance = budget * (policy[bids.TOLERANCE_PPM] / 1e6)
    reason[:] = np.select(
        [chosen == 0, wish > worth, spent - plan_now > tolerance, plan_now - spent > tolerance],
        [bids.BELOW_MINIMUM, bids.VALUE_LIMIT, bids.AHEAD_OF_PLAN, bids.BEHIND_PLAN],
        bids.ON_PLAN,
    )


def best_of(work: Callable[..., None], args: tuple[object, ...], seconds: float = 1.0) -> float:
    """The shortest wall time of one call, in microseconds, over about a second of calls."""
    shortest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work(*args)
        shortest = min(shortest, time.perf_counter() - start)
    return shortest * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--largest", type=int, default=100_000)
    options = parser.parse_args()
    decide_bids.compile()
    results = []
    for n in [size for size in (1, 12, 120, 1_200, 12_000, 100_000, 1_000_000) if size <= options.largest]:
        args = columns(n)
        decide_bids(*args)
        compiled = args[-2].copy()
        by_numpy(*args)
        different = int((compiled != args[-2]).sum())
        row = {"campaigns": n, "kernel_us": best_of(decide_bids, args), "numpy_us": best_of(by_numpy, args)}
        row["python_us"] = best_of(decide_bids.twin, args) if n <= 100_000 else float("nan")
        results.append(row | {"different": different})
    if options.json:
        print(json.dumps(results))
        return
    print(f"{'campaigns':>10} {'kernel us':>12} {'numpy us':>12} {'python us':>12} {'x python':>9}  kernel = numpy")
    for row in results:
        ratio = row["python_us"] / row["kernel_us"]
        print(
            f"{row['campaigns']:>10,} {row['kernel_us']:>12,.1f} {row['numpy_us']:>12,.1f} {row['python_us']:>12,.1f}"
            f" {ratio:>9.0f}  {'yes' if not row['different'] else row['different']}"
        )


if __name__ == "__main__":
    main()
