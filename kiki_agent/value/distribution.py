"""Mean and quartiles of whole micros, and the fallback for when there are none. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median_low

from kiki_agent.model.money import round_to_step

MULTIPLIER_PERMILLE: Mapping[str, int] = {
    "google_ads": 1_000,
    "meta": 1_000,
    "tradedesk": 1_000,
    "amazon": 1_000,
    "x": 750,
    "linkedin": 1_200,
    "tiktok": 1_500,
}
"""What a platform's customers are worth against the client's median, in thousandths; others 1000 (decision 21)."""


def quotient(numerator: int, denominator: int) -> int:
    """The nearest integer to a quotient, halves to even."""
    return round_to_step(numerator, denominator) // denominator


def quartile_place(count: int, quarter: int) -> tuple[int, int]:
    """Where a quartile lies among `count` order statistics: index of the lower one, and fourths of the way on."""
    return divmod((count - 1) * quarter, 4)


def between(low: int, high: int, fourths: int) -> int:
    """Linear interpolation between two neighbouring order statistics."""
    return quotient(low * (4 - fourths) + high * fourths, 4)


def median(values: Sequence[int]) -> int:
    """The median in whole micros. Raises StatisticsError when there are no values."""
    ordered = sorted(values)
    half = len(ordered) // 2
    if len(ordered) % 2 or not ordered:
        return median_low(ordered)
    return quotient(ordered[half - 1] + ordered[half], 2)


def fallback_ltv(
    history: Sequence[int],
    platform: str,
    default_micros: int,
    least: int,
    permille: Mapping[str, int] = MULTIPLIER_PERMILLE,
) -> int:
    """Median of the value history times the platform's multiplier; the default while the history is too short."""
    if len(history) < max(least, 1):
        return default_micros
    return quotient(median(history) * permille.get(platform, 1_000), 1_000)
