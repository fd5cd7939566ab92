"""What the shield writes down: plain functions over a connection, run by the store's writer in the order submitted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from kiki_agent.ledger import Ledger
from kiki_agent.model import Instant
from kiki_agent.shield.allocations import Allocation
from kiki_agent.shield.book import Book
from kiki_agent.shield.permit import Permit


@dataclass(frozen=True, slots=True)
class DayState:
    """A connector's day as it is to be written."""

    connector: str
    day: str
    first_day_kept: str
    currency: str
    cap_micros: int | None
    reported_micros: int
    lease_micros: int
    overshoot_micros: int
    warned: int
    as_of: int
    window_start: int
    """Records of the window up to here are free and may go."""
    at: Instant

    @classmethod
    def of(cls, book: Book, now: Instant) -> DayState:
        """The present state of a book."""
        return cls(
            connector=book.connector,
            day=book.day,
            first_day_kept=book.day_before(book.day),
            currency=book.caps.currency,
            cap_micros=book.caps.daily_micros,
            reported_micros=book.reported_micros,
            lease_micros=book.lease_micros,
            overshoot_micros=book.overshoot(now),
            warned=book.warned,
            as_of=book.as_of,
            window_start=now - book.window.span,
            at=now,
        )


@dataclass(slots=True)
class Unwritten:
    """What a connector's reports changed since it was last written."""

    rows: dict[tuple[str, str], int]
    """(day, campaign) -> micros so far."""
    records: list[tuple[int, int]]
    """(instant, micros) of the window."""


def write_day(connection: sqlite3.Connection, state: DayState) -> None:
    """Bring a day's row up to date, and begin the day if it has none.

    Reservations and placed spend are left to their own writes, reported spend to `write_spend`, so that the rows of
    campaigns and their sum never part.
    """
    known = connection.execute(
        "SELECT 1 FROM spend_days WHERE connector = ? AND day = ?", (state.connector, state.day)
    ).fetchone()
    if known is None:
        connection.execute(
            "INSERT INTO spend_days (connector, day, currency, reported_micros, as_of, updated_at, reserved_micros)"
            " VALUES (?, ?, ?, ?, ?, ?,"
            " (SELECT coalesce(sum(amount_micros), 0) FROM reservations WHERE state = 'reserved' AND connector = ?))",
            (
                state.connector,
                state.day,
                state.currency,
                state.reported_micros,
                state.as_of,
                state.at,
                state.connector,
            ),
        )
        connection.execute(
            "DELETE FROM reported_spend WHERE connector = ? AND day < ?", (state.connector, state.first_day_kept)
        )
    connection.execute(
        "UPDATE spend_days SET currency = ?, cap_micros = ?, lease_micros = max(lease_micros, ?), warned = ?,"
        " updated_at = ? WHERE connector = ? AND day = ?",
        (state.currency, state.cap_micros, state.lease_micros, state.warned, state.at, state.connector, state.day),
    )


def write_spend(connection: sqlite3.Connection, ledger: Ledger, state: DayState, news: Unwritten) -> None:
    """Write what reports changed: the day, the campaigns, the window, and one ledger row for all of it."""
    write_day(connection, state)
    connection.execute(
        "UPDATE spend_days SET reported_micros = ?, as_of = ? WHERE connector = ? AND day = ?",
        (state.reported_micros, state.as_of, state.connector, state.day),
    )
    connection.executemany(
        "INSERT INTO reported_spend (connector, day, campaign_id, spend_micros) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (connector, day, campaign_id) DO UPDATE SET spend_micros = excluded.spend_micros",
        [(state.connector, day, campaign, micros) for (day, campaign), micros in news.rows.items()],
    )
    _write_window(connection, state, [(at, micros, "") for at, micros in news.records])
    if not news.rows and not news.records:
        return
    ledger.append(
        connection,
        state.at,
        "spend",
        {
            "connector": state.connector,
            "day": state.day,
            "reported_micros": state.reported_micros,
            "overshoot_micros": state.overshoot_micros,
            "as_of": state.as_of,
            "currency": state.currency,
        },
    )


