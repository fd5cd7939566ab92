"""The level decision: columns in, columns out, one kernel call for all campaigns of all connectors."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kiki_agent.kernels.permits import MOST_MICROS, permit
from kiki_agent.shield.book import Book
from kiki_agent.shield.reasons import LevelReason
from kiki_agent.shield.total import Total, shared

Column = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class LevelRequest:
    """All campaigns of the agent, one row each: int64 columns of one length, `active` uint8.

    A request names all campaigns: a campaign that is missing holds nothing any more.
    """

    connector: Column
    """Index into `Shield.connectors`."""
    wanted_bid: Column
    """Micros; 0 when no bid is wanted."""
    min_bid: Column
    """The platform's smallest bid."""
    daily_budget: Column
    """The campaign's budget of the account day at its platform."""
    spend_today: Column
    """As last reported, in micros."""
    spend_rate: Column
    """Upper estimate of what it spends at the wanted bid, in micros a second."""
    data_age: Column
    """Microseconds since the instant the spend is known for."""
    active: Flags
    """1 when the platform lets it spend."""

    @property
    def size(self) -> int:
        """Number of campaigns."""
        return len(self.connector)


@dataclass(frozen=True, slots=True)
class LevelAnswer:
    """One row per campaign of the request. The columns belong to the caller."""

    bid_micros: Column
    """The permitted bid: as wanted, lowered, or 0."""
    exposure_micros: Column
    """What is set aside for it until the next report."""
    reason: Flags
    """A `LevelReason`; `PERMITTED` only when the bid is as wanted."""

    @classmethod
    def refuse(cls, size: int, reason: LevelReason) -> LevelAnswer:
        """No to everything."""
        zeros = np.zeros(size, dtype=np.int64)
        return cls(zeros, zeros.copy(), np.full(size, reason, dtype=np.uint8))

    def withdraw(self, rows: npt.NDArray[np.bool_], reason: LevelReason) -> None:
        """Take back what was permitted in some rows."""
        rows = rows & (self.bid_micros > 0)
        self.bid_micros[rows] = 0
        self.exposure_micros[rows] = 0
        self.reason[rows] = reason


class Levels:
    """Decides level requests against books, and keeps the arrays the kernel works in."""

    def __init__(self, books: Sequence[Book], total: Total, poll: int, window: int) -> None:
        self._books = books
        self._total = total
        self._poll = poll
        self._window = window
        self._cells = array("q", bytes(24 * len(books)))
        self._room = np.frombuffer(self._cells, dtype=np.int64).reshape(len(books), 3)
        """The same memory as `_cells`, whose single numbers are quicker to write."""
        self._held = np.zeros((len(books), 2), dtype=np.int64)
        self._scratch = np.empty(0, dtype=np.int64)

    def decide(self, request: LevelRequest, now: int, block: LevelReason) -> LevelAnswer:
        """Decide, and renew the exposures in the books. A `block` other than PERMITTED refuses every bid.

        Raises ValueError when columns differ in length and TypeError when one is no column.
        """
        size = request.size
        columns = self._columns(request)
        if len(self._scratch) < size:
            self._scratch = np.empty(size, dtype=np.int64)
        cells, cell = self._cells, 0
        for day, window, why in self._rooms(now):
            cells[cell] = day if day < MOST_MICROS else MOST_MICROS
            cells[cell + 1] = window if window < MOST_MICROS else MOST_MICROS
            cells[cell + 2] = block or why
            cell += 3
        bid = np.empty(size, dtype=np.int64)
        exposure = np.empty(size, dtype=np.int64)
        reason = np.empty(size, dtype=np.uint8)
        held = self._held
        permit(*columns, self._room, self._poll, self._window, bid, exposure, self._scratch[:size], reason, held)
        for book, (whole, inside) in zip(self._books, held.tolist(), strict=True):
            book.expose(whole, inside)
        return LevelAnswer(bid, exposure, reason)

    def _rooms(self, now: int) -> list[tuple[int, int, int]]:
        """Rooms of day and window and a reason for each connector, within the client's total."""
        rooms = [book.level_rooms(now) for book in self._books]
        day, window = self._total.rooms(now)
        if day is None and window is None:
            return rooms
        days = shared([room[0] for room in rooms], day)
        windows = shared([room[1] for room in rooms], window)
        return [(day, window, why) for day, window, (_, _, why) in zip(days, windows, rooms, strict=True)]

    @staticmethod
    def _columns(request: LevelRequest) -> tuple[Column, Column, Column, Column, Column, Column, Column, Flags]:
        shape = (len(request.connector),)
        if request.active.dtype != _FLAG or request.active.shape != shape:
            raise ValueError(f"a column of {shape[0]} uint8 was expected, was {request.active.shape}")
        return (
            _column(request.connector, shape),
            _column(request.wanted_bid, shape),
            _column(request.min_bid, shape),
            _column(request.daily_budget, shape),
            _column(request.spend_today, shape),
            _column(request.spend_rate, shape),
            _column(request.data_age, shape),
            np.ascontiguousarray(request.active),
        )


_MICROS = np.dtype(np.int64)
_FLAG = np.dtype(np.uint8)


def _column(column: Column, shape: tuple[int]) -> Column:
    if column.dtype != _MICROS or column.shape != shape:
        raise ValueError(f"a column of {shape[0]} int64 was expected, was {column.shape} {column.dtype}")
    return np.ascontiguousarray(column)
