"""Suggestions in words: what would be done, and what came of a person's decision. The same words everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable

from kiki_agent.accounts import Lever
from kiki_agent.governor.changes import Change
from kiki_agent.governor.orders import Order
from kiki_agent.governor.suggestions import Suggestion
from kiki_agent.model import Platform, decimal_text, iso
from kiki_agent.web import words
from kiki_agent.web.services import Services
from kiki_agent.web.shapes.governor import AllocationItem

Namer = Callable[[str, str], str]
"""Connector and campaign id -> the name people know the campaign by, and where it runs."""

_UNITS = {Lever.BUDGET: " a day", Lever.BID: " a click", Lever.STATUS: ""}


def allocation_of(each: Suggestion) -> AllocationItem | None:
    """What a person wants to allocate; None for every other suggestion."""
    if each.changes:
        return None
    wish = json.loads(each.facts)["allocation"]
    currency = wish["currency"]
    return AllocationItem(
        campaign_id=wish["campaign_id"],
        before=decimal_text(wish["before_micros"], currency),
        after=decimal_text(wish["budget_micros"], currency),
        currency=currency,
    )


def lines_of(services: Services, each: Suggestion, name: Namer) -> list[str]:
    """Everything a person must know to decide: what, where, from and to with the currency, why, until when."""
    currency = services.settings.currency
    lines = []
    if each.kind == "shift":
        taken = sum(change.before - change.after for change in each.changes if not change.raises)
        giver, taker = (_label(services, change.connector) for change in (each.changes[0], each.changes[-1]))
        lines.append(f"Move {decimal_text(taken, currency)} {currency} a day from {giver} to {taker}:")
    allocation = allocation_of(each)
    if allocation is not None:
        amounts = f"{allocation.before} → {allocation.after} {allocation.currency}"
        lines.append(f"The allocation of {allocation.campaign_id}: {amounts}")
    lines += [_change(change, currency, name) for change in each.changes]
    lines.append(f"Why: {words.why(each.why)}.")
    if each.changes and each.held_by == "APPROVAL":
        lines.append(f"Why you are asked: {words.why(each.held_by)}.")
    lines.append(f"It can be decided until {iso(each.expires_at)}, as long as the account stands as it does now.")
    return lines


def outcome_of(decided: Suggestion, order: Order | None, begun: bool) -> str:
    """What was done after a decision, or what happens next; `begun`: a cycle of the optimizer was started for it."""
    if decided.state == "declined":
        return "Declined; nothing is changed."
    if order is not None:
        note = f" {order.note}." if order.note else ""
        return {
            "done": "Approved; the change is done.",
            "open": "Approved; the platform has not answered yet, and it is carried on by itself until it has.",
            "partial": f"Approved, but only a part of it was done.{note}",
            "failed": f"Approved, but the change was not made.{note}",
        }[order.state]
    allocation = allocation_of(decided)
    if allocation is not None:
        return f"Approved; the allocation of {allocation.campaign_id} is {allocation.after} {allocation.currency} now."
    if begun:
        return "Approved; the optimizer begins the shift now, lowering first."
    return "Approved; the optimizer begins the shift with its next cycle, lowering first."


def _change(each: Change, currency: str, name: Namer) -> str:
    what = f"{each.lever.value.capitalize()} of {name(each.connector, each.campaign_id)} ({each.campaign_id})"
    if each.lever is Lever.STATUS:
        before, after = ("running" if value else "paused" for value in (each.before, each.after))
        return f"{what}: {before} → {after}"
    before, after = decimal_text(each.before, currency), decimal_text(each.after, currency)
    return f"{what}: {before} → {after} {currency}{_UNITS[each.lever]}"


def _label(services: Services, connector: str) -> str:
    return Platform.parse(services.settings.connector[connector].platform).label
