"""What the agent would do where people decide: one open suggestion per lever, or per shift between platforms."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kiki_agent.governor.changes import Change, from_json, to_json
from kiki_agent.ledger import Ledger
from kiki_agent.model import Instant

State = Literal["open", "approved", "declined", "stale", "expired", "replaced"]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Something the agent would do."""

    suggestion_id: str
    kind: Literal["change", "shift"]
    subject: str
    """What it is about; there is at most one open suggestion per subject."""
    connector: str
    why: str
    held_by: str
    """The reason code that keeps the agent from doing it by itself."""
    changes: tuple[Change, ...]
    facts: str
    """JSON that whoever suggested it needs to do it; `{}` for plain changes."""
    made_at: Instant
    expires_at: Instant
    state: State = "open"
    decided_by: str = ""
    decided_at: Instant | None = None
    note: str = ""


def suggestion_id(subject: str, made_at: int, what: str) -> str:
    """Id derived from the fact: 24 hexadecimal characters."""
    return hashlib.sha256(f"suggestion\x1f{subject}\x1f{made_at}\x1f{what}".encode()).hexdigest()[:24]


_COLUMNS = (
    "suggestion_id, kind, subject, connector, why, held_by, changes, facts, made_at, expires_at, state, decided_by,"
    " decided_at, note"
)


def insert(connection: sqlite3.Connection, ledger: Ledger, each: Suggestion) -> None:
    """Put a suggestion on record; the ledger keeps what would have been done."""
    connection.execute(
        f"INSERT INTO suggestions ({_COLUMNS}) VALUES ({', '.join('?' * 14)})",
        (
            each.suggestion_id,
            each.kind,
            each.subject,
            each.connector,
            each.why,
            each.held_by,
            to_json(each.changes),
            each.facts,
            each.made_at,
            each.expires_at,
            each.state,
            each.decided_by,
            each.decided_at,
            each.note,
        ),
    )
    _enter(connection, ledger, each, each.made_at)


def close(connection: sqlite3.Connection, ledger: Ledger, each: Suggestion) -> bool:
    """End a suggestion; False when it had ended already, and then nothing is written."""
    assert each.decided_at is not None
    changed = connection.execute(
        "UPDATE suggestions SET state = ?, decided_by = ?, decided_at = ?, note = ?"
        " WHERE suggestion_id = ? AND state = 'open'",
        (each.state, each.decided_by, each.decided_at, each.note, each.suggestion_id),
    ).rowcount
    if changed:
        _enter(connection, ledger, each, each.decided_at)
    return bool(changed)


def _enter(connection: sqlite3.Connection, ledger: Ledger, each: Suggestion, at: Instant) -> None:
    body: dict[str, object] = {
        "suggestion_id": each.suggestion_id,
        "subject": each.subject,
        "connector": each.connector,
        "state": each.state,
    }
    if each.state == "open":
        body |= {"why": each.why, "held_by": each.held_by, "changes": json.loads(to_json(each.changes))}
    else:
        body |= {"by": each.decided_by, "note": each.note}
    ledger.append(connection, at, "suggestion", body)


def read(connection: sqlite3.Connection, state: str | None, limit: int, offset: int) -> tuple[list[Suggestion], int]:
    """Suggestions, newest first, and how many there are in all."""
    where, given = ("WHERE state = ?", (state,)) if state else ("", ())
    total = connection.execute(f"SELECT count(*) FROM suggestions {where}", given).fetchone()[0]
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM suggestions {where} ORDER BY made_at DESC, suggestion_id LIMIT ? OFFSET ?",
        (*given, limit, offset),
    ).fetchall()
    return [_from_row(row) for row in rows], total


def read_one(connection: sqlite3.Connection, name: str) -> Suggestion | None:
    """A suggestion by its id."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM suggestions WHERE suggestion_id = ?", (name,)).fetchone()
    return None if row is None else _from_row(row)


def approved_shifts(connection: sqlite3.Connection) -> list[Suggestion]:
    """Approved shifts that were not begun yet, oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM suggestions WHERE kind = 'shift' AND state = 'approved' AND"
        " json_extract(facts, '$.shift_id') NOT IN (SELECT shift_id FROM shifts) ORDER BY decided_at, suggestion_id"
    )
    return [_from_row(row) for row in rows.fetchall()]


def declined(connection: sqlite3.Connection, after: int) -> list[Suggestion]:
    """What people declined after an instant, oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM suggestions WHERE state = 'declined' AND decided_at > ?"
        " ORDER BY decided_at, suggestion_id",
        (after,),
    )
    return [_from_row(row) for row in rows.fetchall()]


def prune(connection: sqlite3.Connection, before: int) -> int:
    """Forget suggestions that ended before an instant, and with them their links; how many.

    The ledger keeps what it was told of them. An approved shift that nobody has begun stays.
    """
    return connection.execute(
        "DELETE FROM suggestions WHERE state <> 'open' AND coalesce(decided_at, expires_at) < ? AND NOT"
        " (kind = 'shift' AND state = 'approved' AND json_extract(facts, '$.shift_id') NOT IN"
        " (SELECT shift_id FROM shifts))",
        (before,),
    ).rowcount


def _from_row(row: Sequence[object]) -> Suggestion:
    values = list(row)
    values[6] = from_json(str(values[6]))
    return Suggestion(*values)  # type: ignore[arg-type]


def ended(each: Suggestion, state: State, by: str, at: Instant, note: str = "") -> Suggestion:
    """The suggestion with its end."""
    return replace(each, state=state, decided_by=by, decided_at=at, note=note)
