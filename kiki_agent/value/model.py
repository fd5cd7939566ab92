"""A thin, honest model of customer lifetime value.

    prediction = revenue so far + expected remaining purchases x expected value of one purchase

- Remaining purchases: customers are grouped by platform and by weeks since they were won. The mean number of purchases
  of the oldest well-filled group (the mature customers) minus the mean of the customer's own group is still to come.
  Group means are pulled to those of all platforms with the weight of `POOL_CUSTOMERS` customers. Nothing is
  extrapolated past the oldest group, so a young business is told too little rather than too much.
- Value of one purchase: credibility-weighted (Bühlmann 1967) between the customer's own mean and the platform's:
  Z = n / (n + `ORDER_CREDIBILITY`) after n purchases.
- Untrained, the prior speaks, flagged `model_version = "prior"`: what is missing to the configured default value,
  fading over a year without the customer getting there.

The range is an 80 % interval for the number of remaining purchases taken as Poisson (normal approximation).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import sqrt

from kiki_agent.model import DAY, Customer, Instant
from kiki_agent.model.money import round_to_step

PRIOR = "prior"
"""Model version of an untrained store."""
WEEK = 7 * DAY
MOST_WEEKS = 104
LEAST_CUSTOMERS = 200
"""A model is trained from at least so many customers."""
GROUP_CUSTOMERS = 30
"""A group of fewer customers does not count as well filled."""
POOL_CUSTOMERS = 50
ORDER_CREDIBILITY = 3
PRIOR_FADES = 365 * DAY
MOST_LTV_MICROS = 10**13
"""Ten million units: no prediction is larger, so that sums of a million predictions stay within 64 bits."""
_NINETIETH = 1.2816
_ALL = ""
_NEVER = Instant(0)


@dataclass(frozen=True, slots=True)
class Group:
    """Customers of one platform won the same number of whole weeks ago."""

    platform: str
    week: int
    customers: int
    purchases: int
    revenue_micros: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one customer will be worth over their life."""

    predicted_micros: int
    lower_micros: int
    upper_micros: int
    confidence: float
    """0 to 1: how much of the value of a purchase is the customer's own history; 0 for the prior."""


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model, or the prior when `version` says so."""

    default_ltv_micros: int
    version: str = PRIOR
    trained_at: Instant = _NEVER
    purchases: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Platform -> mean purchases by week since acquisition, never falling; `""` = all platforms."""
    order_micros: Mapping[str, int] = field(default_factory=dict)
    """Platform -> mean value of a purchase."""

    @property
    def trained(self) -> bool:
        """Whether data or the prior speaks."""
        return self.version != PRIOR

    def estimate(self, customer: Customer, now: Instant) -> Estimate:
        """Predict one customer."""
        age = max(0, now - customer.acquired_at)
        revenue = customer.revenue_micros
        if not self.trained:
            missing = max(0, self.default_ltv_micros - revenue)
            remaining = missing * max(0, PRIOR_FADES - age) // PRIOR_FADES
            return _bounded(revenue + remaining, revenue, revenue + 2 * remaining, 0.0)
        curve = self.purchases.get(customer.platform) or self.purchases[_ALL]
        left = curve[-1] - curve[min(age // WEEK, len(curve) - 1)]
        typical = self.order_micros.get(customer.platform) or self.order_micros[_ALL]
        order = (revenue + ORDER_CREDIBILITY * typical) / (customer.purchases + ORDER_CREDIBILITY)
        spread = _NINETIETH * sqrt(left)
        return _bounded(
            revenue + int(left * order),
            revenue + int(max(0.0, left - spread) * order),
            revenue + int((left + spread) * order),
            customer.purchases / (customer.purchases + ORDER_CREDIBILITY),
        )

    def to_json(self) -> str:
        """Everything needed to predict the same again."""
        return json.dumps(
            {
                "default_ltv_micros": self.default_ltv_micros,
                "trained_at": self.trained_at,
                "purchases": self.purchases,
                "order_micros": self.order_micros,
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, version: str, text: str) -> Model:
        """The model that `to_json` described."""
        held = json.loads(text)
        return cls(
            default_ltv_micros=int(held["default_ltv_micros"]),
            version=version,
            trained_at=Instant(int(held["trained_at"])),
            purchases={name: tuple(curve) for name, curve in held["purchases"].items()},
            order_micros={name: int(micros) for name, micros in held["order_micros"].items()},
        )


def train(groups: Iterable[Group], default_ltv_micros: int, version: str, now: Instant) -> Model | None:
    """Fit a model, or None when there is too little to learn from: few customers, or all of one age."""
    cells: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    orders: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for group in groups:
        week = min(group.week, MOST_WEEKS)
        for name in {group.platform, _ALL}:
            customers, purchases = cells[name].get(week, (0, 0))
            cells[name][week] = (customers + group.customers, purchases + group.purchases)
            count, micros = orders[name]
            orders[name] = (count + group.purchases, micros + group.revenue_micros)
    pool = cells[_ALL]
    filled = [week for week, (customers, _) in pool.items() if customers >= GROUP_CUSTOMERS]
    if sum(customers for customers, _ in pool.values()) < LEAST_CUSTOMERS or len(filled) < 2 or not orders[_ALL][0]:
        return None
    weeks = max(filled) + 1
    mean = _rising([_mean(pool.get(week, (0, 0)), 0.0, 0) for week in range(weeks)])
    curves = {_ALL: mean}
    for name, mine in cells.items():
        if name != _ALL:
            pulled = [_mean(mine.get(week, (0, 0)), mean[week], POOL_CUSTOMERS) for week in range(weeks)]
            curves[name] = _rising(pulled)
    values = {name: round_to_step(micros, count) // count for name, (count, micros) in orders.items() if count}
    return Model(default_ltv_micros, version, now, curves, values)


def _mean(cell: tuple[int, int], prior: float, weight: int) -> float:
    customers, purchases = cell
    total = customers + weight
    return (purchases + weight * prior) / total if total else 0.0


def _rising(values: list[float]) -> tuple[float, ...]:
    """The running maximum: purchases so far cannot fall with age, what falls is noise."""
    risen, highest = [], 0.0
    for value in values:
        highest = max(highest, value)
        risen.append(highest)
    return tuple(risen)


def _bounded(predicted: int, lower: int, upper: int, confidence: float) -> Estimate:
    capped = [min(value, MOST_LTV_MICROS) for value in (predicted, lower, upper)]
    return Estimate(capped[0], capped[1], capped[2], confidence)
