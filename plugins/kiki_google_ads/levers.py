"""Changes as Google takes them: one resource with its absolute value and a mask that names what is set, no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec

from kiki_agent.model import Intent
from kiki_google_ads.mapping import Lever, Place
from kiki_google_ads.wire import Parameter

Operation = Mapping[str, Any]

LOWEST_ROAS, HIGHEST_ROAS = Decimal("0.01"), Decimal(1000)
"""Bounds of a target ROAS (bidding.proto)."""
PARAMETER_LENGTH = 250
"""Longest value of a custom parameter, in bytes (Google Ads help, "Create custom parameters")."""
MOST_PARAMETERS = 8
"""Custom parameters of one campaign (the same page)."""
OURS = ("kikiltv", "kikiconf", "kikiwhy")
"""Keys of the custom parameters that are the agent's; all others are left as they are."""
BUDGETS, CAMPAIGNS = "/campaignBudgets:mutate", "/campaigns:mutate"


def budget(intent: Intent, place: Place) -> tuple[str, list[Operation]]:
    """The daily amount, on the budget, which may be shared."""
    return BUDGETS, [_set(place.budget, "amountMicros", str(intent.after))]


def status(intent: Intent, place: Place) -> tuple[str, list[Operation]]:
    """Pause or enable; a campaign is never removed."""
    return CAMPAIGNS, [_set(place.campaign, "status", "ENABLED" if intent.after else "PAUSED")]


def bid(intent: Intent, place: Place) -> tuple[str, list[Operation]]:
    """The highest price of a click wherever the campaign keeps it; no operations where Google alone decides.

    With the value of a customer a target ROAS follows (CON-05, CON-08): in portfolios beside the ceiling (CON-06),
    on campaigns instead of it, for a ceiling is taken in portfolios only.
    """
    match place.lever:
        case Lever.PORTFOLIO:
            values: dict[str, Any] = {"cpcBidCeilingMicros": str(intent.after)}
            if intent.ltv_micros and place.scheme != "targetSpend":
                values["targetRoas"] = target_roas(intent.ltv_micros, intent.after)
            return "/biddingStrategies:mutate", [_within(place.strategy, place.scheme, values)]
        case Lever.CEILING:
            return CAMPAIGNS, [_within(place.campaign, place.scheme, {"cpcBidCeilingMicros": str(intent.after)})]
        case Lever.MANUAL:
            level = str(intent.after)
            return "/adGroups:mutate", [_set(name, "cpcBidMicros", level) for name in place.ad_groups]
        case Lever.RATIO if intent.ltv_micros:
            ratio = target_roas(intent.ltv_micros, intent.after)
            return CAMPAIGNS, [_within(place.campaign, place.scheme, {"targetRoas": ratio})]
    return "", []


def moved(intent: Intent, place: Place) -> Place:
    """Where a campaign's bid is after a change of it was accepted."""
    if place.lever is Lever.RATIO:
        return replace(place, ratio=Decimal(str(target_roas(intent.ltv_micros, intent.after))))
    return replace(place, levels=(intent.after,) * len(place.levels))


def target_roas(ltv_micros: int, bid_micros: int) -> float:
    """Worth of a customer against what is paid for one, as the ratio Google takes (CON-05), clamped to its bounds."""
    ratio = Decimal(ltv_micros) / Decimal(max(bid_micros, 1))
    return float(min(max(ratio, LOWEST_ROAS), HIGHEST_ROAS).quantize(Decimal("0.0001")))


def parameters(intent: Intent, place: Place, present: Sequence[Parameter]) -> Operation | None:
    """Custom parameters that carry the value signal and why (CON-07), beside those the owner has.

    They steer nothing, they tell. None where the owner's leave no room: an update replaces the whole list.
    """
    kept = [{"key": each.key, "value": each.value} for each in present if each.key not in OURS]
    own = [{"key": key, "value": value} for key, value in signals(intent).items()]
    if len(kept) + len(own) > MOST_PARAMETERS:
        return None
    return _set(place.campaign, "urlCustomParameters", kept + own)


def signals(intent: Intent) -> dict[str, str]:
    """Key -> value: what a customer is worth, how sure that is, and the reason as JSON."""
    values = {"kikiltv": _units(intent.ltv_micros)}
    if intent.confidence_permille:
        values["kikiconf"] = f"{intent.confidence_permille / 1000:.3f}"
    values["kikiwhy"] = _fitting({"bid": _units(intent.after), "why": intent.note})
    return values


def _units(micros: int) -> str:
    return format(Decimal(micros).scaleb(-6).normalize(), "f")


def _fitting(note: dict[str, str]) -> str:
    """JSON of a note that Google's length of a value can hold: the explanation is cut, never the JSON."""
    while True:
        text = msgspec.json.encode(note).decode()
        over = len(text.encode()) - PARAMETER_LENGTH
        if over <= 0 or not note["why"]:
            return text
        note["why"] = note["why"][: max(0, len(note["why"]) - max(1, over // 4))]


def _set(name: str, field: str, value: object) -> Operation:
    return {"update": {"resourceName": name, field: value}, "updateMask": field}


def _within(name: str, scheme: str, values: Mapping[str, object]) -> Operation:
    """Single fields of a strategy; a mask that named the strategy as a whole would clear its other fields."""
    mask = ",".join(f"{scheme}.{field}" for field in values)
    return {"update": {"resourceName": name, scheme: values}, "updateMask": mask}
