"""A month of the six-platform market under simulated time: speed, what was done, and where the time went.

    python benchmarks/backtest.py [--days 30] [--seed 1] [--set key=value ...]

The reference in the same run is the loop driver alone: as many empty ticks on the same grid of due times.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from kiki_agent.backtest import BacktestResult, run_market
from kiki_agent.config import load
from kiki_agent.model import SECOND, Instant
from kiki_agent.runtime.clock import SimClock
from kiki_agent.runtime.driver import SimDriver
from kiki_agent.runtime.loop import Loop
from kiki_agent.runtime.supervisor import Supervisor


class _Empty(Loop):
    name = "bidding"
    period = 2 * SECOND

    async def tick(self, now: Instant) -> str | None:
        return "nothing to do"


def _empty_speed(days: int) -> float:
    """Simulated seconds per wall second of a driver whose only loop does nothing."""
    clock = SimClock(Instant(0))
    begun = time.perf_counter()
    asyncio.run(SimDriver().run(Supervisor([_Empty()], clock), clock, Instant(days * 86_400 * SECOND)))
    return days * 86_400 / (time.perf_counter() - begun)


def _slope(memory: tuple[tuple[float, float], ...], days: int) -> float:
    """Least-squares growth of resident memory over the last 80 % of the run, MB per simulated day."""
    points = [(share * days, size) for share, size in memory if share >= 0.2]
    if len(points) < 3:
        return 0.0
    mean_day = sum(day for day, _ in points) / len(points)
    mean_size = sum(size for _, size in points) / len(points)
    spread = sum((day - mean_day) ** 2 for day, _ in points)
    return sum((day - mean_day) * (size - mean_size) for day, size in points) / spread


def _parts(result: BacktestResult) -> list[tuple[str, float]]:
    """Wall seconds by kind of loop, connectors added up, largest first; the rest is driver and store thread."""
    parts: dict[str, float] = {}
    for name, seconds in result.busy_seconds.items():
        kind = name.partition(":")[0]
        parts[kind] = parts.get(kind, 0.0) + seconds
    parts["driver and waiting for the store"] = result.wall_seconds - sum(parts.values())
    return sorted(parts.items(), key=lambda part: -part[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--keep", type=Path, help="keep the database here")
    options = parser.parse_args()
    flags = dict(pair.split("=", 1) for pair in options.set)
    loaded = load(None, os.environ, {"mode": "backtest", **flags})

    def show(share: float) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{share:4.0%} of {options.days} days")

    cpu = time.process_time()
    result = run_market(
        loaded, days=options.days, seed=options.seed, on_progress=show, timed=True, database=options.keep
    )
    cpu = time.process_time() - cpu
    ticks = result.ticks
    rows = [
        ("speed, x real time", f"{result.speed:,.0f}"),
        ("reference: empty ticks, x real time", f"{_empty_speed(min(options.days, 5)):,.0f}"),
        ("wall seconds", f"{result.wall_seconds:,.1f}"),
        ("CPU seconds (all threads, start and idle market included)", f"{cpu:,.1f}"),
        ("bidding ticks", f"{ticks:,}"),
        ("milliseconds a bidding tick, everything included", f"{result.wall_seconds / ticks * 1e3:.3f}"),
        ("optimizer cycles", f"{result.cycles:,}"),
        ("changed decisions", f"{result.decisions:,}"),
        ("changed decisions a tick", f"{result.decisions / ticks:.2f}"),
        ("ledger rows", f"{result.ledger_rows:,}"),
        ("changes sent to platforms", f"{result.intents:,}"),
        ("platform calls", f"{result.calls:,}"),
        ("of them failed or unknown", f"{result.failed_calls:,} ({result.failed_calls / result.calls:.3%})"),
        ("shifts of budget", f"{len([each for each in result.shifts if each.state == 'done'])}"),
        ("failed ticks", f"{result.errors}"),
        ("ledger verified", "yes" if result.verified else "NO"),
        ("peak memory, MB", f"{result.peak_mb:,.0f}"),
        ("memory slope over the last 80 %, MB a simulated day", f"{_slope(result.memory, options.days):+.2f}"),
    ]
    width = max(len(name) for name, _ in rows)
    print("\nA month of the market under simulated time")
    for name, value in rows:
        print(f"  {name:<{width}}  {value:>14}")
    print("\nWall seconds by part")
    for name, seconds in _parts(result):
        print(f"  {name:<{width}}  {seconds:14,.1f}  {seconds / result.wall_seconds:6.1%}")
    return 0 if result.verified and not result.errors else 1


if __name__ == "__main__":
    sys.exit(main())
