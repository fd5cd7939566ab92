"""Which intent caused which effect, also where a vendor has no field for our key.

At such a vendor an effect is told by what was moved: the lever and the value it was set to. Changes of one lever are
made one after the other, so its effects come in the order of its intents.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from kiki_agent.model.money import split_by_weight
from kiki_agent.sandbox.effects import Effect
from kiki_agent.sandbox.market import PLATFORMS

Rows = Sequence[tuple[object, ...]]
Lever = tuple[str, str, int]
"""Platform, kind, and the market's row of the first campaign that the lever moves."""

LEDGER = "SELECT kind, body FROM ledger_entries WHERE kind IN ('intent', 'receipt') ORDER BY seq"
CAMPAIGNS = "SELECT connector, campaign_id FROM account_campaigns"


def keyed(effects: Iterable[Effect], ledger: Rows, campaigns: Rows, size: int) -> list[Effect]:
    """The effects, each with the key of the intent that caused it; one that no intent explains is keyed `?<number>`.

    `ledger` and `campaigns` are the answers to `LEDGER` and `CAMPAIGNS`; `size` is the market's number of campaigns,
    the same on each platform.
    """
    places = _places(campaigns, size)
    effects = list(effects)
    heads = {member: each.members[0] for each in effects for member in each.members}
    waiting: dict[Lever, list[dict[str, Any]]] = defaultdict(list)
    last: dict[str, str] = {}
    for kind, text in ledger:
        body = json.loads(str(text))
        if kind == "receipt":
            last[body["key"]] = body["outcome"]
            continue
        row = places[body["connector"], body["campaign_id"]]
        if body["kind"] == "set_budget":
            row = heads.get(row, row)
        waiting[body["connector"], body["kind"], row].append(body)
    found = []
    for each in effects:
        if not each.key:
            key = _next(waiting[each.platform, each.kind, each.campaign], each.after, last)
            each = msgspec.structs.replace(each, key=key or f"?{each.n}")
        found.append(each)
    return found


def _next(intents: list[dict[str, Any]], after: int, last: dict[str, str]) -> str:
    """The first intent left that set this value, or may have; those before it had no effect."""
    for place, body in enumerate(intents):
        if body["after"] == after and last.get(body["key"], "unknown") != "rejected":
            del intents[: place + 1]
            return str(body["key"])
    return ""


def _places(campaigns: Rows, size: int) -> dict[tuple[str, str], int]:
    """The market's row of each campaign: platforms in their order, campaigns in the order of their numbers."""
    each = size // len(PLATFORMS)
    rows = {}
    for number, platform in enumerate(PLATFORMS):
        ids = sorted((str(name) for connector, name in campaigns if connector == platform.name), key=int)
        rows |= {(platform.name, name): number * each + place for place, name in enumerate(ids)}
    return rows


def budgets_set(effect: Effect) -> dict[int, int]:
    """What an effect made of each daily budget: row -> micros."""
    if not effect.members:
        return {effect.campaign: effect.after}
    parts = split_by_weight(effect.after, [1] * len(effect.members))
    return dict(zip(effect.members, parts, strict=True))


__all__ = ["CAMPAIGNS", "LEDGER", "budgets_set", "keyed"]
