"""What all connectors together may spend: one more bound over the books, so no sum of theirs passes the client's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from kiki_agent.shield.book import Book


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

    def left(self, now: int) -> int | None:
        """What one more bid could take beside all levels; None when nothing bounds it."""
        day, window = self.rooms(now)
        lefts = []
        if day is not None:
            lefts.append(day - sum(book.exposure_micros for book in self.books))
        if window is not None:
            lefts.append(window - sum(book.window_exposure_micros for book in self.books))
        return min(lefts, default=None)


def shared(rooms: list[int], most: int | None) -> list[int]:
    """Rooms of the connectors, lowered in proportion so that together they stay within `most`; rounded down."""
    whole = sum(rooms)
    if most is None or whole <= (most := max(0, most)):
        return rooms
    return [room * most // whole for room in rooms]


__all__ = ["Total", "shared"]
