"""Replay of recorded second-price auctions through a bidding policy.

The rules are those of the iPinYou benchmark (Zhang et al., "Real-Time Bidding Benchmarking with iPinYou Dataset",
arXiv 1407.7073): a bid above the market price wins and pays it, and bidding stops once the cost has reached the budget.
Prices are per thousand impressions. All thresholds are exact fractions, so no count depends on floating point.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from kiki_agent.errors import ConfigError, Finding
from kiki_agent.flow.auction_log import PCTR_DECIMALS, AuctionLog, load
from kiki_agent.kernels.auctions import ANSWER_CELLS, BIDS, CLICKS, COST, IMPRESSIONS, replay_auctions

__all__ = [
    "AuctionLog",
    "Policy",
    "PolicyName",
    "ReplayResult",
    "Statistics",
    "default_budget",
    "load",
    "replay",
    "statistics",
]

VALUE_SHARE = Fraction(1, 5)
"""A click is worth this share of what clicks cost in the statistics; the benchmark's value for a campaign at profit."""
BUDGET_SHARE = Fraction(1, 16)
"""Default budget as a share of the log's total price; the benchmark's usual middle of 1/2 to 1/64."""
PER_THOUSAND = 1_000
_HIGHEST_BID = 2**62
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")


class PolicyName(StrEnum):
    """The bidding policies on offer."""

    TRUTH = "truth"
    """The value of a click times the predicted rate: what the impression is worth."""
    LIN = "lin"
    """Linear in the predicted rate; the parameter is the bid at the average rate (Perlich et al., KDD 2012)."""
    CONST = "const"
    """The same bid for every impression; the parameter is the bid."""
    MCPC = "mcpc"
    """The predicted rate times the highest cost per click to pay, which is the average one of the statistics."""


_DEFAULTS = {PolicyName.LIN: Fraction(75), PolicyName.CONST: Fraction(5)}


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy and its parameter; 0 for those that have none."""

    name: PolicyName
    parameter: Fraction = Fraction(0)

    @classmethod
    def parse(cls, text: str) -> Policy:
        """The policy meant by `truth`, `mcpc`, `lin`, `lin:25`, `const:5` ... Raises ConfigError."""
        head, _, tail = text.strip().lower().partition(":")
        try:
            name = PolicyName(head)
        except ValueError:
            known = ", ".join(PolicyName)
            raise _unusable("policy", f"expected one of {known}, was {head[:40]!r}") from None
        default = _DEFAULTS.get(name)
        if default is None:
            if tail:
                raise _unusable("policy", f"{name} takes no parameter, was {tail[:40]!r}")
            return cls(name)
        if tail and not _NUMBER.fullmatch(tail):
            raise _unusable("policy", f"expected a number after {name}:, was {tail[:40]!r}")
        parameter = Fraction(tail) if tail else default
        if parameter < 0:
            raise _unusable("policy", f"a bid cannot be negative, was {tail[:40]!r}")
        return cls(name, parameter)

    def __str__(self) -> str:
        return f"{self.name}:{float(self.parameter):g}" if self.name in _DEFAULTS else str(self.name)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a policy knows beforehand, learned from a log."""

    auctions: int
    clicks: int
    total_price: int
    """Sum of market prices, per thousand impressions."""
    base_rate: Fraction
    """Mean of the predicted click-through rates."""

    @property
    def cost_per_click(self) -> Fraction | None:
        """Effective cost per click (eCPC), in price units per click; None without clicks."""
        return Fraction(self.total_price, self.clicks * PER_THOUSAND) if self.clicks else None

    @property
    def value_per_click(self) -> Fraction | None:
        """What one click is taken to be worth; None without clicks."""
        cost = self.cost_per_click
        return None if cost is None else VALUE_SHARE * cost


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a policy did in a log. Cost is in price units per thousand, as the log's prices are."""

    policy: Policy
    budget: Fraction
    auctions: int
    """Auctions in the log."""
    bids: int
    """Auctions before the budget ended."""
    impressions: int
    clicks: int
    cost: int
    profit: Fraction | None
    """Clicks times their value, less the cost; in price units. None when the value of a click is unknown."""

    @property
    def exhausted(self) -> bool:
        """Whether the budget ended before the log did."""
        return self.bids < self.auctions

    @property
    def win_rate(self) -> float | None:
        """Impressions per bid; None without bids."""
        return self.impressions / self.bids if self.bids else None

    @property
    def cost_per_click(self) -> float | None:
        """Price units per click; None without clicks."""
        return self.cost / PER_THOUSAND / self.clicks if self.clicks else None

    def as_dict(self) -> dict[str, object]:
        """For reports and `--json`; profit rounded to two decimals."""
        return {
            "policy": str(self.policy),
            "auctions": self.auctions,
            "budget": float(self.budget),
            "bids": self.bids,
            "impressions": self.impressions,
            "clicks": self.clicks,
            "cost": self.cost,
            "profit": None if self.profit is None else float(round(self.profit, 2)),
            "exhausted": self.exhausted,
            "win_rate": self.win_rate,
            "cost_per_click": self.cost_per_click,
        }


