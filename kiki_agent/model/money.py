"""Money: integer micros and a currency. The only place that rounds.

One unit of any currency is 1,000,000 micros, whatever its minor unit (ISO 4217 exponents: USD 2, JPY 0, KWD 3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

MICROS = 1_000_000
"""Micros in one unit of a currency."""
MAX_MICROS = 10**15
"""Largest amount accepted from outside: a thousand million units."""

_NO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"
_EXPONENTS = dict.fromkeys(_NO_DECIMALS.split(), 0) | dict.fromkeys(_THREE_DECIMALS.split(), 3)
_AMOUNT = re.compile(r"-?[0-9]{1,13}(\.[0-9]{1,6})?")


def minor_exponent(currency: str) -> int:
    """Decimals of a currency's minor unit (ISO 4217): USD 2, JPY 0, KWD 3."""
    return _EXPONENTS.get(currency, 2)


def micros_from_text(text: str) -> int:
    """Exact micros of a decimal text such as `"12.34"`. Raises ValueError on anything else, exponents too."""
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an amount such as 12.34")
    whole, _, fraction = text.removeprefix("-").partition(".")
    micros = int(whole) * MICROS + int(fraction.ljust(6, "0"))
    return -micros if text[0] == "-" else micros


def decimal_text(micros: int, currency: str) -> str:
    """Decimal text with as many decimals as the currency has, rounded half to even: 1_234_567 USD is `"1.23"`."""
    exponent = minor_exponent(currency)
    return str(Decimal(micros).scaleb(-6).quantize(Decimal(1).scaleb(-exponent), rounding=ROUND_HALF_EVEN))


def round_to_step(micros: int, step_micros: int) -> int:
    """The nearest multiple of a positive step, halves to even."""
    quotient, rest = divmod(micros, step_micros)
    double = 2 * rest
    if double > step_micros or (double == step_micros and quotient % 2):
        quotient += 1
    return quotient * step_micros


def split_by_weight(total_micros: int, weights: list[int], step_micros: int = 1) -> list[int]:
    """Split a total into multiples of a step, in proportion to weights, summing exactly; ties go to the lower index.

    Largest remainder (Hamilton). `total_micros` must be a multiple of `step_micros` and weights non-negative with a
    positive sum; raises ValueError otherwise.
    """
    if step_micros <= 0 or total_micros % step_micros:
        raise ValueError("the total is not a multiple of the step")
    weight_sum = sum(weights)
    if weight_sum <= 0 or min(weights) < 0:
        raise ValueError("weights need a positive sum and no negative member")
    units = total_micros // step_micros
    shares = [divmod(units * weight, weight_sum) for weight in weights]
    parts = [quotient for quotient, _ in shares]
    missing = units - sum(parts)
    order = sorted(range(len(weights)), key=lambda index: (-shares[index][1], index))
    for index in order[:missing]:
        parts[index] += 1
    return [part * step_micros for part in parts]


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one currency."""

    micros: int
    currency: str = "USD"

    def __add__(self, other: Money) -> Money:
        return Money(self.micros + self._same(other), self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.micros - self._same(other), self.currency)

    def __str__(self) -> str:
        return decimal_text(self.micros, self.currency)

    def _same(self, other: Money) -> int:
        if other.currency != self.currency:
            raise ValueError(f"cannot combine {self.currency} with {other.currency}")
        return other.micros
