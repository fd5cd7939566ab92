"""Conversion values on their way to Google: the lever by which worth reaches its bidding.

A conversion that Google has already, by its order number, is restated with the value given: values are predictions, and
better ones come.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from kiki_agent import Conversion
from kiki_agent.errors import Rejected
from kiki_agent.model import Instant, Outcome, Receipt
from kiki_google_ads.config import GoogleAdsConfig
from kiki_google_ads.errors import by_operation, is_unclear
from kiki_google_ads.wire import Mutated

CONVERSIONS, ADJUSTMENTS = ":uploadClickConversions", ":uploadConversionAdjustments"
MOST_CONVERSIONS = 2_000
"""Conversions and adjustments of one request (Google's page on managing offline conversions)."""
THERE_ALREADY = frozenset(
    {"conversionUploadError.CLICK_CONVERSION_ALREADY_EXISTS", "conversionUploadError.ORDER_ID_ALREADY_IN_USE"}
)
"""Refusals that mean the conversion came in before, perhaps with another value."""
TWICE = frozenset(
    {"conversionUploadError.DUPLICATE_ORDER_ID", "conversionUploadError.DUPLICATE_CLICK_CONVERSION_IN_REQUEST"}
)
"""Refusals that mean the same conversion stands in this request already."""
STANDS_ALREADY = frozenset(
    {
        "conversionAdjustmentUploadError.RESTATEMENT_ALREADY_EXISTS",
        "conversionAdjustmentUploadError.DUPLICATE_ADJUSTMENT_IN_REQUEST",
    }
)
TOO_EARLY = frozenset(
    {
        "conversionAdjustmentUploadError.TOO_RECENT_CONVERSION",
        "conversionAdjustmentUploadError.TOO_RECENT_CONVERSION_ACTION",
    }
)
"""Whether the value that stands is the one given cannot be said; the same upload settles it a day later."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def conversion_body(config: GoogleAdsConfig, conversions: Sequence[Conversion], *, validate_only: bool) -> object:
    """Body of `uploadClickConversions`. Raises Rejected when no conversion action is configured."""
    made: list[dict[str, Any]] = []
    for each in conversions:
        consent = "GRANTED" if each.basis.startswith("consent:") else "DENIED"
        made.append(
            {
                **_click(each.click_id),
                "conversionAction": _action(config, each),
                "conversionDateTime": date_time(each.at),
                "conversionValue": _units(each.value_micros),
                "currencyCode": each.currency,
                "orderId": order_of(each),
                "consent": {"adUserData": consent, "adPersonalization": consent},
            }
        )
    return {"conversions": made, "partialFailure": True, "validateOnly": validate_only}


def adjustment_body(
    config: GoogleAdsConfig, conversions: Sequence[Conversion], now: Instant, *, validate_only: bool
) -> object:
    """Body of `uploadConversionAdjustments`: each conversion is worth what is given here, as from now."""
    made = [
        {
            "conversionAction": _action(config, each),
            "adjustmentType": "RESTATEMENT",
            "orderId": order_of(each),
            "adjustmentDateTime": date_time(now),
            "restatementValue": {"adjustedValue": _units(each.value_micros), "currencyCode": each.currency},
        }
        for each in conversions
    ]
    return {"conversionAdjustments": made, "partialFailure": True, "validateOnly": validate_only}


def order_of(conversion: Conversion) -> str:
    """What Google knows a conversion by: the shop's number, else our key."""
    return conversion.order_id or conversion.key


def date_time(at: Instant) -> str:
    """`yyyy-mm-dd hh:mm:ss+00:00`, as Google wants it."""
    return (_EPOCH + timedelta(microseconds=at)).strftime("%Y-%m-%d %H:%M:%S+00:00")


def settled_upload(conversions: Sequence[Conversion], answer: Mutated) -> tuple[list[Receipt], list[Conversion]]:
    """One receipt each, and the conversions that were there already and may have another value."""
    failed = by_operation(answer.partial_failure_error, len(conversions))
    receipts: list[Receipt] = []
    known: list[Conversion] = []
    for index, each in enumerate(conversions):
        code = failed.get(index, "")
        if code in THERE_ALREADY:
            known.append(each)
        if code in THERE_ALREADY or code in TWICE:
            receipts.append(Receipt(each.key, Outcome.ACCEPTED, "KNOWN_ALREADY"))
        elif code:
            receipts.append(Receipt(each.key, Outcome.UNKNOWN if is_unclear(code) else Outcome.REJECTED, code))
        else:
            receipts.append(Receipt(each.key, Outcome.ACCEPTED))
    return receipts, known


def settled_adjustments(conversions: Sequence[Conversion], answer: Mutated) -> list[Receipt]:
    """One receipt for each value that was restated."""
    failed = by_operation(answer.partial_failure_error, len(conversions))
    receipts: list[Receipt] = []
    for index, each in enumerate(conversions):
        code = failed.get(index, "")
        if not code:
            receipts.append(Receipt(each.key, Outcome.ACCEPTED, "RESTATED"))
        elif code in STANDS_ALREADY:
            receipts.append(Receipt(each.key, Outcome.ACCEPTED, "KNOWN_ALREADY"))
        else:
            unknown = code in TOO_EARLY or is_unclear(code)
            receipts.append(Receipt(each.key, Outcome.UNKNOWN if unknown else Outcome.REJECTED, code))
    return receipts


def _click(click_id: str) -> dict[str, str]:
    """Field and value: `gbraid:...` and `wbraid:...` name their kind, anything else is a gclid."""
    kind, colon, value = click_id.partition(":")
    return {kind: value} if colon and kind in ("gclid", "gbraid", "wbraid") else {"gclid": click_id}


def _action(config: GoogleAdsConfig, conversion: Conversion) -> str:
    number = conversion.name if conversion.name.isascii() and conversion.name.isdecimal() else config.conversion_action
    if not number:
        raise Rejected("conversion_action is not set: the number of the action that uploads go to", "NO_ACTION")
    return f"customers/{config.customer}/conversionActions/{number}"


def _units(micros: int) -> float:
    """Whole units: Google takes a double, exact to the micro up to 10^15 micros."""
    return float(Decimal(micros).scaleb(-6))
