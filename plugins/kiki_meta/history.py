"""What was changed in an account, by whom and when: the activities that Meta keeps, and what they settle.

Read when the value in force does not tell whether a change of ours was made, and offered to whoever looks for edits
that were not ours. The form of `extra_data` is not documented: it is text with JSON inside, `old_value` and `new_value`
at its top or one level down. What cannot be read so is left open, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from kiki_agent import AccountEdit
from kiki_agent.model import DAY, MINUTE, SECOND, Instant, Intent, IntentKind, Outcome, Receipt
from kiki_meta.currency import step_micros
from kiki_meta.mapping import Paging, Place

ACTIVITY_FIELDS = "event_time,event_type,object_id,actor_id,actor_name,application_id,extra_data"

SKEW = 10 * MINUTE
"""How far Meta's clock may be from ours; an edit up to this much before an intent may be the intent's."""
LAG = 15 * MINUTE
"""How long an edit may take to be listed; our reading. Before that nothing is concluded from its absence."""
TOO_OLD = DAY
"""An outcome that nobody can tell any more after this time, because others changed the value since, is given up."""

KINDS: Mapping[str, IntentKind] = {
    "update_ad_set_budget": IntentKind.SET_BUDGET,
    "update_campaign_budget": IntentKind.SET_BUDGET,
    "update_ad_set_run_status": IntentKind.SET_STATUS,
    "update_campaign_run_status": IntentKind.SET_STATUS,
    "update_ad_set_bidding": IntentKind.ADJUST_BID,
    "update_ad_set_bid_strategy": IntentKind.ADJUST_BID,
}
"""Kinds of activities that move a lever of ours; the rest is left out."""
_RUN_STATUS = {1: 1, 15: 0, "ACTIVE": 1, "PAUSED": 0, "Active": 1, "Inactive": 0}
"""Numbers and words seen for a run status; others are left open."""


class Activity(msgspec.Struct):
    """One edit as Meta lists it."""

    event_time: str = ""
    event_type: str = ""
    object_id: str = ""
    actor_id: str = ""
    actor_name: str = ""
    application_id: str = ""
    extra_data: str = ""


class Activities(msgspec.Struct):
    """A page of edits, newest first."""

    data: list[Activity]
    paging: Paging = msgspec.field(default_factory=Paging)


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a lever, whoever made it."""

    node: str
    """Ad set, or campaign where the campaign holds the budget."""
    kind: IntentKind
    at: Instant
    before: int | None
    """Micros, or 1/0 for active/paused; None where Meta does not say, or in words that are not known."""
    after: int | None
    actor: str
    """Id of the person or system user."""
    application: str
    """Id of the app, empty where it was made by hand."""


def edits_of(activities: Sequence[Activity], currency: str) -> list[Edit]:
    """The edits of budgets, bids and states among the activities; those without a readable time are left out."""
    found = []
    for each in activities:
        kind = KINDS.get(each.event_type)
        at = _instant(each.event_time)
        if kind is None or at is None:
            continue
        before, after = _values(each.extra_data, kind, currency)
        found.append(Edit(each.object_id, kind, at, before, after, each.actor_id, each.application_id))
    return found


def _instant(text: str) -> Instant | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return Instant(round(moment.timestamp() * SECOND)) if moment.tzinfo is not None else None


def _values(text: str, kind: IntentKind, currency: str) -> tuple[int | None, int | None]:
    try:
        found: Any = msgspec.json.decode(text.encode())
    except (msgspec.MsgspecError, RecursionError):
        return None, None
    if isinstance(found, dict) and "new_value" not in found:
        found = next((each for each in found.values() if isinstance(each, dict) and "new_value" in each), None)
    if not isinstance(found, dict):
        return None, None
    return _value(found.get("old_value"), kind, currency), _value(found.get("new_value"), kind, currency)


def _value(said: Any, kind: IntentKind, currency: str) -> int | None:
    if isinstance(said, bool) or not isinstance(said, int | str):
        return None
    if kind is IntentKind.SET_STATUS:
        return _RUN_STATUS.get(said)
    text = str(said)
    return int(text) * step_micros(currency) if text.isascii() and text.isdecimal() and len(text) <= 15 else None


def told(edits: Sequence[Edit], places: Mapping[str, Place]) -> list[AccountEdit]:
    """The history in the agent's words, without who the persons are; what touches no known ad set is left out.

    An edit with an app was made by a program, one by an actor alone by hand, and one without either by Meta itself, as
    its automated rules do: our reading, for the form of these edits is not documented.
    """
    levers = {IntentKind.SET_BUDGET: "budget", IntentKind.ADJUST_BID: "bid", IntentKind.SET_STATUS: "status"}
    owners: dict[str, list[str]] = {}
    for name, place in places.items():
        for node in {place.ad_set, place.budget}:
            owners.setdefault(node, []).append(name)
    return [
        AccountEdit(
            tuple(sorted(owners[each.node])),
            levers[each.kind],
            each.after,
            each.at,
            "tool" if each.application else "person" if each.actor.strip("0") else "vendor",
            f"app {each.application}"[:80] if each.application else "",
        )
        for each in edits
        if each.node in owners
    ]


def settled(intent: Intent, wanted: int, nodes: Sequence[str], edits: Sequence[Edit] | None, now: Instant) -> Receipt:
    """What the edits since an intent say about it, when another value is in force by now; None = they are not known."""
    if edits is not None:
        kind = IntentKind.ADJUST_BID if intent.kind is IntentKind.PLACE_BID else intent.kind
        ours = [each for each in edits if each.node in nodes and each.kind is kind and each.at >= intent.at - SKEW]
        if any(each.after == wanted for each in ours):
            return Receipt(intent.key, Outcome.ACCEPTED, "WAS_IN_FORCE")
        if now - intent.at > LAG and all(each.after is not None for each in ours):
            return Receipt(intent.key, Outcome.REJECTED, "NOT_APPLIED")
    if now - intent.at > TOO_OLD:
        return Receipt(intent.key, Outcome.REJECTED, "SUPERSEDED")
    return Receipt(intent.key, Outcome.UNKNOWN, "CHANGED_BY_OTHERS")
