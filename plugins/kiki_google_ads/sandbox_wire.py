"""Bodies as Google takes them: unknown names, wrong types and values out of range are refused before anyone looks.

Stricter than Google in two ways: a number of 64 bits is text of digits or a whole number and nothing else, and a
fractional number is no text. Absent fields are unset, never zero.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

Int64 = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,19}\Z")] | int
Double = float | int
Location = list[dict[str, Any]]


class Refused(Exception):
    """One operation, or the whole request, that Google would refuse: `errorCode` is `{group: name}`."""

    def __init__(self, group: str, name: str, message: str, location: Location | None = None) -> None:
        super().__init__(message)
        self.group, self.name, self.message, self.location = group, name, message, location


class Malformed(Exception):
    """A body that does not fit the message: refused by the gateway, before the service sees it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


class Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Base of all messages."""


class Target(Strict):
    """`targetRoas` and `maximizeConversionValue`: the ceiling and the floor are for portfolios."""

    target_roas: Double | UnsetType = UNSET
    cpc_bid_ceiling_micros: Int64 | UnsetType = UNSET
    cpc_bid_floor_micros: Int64 | UnsetType = UNSET


class Spend(Strict):
    """`targetSpend`."""

    cpc_bid_ceiling_micros: Int64 | UnsetType = UNSET


class Parameter(Strict):
    """A custom parameter."""

    key: str
    value: str


class Budget(Strict):
    """What can be set on a budget."""

    resource_name: str = ""
    amount_micros: Int64 | UnsetType = UNSET
    name: str | UnsetType = UNSET


class Strategy(Strict):
    """What can be set on a portfolio strategy."""

    resource_name: str = ""
    target_roas: Target | UnsetType = UNSET
    maximize_conversion_value: Target | UnsetType = UNSET
    target_spend: Spend | UnsetType = UNSET
    name: str | UnsetType = UNSET


class Campaign(Strict):
    """What can be set on a campaign."""

    resource_name: str = ""
    status: str | UnsetType = UNSET
    target_roas: Target | UnsetType = UNSET
    maximize_conversion_value: Target | UnsetType = UNSET
    target_spend: Spend | UnsetType = UNSET
    url_custom_parameters: list[Parameter] | UnsetType = UNSET
    name: str | UnsetType = UNSET


class AdGroup(Strict):
    """What can be set on an ad group."""

    resource_name: str = ""
    cpc_bid_micros: Int64 | UnsetType = UNSET
    name: str | UnsetType = UNSET


class Consent(Strict):
    """What the customer agreed to."""

    ad_user_data: str = "UNSPECIFIED"
    ad_personalization: str = "UNSPECIFIED"


class Conversion(Strict):
    """One conversion."""

    conversion_action: str = ""
    conversion_date_time: str = ""
    gclid: str = ""
    gbraid: str = ""
    wbraid: str = ""
    conversion_value: Double | UnsetType = UNSET
    currency_code: str = ""
    order_id: str = ""
    consent: Consent | None = None


class Conversions(Strict):
    """Body of `uploadClickConversions`."""

    conversions: list[Conversion] = []
    partial_failure: bool = False
    validate_only: bool = False


class Restatement(Strict):
    """A value as it is now."""

    adjusted_value: Double | UnsetType = UNSET
    currency_code: str = ""


class Adjustment(Strict):
    """One adjustment of a conversion."""

    conversion_action: str = ""
    adjustment_type: str = ""
    adjustment_date_time: str = ""
    order_id: str = ""
    restatement_value: Restatement | None = None


class Adjustments(Strict):
    """Body of `uploadConversionAdjustments`."""

    conversion_adjustments: list[Adjustment] = []
    partial_failure: bool = False
    validate_only: bool = False


class Search(Strict):
    """Body of a search; `pageSize` is known, to be refused by name."""

    query: str = ""
    page_token: str = ""
    page_size: int | str | None = None
    validate_only: bool = False


class Stream(Strict):
    """Body of a streamed search."""

    query: str = ""


_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]*)`(?: - at `\$\.?(?P<place>[^`]*)`)?")
_PLACE = re.compile(r"- at `\$\.?(?P<place>[^`]*)`")


def decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """A body as its message. Raises Malformed, in the words of Google's gateway."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        text = str(error)
        unknown = _UNKNOWN.search(text)
        if unknown is not None:
            name, place = unknown["name"][:60], unknown["place"] or ""
            where = f" at '{place}'" if place else ""
            raise Malformed(place, f'Unknown name "{name}"{where}: Cannot find field.') from None
        found = _PLACE.search(text)
        place = found["place"] if found is not None else ""
        raise Malformed(place, f"Invalid value at '{place}': {text.partition(' - at ')[0]}"[:200]) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Malformed("", "Unable to parse the body.") from None


def int64(given: Any, name: str) -> int:
    """A whole number that was set. Raises Refused when it was not, Malformed beyond 64 bits."""
    if given is UNSET:
        raise Refused("fieldError", "REQUIRED", f"The required field was not present: {name}")
    value = int(given)
    if not -(2**63) <= value < 2**63:
        raise Malformed(name, f"Invalid value at '{name}' (TYPE_INT64): out of range")
    return value


def one_of(group: str, message: Strict, names: tuple[str, ...]) -> None:
    """At most one member of a oneof. Raises Malformed."""
    given = [name for name in names if getattr(message, name) is not UNSET]
    if len(given) > 1:
        raise Malformed(given[1], f"Invalid value at '{given[1]}': oneof field '{group}' is already set.")
