"""The fit in tables: what the real data look like, and the same figures read off a simulated market."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from kiki_agent.model import DAY, HOUR, Instant
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.draw import PLATFORMS
from kiki_agent.sandbox.fit import (
    COMPETITION_WIDTH,
    QUANTILES,
    START_RATIO,
    Floats,
    real_campaigns,
    real_slopes,
    real_traffic,
    simulated_slopes,
)
from kiki_agent.sandbox.market import Market

MONDAY = Instant(1_767_571_200_000_000)
"""2026-01-05T00:00:00Z."""
SEED, CAMPAIGNS, DAYS = 1, 600, 30


def spread(values: Floats) -> Floats:
    """Quantiles of the positive values against their median, so that scale drops out."""
    positive = values[values > 0]
    found: Floats = np.percentile(positive, QUANTILES) / np.median(positive)
    return found


@lru_cache(maxsize=1)
def tails() -> dict[str, tuple[Floats, Floats]]:
    """Name -> (real, simulated) quantiles against the median, over campaigns; simulated within their platforms."""
    real = real_campaigns()
    market = Market(SEED, MONDAY, CAMPAIGNS, DAYS)
    sums = market.days.sum(axis=1).astype(np.float64)
    level = {}
    for name, row in (("cost", at.SPEND), ("clicks", at.CLICKS)):
        cells = sums[row].copy()
        for place in range(len(PLATFORMS)):
            first, last = market.span(place)
            cells[first:last] /= np.median(cells[first:last])
        level[name] = cells
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = np.nan_to_num(sums[at.REVENUE] / sums[at.CONVERSIONS])
        real_worth = np.nan_to_num(real["value"] / real["conversions"])
    for place in range(len(PLATFORMS)):
        first, last = market.span(place)
        mine = worth[first:last]
        worth[first:last] = mine / np.median(mine[mine > 0])
    return {
        "cost a campaign": (spread(real["cost"]), spread(level["cost"])),
        "clicks a campaign": (spread(real["clicks"]), spread(level["clicks"])),
        "value a conversion": (spread(real_worth), spread(worth)),
    }


@lru_cache(maxsize=1)
def week(place: int = 1) -> tuple[Floats, Floats]:
    """Hour-of-week shapes, mean 1: of the traffic file, and of a platform's simulated clicks over four weeks.

    Without budgets, which would end most days before noon.
    """
    market = Market(SEED, Instant(MONDAY - 28 * DAY), 120, 1)
    market.control[at.BUDGET] = 10**12
    first, last = market.span(place)
    clicks = np.zeros(168)
    before = float(market.days[at.CLICKS, :, first:last].sum())
    for hour in range(28 * 24):
        market.advance_to(Instant(market.start + (hour + 1) * HOUR))
        now = float(market.days[at.CLICKS, :, first:last].sum())
        clicks[hour % 168] += now - before
        before = now
    shape = list(real_traffic().values())[PLATFORMS[place].region]
    return shape / shape.mean(), clicks / clicks.mean()


def report() -> str:
    """All tables, as in docs/market.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    real, made = real_slopes(), simulated_slopes()
    yield from _table(
        ("per unit of bid change", "experiment", "market's auction"),
        [
            ("clicks, log", f"{real.clicks:+.2f} ± {real.clicks_error:.2f}", f"{made.clicks:+.2f}"),
            ("cost a click, log", f"{real.price:+.2f} ± {real.price_error:.2f}", f"{made.price:+.2f}"),
            ("campaigns used", str(real.rows), str(made.rows)),
        ],
    )
    yield f"(competing prices log-normal with sigma {COMPETITION_WIDTH}, first bid {START_RATIO} medians)"
    yield ""
    header = ("against the median", *(f"p{quantile}" for quantile in QUANTILES))
    rows = []
    for name, (real_values, made_values) in tails().items():
        rows.append((f"{name}, real", *(f"{value:.2f}" for value in real_values)))
        rows.append((f"{name}, simulated", *(f"{value:.2f}" for value in made_values)))
    yield from _table(header, rows)
    yield ""
    shape, clicks = week()
    by_hour = [values.reshape(7, 24).mean(axis=0) for values in (shape, clicks)]
    hours = range(0, 24, 3)
    yield from _table(
        ("hour of day, mean 1", *(f"{hour} h" for hour in hours)),
        [
            ("traffic file", *(f"{by_hour[0][hour]:.2f}" for hour in hours)),
            ("simulated clicks", *(f"{by_hour[1][hour]:.2f}" for hour in hours)),
        ],
    )
    yield f"correlation over the 168 hours of the week: {np.corrcoef(shape, clicks)[0, 1]:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
