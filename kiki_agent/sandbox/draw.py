"""Who advertises on which platform: campaigns drawn from the real rows, and the shapes of everything random.

A simulated campaign starts as one real campaign (stratified by cost, so that every platform has its share of the long
tail) and is then scaled to its platform. What is assumed rather than measured stands in `PLATFORMS` and the constants
here, and is listed in docs/market.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.fit import (
    COMPETITION_WIDTH,
    START_RATIO,
    START_WIDTH,
    Floats,
    lognormal_price,
    lognormal_share,
    normal,
    real_campaigns,
    real_traffic,
)
from kiki_agent.sandbox.kernel import REVERSAL_SHARE
from kiki_agent.sandbox.noise import seed_key, unit

Ints = NDArray[np.int64]

CENT = 10_000
"""Micros of the platforms' bid and budget step."""
MIN_BID, MIN_BUDGET = 5 * CENT, 100 * CENT
PERIOD_DAYS = 10.0
"""The experiment does not say how long its periods were; the market takes them as two weeks."""
FATIGUE_DAYS = 2.0
SUPPLY, SUPPLY_WIDTH = 2.6, 0.35
"""Median and sigma of the clicks a campaign could win at its first bid against what its budget buys."""
COST_SPREAD = 0.25
"""Exponent on the ratio of a campaign's cost per conversion to its platform's; 1 would keep the real spread."""
CONVERSION_PRIOR, VALUE_PRIOR = 20.0, 4.0
"""Weight, in clicks and conversions, of the overall mean in a campaign's own rate (small campaigns know little)."""


@dataclass(frozen=True, slots=True)
class Place:
    """What makes one platform differ from the next; all of it assumed."""

    name: str
    region: int
    """Column of the traffic file: 0 is the mean of all regions."""
    volume: float
    price: float
    value: float
    repeat: float
    """Probability that a purchase is followed by another."""
    efficiency: float
    """Lifetime value per unit spent at the first bids, before drift."""
    spread: float
    """How uneven competing prices are, in units of the fitted width; the wider, the more a winner keeps."""
    fatigue: float
    """Clicks of the last days against the audience's size; sets how fast returns diminish."""
    refresh_minutes: int
    lag_minutes: int


PLATFORMS = (
    Place("meta", 1, 1.5, 0.9, 1.0, 0.60, 4.7, 0.6, 0.9, 15, 10),
    Place("google_ads", 0, 1.6, 1.1, 1.1, 0.62, 6.2, 1.6, 0.7, 60, 15),
    Place("tiktok", 2, 0.9, 0.6, 0.7, 0.50, 4.3, 0.5, 1.0, 30, 20),
    Place("linkedin", 3, 0.6, 2.2, 2.2, 0.55, 4.2, 0.5, 0.8, 120, 45),
    Place("amazon", 4, 0.9, 0.8, 0.9, 0.66, 6.6, 1.8, 0.8, 60, 30),
    Place("microsoft", 5, 0.7, 0.9, 1.1, 0.58, 6.2, 1.6, 0.8, 60, 20),
)
JITTER = 0.02
"""Sigma of a platform's efficiency between seeds."""
SWING_PRICE, SWING_APPETITE = 0.06, 0.10
"""How far price level and appetite of a platform wander over weeks."""


@dataclass(frozen=True, slots=True)
class Population:
    """Everything drawn for one seed; rows as named in `layout`."""

    control: Ints
    keys: Ints
    homes: Ints
    place_keys: Ints
    traits: Floats
    moods: Floats
    places: Floats
    reports: Ints
    traffic: Floats
    shapes: Floats


def expected_purchases(repeat: float) -> float:
    """Mean purchases of a reported customer, ignoring the end of the customer's life."""
    return (1.0 - REVERSAL_SHARE) / (1.0 - repeat)