def write_leases(connection: sqlite3.Connection, ledger: Ledger, states: Iterable[DayState]) -> None:
    """Make raised leases durable."""
    for state in states:
        write_day(connection, state)
        ledger.append(
            connection,
            state.at,
            "lease",
            {
                "connector": state.connector,
                "day": state.day,
                "lease_micros": state.lease_micros,
                "reported_micros": state.reported_micros,
                "currency": state.currency,
            },
        )


def write_last_lease(connection: sqlite3.Connection, connector: str, day: str, lease_micros: int) -> None:
    """At an orderly end: give back what no exposure needs, so that the next start presumes less."""
    connection.execute(
        "UPDATE spend_days SET lease_micros = min(lease_micros, ?) WHERE connector = ? AND day = ?",
        (lease_micros, connector, day),
    )


def write_reservation(
    connection: sqlite3.Connection, ledger: Ledger, state: DayState, permit: Permit, platform: str
) -> None:
    """Set an amount aside. The triggers refuse what passes a day's cap or an allocation."""
    write_day(connection, state)
    connection.execute(
        "UPDATE spend_days SET reserved_micros = reserved_micros + ? WHERE connector = ? AND day = ?",
        (permit.amount_micros, state.connector, state.day),
    )
    connection.execute(
        "INSERT INTO reservations (sequence, reservation_id, connector, campaign_id, amount_micros, basis, allocated,"
        " expires_at, state, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'reserved', ?)",
        (
            permit.sequence,
            permit.reservation_id,
            permit.connector,
            permit.campaign_id,
            permit.amount_micros,
            permit.basis,
            int(permit.allocated),
            permit.expires_at,
            permit.at,
        ),
    )
    if permit.allocated:
        _move_allocation(
            connection, permit, "reserve", permit.amount_micros, 0, permit.amount_micros, platform, state.at
        )
    _enter_permit(connection, ledger, permit, "reserved", 0, state.at)


def write_settlement(
    connection: sqlite3.Connection,
    ledger: Ledger,
    state: DayState,
    permit: Permit,
    spent_micros: int | None,
    platform: str,
    *,
    expired: bool = False,
) -> None:
    """End a reservation: released or expired when `spent_micros` is None, else committed with what it cost."""
    write_day(connection, state)
    spent = spent_micros or 0
    outcome = "released" if spent_micros is None else "committed"
    settled = connection.execute(
        "UPDATE reservations SET state = ?, spent_micros = ?, settled_at = ? WHERE sequence = ? AND state = 'reserved'",
        (outcome, spent, state.at, permit.sequence),
    ).rowcount
    if not settled:  # its reservation was refused or undone, and so there is nothing to end
        return
    connection.execute(
        "UPDATE spend_days SET reserved_micros = reserved_micros - ?, placed_micros = placed_micros + ?"
        " WHERE connector = ? AND day = ?",
        (permit.amount_micros, spent, state.connector, state.day),
    )
    _write_window(connection, state, [(state.at, spent, permit.reservation_id)] if spent else [])
    if permit.allocated:
        kind = "release" if spent_micros is None else "commit"
        amount = permit.amount_micros if spent_micros is None else spent
        _move_allocation(connection, permit, kind, amount, spent, -permit.amount_micros, platform, state.at)
    _enter_permit(connection, ledger, permit, "expired" if expired else outcome, spent, state.at)


def write_allocation(connection: sqlite3.Connection, ledger: Ledger, allocation: Allocation, now: Instant) -> None:
    """Write a new or changed allocation; what is spent and reserved is left to its transactions."""
    connection.execute(
        "INSERT INTO budget_allocations (campaign_id, budget_micros, currency, pacing, start_at, end_at, status,"
        " warned, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (campaign_id) DO UPDATE SET"
        " budget_micros = excluded.budget_micros, pacing = excluded.pacing, start_at = excluded.start_at,"
        " end_at = excluded.end_at, status = excluded.status, updated_at = excluded.updated_at",
        (
            allocation.campaign_id,
            allocation.budget_micros,
            allocation.currency,
            allocation.pacing,
            allocation.start_at,
            allocation.end_at,
            _stored(allocation.status(now)),
            allocation.warned,
            allocation.created_at,
            now,
        ),
    )
    ledger.append(
        connection,
        now,
        "control",
        {
            "control": "allocation",
            "campaign_id": allocation.campaign_id,
            "budget_micros": allocation.budget_micros,
            "currency": allocation.currency,
        },
    )


