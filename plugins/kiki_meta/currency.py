"""How Meta counts money: the offset of a currency, which is not always its ISO 4217 minor unit.

Budgets and bids are whole numbers of `1 / offset` of a unit. Meta's page of currencies (Marketing API, Currency Codes)
lists the offset of each: 1 for eleven currencies, forint, rupiah and Taiwan dollar among them, and 100 for all others,
also for those with three decimals (Bahraini and Jordanian dinar).
"""

from __future__ import annotations

from kiki_agent.model.money import MICROS

WHOLE = frozenset({"CLP", "COP", "CRC", "HUF", "IDR", "ISK", "JPY", "KRW", "PYG", "TWD", "VND"})
"""Currencies Meta counts in whole units."""


def offset(currency: str) -> int:
    """What Meta multiplies an amount in units by: 100 for USD and KWD, 1 for JPY and TWD."""
    return 1 if currency in WHOLE else 100


def step_micros(currency: str) -> int:
    """Micros of the smallest amount Meta can write down."""
    return MICROS // offset(currency)
