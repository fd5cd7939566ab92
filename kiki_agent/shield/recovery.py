"""Rebuilding the books from the journal at start."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from kiki_agent.model import Instant, day_bounds
from kiki_agent.shield.allocations import Allocation
from kiki_agent.shield.book import Book, Caps
from kiki_agent.shield.permit import Permit


@dataclass(slots=True)
class Recovered:
    """What the journal says."""

    books: dict[str, Book]
    """Of the connectors asked for, and of those that open permits name."""
    open_permits: dict[str, Permit] = field(default_factory=dict)
    """Reservations that have not ended; they stay reserved."""
    allocations: dict[str, Allocation] = field(default_factory=dict)
    sequence: int = 0
    killed: bool = False
    kill_reason: str = ""
    kill_at: Instant | None = None
    kill_by: str = ""


def recover(connection: sqlite3.Connection, connectors: Mapping[str, Caps], span: int, now: Instant) -> Recovered:
    """Read everything the shield has to know."""
    found = Recovered(
        {connector: _book(connection, connector, caps, span, now) for connector, caps in connectors.items()}
    )
    for row in connection.execute(
        "SELECT reservation_id, sequence, connector, campaign_id, amount_micros, at, basis, allocated,"
        " expires_at FROM reservations"
        " WHERE state = 'reserved' ORDER BY sequence"
    ):
        key, sequence, connector, campaign, micros, at, basis, allocated, expires_at = row
        permit = Permit(key, sequence, connector, campaign, micros, at, basis, bool(allocated), expires_at)
        found.open_permits[permit.reservation_id] = permit
        if permit.connector not in found.books:  # no longer configured: it can be settled, and nothing else
            found.books[permit.connector] = _book(connection, permit.connector, Caps(None, None), span, now)
        found.books[permit.connector].reserve(permit.amount_micros)
    for row in connection.execute(
        "SELECT campaign_id, budget_micros, currency, created_at, updated_at, spent_micros, reserved_micros, pacing,"
        " start_at, end_at, warned FROM budget_allocations"
    ):
        found.allocations[row[0]] = Allocation(*row)
    found.sequence = connection.execute("SELECT coalesce(max(sequence), 0) FROM reservations").fetchone()[0]
    switch = connection.execute(
        "SELECT is_on, reason, at, set_by FROM shield_controls WHERE control = 'kill_switch'"
    ).fetchone()
    for control, reason in connection.execute(
        "SELECT control, reason FROM shield_controls WHERE control LIKE 'freeze:%' AND is_on = 1"
    ).fetchall():
        book = found.books.get(control.removeprefix("freeze:"))
        if book is not None:
            book.frozen = reason
    if switch is not None:
        found.killed, found.kill_reason = bool(switch[0]), switch[1]
        found.kill_at, found.kill_by = Instant(switch[2]), switch[3]
    return found


def _book(connection: sqlite3.Connection, connector: str, caps: Caps, span: int, now: Instant) -> Book:
    book = Book(connector, caps, span, now)
    day = connection.execute(
        "SELECT day, reported_micros, placed_micros, lease_micros, warned, as_of FROM spend_days WHERE connector = ?"
        " ORDER BY day DESC LIMIT 1",
        (connector,),
    ).fetchone()
    if day is None:
        return book
    book.day = day[0]
    book.day_end = day_bounds(book.day, caps.timezone)[1]
    book.reported_micros, book.placed_micros, book.lease_micros, book.warned, book.as_of = day[1:]
    book.reported = {book.day: {}}
    for row_day, campaign, micros in connection.execute(
        "SELECT day, campaign_id, spend_micros FROM reported_spend WHERE connector = ?", (connector,)
    ):
        book.reported.setdefault(row_day, {})[campaign] = micros
    book.window.advance(now)  # first: a record from before the clock jumped back must not drive out later ones
    for at, micros in connection.execute(
        "SELECT at, amount_micros FROM spend_window WHERE connector_id = ? AND at > ? ORDER BY at, id",
        (connector, now - span),
    ):
        book.window.insert(at, micros)
    book.presume(now)
    book.roll(now)
    return book
