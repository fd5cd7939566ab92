"""Conversion values on their way to Meta: server events of the Conversions API."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from kiki_agent import Conversion
from kiki_agent.errors import Rejected
from kiki_agent.model import SECOND, Instant, iso
from kiki_meta.config import MetaConfig


class Received(msgspec.Struct):
    """Answer to a batch of events."""

    events_received: int = 0
    fbtrace_id: str = ""


def events_body(config: MetaConfig, conversions: Sequence[Conversion], now: Instant) -> object:
    """Body of `POST /{pixel}/events`. Raises Rejected when no data set is configured."""
    if not config.pixel_id:
        raise Rejected("pixel_id is not set: the data set that uploads go to", "NO_PIXEL")
    return {"data": [_event(each, now) for each in conversions]}


def _event(each: Conversion, now: Instant) -> dict[str, Any]:
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
    return {
        "event_name": each.name,
        "event_time": each.at // SECOND,
        "event_id": each.order_id or each.key,
        "action_source": "website",
        "user_data": {"fbc": f"fb.1.{each.at // 1000}.{each.click_id}"},
        "custom_data": data,
    }
