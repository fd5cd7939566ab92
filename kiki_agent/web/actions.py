"""What the agent did, as people read it: when, what, old -> new, why. Shifts first-hand, the rest from intents."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from kiki_agent.ledger import IntentRow
from kiki_agent.model import Instant, IntentKind, Platform, decimal_text, iso
from kiki_agent.web import words
from kiki_agent.web.protocols import Shift
from kiki_agent.web.shapes.overview import ActionItem, Change

Outcome = Literal["done", "waiting", "refused", "unknown"]

_STATES: dict[str, Outcome] = {"pending": "waiting", "accepted": "done", "rejected": "refused", "unknown": "unknown"}
_SHIFTS: dict[str, Outcome] = {"done": "done", "returned": "refused", "failed": "refused"}


Namer = Callable[[str, str], str]
"""Connector and campaign id -> the name people know the campaign by."""


def actions_of(
    shifts: Sequence[Shift], intents: Sequence[IntentRow], name: Namer, *, since: Instant
) -> list[ActionItem]:
    """Everything done since an instant, newest first; the intents of a shift are told by the shift."""
    by_cause: defaultdict[str, list[IntentRow]] = defaultdict(list)
    for row in intents:
        by_cause[row.intent.cause].append(row)
    today = [shift for shift in shifts if shift.at >= since]
    told = {shift.shift_id for shift in today}
    found = [(shift.at, _of_shift(shift, by_cause.get(shift.shift_id, []))) for shift in today]
    found += [(row.intent.at, _of_intent(row, name)) for row in intents if row.intent.cause not in told]
    found.sort(key=lambda pair: (-pair[0], pair[1].kind != "shift", pair[1].id))
    return [item for _, item in found]


def in_flight(intents: Sequence[IntentRow], labels: Mapping[str, str], before: int) -> tuple[tuple[str, int], ...]:
    """Platforms with changes whose outcome has been unknown since before an instant, and how many."""
    counts = Counter(
        labels.get(row.intent.connector, row.intent.connector)
        for row in intents
        if row.state == "unknown" and row.intent.at < before
    )
    return tuple(sorted(counts.items()))


def _of_shift(shift: Shift, rows: Sequence[IntentRow]) -> ActionItem:
    giver, taker = Platform(shift.from_platform).label, Platform(shift.to_platform).label
    amount = decimal_text(shift.moved_micros or shift.wanted_micros, shift.currency)
    outcome = _SHIFTS.get(str(shift.state), "waiting")
    what = {
        "done": f"Moved {amount} {shift.currency} a day from {giver} to {taker}",
        "refused": f"Kept {amount} {shift.currency} a day at {giver}; {taker} did not take it",
    }.get(outcome, f"Moving {amount} {shift.currency} a day from {giver} to {taker}")
    changes = []
    for connector, label in ((shift.from_connector, giver), (shift.to_connector, taker)):
        mine = [row.intent for row in rows if row.intent.connector == connector and row.state == "accepted"]
        if mine:
            before, after = sum(each.before for each in mine), sum(each.after for each in mine)
            many = "1 campaign" if len(mine) == 1 else f"{len(mine)} campaigns"
            changes.append(
                Change(
                    name=f"{label} ({many})",  # those that rest keep their budgets, so this is not the platform's whole
                    before=decimal_text(before, shift.currency),
                    after=decimal_text(after, shift.currency),
                )
            )
    efficiencies = f"{float(shift.from_efficiency):.2f} against {float(shift.to_efficiency):.2f}"
    return ActionItem(
        id=shift.shift_id,
        at=iso(shift.at),
        kind="shift",
        what=what,
        changes=changes,
        unit="per day",
        why=f"{shift.reason} (efficiency {efficiencies})",
        outcome=outcome,
    )


def _of_intent(row: IntentRow, name: Namer) -> ActionItem:
    intent = row.intent
    campaign = name(intent.connector, intent.campaign_id)
    before, after = decimal_text(intent.before, intent.currency), decimal_text(intent.after, intent.currency)
    unit: Literal["per day", "per click", ""] = ""
    kind: Literal["bid", "budget", "status", "placed"]
    match intent.kind:
        case IntentKind.ADJUST_BID:
            kind, unit = "bid", "per click"
            what = f"{'Raised' if intent.after > intent.before else 'Lowered'} the bid of {campaign}"
        case IntentKind.SET_BUDGET:
            kind, unit = "budget", "per day"
            what = f"{'Raised' if intent.after > intent.before else 'Lowered'} the budget of {campaign}"
        case IntentKind.SET_STATUS:
            kind = "status"
            what = f"{'Resumed' if intent.after else 'Paused'} {campaign}"
            before, after = ("running" if value else "paused" for value in (intent.before, intent.after))
        case IntentKind.PLACE_BID:
            kind = "placed"
            what = f"Placed a bid for {campaign}"
    return ActionItem(
        id=intent.key,
        at=iso(intent.at),
        kind=kind,
        what=what,
        changes=[Change(name="", before=before, after=after)],
        unit=unit,
        why=words.why(intent.reason),
        outcome=_STATES.get(row.state, "waiting"),
    )
