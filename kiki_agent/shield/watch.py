"""Telling once when money runs short: at 80 % and 95 % of a day, a window or an allocation, of one platform or all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kiki_agent.model import HOUR, Instant
from kiki_agent.runtime.log import get_logger
from kiki_agent.shield import journal
from kiki_agent.shield.allocations import CRITICAL_SHARE, WARNING_SHARE, Allocation
from kiki_agent.shield.book import OUTLIVES_DAY, Book
from kiki_agent.shield.pen import Pen
from kiki_agent.shield.total import Total

OnEvent = Callable[[str, Mapping[str, object]], None]

THRESHOLDS = ((1, WARNING_SHARE), (2, CRITICAL_SHARE))
OVERSHOOT = 4
REARM = ((1, 0.70), (2, WARNING_SHARE), (OVERSHOOT, CRITICAL_SHARE))
"""A threshold is told again only after spend has been below this: a window that emptied, a cap that was raised."""
SHIFTS = {"day": 0, "window": 3, "client_day": 6, "client_window": 9}
"""Where the three bits of each scope stand in `Book.warned`."""
_DAYS = ("day", "client_day")

_log = get_logger("syncshield")


class Watch:
    """Compares what is spent with what may be spent, and publishes each crossing once.

    Windows remember over a restart what was told. Days tell it again, and the `fact` in what is published is the same:
    who writes alerts down knows it, also when the process was killed before one was written.
    """

    def __init__(self, on_event: OnEvent | None, pen: Pen, total: Total) -> None:
        self._on_event = on_event
        self._pen = pen
        self._total = total
        for book in total.books:
            book.warned &= OUTLIVES_DAY

    def tell(self, topic: str, data: Mapping[str, object]) -> None:
        """Publish; a listener that raises changes nothing here."""
        if self._on_event is None:
            return
        try:
            self._on_event(topic, data)
        except Exception as error:
            _log.error("listener_failed", "A listener to the shield raised", error=error, topic=topic)

    def spent(self, book: Book, now: Instant) -> None:
        """After a spend of a connector was booked, or its caps were changed."""
        told = self._look("day", book, (book,), _of_day(book), book.caps.daily_micros or 0, now)
        told |= self._look("window", book, (book,), book.window.advance(now), book.window_cap(), now)
        total = self._total
        if total.daily_micros is not None:
            for each in total.books:
                self._pen.roll(each, now)
            told |= self._look("client_day", book, total.books, sum(map(_of_day, total.books)), total.daily_micros, now)
        if total.window_micros is not None:
            spent = sum(each.window.advance(now) for each in total.books)
            told |= self._look("client_window", book, total.books, spent, total.window_micros, now)
        if told:
            self._pen.flush(book, now)

    def allocated(self, allocation: Allocation, now: Instant) -> None:
        """After an allocation was spent from or changed."""
        spent, budget = allocation.spent_micros, allocation.budget_micros
        crossed = _crossed(spent, budget) | (OVERSHOOT if spent > budget else 0)
        news = crossed & ~allocation.warned
        if crossed == allocation.warned:
            return
        allocation.warned = crossed
        if news:
            self._publish("allocation", allocation.campaign_id, news, spent, budget, allocation.currency, "")
        campaign_id, status = allocation.campaign_id, allocation.status(now)
        self._pen.submit(lambda connection: journal.write_warning(connection, campaign_id, crossed, status, now))

    def _look(self, scope: str, book: Book, books: Iterable[Book], spent: int, limit: int, now: Instant) -> bool:
        """Whether something had to be told of the books that share a limit; `book` keeps that it was."""
        shift = SHIFTS[scope]
        told = 0
        for each in books:
            told |= each.warned >> shift & 7
        low = sum(bit for bit, share in REARM if told & bit and spent < share * limit)
        if low:
            for each in books:
                each.warned &= ~(low << shift)
        crossed = _crossed(spent, limit)
        if scope in _DAYS and spent > limit:
            crossed |= OVERSHOOT
        news = crossed & ~told
        if not news:
            return False
        book.warned |= crossed << shift
        subject = book.connector if shift < SHIFTS["client_day"] else ""
        when = min(each.day for each in books) if scope in _DAYS else str(now // HOUR)
        self._publish(scope, subject, news, spent, limit, book.caps.currency, when)
        return True

    def _publish(self, scope: str, subject: str, news: int, spent: int, limit: int, currency: str, when: str) -> None:
        level = "overshoot" if news & OVERSHOOT else "critical" if news & 2 else "warning"
        fact = "|".join((scope, subject, when, level, str(limit))) if when else ""
        self.tell(
            "budget",
            {
                "scope": scope,
                "subject": subject,
                "level": level,
                "spent_micros": spent,
                "limit_micros": limit,
                "currency": currency,
                "fact": fact,
            },
        )


def _of_day(book: Book) -> int:
    """What is known to be spent of the stored day."""
    return book.reported_micros + book.placed_micros


def _crossed(spent: int, limit: int) -> int:
    return sum(bit for bit, share in THRESHOLDS if limit > 0 and spent >= share * limit)
