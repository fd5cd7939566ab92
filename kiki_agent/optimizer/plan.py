"""From an amount between two platforms to new daily budgets of single campaigns, to the last micro."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kiki_agent.model import Campaign, CampaignStatus
from kiki_agent.model.money import split_by_weight


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """One campaign's daily budget, before and after."""

    campaign_id: str
    before_micros: int
    after_micros: int
    budget_id: str = ""
    """Set where several campaigns share the budget; the campaign then stands for all of them."""


def common_step(campaigns: Sequence[Campaign]) -> int:
    """The coarsest budget step among these campaigns; amounts between platforms are multiples of it."""
    return max((each.budget_step_micros for each in campaigns), default=1)


def spending(campaigns: Sequence[Campaign]) -> list[Campaign]:
    """One active campaign for each daily budget that can be moved, in order of their id."""
    found: list[Campaign] = []
    shared: set[str] = set()
    for each in sorted(campaigns, key=lambda each: each.campaign_id):
        if each.status is CampaignStatus.ACTIVE and each.steers_budget and each.budget_id not in shared:
            found.append(each)
            if each.budget_id:
                shared.add(each.budget_id)
    return found


def decrease(campaigns: Sequence[Campaign], amount_micros: int, step_micros: int) -> list[BudgetChange]:
    """Take an amount from campaigns in proportion to their budgets, none below its platform's minimum.

    Takes less when the minimums leave no more; the changes then add up to what could be taken. `amount_micros` is
    rounded down to a multiple of `step_micros`.
    """
    left = amount_micros - amount_micros % step_micros
    taken = {each.campaign_id: 0 for each in campaigns}
    room = {
        each.campaign_id: max(0, (each.daily_budget_micros - each.min_budget_micros) // step_micros * step_micros)
        for each in campaigns
    }
    while left > 0:
        open_ones = [each for each in campaigns if room[each.campaign_id] > taken[each.campaign_id]]
        if not open_ones:
            break
        parts = split_by_weight(left, [each.daily_budget_micros for each in open_ones], step_micros)
        for each, part in zip(open_ones, parts, strict=True):
            granted = min(part, room[each.campaign_id] - taken[each.campaign_id])
            taken[each.campaign_id] += granted
            left -= granted
    return [
        BudgetChange(
            each.campaign_id,
            each.daily_budget_micros,
            each.daily_budget_micros - taken[each.campaign_id],
            each.budget_id,
        )
        for each in campaigns
        if taken[each.campaign_id]
    ]


def increase(campaigns: Sequence[Campaign], amount_micros: int, step_micros: int) -> list[BudgetChange]:
    """Give an amount to campaigns in proportion to their budgets; adds up exactly to a multiple of the step."""
    amount = amount_micros - amount_micros % step_micros
    if amount <= 0 or not campaigns:
        return []
    weights = [max(1, each.daily_budget_micros) for each in campaigns]
    parts = split_by_weight(amount, weights, step_micros)
    return [
        BudgetChange(each.campaign_id, each.daily_budget_micros, each.daily_budget_micros + part, each.budget_id)
        for each, part in zip(campaigns, parts, strict=True)
        if part
    ]


def total(changes: Sequence[BudgetChange]) -> int:
    """How much the changes move, as a positive number of micros."""
    return abs(sum(change.after_micros - change.before_micros for change in changes))
