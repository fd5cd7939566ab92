"""Base models and the types amounts, names and platforms have on the wire."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from kiki_agent.model import Platform, decimal_text
from kiki_agent.model.money import MAX_MICROS, MICROS


class Given(BaseModel):
    """What a caller sends; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Answer(BaseModel):
    """What the agent answers."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)


class Nothing(Given):
    """No parameters."""


_AMOUNT = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
"""Plain decimals and nothing else that a library would read as a number: no exponent, sign, space or bare point."""


def micros_from_wire(value: object) -> int:
    """Exact micros of a JSON number or decimal text; refuses fractions of a micro, infinities and amounts past 10^9."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise ValueError("must be an amount: a number or a decimal text such as 12.34")
    if isinstance(value, str) and not _AMOUNT.fullmatch(value):
        raise ValueError("must be an amount such as 12.34")
    amount = Decimal(value)
    if not amount.is_finite():
        raise ValueError("must be a finite amount")
    if amount.adjusted() > 12 or abs(amount) * MICROS > MAX_MICROS:
        raise ValueError(f"must be at most {MAX_MICROS // MICROS}")
    if amount != 0 and amount.adjusted() < -6:
        raise ValueError("has more than 6 decimals")
    micros = amount.scaleb(6)
    if micros != micros.to_integral_value():
        raise ValueError("has more than 6 decimals")
    return int(micros)


def _positive(value: object) -> int:
    micros = micros_from_wire(value)
    if micros <= 0:
        raise ValueError("must be greater than 0")
    return micros


def _not_negative(value: object) -> int:
    micros = micros_from_wire(value)
    if micros < 0:
        raise ValueError("must not be negative")
    return micros


def _amount_schema(bound: dict[str, int]) -> dict[str, object]:
    largest = MAX_MICROS // MICROS
    return {
        "anyOf": [
            {"type": "number", "maximum": largest, **bound},
            {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,6})?$"},
        ],
        "description": "Amount in units of the currency: a number or, exact, a decimal text such as 12.34.",
    }


PositiveAmount = Annotated[int, BeforeValidator(_positive), WithJsonSchema(_amount_schema({"exclusiveMinimum": 0}))]
"""Micros of an amount above 0."""
Amount = Annotated[int, BeforeValidator(_not_negative), WithJsonSchema(_amount_schema({"minimum": 0}))]
"""Micros of an amount of 0 or more."""


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number")
    return value


PlainNumber = BeforeValidator(_number)
"""For a `float` of a body: true is not 1, and a text is no number."""

_IDENT = r"^[^\x00-\x1f\x7f]*$"
Ident = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128, pattern=_IDENT)]
"""An id given by a vendor or a person: 1 to 128 characters without control characters."""
Text = Annotated[str, StringConstraints(strict=True, max_length=500, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
"""A sentence by a person."""
Currency = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Z]{3}$")]


def _platform(value: object) -> Platform:
    if not isinstance(value, str):
        raise ValueError("must be the name of a platform, such as meta or PLATFORM_META")
    return Platform.parse(value)


PlatformName = Annotated[
    Platform,
    BeforeValidator(_platform),
    WithJsonSchema({"type": "string", "examples": ["meta", "PLATFORM_META"], "description": "Any accepted spelling."}),
]


def number(micros: int, currency: str) -> float:
    """An amount as the JSON number of the older endpoints: decimals of the currency, rounded half to even."""
    return float(decimal_text(micros, currency))


def number_or_none(micros: int | None, currency: str) -> float | None:
    """`number`, or null where there is nothing to say."""
    return None if micros is None else number(micros, currency)


MoneyText = Annotated[
    str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?$", description="Decimal text in the answer's currency.")
]
Seconds = Annotated[float, PlainSerializer(lambda value: round(value, 3), return_type=float)]
"""Seconds, to the millisecond."""
