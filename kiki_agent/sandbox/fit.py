"""From the two public data sets to what the market is made of, and back: does the simulated market look like them?

`python -m kiki_agent.sandbox.fit derive MOBILE_ADS_CSV TRAFFIC_SHARE_CSV` rewrites the shipped files;
`python -m kiki_agent.sandbox.fit report` prints the tables of docs/market.md.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kiki_agent.sandbox.noise import seed_key, unit

Floats = NDArray[np.float64]

DATA = Path(__file__).parent / "data"
CAMPAIGNS_FILE = DATA / "campaigns.csv"
TRAFFIC_FILE = DATA / "traffic.csv"
COLUMNS = (
    "impressions",
    "clicks",
    "cost",
    "conversions",
    "value",
    "bid_change",
    "m_clicks_before",
    "m_clicks_after",
    "m_cost_before",
    "m_cost_after",
    "d_clicks_before",
    "d_clicks_after",
    "d_cost_before",
    "d_cost_after",
)
QUANTILES = (5, 10, 25, 50, 75, 90, 95, 99)
COMPETITION_WIDTH = 0.28
"""Sigma of the log-normal highest competing price; see `elasticities` and docs/market.md."""
START_RATIO, START_WIDTH = 1.60, 0.20
"""Median and sigma of a campaign's first bid against the median competing price."""


@dataclass(frozen=True, slots=True)
class Slopes:
    """Regression of log changes on the change of the bid multiplier, with standard errors, and rows used."""

    clicks: float
    clicks_error: float
    price: float
    price_error: float
    rows: int


def real_campaigns() -> dict[str, Floats]:
    """The shipped campaign rows as columns, see COLUMNS."""
    with CAMPAIGNS_FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS}


def real_traffic() -> dict[str, Floats]:
    """Hour-of-week shapes: name -> 168 values with mean 1, Monday 0 h first."""
    with TRAFFIC_FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    table = np.array([[float(cell) for cell in row[2:]] for row in rows[1:]])
    return {name: table[:, index] for index, name in enumerate(rows[0][2:])}


