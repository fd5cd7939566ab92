"""Which platform gives, which one gets, and how much: the threshold rule and its guards, exact and without effects.

Efficiency is average lifetime value / cost per acquired customer (GBO-02). A platform more than `threshold` below the
unweighted mean of its cycle gives `step_share` of its daily budget to the best one (GBO-03, GBO-04); exactly at the
threshold it gives nothing. Fractions keep the comparison exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from kiki_agent.model import Instant


@dataclass(frozen=True, slots=True)
class Guards:
    """The limits around the literal rule; zero and False switch one off."""

    threshold: Fraction
    step_share: Fraction
    cooldown: int
    """Microseconds a platform rests after it gave."""
    floor_share: Fraction
    """Share of its start budget a platform never goes below."""
    consume_evidence: bool
    """A platform gives again only on data newer than what its last shift used."""
    min_conversions: int


@dataclass(frozen=True, slots=True)
class PlatformFacts:
    """One connector in one cycle."""

    connector: str
    platform: str
    ltv_micros: int | None
    spend_micros: int
    conversions: int
    daily_budget_micros: int
    start_budget_micros: int
    as_of: Instant | None
    """How far its data reaches; None when it never reported."""
    movable_micros: int | None = None
    """The part of the daily budget that is the agent's to move; None: all of it. The rest was set by others."""

    @property
    def cac_micros(self) -> int | None:
        """Spend per conversion over the look-back, rounded down; None without a conversion."""
        return self.spend_micros // self.conversions if self.conversions > 0 else None

    @property
    def efficiency(self) -> Fraction | None:
        """Lifetime value earned per unit spent on winning a customer; None when it cannot be said."""
        if not self.ltv_micros or self.conversions <= 0 or self.spend_micros <= 0:
            return None
        return Fraction(self.ltv_micros * self.conversions, self.spend_micros)


@dataclass(frozen=True, slots=True)
class LastShift:
    """What is remembered of a platform's last giving."""

    at: Instant
    evidence_as_of: Instant


@dataclass(frozen=True, slots=True)
class Underperformer:
    """A platform below the threshold, and either what it gives or why it does not."""

    connector: str
    deviation: Fraction
    """(efficiency - mean) / mean, negative."""
    amount_micros: int
    held_by: str
    """Empty when it gives; else the guard that holds it: COOLDOWN, EVIDENCE, FLOOR, NO_TARGET, IN_FLIGHT,
    LEFT_ALONE; or, found
    later, what stands against the changes themselves (`Shifts.obstacle`)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of the rule for one cycle."""

    mean: Fraction | None
    best: str | None
    underperformers: tuple[Underperformer, ...]
    left_out: Mapping[str, str]
    """Connector -> why it could not be compared."""


def judge(
    facts: Sequence[PlatformFacts],
    guards: Guards,
    last: Mapping[str, LastShift],
    busy: frozenset[str],
    now: Instant,
) -> Verdict:
    """Apply the rule to one cycle. `busy` names connectors with a shift still on its way."""
    left_out: dict[str, str] = {}
    compared: list[tuple[PlatformFacts, Fraction]] = []
    for each in facts:
        reason = _cannot_say(each, guards)
        efficiency = each.efficiency
        if reason or efficiency is None:
            left_out[each.connector] = reason or "NO_DATA"
        else:
            compared.append((each, efficiency))
    if not compared:
        return Verdict(None, None, (), left_out)
    mean = sum((efficiency for _, efficiency in compared), Fraction(0)) / len(compared)
    best = max(compared, key=lambda pair: (pair[1], pair[0].connector))[0]
    limit = mean * (1 - guards.threshold)
    below = sorted(
        ((each, efficiency) for each, efficiency in compared if efficiency < limit),
        key=lambda pair: (pair[1], pair[0].connector),
    )
    found = []
    for each, efficiency in below:
        amount, held_by = _amount(each, best, guards, last.get(each.connector), busy, now)
        found.append(Underperformer(each.connector, (efficiency - mean) / mean, amount, held_by))
    return Verdict(mean, best.connector, tuple(found), left_out)


def _cannot_say(each: PlatformFacts, guards: Guards) -> str:
    if each.as_of is None:
        return "NO_REPORT"
    if not each.ltv_micros:
        return "NO_VALUE"
    if each.conversions < max(1, guards.min_conversions):
        return "TOO_FEW_CONVERSIONS"
    return "" if each.spend_micros > 0 else "NO_SPEND"


def _amount(
    each: PlatformFacts,
    best: PlatformFacts,
    guards: Guards,
    last: LastShift | None,
    busy: frozenset[str],
    now: Instant,
) -> tuple[int, str]:
    if each.connector == best.connector:
        return 0, "NO_TARGET"
    if each.connector in busy or best.connector in busy:
        return 0, "IN_FLIGHT"
    if last is not None:
        if now - last.at < guards.cooldown:
            return 0, "COOLDOWN"
        if guards.consume_evidence and each.as_of is not None and each.as_of <= last.evidence_as_of:
            return 0, "EVIDENCE"
    movable = each.daily_budget_micros if each.movable_micros is None else each.movable_micros
    wanted = int(movable * guards.step_share)
    floor = -int(-each.start_budget_micros * guards.floor_share // 1)
    room = each.daily_budget_micros - floor
    if room <= 0:
        return 0, "FLOOR"
    if wanted <= 0:
        return 0, "LEFT_ALONE"
    return min(wanted, room), ""