def populate(seed: int, campaigns: int) -> Population:
    """Draw `campaigns` campaigns, as evenly over the platforms as possible. Raises ValueError below one a platform."""
    count = len(PLATFORMS)
    if campaigns < count:
        raise ValueError(f"a market of {count} platforms needs at least {count} campaigns, not {campaigns}")
    sizes = [campaigns // count + (index < campaigns % count) for index in range(count)]
    ends = np.cumsum(sizes)
    homes = np.repeat(np.arange(count, dtype=np.int64), sizes)
    keys = np.array([seed_key(seed, 1_000 + index) for index in range(campaigns)], dtype=np.int64)
    place_keys = np.array([seed_key(seed, index) for index in range(count)], dtype=np.int64)
    control = np.zeros((4, campaigns), dtype=np.int64)
    traits = np.zeros((6, campaigns))
    for index, size in enumerate(sizes):
        span = slice(int(ends[index]) - size, int(ends[index]))
        efficiency = PLATFORMS[index].efficiency * math.exp(JITTER * normal(int(place_keys[index]), 0))
        control[:, span], traits[:, span] = _campaigns(PLATFORMS[index], efficiency, keys[span])
    moods = np.zeros((3, campaigns))
    moods[at.QUALITY] = 1.0
    fatigue = np.array([place.fatigue for place in PLATFORMS])
    moods[at.FATIGUE] = traits[at.AUDIENCE] * fatigue[homes]
    return Population(
        control=control,
        keys=keys,
        homes=homes,
        place_keys=place_keys,
        traits=traits,
        moods=moods,
        places=_places(),
        reports=_reports(ends, sizes),
        traffic=_traffic(),
        shapes=shapes(),
    )


def _campaigns(place: Place, efficiency: float, keys: Ints) -> tuple[Ints, Floats]:
    """Control and traits of one platform's campaigns."""
    size = len(keys)
    rows = _rows()
    picks = [int((index + unit(int(key), 0)) / size * len(rows["cost"])) for index, key in enumerate(keys)]
    clicks = rows["clicks"][picks] / PERIOD_DAYS * place.volume
    price = rows["cost"][picks] / rows["clicks"][picks] * place.price
    convert = rows["convert"][picks]
    usual = float((clicks * price).sum() / (clicks * convert).sum())
    price *= (usual * convert / price) ** (1.0 - COST_SPREAD)
    value = rows["value"][picks] * place.value
    lifetime = float((clicks * convert * value).sum()) * expected_purchases(place.repeat)
    missing = efficiency * float((clicks * price).sum()) / lifetime
    convert = np.minimum(convert * math.sqrt(missing), 0.6)
    lifetime = float((clicks * convert * value).sum()) * expected_purchases(place.repeat)
    value = value * efficiency * float((clicks * price).sum()) / lifetime
    width = COMPETITION_WIDTH * place.spread
    ratio = np.array([(START_RATIO * math.exp(START_WIDTH * normal(int(key), 1))) ** place.spread for key in keys])
    supply = np.array([SUPPLY * math.exp(SUPPLY_WIDTH * normal(int(key), 2)) for key in keys])
    share = np.array([lognormal_share(each, width) for each in ratio])
    median = price / np.array([lognormal_price(each, width) for each in ratio])
    control = np.zeros((4, size), dtype=np.int64)
    control[at.BID] = np.maximum(np.round(median * ratio * 100).astype(np.int64) * CENT, MIN_BID)
    control[at.BUDGET] = np.maximum(np.round(clicks * price * 10).astype(np.int64) * 10 * CENT, 2 * MIN_BUDGET)
    control[at.ACTIVE] = 1
    traits = np.zeros((6, size))
    traits[at.MEDIAN] = median * 1_000_000
    traits[at.DEMAND] = clicks * supply / share / at.STEPS_PER_DAY
    traits[at.CONVERT] = convert * (1.0 + place.fatigue)
    traits[at.AUDIENCE] = clicks * FATIGUE_DAYS / place.fatigue
    traits[at.VIEWS] = rows["impressions"][picks] / rows["clicks"][picks]
    traits[at.VALUE] = value * 1_000_000
    return control, traits


@lru_cache(maxsize=1)
def _rows() -> dict[str, Floats]:
    """Real campaigns in order of cost, with rates drawn towards the overall mean by `*_PRIOR`."""
    real = real_campaigns()
    order = np.argsort(real["cost"], kind="stable")
    rows = {name: real[name][order] for name in ("impressions", "clicks", "cost", "conversions", "value")}
    rate = rows["conversions"].sum() / rows["clicks"].sum()
    worth = rows["value"].sum() / rows["conversions"].sum()
    rows["convert"] = (rows["conversions"] + rate * CONVERSION_PRIOR) / (rows["clicks"] + CONVERSION_PRIOR)
    rows["value"] = (rows["value"] + worth * VALUE_PRIOR) / (rows["conversions"] + VALUE_PRIOR)
    return rows


def _places() -> Floats:
    places = np.ones((5, len(PLATFORMS)))
    places[at.REPEAT] = [place.repeat for place in PLATFORMS]
    places[at.SWING_PRICE] = SWING_PRICE
    places[at.SWING_APPETITE] = SWING_APPETITE
    return places


def _reports(ends: Ints, sizes: list[int]) -> Ints:
    reports = np.zeros((7, len(PLATFORMS)), dtype=np.int64)
    reports[at.FIRST] = ends - np.array(sizes)
    reports[at.LAST] = ends
    reports[at.PERIOD] = [place.refresh_minutes for place in PLATFORMS]
    reports[at.LAG] = [place.lag_minutes for place in PLATFORMS]
    return reports


def _traffic() -> Floats:
    columns = list(real_traffic().values())
    return np.ascontiguousarray(np.stack([columns[place.region] / columns[place.region].mean() for place in PLATFORMS]))


@lru_cache(maxsize=1)
def shapes() -> Floats:
    """Quantile functions: report delay and gap to the next purchase in steps, value share, competing prices in medians.

    Prices are log-normal (see `fit`). A conversion is reported within hours (60 %, mean 3 h) or days (40 %, mean 2 d),
    at most 10 days; repeat purchases follow after 11 days on average, at most 45; values are log-normal with mean 1.
    """
    made = np.zeros((3 + len(PLATFORMS), at.GRID + 1))
    probabilities = [min(max(index / at.GRID, 1e-4), 1 - 1e-4) for index in range(at.GRID + 1)]
    spread = np.array([_normal_quantile(each) for each in probabilities])
    for index, place in enumerate(PLATFORMS):
        made[at.PRICE_SHAPE + index] = np.exp(COMPETITION_WIDTH * place.spread * spread)
    made[at.VALUE_SHAPE] = np.exp(0.6 * spread)
    made[at.VALUE_SHAPE] /= (made[at.VALUE_SHAPE, 1:] + made[at.VALUE_SHAPE, :-1]).mean() / 2
    made[at.DELAY_SHAPE] = [_delay_quantile(each) for each in probabilities]
    gaps = [-11.0 * at.STEPS_PER_DAY * math.log(1 - each) for each in probabilities]
    made[at.GAP_SHAPE] = np.clip(gaps, at.STEPS_PER_HOUR, 45.0 * at.STEPS_PER_DAY)
    return made


def _bisect(below: float, above: float, cumulated: object, target: float) -> float:
    assert callable(cumulated)
    for _ in range(60):
        middle = (below + above) / 2
        if cumulated(middle) < target:
            below = middle
        else:
            above = middle
    return (below + above) / 2


def _normal_quantile(probability: float) -> float:
    return _bisect(-8.0, 8.0, lambda x: 0.5 * math.erfc(-x / math.sqrt(2)), probability)


def _delay_quantile(probability: float) -> float:
    longest = 10.0 * at.STEPS_PER_DAY
    quick, slow = 3.0 * at.STEPS_PER_HOUR, 2.0 * at.STEPS_PER_DAY

    def cumulated(steps: float) -> float:
        return 1.0 - 0.6 * math.exp(-steps / quick) - 0.4 * math.exp(-steps / slow)

    return _bisect(0.0, longest, cumulated, probability * cumulated(longest))
