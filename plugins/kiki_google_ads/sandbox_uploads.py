"""Conversions that come in, and their restatements, with the refusals Google has for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET

from kiki_agent.model import DAY, SECOND, Instant
from kiki_google_ads import sandbox_wire as wire
from kiki_google_ads.sandbox_wire import Refused

MOST = 2_000
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{2}:[0-9]{2}")
_CONVERSIONS = msgspec.json.Decoder(wire.Conversions)
_ADJUSTMENTS = msgspec.json.Decoder(wire.Adjustments)

Made = tuple[list[Any], list[Refused]]


@dataclass(slots=True)
class Order:
    """A conversion that came in under an order number."""

    at: Instant
    value: float
    restated_at: Instant


class Uploads:
    """Both upload services of one account."""

    def __init__(self, customer: str) -> None:
        self._prefix = f"customers/{customer}/conversionActions/"
        self.orders: dict[str, Order] = {}
        """By order number."""
        self.services: Mapping[tuple[str, str], Callable[[bytes, Instant, bool, Callable[[int], None]], Made]] = {
            ("", "uploadClickConversions"): self._conversions,
            ("", "uploadConversionAdjustments"): self._adjustments,
        }

    def _conversions(self, body: bytes, now: Instant, failed: bool, count: Callable[[int], None]) -> Made:
        asked: wire.Conversions = wire.decoded(_CONVERSIONS, body)
        _check_request(asked.conversions, "conversions", partial=asked.partial_failure)
        count(len(asked.conversions))
        results: list[Any] = []
        errors: list[Refused] = []
        fresh: set[str] = set()
        for index, each in enumerate(asked.conversions):
            try:
                if failed:
                    raise Refused("conversionUploadError", "TOO_RECENT_EVENT", "The event is too recent.")
                order = self._conversion(each, now)
                if each.order_id in fresh:
                    raise Refused("conversionUploadError", "DUPLICATE_ORDER_ID", "The order id stands here twice.")
                fresh.add(each.order_id)
            except Refused as refusal:
                _place(refusal, "conversions", index)
                errors.append(refusal)
                results.append({})
                continue
            if not asked.validate_only and each.order_id:
                self.orders[each.order_id] = order
            clicks = {name: getattr(each, name) for name in ("gclid", "gbraid", "wbraid") if getattr(each, name)}
            named = {"conversionAction": each.conversion_action, "conversionDateTime": each.conversion_date_time}
            results.append(clicks | named)
        return ([] if asked.validate_only else results), errors

    def _conversion(self, each: wire.Conversion, now: Instant) -> Order:
        self._check_action(each.conversion_action, "conversionUploadError")
        if each.gbraid and each.wbraid:
            raise Refused("conversionUploadError", "GBRAID_WBRAID_BOTH_SET", "Only one of the two may be set.")
        clicks = {name: getattr(each, name) for name in ("gclid", "gbraid", "wbraid")}
        if not any(clicks.values()):
            raise Refused("fieldError", "REQUIRED", "One of gclid, gbraid and wbraid is required.")
        for name, value in clicks.items():
            if value and len(value) < 4:
                raise Refused("conversionUploadError", f"UNPARSEABLE_{name.upper()}", "The click id is not readable.")
        at = _instant(each.conversion_date_time, "conversionDateTime")
        if at > now + DAY:
            raise Refused("dateError", "LATER_THAN_MAXIMUM_DATE", "The conversion lies in the future.")
        _check_currency(each.currency_code)
        if each.conversion_value is UNSET:
            raise Refused("fieldError", "REQUIRED", "The required field was not present: conversionValue")
        _check_consent(each.consent)
        if each.order_id in self.orders and each.order_id:
            raise Refused("conversionUploadError", "ORDER_ID_ALREADY_IN_USE", "The order id was used before.")
        return Order(at, float(each.conversion_value), at)

    def _adjustments(self, body: bytes, now: Instant, failed: bool, count: Callable[[int], None]) -> Made:
        asked: wire.Adjustments = wire.decoded(_ADJUSTMENTS, body)
        _check_request(asked.conversion_adjustments, "conversion_adjustments", partial=asked.partial_failure)
        count(len(asked.conversion_adjustments))
        results: list[Any] = []
        errors: list[Refused] = []
        for index, each in enumerate(asked.conversion_adjustments):
            try:
                if failed:
                    raise Refused("conversionAdjustmentUploadError", "TOO_RECENT_CONVERSION", "It is too recent.")
                order, value, at = self._adjustment(each, now)
            except Refused as refusal:
                _place(refusal, "conversion_adjustments", index)
                errors.append(refusal)
                results.append({})
                continue
            if not asked.validate_only:
                order.value, order.restated_at = value, at
            results.append(
                {
                    "orderId": each.order_id,
                    "conversionAction": each.conversion_action,
                    "adjustmentDateTime": each.adjustment_date_time,
                    "adjustmentType": each.adjustment_type,
                }
            )
        return ([] if asked.validate_only else results), errors

    def _adjustment(self, each: wire.Adjustment, now: Instant) -> tuple[Order, float, Instant]:
        group = "conversionAdjustmentUploadError"
        self._check_action(each.conversion_action, group)
        if each.adjustment_type != "RESTATEMENT":
            raise Refused("requestError", "INVALID_ENUM_VALUE", "This account takes restatements only.")
        restated = each.restatement_value
        if restated is None or restated.adjusted_value is UNSET:
            raise Refused("fieldError", "REQUIRED", "The required field was not present: restatementValue")
        _check_currency(restated.currency_code)
        at = _instant(each.adjustment_date_time, "adjustmentDateTime")
        order = self.orders.get(each.order_id)
        if order is None:
            raise Refused(group, "CONVERSION_NOT_FOUND", "No conversion has this order id.")
        if at < order.at:
            raise Refused(group, "ADJUSTMENT_PRECEDES_CONVERSION", "The adjustment comes before the conversion.")
        if now < order.at + DAY:
            raise Refused(group, "TOO_RECENT_CONVERSION", "The conversion is too recent to be adjusted.")
        if at < order.restated_at:
            raise Refused(group, "MORE_RECENT_RESTATEMENT_FOUND", "There is a more recent restatement.")
        value = float(restated.adjusted_value)
        if at == order.restated_at or value == order.value:
            raise Refused(group, "RESTATEMENT_ALREADY_EXISTS", "The same restatement came in before.")
        return order, value, at

    def _check_action(self, name: str, group: str) -> None:
        number = name.removeprefix(self._prefix)
        if number == name or not (number.isascii() and number.isdecimal()):
            raise Refused(group, "NO_CONVERSION_ACTION_FOUND", "The conversion action is not known.")


def _check_request(items: list[Any], name: str, *, partial: bool) -> None:
    if not items:
        raise Refused("requestError", "REQUIRED_FIELD_MISSING", f"Required field is missing: {name}")
    if not partial:
        text = "partial_failure must be true for uploads."
        raise Refused("partialFailureError", "PARTIAL_FAILURE_MODE_REQUIRED", text)
    if len(items) > MOST:
        raise Refused("conversionUploadError", "TOO_MANY_CONVERSIONS_IN_REQUEST", "Too many in one request.")


def _place(refusal: Refused, name: str, index: int) -> None:
    refusal.location = [{"fieldName": name, "index": index}]


def _instant(text: str, name: str) -> Instant:
    if not text:
        raise Refused("fieldError", "REQUIRED", f"The required field was not present: {name}")
    try:
        moment = datetime.fromisoformat(text) if _TIME.fullmatch(text) else None
    except ValueError:
        moment = None
    if moment is None:
        raise Refused("dateError", "INVALID_STRING_DATE_TIME_SECONDS_WITH_OFFSET", f"{name} is no such time.")
    return Instant(int(moment.timestamp()) * SECOND)


def _check_currency(code: str) -> None:
    if not (len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()):
        raise Refused("currencyCodeError", "UNSUPPORTED", "The currency is not known.")


def _check_consent(consent: wire.Consent | None) -> None:
    allowed = {"GRANTED", "DENIED"}
    if consent is None or not {consent.ad_user_data, consent.ad_personalization} <= allowed:
        raise Refused("requestError", "INVALID_ENUM_VALUE", "Consent is GRANTED or DENIED in this account.")
