"""How often would the anomaly stop freeze a platform without cause, and how soon does it see one with cause?

    python -m benchmarks.anomalies [--seeds 10] [--days 45] [--databases FILE ...]

With databases of backtests (`benchmarks/backtest.py --keep FILE`): what the whole agent read in its last two weeks,
judged by the governor's own test; that is the figure that counts. Without: the sandbox market with bids that move once
an hour (as in `shifts.py`), which is far lumpier than the agent, judged by the same tests.

Causes are put into what was read: spend times five or ten (until the day's budgets are spent, and again the next day),
and a quarter of the conversions for the same spend.
"""

from __future__ import annotations

import argparse
import sqlite3
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.shifts import EPOCH, Desk
from kiki_agent.governor import anomaly
from kiki_agent.governor.loop import HISTORY_HOURS, PAST_DAYS, RIPE_DAYS
from kiki_agent.model import DAY, HOUR, Instant
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.draw import PLATFORMS

SPIKES = (5, 10)
WITHIN = (1, 3, 6, 12, 24, 48)
DEARER = 4
LATEST = WITHIN[-1]
"""A spike that was not seen after so many hours was not seen."""


@dataclass
class Read:
    """What the governor would have read in one run, per platform."""

    hours: list[list[tuple[int, float]]] = field(default_factory=lambda: [[] for _ in PLATFORMS])
    """(hour since 1970, spend as a share of the daily budgets)."""
    days: list[list[tuple[int, int]]] = field(default_factory=lambda: [[] for _ in PLATFORMS])
    """(spend, conversions) of each day as reported `RIPE_DAYS` later."""
    past: list[list[tuple[int, int]]] = field(default_factory=lambda: [[] for _ in PLATFORMS])
    """The same for the `PAST_DAYS` before, as reported on the same day."""


