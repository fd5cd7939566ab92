"""The gate before a change of budget, bid or status: pure rules over one intent.

Cuts pass whatever is switched off or on hold; raises need everything to be in order. A check that breaks says no.
"""

from __future__ import annotations

from dataclasses import dataclass

from kiki_agent.errors import Denied
from kiki_agent.model import Intent, IntentKind
from kiki_agent.model.money import MAX_MICROS, decimal_text
from kiki_agent.shield.book import Book
from kiki_agent.shield.reasons import Refusal


@dataclass(frozen=True, slots=True)
class ChangeLimits:
    """What one change may do at most."""

    max_budget_micros: int
    max_bid_micros: int
    max_budget_ratio: float


def check_change(intent: Intent, limits: ChangeLimits) -> None:
    """Is the change sound in itself? Raises Denied. Holds for cuts too: they may not carry nonsense to a platform."""
    for name, value in (("before", intent.before), ("after", intent.after)):
        if type(value) is not int or not 0 <= value <= MAX_MICROS:
            raise Denied(Refusal.BAD_INPUT, f"{_named(intent)}: {name} must be between 0 and {MAX_MICROS}, was {value}")
    if intent.kind is IntentKind.SET_STATUS:
        if intent.after > 1:
            raise Denied(Refusal.BAD_INPUT, f"{_named(intent)}: a status is 1 (active) or 0, was {intent.after}")
        return
    if intent.after == 0:
        raise Denied(Refusal.BAD_INPUT, f"{_named(intent)}: an amount of 0 is no change of an amount; pause instead")
    if not intent.raises_spend:
        return
    highest = limits.max_budget_micros if intent.kind is IntentKind.SET_BUDGET else limits.max_bid_micros
    if intent.after > highest:
        raise Denied(
            Refusal.ABOVE_MAXIMUM,
            f"{_named(intent)}: {_text(intent)} is above the maximum of {decimal_text(highest, intent.currency)}",
        )
    if intent.kind is IntentKind.SET_BUDGET and intent.after > intent.before * limits.max_budget_ratio:
        raise Denied(
            Refusal.SLIPPED_DIGIT,
            f"{_named(intent)}: {_text(intent)} is more than {limits.max_budget_ratio:g} times"
            f" {decimal_text(intent.before, intent.currency)}; did a digit slip?",
        )


def check_raise(intent: Intent, book: Book, now: int) -> None:
    """Does the connector stand so that more may flow? Raises Denied."""
    cap = book.caps.daily_micros
    if book.frozen is not None:
        raise Denied(Refusal.ANOMALY, f"{book.connector} is frozen: {book.frozen}")
    if cap is None:
        raise Denied(Refusal.NO_CAP, f"{book.connector} has no daily cap, so it may spend nothing")
    if intent.currency != book.caps.currency:
        raise Denied(Refusal.CURRENCY, f"{_named(intent)} is in {intent.currency}, the account in {book.caps.currency}")
    above = book.overshoot(now)
    if above > 0:
        raise Denied(
            Refusal.OVERSHOOT,
            f"{book.connector} has spent {decimal_text(above, book.caps.currency)} more than a cap allows",
        )
    if intent.kind is IntentKind.SET_BUDGET and intent.after > cap:
        raise Denied(
            Refusal.BUDGET_EXCEEDED,
            f"{_named(intent)}: {_text(intent)} is above the daily cap of {decimal_text(cap, book.caps.currency)}",
        )


def _named(intent: Intent) -> str:
    return f"{intent.kind.value} of {intent.connector}/{intent.campaign_id}"


def _text(intent: Intent) -> str:
    return decimal_text(intent.after, intent.currency)