def derive_campaigns(source: Path, target: Path) -> int:
    """Keep what the market needs of the MobileAds experiment; returns the number of campaigns."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with target.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            totals = [
                float(row[f"m.{name}_pre"]) + float(row[f"d.{name}_pre"])
                for name in ("impr", "click", "cost", "conv", "value")
            ]
            parts = [
                float(row[f"{device}.{name}_{when}"])
                for device in "md"
                for name in ("click", "cost")
                for when in ("pre", "post")
            ]
            writer.writerow(f"{number:.10g}" for number in [*totals, float(row["mult.change"]), *parts])
    return len(rows)


def derive_traffic(source: Path, target: Path, regions: int = 5) -> int:
    """The mean over all regions, and single regions evenly spread over how peaked their week is."""
    shares: dict[str, Floats] = defaultdict(lambda: np.zeros(168))
    with source.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            shares[row["region_id"]][(int(row["dow"]) - 1) * 24 + int(row["hour"])] = float(row["traffic_share"])
    scaled = {name: share * 168 / share.sum() for name, share in shares.items()}
    order = sorted(scaled, key=lambda name: (float(scaled[name].std()), name))
    chosen = [order[round((index + 0.5) / regions * len(order) - 0.5)] for index in range(regions)]
    columns = [np.mean(list(scaled.values()), axis=0), *(scaled[name] for name in chosen)]
    with target.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["day_of_week", "hour", "mean", *(f"region_{name}" for name in chosen)])
        for hour in range(168):
            writer.writerow([hour // 24 + 1, hour % 24, *(f"{column[hour]:.4f}" for column in columns)])
    return len(scaled)


def slopes(
    change: Floats, clicks: tuple[Floats, Floats], cost: tuple[Floats, Floats], control: tuple[Floats, ...]
) -> Slopes:
    """Difference in differences: log change on mobile minus log change on desktop, regressed on the multiplier change.

    Campaigns with at least 10 clicks before and 5 after on both devices and a change within +-1.
    """
    before, after = clicks
    control_before, control_after, control_cost_before, control_cost_after = control
    use = (before >= 10) & (after >= 5) & (control_before >= 10) & (control_after >= 5) & (np.abs(change) < 1)
    volume = np.log(after[use] / before[use]) - np.log(control_after[use] / control_before[use])
    unit_price = np.log(cost[1][use] / after[use] * before[use] / cost[0][use])
    unit_price -= np.log(control_cost_after[use] / control_after[use] * control_before[use] / control_cost_before[use])
    volume_slope, volume_error = _line(change[use], volume)
    price_slope, price_error = _line(change[use], unit_price)
    return Slopes(volume_slope, volume_error, price_slope, price_error, int(use.sum()))


def real_slopes() -> Slopes:
    """What the experiment shows."""
    rows = real_campaigns()
    return slopes(
        rows["bid_change"],
        (rows["m_clicks_before"], rows["m_clicks_after"]),
        (rows["m_cost_before"], rows["m_cost_after"]),
        (rows["d_clicks_before"], rows["d_clicks_after"], rows["d_cost_before"], rows["d_cost_after"]),
    )


def simulated_slopes(width: float = COMPETITION_WIDTH, ratio: float = START_RATIO, seed: int = 1) -> Slopes:
    """The same experiment in the market's auction: the real campaigns' clicks and multiplier changes, its noise.

    A campaign bids `ratio` times the median competing price (with spread) and then (1 + change) times that, at least
    a tenth; clicks follow the share of auctions won, cost the mean price below the bid, both with counting noise.
    """
    rows = real_campaigns()
    size = len(rows["bid_change"])
    after, cost = np.zeros(size), np.zeros(size)
    for index in range(size):
        key = seed_key(seed, index)
        start = ratio * math.exp(START_WIDTH * normal(key, 0))
        moved = start * max(1.0 + rows["bid_change"][index], 0.1)
        share = [lognormal_share(bid, width) for bid in (start, moved)]
        price = [lognormal_price(bid, width) for bid in (start, moved)]
        mean = rows["m_clicks_before"][index] * share[1] / share[0]
        after[index] = max(0.0, round(mean + math.sqrt(mean) * normal(key, 1)))
        cost[index] = after[index] * rows["m_cost_before"][index] / rows["m_clicks_before"][index] * price[1] / price[0]
    flat = (
        np.full(size, 100.0),
        np.full(size, 100.0),
        np.full(size, 100.0),
        np.full(size, 100.0),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return slopes(
            rows["bid_change"],
            (rows["m_clicks_before"], after),
            (rows["m_cost_before"], cost),
            flat,
        )


def normal(key: int, tick: int) -> float:
    """A standard normal number for a key and a tick (sum of twelve uniform ones, variance 1)."""
    return sum(unit(key, (tick * 16 + index) * 32 + 31) for index in range(12)) - 6.0


def lognormal_share(ratio: float, width: float) -> float:
    """Share of competing prices below `ratio` times their median."""
    return 0.5 * math.erfc(-math.log(ratio) / width / math.sqrt(2))


def lognormal_price(ratio: float, width: float) -> float:
    """Mean competing price, in medians, of those below `ratio`: what a second-price winner pays on average."""
    below = lognormal_share(ratio, width)
    part = 0.5 * math.erfc(-(math.log(ratio) / width - width) / math.sqrt(2))
    return math.exp(width * width / 2) * part / below if below > 0 else 0.0


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    centred = x - x.mean()
    slope = float((centred * y).sum() / (centred * centred).sum())
    rest = y - y.mean() - slope * centred
    return slope, float(math.sqrt((rest * rest).sum() / (len(x) - 2) / (centred * centred).sum()))


def main(arguments: Sequence[str]) -> int:
    """Command line of this module."""
    if len(arguments) == 3 and arguments[0] == "derive":
        DATA.mkdir(exist_ok=True)
        campaigns = derive_campaigns(Path(arguments[1]), CAMPAIGNS_FILE)
        regions = derive_traffic(Path(arguments[2]), TRAFFIC_FILE)
        sys.stdout.write(f"{campaigns} campaigns, {regions} regions\n")
        return 0
    if list(arguments) == ["report"]:
        from kiki_agent.sandbox.fit_report import report

        sys.stdout.write(report())
        return 0
    sys.stderr.write(f"{__doc__}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
