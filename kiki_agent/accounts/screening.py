"""Which statements of a platform can be believed. Pure functions; the caller counts what they turn down.

A report is data from outside: wrong types, negative numbers, unit slips of a factor of a million and campaigns nobody
knows all occur. What is merely surprising (a vendor overspending its own budget) is kept: it is the truth.
"""

from __future__ import annotations

from kiki_agent.model import Campaign, PerformanceRow, SpendRow
from kiki_agent.model.money import MAX_MICROS

ABSURD_BUDGETS = 1_000
"""A day's spend of more than this many daily budgets is a slip of units; vendors overspend at most twofold."""
_LARGEST_COUNT = 10**12
_LEAST_BUDGET_MICROS = 1_000_000
_LEAST_FALL_MICROS = 1_000_000


def is_amount(value: object, largest: int = MAX_MICROS) -> bool:
    """Whether this is a whole number from 0 to `largest`."""
    return type(value) is int and 0 <= value <= largest


def spend_fault(row: SpendRow, daily_budget_micros: int) -> str | None:
    """What is wrong with a spend row, or None."""
    spend = row.spend_micros
    if not is_amount(spend):
        return "negative" if type(spend) is int and spend < 0 else "absurd"
    if spend > ABSURD_BUDGETS * max(daily_budget_micros, _LEAST_BUDGET_MICROS):
        return "absurd"
    return None


def has_fallen(before_micros: int, after_micros: int) -> bool:
    """Whether a day's cumulated spend went down further than a vendor takes invalid clicks back.

    Such a figure is not believed: what was known stands, which frees no budget.
    """
    return after_micros * 2 < before_micros and before_micros - after_micros > _LEAST_FALL_MICROS


def performance_fault(row: PerformanceRow) -> str | None:
    """What is wrong with a performance row, or None."""
    counts, amounts = (row.impressions, row.clicks, row.conversions), (row.spend_micros, row.revenue_micros)
    numbers = (*counts, *amounts)
    if set(map(type, numbers)) != {int}:
        return "absurd"
    if min(numbers) < 0:
        return "negative"
    return "absurd" if max(counts) > _LARGEST_COUNT or max(amounts) > MAX_MICROS else None


def campaign_fault(campaign: Campaign, connector: str, currency: str) -> str | None:
    """What is wrong with a campaign, or None."""
    if campaign.connector != connector or not campaign.campaign_id:
        return "foreign"
    if campaign.currency != currency:
        return "currency"
    amounts = (
        campaign.daily_budget_micros,
        campaign.bid_micros,
        campaign.min_bid_micros,
        campaign.min_budget_micros,
    )
    steps = (campaign.bid_step_micros, campaign.budget_step_micros)
    if all(is_amount(value) for value in amounts) and all(is_amount(value) and value > 0 for value in steps):
        return None
    return "absurd"