def statistics(log: AuctionLog) -> Statistics:
    """Learn from a log: a training log where there is one, else the log to be replayed itself."""
    rates = sum(log.rates.tolist())
    return Statistics(len(log), log.total_clicks, log.total_price, Fraction(rates, len(log) * 10**PCTR_DECIMALS))


def default_budget(log: AuctionLog) -> Fraction:
    """One sixteenth of what the whole log costs."""
    return log.total_price * BUDGET_SHARE


def replay(
    log: AuctionLog, policy: Policy, budget: Fraction | int | None = None, known: Statistics | None = None
) -> ReplayResult:
    """Play the log with a policy.

    `budget` is in price units per thousand, `default_budget` if None; `known` is what the policy has learned
    beforehand, from the log itself if None. Raises ConfigError when the policy needs what the statistics lack.
    """
    learned = statistics(log) if known is None else known
    limit = Fraction(default_budget(log) if budget is None else budget)
    if limit < 0:
        raise _unusable("budget", f"a budget cannot be negative, was {float(limit):g}")
    bids = bids_of(log, policy, learned)
    answer = np.zeros(ANSWER_CELLS, np.int64)
    stop_at = min(-((-limit.numerator) // limit.denominator), _HIGHEST_BID)  # whole costs reach it when they pass it
    replay_auctions(bids, log.prices, log.clicks, stop_at, answer)
    cost, clicks = int(answer[COST]), int(answer[CLICKS])
    value = learned.value_per_click
    return ReplayResult(
        policy=policy,
        budget=limit,
        auctions=len(log),
        bids=int(answer[BIDS]),
        impressions=int(answer[IMPRESSIONS]),
        clicks=clicks,
        cost=cost,
        profit=None if value is None else clicks * value - Fraction(cost, PER_THOUSAND),
    )


def bids_of(log: AuctionLog, policy: Policy, known: Statistics) -> npt.NDArray[np.int64]:
    """The bid of a policy for each auction, rounded down to a whole price."""
    if policy.name is PolicyName.CONST:
        return np.full(len(log), min(policy.parameter.__floor__(), _HIGHEST_BID), np.int64)
    factor = _bid_per_rate(policy, known) / 10**PCTR_DECIMALS
    return _scaled(log.rates, factor)


def _bid_per_rate(policy: Policy, known: Statistics) -> Fraction:
    """The bid at a predicted rate of 1."""
    match policy.name:
        case PolicyName.LIN:
            if known.base_rate == 0:
                raise _unusable("pctr", "all predicted rates are 0, so there is no average for lin to start from")
            return policy.parameter / known.base_rate
        case PolicyName.TRUTH:
            worth = known.value_per_click
        case PolicyName.MCPC:
            worth = known.cost_per_click
        case PolicyName.CONST:
            raise AssertionError("a constant bid does not depend on the rate")
    if worth is None:
        raise _unusable("click", f"there is no click to learn from, which {policy.name} needs; give a training log")
    return worth * PER_THOUSAND


def _scaled(rates: npt.NDArray[np.int64], factor: Fraction) -> npt.NDArray[np.int64]:
    """Rates times an exact factor, rounded down; bids beyond any price are cut off."""
    numerator, denominator = factor.numerator, factor.denominator
    known: dict[int, int] = {}
    bids = np.empty(len(rates), np.int64)
    for index, rate in enumerate(rates.tolist()):
        bid = known.get(rate)
        if bid is None:
            bid = known[rate] = min(rate * numerator // denominator, _HIGHEST_BID)
        bids[index] = bid
    return bids


def _unusable(key: str, message: str) -> ConfigError:
    return ConfigError([Finding("auctions", key, message)])
