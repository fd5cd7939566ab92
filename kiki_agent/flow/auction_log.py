"""Recorded second-price auctions as columns, read from tab-separated text.

A line is one auction in time order, without a header: `click` (0 or 1), `market_price` (whole number, price per
thousand impressions), `pctr` (predicted click-through rate, 0 to 1), `hour_index`. Files may be gzipped.
"""

from __future__ import annotations

import gzip
import re
import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from io import BufferedReader
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from kiki_agent.errors import ConfigError, Finding

MOST_PRICE = 10**9
"""Largest market price of a line; a slipped column rather than an auction above that."""
PCTR_DECIMALS = 18
"""Predicted rates are kept to this many decimals, rounded half to even beyond."""

_COLUMNS = ("click", "market_price", "pctr", "hour_index")
_WHOLE = re.compile(r"[0-9]{1,10}")
_RATE = re.compile(r"[0-9]{1,2}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?|\.[0-9]{1,40}([eE][+-]?[0-9]{1,3})?")
_ONE = Decimal(1)


@dataclass(frozen=True, slots=True, eq=False)
class AuctionLog:
    """n auctions in the order they happened."""

    clicks: npt.NDArray[np.uint8]
    """1 where the impression was clicked."""
    prices: npt.NDArray[np.int64]
    """Market prices: what the winner paid per thousand impressions, in the log's own unit."""
    rates: npt.NDArray[np.int64]
    """Predicted click-through rates in units of 10**-PCTR_DECIMALS."""
    hours: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.prices)

    @property
    def total_price(self) -> int:
        """Sum of all market prices: what winning everything costs."""
        return int(self.prices.sum())

    @property
    def total_clicks(self) -> int:
        """Clicks of all auctions together."""
        return int(self.clicks.sum())


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def load(paths: Iterable[Path | str]) -> AuctionLog:
    """Read the files one after the other into one log.

    Raises ConfigError, naming file, line and column, at the first thing that is not as it should be.
    """
    clicks, prices, rates, hours = array("B"), array("q"), array("q"), array("q")
    columns = (clicks.append, prices.append, rates.append, hours.append)
    known_rates: dict[str, int] = {}
    for path in map(Path, paths):
        before = len(prices)
        try:
            with _open(path) as lines:
                _read(path, lines, columns, known_rates)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError([Finding(str(path), "file", f"cannot be read: {_why(error)}")]) from error
        if len(prices) == before:
            raise ConfigError([Finding(str(path), "file", "has no auctions in it")])
    if not len(prices):
        raise ConfigError([Finding("auctions", "files", "no file of auctions was named")])
    return AuctionLog(
        np.frombuffer(clicks, np.uint8),
        np.frombuffer(prices, np.int64),
        np.frombuffer(rates, np.int64),
        np.frombuffer(hours, np.int64),
    )


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    with path.open("rb") as start:
        gzipped = start.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if gzipped else path.open("rb")


def _read(
    path: Path, lines: Iterable[bytes], columns: Sequence[Callable[[int], None]], known_rates: dict[str, int]
) -> None:
    click_to, price_to, rate_to, hour_to = columns
    for number, raw in enumerate(lines, start=1):
        parts = raw.decode("ascii", "replace").rstrip("\r\n").split("\t")
        if len(parts) != len(_COLUMNS):
            _fail(path, number, "line", f"expected {len(_COLUMNS)} columns divided by tabs, found {len(parts)}")
        click, price, rate, hour = parts
        scaled = known_rates.get(rate)
        if scaled is None:
            scaled = known_rates[rate] = _rate(path, number, rate)
        if click not in {"0", "1"}:
            _fail(path, number, "click", f"expected 0 or 1, was {click[:40]!r}")
        if not _WHOLE.fullmatch(price) or int(price) > MOST_PRICE:
            _fail(path, number, "market_price", f"expected a whole number up to {MOST_PRICE}, was {price[:40]!r}")
        if not _WHOLE.fullmatch(hour):
            _fail(path, number, "hour_index", f"expected a whole number, was {hour[:40]!r}")
        click_to(click == "1")
        price_to(int(price))
        rate_to(scaled)
        hour_to(int(hour))


def _rate(path: Path, number: int, text: str) -> int:
    value = Decimal(text) if _RATE.fullmatch(text) else None
    if value is None or value > _ONE:
        _fail(path, number, "pctr", f"expected a rate from 0 to 1, was {text[:40]!r}")
    return int(value.scaleb(PCTR_DECIMALS).to_integral_value(ROUND_HALF_EVEN))


def _fail(path: Path, number: int, column: str, message: str) -> NoReturn:
    raise ConfigError([Finding(f"{path}:{number}", column, message)])
