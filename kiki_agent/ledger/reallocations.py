"""The log of budget shifts: append-only, with a chain of its own (LED-01, LED-02)."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass

from kiki_agent.ledger.canonical import GENESIS, canonical
from kiki_agent.model.time import SECOND

_COLUMNS = (
    "client_id, from_platform, to_platform, amount_shifted_micros, currency, from_efficiency, to_efficiency, reason,"
    " timestamp, run_id, notification_id"
)


@dataclass(frozen=True, slots=True)
class Reallocation:
    """One shift of daily budget between two platforms."""

    client_id: str
    from_platform: str
    """Upper-case name of the RPC messages, for example `PLATFORM_META`."""
    to_platform: str
    amount_shifted_micros: int
    currency: str
    from_efficiency: float
    to_efficiency: float
    reason: str
    timestamp: int
    """Seconds since 1970 UTC."""
    run_id: str | None = None
    notification_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReallocationRow(Reallocation):
    """A shift as the log holds it."""

    id: int = 0
    hash: str = ""


def record_reallocation(connection: sqlite3.Connection, reallocation: Reallocation) -> int:
    """Add a shift to the log inside the caller's transaction; its number. Raises ValueError (empty client, amount)."""
    if not reallocation.client_id:
        raise ValueError("a reallocation needs a client_id")
    if reallocation.amount_shifted_micros <= 0:
        raise ValueError(f"a reallocation moves a positive amount, was {reallocation.amount_shifted_micros} micros")
    last = connection.execute("SELECT id, hash FROM budget_reallocation_log ORDER BY id DESC LIMIT 1").fetchone()
    number, previous = (1, GENESIS.hex()) if last is None else (last[0] + 1, last[1])
    values = _values(reallocation)
    created_at = reallocation.timestamp * SECOND
    digest = _row_hash(previous, (number, *values, created_at))
    connection.execute(
        f"INSERT INTO budget_reallocation_log (id, {_COLUMNS}, created_at, prev_hash, hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (number, *values, created_at, previous, digest),
    )
    return number


def list_reallocations(
    connection: sqlite3.Connection, *, client_id: str | None = None, limit: int = 50, offset: int = 0
) -> tuple[list[ReallocationRow], int]:
    """Rows, newest first, and how many there are in all."""
    where, arguments = ("", ()) if client_id is None else (" WHERE client_id = ?", (client_id,))
    total = connection.execute(f"SELECT count(*) FROM budget_reallocation_log{where}", arguments).fetchone()[0]
    rows = connection.execute(
        f"SELECT {_COLUMNS}, id, hash FROM budget_reallocation_log{where} ORDER BY id DESC LIMIT ? OFFSET ?",
        (*arguments, limit, offset),
    ).fetchall()
    return [ReallocationRow(*row) for row in rows], total


class ReallocationWalk:
    """A walk along the log's chain; `anchor` is a (number, hash) it must contain, number 0 for none."""

    def __init__(self, anchor: tuple[int, str] | None = None) -> None:
        self.id = 0
        self.hash = GENESIS.hex()
        self.problem = ""
        self._anchor = anchor if anchor is not None and anchor[0] > 0 else None

    def walk(self, connection: sqlite3.Connection) -> None:
        """Walk to the end, or to the first row that is wrong. Raises sqlite3.DatabaseError."""
        for row in connection.execute(
            f"SELECT id, {_COLUMNS}, created_at, prev_hash, hash FROM budget_reallocation_log ORDER BY id"
        ):
            expected = self.id + 1
            if row[0] != expected:
                self.problem = f"reallocation {expected} is missing"
                return
            if row[-2] != self.hash or row[-1] != _row_hash(self.hash, row[:-2]):
                self.problem = f"reallocation {expected} was changed: its hash does not fit"
                return
            if self._anchor is not None and expected == self._anchor[0] and row[-1] != self._anchor[1]:
                self.problem = f"reallocation {expected} is not the one known outside the ledger"
                return
            self.id, self.hash = expected, row[-1]
        if self._anchor is not None and self.id < self._anchor[0]:
            self.problem = (
                f"the reallocation log ends at {self.id}, but {self._anchor[0]} is known to have been written"
            )


def _values(reallocation: Reallocation) -> tuple[str | int | float | None, ...]:
    return (
        reallocation.client_id,
        reallocation.from_platform,
        reallocation.to_platform,
        reallocation.amount_shifted_micros,
        reallocation.currency,
        float(reallocation.from_efficiency),
        float(reallocation.to_efficiency),
        reallocation.reason,
        reallocation.timestamp,
        reallocation.run_id,
        reallocation.notification_id,
    )


_NAMES = ("id", *_COLUMNS.replace(" ", "").split(","), "created_at")


def _row_hash(previous: str, values: tuple[object, ...]) -> str:
    """SHA-256 of the previous hash and the canonical JSON of the row; efficiencies enter as text of six decimals."""
    row = {
        name: f"{value:.6f}" if isinstance(value, float) else value for name, value in zip(_NAMES, values, strict=True)
    }
    return hashlib.sha256(previous.encode() + canonical(row)).hexdigest()
