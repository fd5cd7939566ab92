"""Pure rules over one sound change: each says why it is not made now, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from kiki_agent.errors import Denied
from kiki_agent.governor.edits import Edit
from kiki_agent.governor.reasons import Held
from kiki_agent.governor.rules import PlatformRule
from kiki_agent.model import DAY, Campaign, Instant, Intent, IntentKind, decimal_text


@dataclass(frozen=True, slots=True)
class Limits:
    """The agent's own limits."""

    max_step: Fraction
    """Share of what stands."""
    rest: int
    """Microseconds between two changes of one budget."""
    learning_step: Fraction
    fresh: int
    """Microseconds that figures may stand still."""
    approval_above: int | None
    """Micros of daily budget."""


def check_fresh(intent: Intent, still: int | None, limits: Limits) -> None:
    """Nothing is raised on figures that have not moved for long; `still` is since when, in microseconds."""
    if still is None or still > limits.fresh:
        old = "were never reported" if still is None else f"have not moved for {still // 3_600_000_000} hours"
        raise Denied(Held.STALE, f"{intent.connector}: nothing is raised while its figures {old}")


def check_step(intent: Intent, campaign: Campaign, rule: PlatformRule, limits: Limits) -> None:
    """No step larger than our own, nor than the platform's."""
    step = limits.max_step
    if rule.step is not None and (rule.rest_binds or campaign.learning):
        step = min(step, rule.step)
    if abs(intent.after - intent.before) > intent.before * step:
        share = float(step * 100)
        raise Denied(Held.STEP, f"{_named(intent)} is a step of more than {share:g} % of what stands")


def check_rest(intent: Intent, campaign: Campaign, rule: PlatformRule, limits: Limits, edits: Sequence[Edit]) -> None:
    """A budget rests between two changes, but not within one cause. `edits` are those of the lever."""
    rest = max(limits.rest, rule.rest if rule.rest_binds or campaign.learning else 0)
    others = [each for each in edits if not (intent.cause and each.cause == intent.cause)]
    if others and intent.at - others[-1].at < rest:
        left = (rest - (intent.at - others[-1].at)) // 60_000_000
        raise Denied(Held.REST, f"{_named(intent)}: this budget was changed a short while ago and rests for {left} min")


def check_quota(intent: Intent, rule: PlatformRule, edits: Sequence[Edit]) -> None:
    """The platform takes so many edits of a budget in a time."""
    if rule.edits is None:
        return
    recent = [each for each in edits if intent.at - each.at < rule.per]
    if len(recent) >= rule.edits:
        raise Denied(Held.QUOTA, f"{_named(intent)}: the platform takes {rule.edits} edits of a budget in an hour")


def check_learning(intent: Intent, campaign: Campaign, limits: Limits) -> None:
    """Large edits wait while the platform learns; a lowered bid does not."""
    if not campaign.learning or (intent.kind is IntentKind.ADJUST_BID and intent.after < intent.before):
        return
    if abs(intent.after - intent.before) > intent.before * limits.learning_step:
        raise Denied(Held.LEARNING, f"{_named(intent)}: the campaign is learning, and so large an edit starts it over")


def check_net(before: int, net: int, delta: int, permille: int, what: str) -> None:
    """At `act_limited`: the net change of 24 hours stays within its share of what stood before them."""
    stood = max(0, before - net)
    if abs(net + delta) * 1_000 > stood * permille and abs(net + delta) > abs(net):
        raise Denied(
            Held.NET_LIMIT, f"{what}: the net change of 24 hours may be {permille / 10:g} % of what stood before them"
        )


def within(stood: int, wanted: int, permille: int) -> int:
    """The wish, no further from what stood 24 hours ago than the limit allows."""
    band = max(0, stood) * permille // 1_000
    return max(stood - band, min(wanted, stood + band))


def check_approval(intents: Sequence[Intent], limits: Limits) -> None:
    """Raises above an amount need a person."""
    if limits.approval_above is None:
        return
    raised = sum(
        each.after - each.before for each in intents if each.kind is IntentKind.SET_BUDGET and each.after > each.before
    )
    if raised > limits.approval_above:
        currency = intents[0].currency
        raise Denied(
            Held.APPROVAL,
            f"{intents[0].connector}: a raise of {decimal_text(raised, currency)} a day needs approval, as all above"
            f" {decimal_text(limits.approval_above, currency)}",
        )


NET_SPAN = DAY


def since(now: Instant) -> int:
    """Start of the span a net change is counted over."""
    return now - NET_SPAN


def _named(intent: Intent) -> str:
    return f"{intent.kind.value} of {intent.connector}/{intent.campaign_id}"
