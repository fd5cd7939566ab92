"""Conversion values on their way to Google: the lever by which worth reaches its bidding."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from kiki_agent import Conversion
from kiki_agent.errors import Rejected
from kiki_agent.model import Instant, Outcome, Receipt
from kiki_google_ads.config import GoogleAdsConfig
from kiki_google_ads.errors import by_operation
from kiki_google_ads.mapping import Mutated

KNOWN_ALREADY = frozenset(
    {
        "conversionUploadError.CLICK_CONVERSION_ALREADY_EXISTS",
        "conversionUploadError.ORDER_ID_ALREADY_IN_USE",
        "conversionUploadError.DUPLICATE_ORDER_ID",
        "conversionUploadError.DUPLICATE_CLICK_CONVERSION_IN_REQUEST",
    }
)
"""Refusals that mean the conversion is there."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def conversion_body(config: GoogleAdsConfig, conversions: Sequence[Conversion], *, validate_only: bool) -> object:
    """Body of `uploadClickConversions`. Raises Rejected when no conversion action is configured."""
    if not config.conversion_action:
        raise Rejected("conversion_action is not set: the number of the action that uploads go to", "NO_ACTION")
    action = f"customers/{config.customer}/conversionActions/{config.conversion_action}"
    made: list[dict[str, Any]] = []
    for each in conversions:
        consent = "GRANTED" if each.basis.startswith("consent:") else "DENIED"
        made.append(
            {
                "gclid": each.click_id,
                "conversionAction": action,
                "conversionDateTime": date_time(each.at),
                "conversionValue": float(Decimal(each.value_micros).scaleb(-6)),
                "currencyCode": each.currency,
                "orderId": each.order_id or each.key,
                "consent": {"adUserData": consent, "adPersonalization": consent},
            }
        )
    return {"conversions": made, "partialFailure": True, "validateOnly": validate_only}


def date_time(at: Instant) -> str:
    """`yyyy-mm-dd hh:mm:ss+00:00`, as Google wants it."""
    return (_EPOCH + timedelta(microseconds=at)).strftime("%Y-%m-%d %H:%M:%S+00:00")


def settled_upload(conversions: Sequence[Conversion], answer: Mutated) -> list[Receipt]:
    """One receipt each; one that Google knows already was accepted before."""
    failed = by_operation(answer.partial_failure_error, len(conversions))
    receipts = []
    for index, each in enumerate(conversions):
        code = failed.get(index, "")
        if code in KNOWN_ALREADY:
            receipts.append(Receipt(each.key, Outcome.ACCEPTED, "KNOWN_ALREADY"))
        elif code:
            receipts.append(Receipt(each.key, Outcome.REJECTED, code))
        else:
            receipts.append(Receipt(each.key, Outcome.ACCEPTED))
    return receipts
