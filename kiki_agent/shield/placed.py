"""Placed permits: reserve with the bid, then commit what it cost or release it.

All checks of one bid are made first and then all amounts are taken, with nothing in between that could wait, so
concurrent bids see each other. A permit is handed out when its reservation is durable.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Mapping
from functools import partial

from kiki_agent.errors import Denied
from kiki_agent.model import Instant
from kiki_agent.model.money import MAX_MICROS
from kiki_agent.shield import journal
from kiki_agent.shield.book import Book
from kiki_agent.shield.bounds import Bound, Exceeded, tightest
from kiki_agent.shield.journal import DayState
from kiki_agent.shield.pen import Pen
from kiki_agent.shield.permit import Permit
from kiki_agent.shield.reasons import Refusal
from kiki_agent.shield.recovery import Recovered
from kiki_agent.shield.total import Total
from kiki_agent.shield.watch import Watch


class Placed:
    """Reservations over connectors and allocations."""

    def __init__(
        self,
        recovered: Recovered,
        platforms: Mapping[str, str],
        pen: Pen,
        watch: Watch,
        stopped: Callable[[], Denied | None],
        total: Total,
    ) -> None:
        self._books = recovered.books
        self._allocations = recovered.allocations
        self._open = recovered.open_permits
        self._sequence = recovered.sequence
        self._platforms = platforms
        self._pen = pen
        self._watch = watch
        self._stopped = stopped
        self._total = total
        self._next_expiry = min((each.expires_at for each in self._open.values() if each.expires_at), default=None)

    def peek(self, connector: str, campaign_id: str, amount: int, now: Instant, basis: str) -> Book:
        """Would an amount be permitted? Raises Denied; takes nothing."""
        if type(amount) is not int or not 0 <= amount <= MAX_MICROS:
            raise Denied(Refusal.BAD_INPUT, f"an amount is between 0 and {MAX_MICROS} micros, was {amount}")
        if basis != "not_personal" and not (basis.startswith("consent:") and len(basis) > len("consent:")):
            raise Denied(Refusal.CONSENT, f"no legal basis for a bid in {campaign_id}: {basis[:60]!r}")
        stop = self._stopped()
        if stop is not None:
            raise stop
        book = self._books.get(connector)
        if book is None:
            raise Denied(Refusal.UNKNOWN_CONNECTOR, f"there is no connector {connector[:60]!r}")
        if book.caps.daily_micros is None:
            raise Denied(Refusal.NO_CAP, f"{connector} has no daily cap, so it may spend nothing")
        if book.frozen is not None:
            raise Denied(Refusal.ANOMALY, f"{connector} is frozen: {book.frozen}")
        self._pen.roll(book, now)
        short = book.shortage(amount, now)
        if short == "overshoot":
            raise Exceeded(Refusal.OVERSHOOT, amount, tightest(book.bounds(now, amount)))
        if short is not None or any(amount > bound.remaining_micros for bound in self._total.bounds(now)):
            raise Exceeded(Refusal.BUDGET_EXCEEDED, amount, tightest(self._bounds(book, campaign_id, now, amount)))
        allocation = self._allocations.get(campaign_id)
        if allocation is not None:
            refusal = allocation.refusal(amount, book.caps.currency, now)
            if refusal is not None:
                raise refusal
        return book

    def tightest(self, connector: str, campaign_id: str, now: Instant) -> Bound:
        """The bound with the least left for one more bid of a campaign; negative after an overshoot."""
        return tightest(self._bounds(self._books[connector], campaign_id, now))

    def _bounds(self, book: Book, campaign_id: str, now: Instant, wanted: int | None = None) -> list[Bound]:
        bounds = [*book.bounds(now, wanted), *self._total.bounds(now, wanted)]
        allocation = self._allocations.get(campaign_id)
        if allocation is not None and allocation.currency == book.caps.currency:
            bounds += allocation.bounds(now, wanted)
        return bounds

    async def place(
        self,
        connector: str,
        campaign_id: str,
        amount: int,
        now: Instant,
        basis: str,
        expires_at: Instant | None = None,
    ) -> Permit:
        """Reserve, durably. Raises Denied. Cancelled while waiting, it gives the amount back."""
        book = self.peek(connector, campaign_id, amount, now, basis)
        if amount == 0:
            raise Denied(Refusal.BAD_INPUT, "a permit is for an amount above 0")
        allocation = self._allocations.get(campaign_id)
        permit = self._permit(connector, campaign_id, amount, now, basis, allocation is not None, expires_at)
        if expires_at is not None:
            self._next_expiry = min(self._next_expiry or expires_at, expires_at)
        book.reserve(amount)
        if allocation is not None:
            allocation.reserved_micros += amount
        self._open[permit.reservation_id] = permit
        state, platform = DayState.of(book, now), self._platforms.get(connector, connector)
        written = self._pen.submit(partial(_write_reservation, self._pen, state, permit, platform))
        try:
            await written
        except asyncio.CancelledError:
            self._settle(permit, None, now)
            raise
        except Exception as error:
            self._forget(permit)
            if isinstance(error, sqlite3.IntegrityError):
                message = f"the database's own guard refused {amount} micros: {error}"
                raise Denied(Refusal.BUDGET_EXCEEDED, message) from error
            raise Denied(Refusal.SAFE_HOLD, f"the reservation could not be written: {error}") from error
        return permit

    async def commit(self, permit: Permit, now: Instant, spent: int) -> None:
        """Book what a permit cost; also above its amount, because it is spent. Raises Denied when it has ended."""
        if type(spent) is not int or not 0 <= spent <= MAX_MICROS:
            raise Denied(Refusal.BAD_INPUT, f"a cost is between 0 and {MAX_MICROS} micros, was {spent}")
        await self._settle(permit, spent, now)

    async def release(self, permit: Permit, now: Instant) -> None:
        """Give back an amount that was not spent. Raises Denied when the permit has ended."""
        await self._settle(permit, None, now)

    def expire(self, now: Instant) -> int:
        """Give back what nobody came back for in time; how many. Costs a comparison while nothing is due."""
        if self._next_expiry is None or now < self._next_expiry:
            return 0
        due = [each for each in self._open.values() if each.expires_at is not None and each.expires_at <= now]
        for permit in due:
            self._settle(permit, None, now, expired=True)
        self._next_expiry = min((each.expires_at for each in self._open.values() if each.expires_at), default=None)
        return len(due)

    def find(self, reservation_id: str) -> Permit:
        """An open permit by its id. Raises Denied."""
        permit = self._open.get(reservation_id)
        if permit is None:
            raise Denied(Refusal.NOT_FOUND, f"there is no open reservation {reservation_id[:64]!r}")
        return permit

    def open_permits(self) -> list[Permit]:
        """Open permits, oldest first."""
        return sorted(self._open.values(), key=lambda permit: permit.sequence)

    def _settle(
        self, permit: Permit, spent: int | None, now: Instant, *, expired: bool = False
    ) -> asyncio.Future[None]:
        if self._open.get(permit.reservation_id) != permit:
            raise Denied(Refusal.CONFLICT, f"reservation {permit.reservation_id} has ended already")
        book = self._books[permit.connector]
        self._pen.roll(book, now)
        self._forget(permit)
        allocation = self._allocations.get(permit.campaign_id) if permit.allocated else None
        if spent:
            book.spend(spent, now)
            if allocation is not None:
                allocation.spent_micros += spent
        if allocation is not None:
            allocation.updated_at = now
        state, platform = DayState.of(book, now), self._platforms.get(permit.connector, permit.connector)
        written = self._pen.submit(partial(_write_settlement, self._pen, state, permit, spent, platform, expired))
        if spent:
            self._watch.spent(book, now)
            if allocation is not None:
                self._watch.allocated(allocation, now)
        return written

    def _forget(self, permit: Permit) -> None:
        del self._open[permit.reservation_id]
        self._books[permit.connector].release(permit.amount_micros)
        if permit.allocated:
            self._allocations[permit.campaign_id].reserved_micros -= permit.amount_micros

    def _permit(
        self,
        connector: str,
        campaign_id: str,
        amount: int,
        now: Instant,
        basis: str,
        allocated: bool,
        expires_at: Instant | None,
    ) -> Permit:
        self._sequence += 1
        fact = "\x1f".join(("permit", connector, campaign_id, str(amount), str(now), str(self._sequence)))
        key = hashlib.sha256(fact.encode()).hexdigest()[:32]
        return Permit(key, self._sequence, connector, campaign_id, amount, now, basis, allocated, expires_at)


def _write_reservation(
    pen: Pen, state: DayState, permit: Permit, platform: str, connection: sqlite3.Connection
) -> None:
    journal.write_reservation(connection, pen.ledger, state, permit, platform)


def _write_settlement(
    pen: Pen,
    state: DayState,
    permit: Permit,
    spent: int | None,
    platform: str,
    expired: bool,
    connection: sqlite3.Connection,
) -> None:
    journal.write_settlement(connection, pen.ledger, state, permit, spent, platform, expired=expired)
