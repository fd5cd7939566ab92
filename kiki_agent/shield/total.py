"""What all connectors together may spend: one more bound over the books, so no sum of theirs passes the client's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from heapq import merge

from kiki_agent.shield.book import Book
from kiki_agent.shield.bounds import Bound, freed_by


@dataclass(frozen=True, slots=True)
class Total:
    """The client's caps over all books, in micros of the one currency of the agent; None: no such bound.

    A day is each connector's own stored account day, so at accounts of several time zones the total is that of the
    days that are under way together.
    """

    books: Collection[Book]
    daily_micros: int | None = None
    window_micros: int | None = None

    def rooms(self, now: int) -> tuple[int | None, int | None]:
        """What levels and bids of all connectors may take from day and window; negative after an overshoot."""
        day = window = None
        if self.daily_micros is not None:
            day = self.daily_micros - sum(book.spent_micros + book.reserved_micros for book in self.books)
        if self.window_micros is not None:
            window = self.window_micros - sum(
                book.window.advance(now) + book.window_presumed(now) + book.reserved_micros for book in self.books
            )
        return day, window

    def bounds(self, now: int, wanted: int | None = None) -> list[Bound]:
        """The client's caps as they bind one more bid; with the amount `wanted`, also when each has room for it."""
        bounds = []
        if self.daily_micros is not None:
            spent = sum(book.spent_micros for book in self.books)
            held = sum(book.reserved_micros + book.exposure_micros for book in self.books)
            day = self._bound("client_day", "the day of all platforms together", self.daily_micros, spent, held)
            if wanted is not None:
                gains = sorted(gain for book in self.books for gain in book.day_gain())
                day = replace(day, frees_at=freed_by(gains, wanted - day.remaining_micros))
            bounds.append(day)
        if self.window_micros is not None:
            spent = sum(book.window.advance(now) + book.window_presumed(now) for book in self.books)
            held = sum(book.reserved_micros + book.window_exposure_micros for book in self.books)
            window = self._bound(
                "client_window", "the window of all platforms together", self.window_micros, spent, held
            )
            if wanted is not None:
                leaving = merge(*(book.window_gains(now) for book in self.books))
                window = replace(window, frees_at=freed_by(leaving, wanted - window.remaining_micros))
            bounds.append(window)
        return bounds

    def _bound(self, name: str, subject: str, cap: int, spent: int, held: int) -> Bound:
        currency = next((book.caps.currency for book in self.books), "USD")
        return Bound(name, subject, cap, spent, held, currency)


def shared(rooms: list[int], most: int | None) -> list[int]:
    """Rooms of the connectors, lowered in proportion so that together they stay within `most`; rounded down."""
    whole = sum(rooms)
    if most is None or whole <= (most := max(0, most)):
        return rooms
    return [room * most // whole for room in rooms]


__all__ = ["Total", "shared"]
