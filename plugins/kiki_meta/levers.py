"""What an intent becomes: the node to change and the fields to set; and what the value in force says about it later."""

from __future__ import annotations

from kiki_agent.errors import Rejected
from kiki_agent.model import Campaign, Intent, IntentKind
from kiki_meta import mapping
from kiki_meta.mapping import Lever, Place

Fields = dict[str, object]


def change_of(intent: Intent, place: Place, currency: str) -> tuple[str, dict[str, str]]:
    """Node and form of a change. Raises Rejected when the ad set has no such lever, or the amount no such unit."""
    node = place.ad_set
    fields: Fields
    match intent.kind:
        case IntentKind.SET_BUDGET:
            node = place.budget
            fields = {"daily_budget": _minor(intent.after, currency)}
        case IntentKind.SET_STATUS:
            fields = {"status": "ACTIVE" if intent.after else "PAUSED"}
        case IntentKind.ADJUST_BID:
            fields = _bid(intent, place, currency)
        case IntentKind.PLACE_BID:
            fields = _value_bid(intent, place, currency)
    return node, mapping.form(fields)


def _bid(intent: Intent, place: Place, currency: str) -> Fields:
    if place.lever is not Lever.BID_AMOUNT:
        raise Rejected("Meta sets the bids of this ad set by itself", "NO_SUCH_LEVER")
    return {"bid_amount": _minor(intent.after, currency)}


def _value_bid(intent: Intent, place: Place, currency: str) -> Fields:
    """Value as the goal, and the strategy with it where the ad set has one of its own (CON-12)."""
    fields: Fields = {"optimization_goal": "VALUE"}
    if place.lever is Lever.MIN_ROAS and intent.ltv_micros and intent.after > 0:
        return fields | {"bid_constraints": {"roas_average_floor": mapping.roas_floor(intent.ltv_micros, intent.after)}}
    fields |= _bid(intent, place, currency)
    if place.own_strategy:
        fields["bid_strategy"] = mapping.BID_CAP
    return fields


def _minor(micros: int, currency: str) -> int:
    try:
        return mapping.minor_of_micros(micros, currency)
    except ValueError as error:
        raise Rejected(str(error), "NOT_A_MINOR_UNIT") from None


def in_force(intent: Intent, campaign: Campaign, place: Place) -> tuple[int, int]:
    """The value that stands now, and the one the intent wants: micros, 1/0, or a ROAS floor."""
    match intent.kind:
        case IntentKind.SET_BUDGET:
            return campaign.daily_budget_micros, intent.after
        case IntentKind.SET_STATUS:
            return int(place.switched_on), intent.after
        case IntentKind.PLACE_BID if place.lever is Lever.MIN_ROAS and intent.ltv_micros and intent.after > 0:
            return place.floor, mapping.roas_floor(intent.ltv_micros, intent.after)
        case IntentKind.ADJUST_BID | IntentKind.PLACE_BID:
            return campaign.bid_micros, intent.after
    raise AssertionError("every kind of intent has a lever")