def write_warning(connection: sqlite3.Connection, campaign_id: str, warned: int, status: str, now: Instant) -> None:
    """Remember that a threshold was told, so that it is told once."""
    connection.execute(
        "UPDATE budget_allocations SET warned = ?, status = ?, last_warning_at = ? WHERE campaign_id = ?",
        (warned, _stored(status), now, campaign_id),
    )


def _stored(status: str) -> str:
    """The row's word for a status: it has none for an allocation that has yet to begin, which its start tells."""
    return "active" if status == "scheduled" else status


def write_control(
    connection: sqlite3.Connection,
    ledger: Ledger,
    control: str,
    is_on: bool,
    reason: str,
    now: Instant,
    set_by: str = "",
) -> None:
    """Write a switch and who or what threw it."""
    connection.execute(
        "INSERT INTO shield_controls (control, is_on, reason, at, set_by) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (control) DO UPDATE SET is_on = excluded.is_on, reason = excluded.reason, at = excluded.at,"
        " set_by = excluded.set_by",
        (control, int(is_on), reason, now, set_by),
    )
    body = {"control": control, "on": is_on, "reason": reason}
    ledger.append(connection, now, "control", body | {"by": set_by} if set_by else body)


def write_caps(connection: sqlite3.Connection, ledger: Ledger, state: DayState, window_micros: int | None) -> None:
    """Write changed caps."""
    write_day(connection, state)
    ledger.append(
        connection,
        state.at,
        "control",
        {
            "control": "caps",
            "connector": state.connector,
            "daily_micros": state.cap_micros,
            "window_micros": window_micros,
            "currency": state.currency,
        },
    )


def _write_window(connection: sqlite3.Connection, state: DayState, records: list[tuple[int, int, str]]) -> None:
    connection.execute(
        "DELETE FROM spend_window WHERE connector_id = ? AND at <= ?", (state.connector, state.window_start)
    )
    connection.executemany(
        "INSERT INTO spend_window (connector_id, at, amount_micros, decision_id) VALUES (?, ?, ?, ?)",
        [(state.connector, at, micros, decision) for at, micros, decision in records],
    )


def _move_allocation(
    connection: sqlite3.Connection,
    permit: Permit,
    kind: str,
    amount: int,
    spent_delta: int,
    reserved_delta: int,
    platform: str,
    at: Instant,
) -> None:
    row = connection.execute(
        "UPDATE budget_allocations SET spent_micros = spent_micros + ?, reserved_micros = reserved_micros + ?,"
        " updated_at = ? WHERE campaign_id = ? RETURNING budget_micros - spent_micros - reserved_micros",
        (spent_delta, reserved_delta, at, permit.campaign_id),
    ).fetchone()
    connection.execute(
        "INSERT INTO budget_transactions (transaction_id, campaign_id, platform, kind, amount_micros,"
        " spent_delta_micros, reserved_delta_micros, reservation_id, balance_after_micros, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            f"{permit.reservation_id}-{kind}",
            permit.campaign_id,
            platform,
            kind,
            amount,
            spent_delta,
            reserved_delta,
            permit.reservation_id,
            row[0],
            at,
        ),
    )


def _enter_permit(
    connection: sqlite3.Connection, ledger: Ledger, permit: Permit, state: str, spent: int, at: Instant
) -> None:
    ledger.append(
        connection,
        at,
        "permit",
        {
            "reservation_id": permit.reservation_id,
            "connector": permit.connector,
            "campaign_id": permit.campaign_id,
            "amount_micros": permit.amount_micros,
            "basis": permit.basis,
            "state": state,
            "spent_micros": spent,
        },
    )
