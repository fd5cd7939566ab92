"""Conversion values on their way to Meta: server events of the Conversions API.

No datum about a person travels: an event names the click by Meta's own id of it, which is sent as it is (`fbc` must not
be hashed), and carries what the conversion was worth. Nothing that would have to be hashed ever reaches a plugin.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from kiki_agent import Conversion
from kiki_agent.errors import Rejected
from kiki_agent.model import DAY, MINUTE, SECOND, Instant, Outcome, Receipt, iso
from kiki_meta.config import MetaConfig

OLDEST = 7 * DAY
"""Meta refuses a whole request because of one older event (server event parameters)."""
USUAL_EVENT = "Purchase"
"""What a conversion is called that was told without a name."""
SKEW = 5 * MINUTE
"""How far a shop's clock may run ahead of ours; such an event is told as of now, for Meta refuses the future."""


class Received(msgspec.Struct):
    """Answer to a batch of events."""

    events_received: int = 0
    fbtrace_id: str = ""


def judged(conversions: Sequence[Conversion], now: Instant) -> tuple[list[Receipt], list[Conversion]]:
    """Those Meta would refuse, with the reason, and those that can be sent: one too old would take the others along."""
    refused: list[Receipt] = []
    sendable: list[Conversion] = []
    for each in conversions:
        if each.at <= now - OLDEST:
            refused.append(Receipt(each.key, Outcome.REJECTED, "TOO_OLD"))
        elif each.at > now + SKEW:
            refused.append(Receipt(each.key, Outcome.REJECTED, "IN_THE_FUTURE"))
        else:
            sendable.append(each)
    return refused, sendable


def events_body(config: MetaConfig, conversions: Sequence[Conversion], now: Instant) -> object:
    """Body of `POST /{pixel}/events`. Raises Rejected when no data set is configured."""
    if not config.pixel_id:
        raise Rejected("pixel_id is not set: the data set that uploads go to", "NO_PIXEL")
    return {"data": [_event(each, config.action_source, now) for each in conversions]}


def _event(each: Conversion, source: str, now: Instant) -> dict[str, Any]:
    """One event: what it was worth, and how sure that is (CON-15). The click is named as the `fbc` cookie names it."""
    value = float(Decimal(each.value_micros).scaleb(-6))
    data: dict[str, Any] = {
        "value": value,
        "currency": each.currency,
        "ltv": float(Decimal(each.ltv_micros or each.value_micros).scaleb(-6)),
        "confidence": each.confidence_permille / 1000,
        "timestamp": iso(now),
    }
    if each.order_id:
        data["order_id"] = each.order_id
    at = min(each.at, now)
    return {
        "event_name": each.name or USUAL_EVENT,
        "event_time": at // SECOND,
        "event_id": each.order_id or each.key,
        "action_source": source,
        "user_data": {"fbc": _fbc(each.click_id, at)},
        "custom_data": data,
    }


def _fbc(click_id: str, at: Instant) -> str:
    """The click as the `_fbc` cookie names it; a shop may hand on the cookie as well as the bare `fbclid`."""
    return click_id if click_id.startswith("fb.") else f"fb.1.{at // 1000}.{click_id}"
