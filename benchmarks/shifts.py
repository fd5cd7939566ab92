"""How often does the shipped optimizer rule move money on the sandbox market? One line a seed, then the distribution.

    python benchmarks/shifts.py [--seeds 20] [--days 30] [--bids value|fixed]

Runs the rule of `kiki_agent.optimizer.rule` with its default guards directly against the market: no store, no HTTP, no
shield. Bids either stay as they were (`fixed`) or follow a plain hourly version of the bidding rule (`value`): at most
30 % of the customer value times the conversion rate, lowered while the day's budget runs ahead of an even plan.
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from kiki_agent.model import DAY, HOUR, MINUTE, Instant, parse_iso
from kiki_agent.optimizer.rule import Guards, LastShift, PlatformFacts, judge
from kiki_agent.sandbox import Market
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.draw import CENT, MIN_BID, MIN_BUDGET, PLATFORMS

EPOCH = parse_iso("2026-03-02T09:00:00Z")
GUARDS = Guards(Fraction(15, 100), Fraction(20, 100), DAY, Fraction(30, 100), True, 10)
LOOKBACK_DAYS = 7
VALUE_SHARE = 0.30
PRIOR_CLICKS = 200.0

Floats = NDArray[np.float64]


@dataclass
class Run:
    """What one simulated month showed."""

    seed: int
    shifts: list[tuple[float, str, str, float]] = field(default_factory=list)
    """(day, from, to, amount in units)."""
    efficiencies: list[list[float]] = field(default_factory=list)
    """Per day and platform, as the rule sees them."""
    spend: float = 0.0
    budget: float = 0.0


class Desk:
    """The rule, its memory, and hands on the market."""

    def __init__(self, seed: int, days: int, bids: str, optimize: bool = True) -> None:
        self.market = Market(seed, EPOCH)
        self.optimize = optimize
        self.run = Run(seed)
        self.days, self.bids = days, bids
        self.start = self._budgets()
        self.last: dict[str, LastShift] = {}
        self.as_of: list[Instant | None] = [None] * len(PLATFORMS)
        self.totals = np.zeros((len(PLATFORMS), at.METRICS), dtype=np.int64)
        self.values = [0] * len(PLATFORMS)
        self.spent_before = self.market.control[at.SPENT].copy()

    def live(self) -> Run:
        """All cycles of the run."""
        begun = self._spend_total()
        for cycle in range(self.days * 288):
            now = Instant(EPOCH + cycle * 5 * MINUTE)
            self.market.advance_to(now)
            if cycle % 12 == 0:
                self._values()
                if self.bids == "value":
                    self._bid(now)
            if self._look(now) or cycle == 0:
                self._judge(now)
            if cycle % 288 == 0:
                self.run.efficiencies.append([self._efficiency(place) for place in range(len(PLATFORMS))])
                self.run.budget += sum(self._budgets()) / 1e6
        self.run.spend = (self._spend_total() - begun) / 1e6
        return self.run

    def _spend_total(self) -> int:
        return int(self.market.days[at.SPEND].sum())

    def _budgets(self) -> list[int]:
        market = self.market
        return [int(market.control[at.BUDGET, slice(*market.span(place))].sum()) for place in range(len(PLATFORMS))]

    def _look(self, now: Instant) -> bool:
        """Read the reports that are new, or whose cool-down may be over."""
        for place in range(len(PLATFORMS)):
            data, as_of = self.market.report(place, now)
            if as_of != self.as_of[place]:
                newest = now // DAY
                window = [day % at.RING_DAYS for day in range(newest - LOOKBACK_DAYS + 1, newest + 1)]
                self.totals[place] = data[:, window, :].sum((1, 2))
                self.as_of[place] = as_of
        return True

    def _values(self) -> None:
        """Customer value by platform: what customers won 14 to 90 days ago have brought so far."""
        people = self.market.people
        step = self.market.now // at.STEP
        age = step - people[at.ACQUIRED]
        use = (people[at.STATE] >= at.CUSTOMER) & (age > 14 * at.STEPS_PER_DAY) & (age < 90 * at.STEPS_PER_DAY)
        homes = self.market.homes[people[at.HOME, use]]
        worth = np.bincount(homes, weights=people[at.EARNED, use], minlength=len(PLATFORMS))
        self.values = [int(value) for value in worth / np.maximum(np.bincount(homes, minlength=len(PLATFORMS)), 1)]

    def _efficiency(self, place: int) -> float:
        spend, conversions = self.totals[place, at.SPEND], self.totals[place, at.CONVERSIONS]
        return self.values[place] * float(conversions) / max(float(spend), 1.0)

    def _judge(self, now: Instant) -> None:
        if not self.optimize:
            return
        budgets = self._budgets()
        facts = [
            PlatformFacts(
                place.name,
                place.name,
                self.values[index],
                int(self.totals[index, at.SPEND]),
                int(self.totals[index, at.CONVERSIONS]),
                budgets[index],
                self.start[index],
                self.as_of[index],
            )
            for index, place in enumerate(PLATFORMS)
        ]
        verdict = judge(facts, GUARDS, self.last, frozenset(), now)
        names = [place.name for place in PLATFORMS]
        for low in verdict.underperformers:
            as_of = self.as_of[names.index(low.connector)]
            if low.amount_micros <= 0 or verdict.best is None or as_of is None:
                continue
            taken = self._scale(names.index(low.connector), -low.amount_micros)
            self._scale(names.index(verdict.best), taken)
            self.last[low.connector] = LastShift(now, as_of)
            self.run.shifts.append(((now - EPOCH) / DAY, low.connector, verdict.best, taken / 1e6))

    def _scale(self, place: int, amount: int) -> int:
        """Change a platform's budgets in proportion; returns what was really taken or given."""
        span = slice(*self.market.span(place))
        budgets = self.market.control[at.BUDGET, span]
        total = int(budgets.sum())
        wanted = np.maximum(np.round(budgets * (1 + amount / total) / CENT).astype(np.int64) * CENT, MIN_BUDGET)
        self.market.control[at.BUDGET, span] = wanted
        return abs(int(wanted.sum()) - total)

    def _bid(self, now: Instant) -> None:
        """Hourly bids: worth, held down by an even plan of the day."""
        market = self.market
        newest = now // DAY
        window = [day % at.RING_DAYS for day in range(newest - LOOKBACK_DAYS + 1, newest + 1)]
        sums = market.days[:, window, :].sum(1)
        clicks, won = sums[at.CLICKS].astype(float), sums[at.CONVERSIONS].astype(float)
        rate = np.array([won[market.homes == place].sum() for place in range(len(PLATFORMS))]) / np.maximum(
            [clicks[market.homes == place].sum() for place in range(len(PLATFORMS))], 1.0
        )
        rates = (won + PRIOR_CLICKS * rate[market.homes]) / (clicks + PRIOR_CLICKS)
        worth = np.array(self.values)[market.homes] * rates * VALUE_SHARE
        spent, budget = market.control[at.SPENT], market.control[at.BUDGET]
        used = np.maximum(spent - np.where(spent >= self.spent_before, self.spent_before, 0), 0)
        self.spent_before = spent.copy()
        hour = (now % DAY) / DAY
        needed = np.maximum(budget * min(1.0, hour + 1 / 24) - spent, 0)
        observed = (used + market.control[at.BID]) / (1 + market.control[at.BID] / (budget / 24))
        factor = np.sqrt(np.clip(needed / np.maximum(observed, 1.0), 0.25, 1.5625))
        bids = np.minimum(market.control[at.BID] * factor, worth)
        market.control[at.BID] = np.maximum(bids // CENT * CENT, MIN_BID)


def one(arguments: tuple[int, int, str]) -> Run:
    """A worker's job."""
    return Desk(*arguments).live()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--bids", choices=("value", "fixed"), default="value")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    jobs = [(seed, options.days, options.bids) for seed in range(1, options.seeds + 1)]
    with ProcessPoolExecutor(options.workers) as pool:
        runs = list(pool.map(one, jobs))
    print("seed shifts first_day  spend/budget  efficiency by platform, mean over the days (and at the start)")
    for run in runs:
        table = np.array(run.efficiencies)
        means = " ".join(
            f"{place.name} {mean:.2f} ({first:.2f})"
            for place, mean, first in zip(PLATFORMS, table.mean(0), table[0], strict=True)
        )
        first = f"{run.shifts[0][0]:.3f}" if run.shifts else "-"
        print(f"{run.seed:4d} {len(run.shifts):6d} {first:>9s}  {run.spend / run.budget:12.3f}  {means}")
    counts = sorted(len(run.shifts) for run in runs)
    inside = sum(15 <= count <= 25 for count in counts) / len(counts)
    everything = np.array([run.efficiencies for run in runs])
    print(f"bids {options.bids}, {options.days} days, seeds 1..{options.seeds}, {HOUR // MINUTE // 12} min cycles")
    print(f"shifts: {counts}")
    print(f"median {statistics.median(counts)}, in 15..25: {inside:.0%}")
    print(
        f"efficiency: 5 % {np.quantile(everything, 0.05):.2f}, median {np.median(everything):.2f}, "
        f"95 % {np.quantile(everything, 0.95):.2f}"
    )


if __name__ == "__main__":
    main()
