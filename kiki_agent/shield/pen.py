"""Writing down in order what the books say, without making anybody wait who need not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from kiki_agent.ledger import Ledger
from kiki_agent.model import MINUTE, Instant
from kiki_agent.shield import journal
from kiki_agent.shield.book import Book, Booked
from kiki_agent.shield.journal import DayState, Unwritten
from kiki_agent.store import Store

T = TypeVar("T")

WRITE_EVERY = 5 * MINUTE
"""Reports are written at most this often for each connector. What a crash loses of them the next report tells again,
and the lease covers the time between."""


class Pen:
    """Collects what reports change, and hands every write to the store in the order of the decisions.

    Trouble of disk and database is the store's to tell (`Store.failure`), and over when a commit succeeds.
    """

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self.store = store
        self.ledger = ledger
        self.failure: str | None = None
        """Why the last write of the shield failed though the store works; None once one has succeeded."""
        self._news: dict[str, Unwritten] = {}
        self._written_at: dict[str, int] = {}
        self._retry: asyncio.Future[None] | None = None

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Queue a write. Its failure is noted here as well, except when the database's own guard refused it."""
        future = self.store.submit(work)
        future.add_done_callback(self._note_outcome)
        return future

    def roll(self, book: Book, now: Instant) -> None:
        """Begin a new account day if it is time, after writing what the old one still owes."""
        if now < book.day_end:
            return
        if self._owes(book):
            self.flush(book, now)
        book.roll(now)

    def note(self, book: Book, booked: Booked) -> None:
        """Remember what a report changed."""
        news = self._news.setdefault(book.connector, Unwritten({}, []))
        for day, campaign, micros in booked.rows:
            news.rows[day, campaign] = micros
        news.records.extend(booked.window_records)

    def due(self, book: Book, now: Instant) -> bool:
        """Is it time to write what reports changed?"""
        last = self._written_at.get(book.connector)
        return last is None or not last <= now < last + WRITE_EVERY

    def flush(self, book: Book, now: Instant) -> asyncio.Future[None]:
        """Write a book and what its reports changed."""
        self._written_at[book.connector] = now
        news = self._news.pop(book.connector, None) or Unwritten({}, [])
        future = self.submit(partial(_write_spend, self.ledger, DayState.of(book, now), news))
        future.add_done_callback(partial(self._take_back, book.connector, news))
        return future

    def lease(self, books: Sequence[tuple[Book, int]], now: Instant) -> asyncio.Future[None]:
        """Write raised leases, all in one transaction."""
        states = [replace(DayState.of(book, now), lease_micros=lease) for book, lease in books]
        return self.submit(lambda connection: journal.write_leases(connection, self.ledger, states))

    def retry(self, books: Sequence[Book], now: Instant) -> None:
        """After a failure: try again, one try at a time, so that a cured database is noticed."""
        if self._retry is None or self._retry.done():
            self._retry = [self.flush(book, now) for book in books][-1] if books else None

    def _owes(self, book: Book) -> bool:
        news = self._news.get(book.connector)
        return news is not None and bool(news.rows or news.records)

    def _note_outcome(self, future: asyncio.Future[T]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self.failure = None
        elif not isinstance(error, sqlite3.IntegrityError) and self.store.failure is None:
            self.failure = f"{type(error).__name__}: {error}"

    def _take_back(self, connector: str, news: Unwritten, future: asyncio.Future[None]) -> None:
        """What could not be written is owed again, before what came later."""
        if future.cancelled() or future.exception() is None:
            return
        later = self._news.setdefault(connector, Unwritten({}, []))
        later.rows = news.rows | later.rows
        later.records = news.records + later.records
        self._written_at.pop(connector, None)


def _write_spend(ledger: Ledger, state: DayState, news: Unwritten, connection: sqlite3.Connection) -> None:
    journal.write_spend(connection, ledger, state, news)
