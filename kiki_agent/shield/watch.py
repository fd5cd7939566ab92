"""Telling once when money runs short: at 80 % and 95 % of a day, a window or an allocation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kiki_agent.model import Instant
from kiki_agent.runtime.log import get_logger
from kiki_agent.shield import journal
from kiki_agent.shield.allocations import CRITICAL_SHARE, WARNING_SHARE, Allocation
from kiki_agent.shield.book import Book
from kiki_agent.shield.pen import Pen

OnEvent = Callable[[str, Mapping[str, object]], None]

THRESHOLDS = ((1, WARNING_SHARE), (2, CRITICAL_SHARE))
OVERSHOOT = 4
REARM_SHARE = 0.70
"""A window's thresholds are told again only after it has been below this."""

_log = get_logger("syncshield")


class Watch:
    """Compares what is spent with what may be spent, and publishes each crossing once."""

    def __init__(self, on_event: OnEvent | None, pen: Pen) -> None:
        self._on_event = on_event
        self._pen = pen
        self._window_warned: dict[str, int] = {}

    def tell(self, topic: str, data: Mapping[str, object]) -> None:
        """Publish; a listener that raises changes nothing here."""
        if self._on_event is None:
            return
        try:
            self._on_event(topic, data)
        except Exception as error:
            _log.error("listener_failed", "A listener to the shield raised", error=error, topic=topic)

    def spent(self, book: Book, now: Instant) -> None:
        """After a spend of a connector was booked."""
        self._window(book, now)
        cap = book.caps.daily_micros or 0
        spent = book.reported_micros + book.placed_micros
        crossed = _crossed(spent, cap) | (OVERSHOOT if spent > cap else 0)
        news = crossed & ~book.warned
        if news:
            book.warned |= crossed
            self._publish("day", book.connector, news, spent, cap, book.caps.currency)
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
            self._publish("allocation", allocation.campaign_id, news, spent, budget, allocation.currency)
        campaign_id, status = allocation.campaign_id, allocation.status(now)
        self._pen.submit(lambda connection: journal.write_warning(connection, campaign_id, crossed, status, now))

    def _window(self, book: Book, now: Instant) -> None:
        spent, cap = book.window.advance(now), book.window_cap()
        warned = self._window_warned.get(book.connector, 0)
        if spent < REARM_SHARE * cap:
            warned = 0
        crossed = _crossed(spent, cap)
        news = crossed & ~warned
        self._window_warned[book.connector] = warned | crossed
        if news:
            self._publish("window", book.connector, news, spent, cap, book.caps.currency)

    def _publish(self, scope: str, subject: str, news: int, spent: int, limit: int, currency: str) -> None:
        level = "overshoot" if news & OVERSHOOT else "critical" if news & 2 else "warning"
        self.tell(
            "budget",
            {
                "scope": scope,
                "subject": subject,
                "level": level,
                "spent_micros": spent,
                "limit_micros": limit,
                "currency": currency,
            },
        )


def _crossed(spent: int, limit: int) -> int:
    return sum(bit for bit, share in THRESHOLDS if limit > 0 and spent >= share * limit)