def read(seed: int, days: int) -> Read:
    """Run the market and read it once an hour."""
    desk, found = Desk(seed, days, "value"), Read()
    before = [0] * len(PLATFORMS)
    for hour in range(days * 24):
        now = Instant(EPOCH + hour * HOUR)
        desk.market.advance_to(now)
        desk._values()
        desk._bid(now)
        desk._look(now)
        desk._judge(now)
        budgets = desk._budgets()
        for place in range(len(PLATFORMS)):
            spent = int(desk.market.control[at.SPENT, slice(*desk.market.span(place))].sum())
            delta = spent - (before[place] if spent >= before[place] else 0)
            before[place] = spent
            if hour:
                found.hours[place].append((now // HOUR, delta / budgets[place]))
            if now % DAY < HOUR:
                _read_day(desk, found, place, now)
    return found


def _read_day(desk: Desk, found: Read, place: int, now: Instant) -> None:
    data, _ = desk.market.report(place, now)
    ripe = now // DAY - RIPE_DAYS

    def sums(first: int, last: int) -> tuple[int, int]:
        window = [day % at.RING_DAYS for day in range(first, last + 1)]
        both = data[:, window, :].sum((1, 2))
        return int(both[at.SPEND]), int(both[at.CONVERSIONS])

    found.days[place].append(sums(ripe, ripe))
    found.past[place].append(sums(ripe - PAST_DAYS, ripe - 1))


def hours_to_see(series: list[tuple[int, float]], start: int, times: int) -> int | None:
    """Hours from the begin of a spike to its alarm; None when `LATEST` passed without."""
    history = series[max(0, start - HISTORY_HOURS) : start]
    spent = sum(share for hour, share in history if hour // 24 == series[start][0] // 24)
    for passed, (hour, share) in enumerate(series[start : start + LATEST], start=1):
        if hour % 24 == 0:
            spent = 0.0
        seen = min(times * share, max(0.0, 1.0 - spent))
        spent += seen
        history = [*history[-HISTORY_HOURS:], (hour, seen)]
        if anomaly.unbelievable(history):
            return passed
    return None


def one(arguments: tuple[int, int]) -> Counter[str]:
    """A worker's job: counts of one seed."""
    seed, days = arguments
    found, counts = read(seed, days), Counter[str]()
    for place in range(len(PLATFORMS)):
        series = found.hours[place]
        for number in range(4 * 24, len(series)):
            counts["hours"] += 1
            counts["false spend"] += (
                anomaly.unbelievable(series[max(0, number - HISTORY_HOURS) : number + 1]) is not None
            )
        for start in range(15 * 24, len(series) - LATEST, 11):
            counts["spikes"] += 1
            for times in SPIKES:
                waited = hours_to_see(series, start, times)
                for within in WITHIN:
                    counts[f"{times} in {within}"] += waited is not None and waited <= within
        for (spend, won), (past_spend, past_won) in zip(found.days[place], found.past[place], strict=True):
            counts["days"] += 1
            counts["false price"] += anomaly.too_dear(spend, won, past_spend, past_won)
            counts["dear seen"] += anomaly.too_dear(spend, won // DEARER, past_spend, past_won)
            counts[f"dear of {'30' if won >= 30 else 'few'}"] += 1
            if won >= 30:
                counts["dear seen of 30"] += anomaly.too_dear(spend, won // DEARER, past_spend, past_won)
    return counts


def hours_of(path: Path) -> dict[str, list[tuple[int, float]]]:
    """What the governor's loop read in a backtest, by connector."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT connector, hour, spend_micros, budget_micros FROM spend_hours ORDER BY connector, hour"
        ).fetchall()
    finally:
        connection.close()
    found: dict[str, list[tuple[int, float]]] = {}
    for connector, hour, spend, budget in rows:
        found.setdefault(connector, []).append((hour, spend / budget if budget else 0.0))
    return found


def of_databases(paths: list[Path]) -> None:
    """Count over what whole agents read; the spikes begin in the last days, where there is history."""
    counts: Counter[str] = Counter()
    for path in paths:
        for series in hours_of(path).values():
            for number in range(4 * 24, len(series)):
                counts["hours"] += 1
                counts["false"] += anomaly.unbelievable(series[: number + 1]) is not None
            for start in range(7 * 24, len(series) - LATEST, 3):
                counts["spikes"] += 1
                for times in SPIKES:
                    waited = hours_to_see(series, start, times)
                    for within in WITHIN:
                        counts[f"{times} in {within}"] += waited is not None and waited <= within
    print(f"{len(paths)} backtests, {counts['hours']:,} platform-hours, {counts['false']} false alarms by spend")
    show_spikes(counts)


def show_spikes(total: Counter[str]) -> None:
    """How soon a spike was seen."""
    for times in SPIKES:
        print(f"  spend times {times:<2}, begun at          {total['spikes']:>9,} moments; seen within")
        for within in WITHIN:
            print(f"    {within:>3} h                          {total[f'{times} in {within}'] / total['spikes']:>9.1%}")


def main() -> None:
    """Run the seeds and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--days", type=int, default=45)
    parser.add_argument("--databases", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    if options.databases:
        of_databases(options.databases)
        return
    with ProcessPoolExecutor(2) as pool:
        each = list(pool.map(one, [(seed, options.days) for seed in range(1, options.seeds + 1)]))
    total = sum(each, Counter[str]())
    print(f"{options.seeds} seeds of {options.days} days, {len(PLATFORMS)} platforms")
    print(f"  platform-hours judged            {total['hours']:>9,}")
    print(f"  false alarms by spend            {total['false spend']:>9,}")
    print(f"  platform-days judged             {total['days']:>9,}")
    print(f"  false alarms by cost per action  {total['false price']:>9,}")
    show_spikes(total)
    print(f"  cost per action times {DEARER}: days seen {total['dear seen'] / total['days']:>9.1%}")
    most = max(1, total["dear of 30"])
    print(f"    of days with 30 conversions    {total['dear seen of 30'] / most:>9.1%} of {total['dear of 30']:,}")
    print(f"  median of false alarms per seed  {median(c['false spend'] + c['false price'] for c in each):>9g}")


if __name__ == "__main__":
    main()
