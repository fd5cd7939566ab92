"""The SQL of consents; the ledger's entries are the history of the same."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kiki_agent.consent.statements import Consent, ConsentType, Source, Statement, Status, follow
from kiki_agent.errors import StoreError
from kiki_agent.ledger import Ledger
from kiki_agent.ledger.segments import PERSONAL, BadSegment, sealed_entries
from kiki_agent.model import Instant

_COLUMNS = (
    "subject, consent_type, status, source, consent_id, generation, said_at, granted_at, revoked_at, expires_at,"
    " vendors, version, legal_basis, evidence"
)
Entry = tuple[int, Instant, str, dict[str, object]]
"""Number, instant, kind and body of a ledger entry."""
Granted = tuple[str, str, str, int | None, str | None]
"""Subject, type, id, expiry and vendors (JSON) of a grant."""
_SUBJECT = "json_extract(body, '$.subject')"
"""Spelled as in the index of the ledger's entries about a subject."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a statement did."""

    new: Consent | None
    """What is in force now; None when the statement was older and changed nothing."""
    ended: str | None = None
    """Id of the grant that is in force no more."""
    seq: int = 0
    """Number of its ledger entry."""


def say(
    connection: sqlite3.Connection,
    ledger: Ledger,
    subject: str,
    statements: list[tuple[Statement, str]],
    now: Instant,
    salt: str,
) -> list[Said]:
    """Put statements, each with its sealed evidence, into force and on record.

    Raises sqlite3.IntegrityError when the subject was erased meanwhile.
    """
    done: list[Said] = []
    for said, evidence in statements:
        old = find(connection, subject).get(said.consent_type)
        new = follow(old, said, subject, evidence, now, salt)
        if new is None:
            done.append(Said(None))
            continue
        marks = ", ".join("?" * 15)
        connection.execute(f"INSERT OR REPLACE INTO consents ({_COLUMNS}, updated_at) VALUES ({marks})", _row(new, now))
        seq = ledger.append(connection, now, "consent", _body(new))
        done.append(Said(new, old.consent_id if old is not None and old.status is Status.GRANTED else None, seq))
    return done


def stands(connection: sqlite3.Connection, seq: int, consent_id: str) -> bool:
    """Whether an entry of the ledger is the statement it was when it was written."""
    row = connection.execute(
        "SELECT json_extract(body, '$.consent_id') FROM ledger_entries WHERE seq = ? AND kind = 'consent'", (seq,)
    ).fetchone()
    return row is not None and row[0] == consent_id


def find(connection: sqlite3.Connection, subject: str) -> dict[ConsentType, Consent]:
    """What is in force for a subject."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM consents WHERE subject = ?", (subject,)).fetchall()
    return {each.consent_type: each for each in map(_consent, rows)}


def granted(connection: sqlite3.Connection, now: Instant, limit: int, offset: int) -> list[Granted]:
    """Grants that hold at `now`, the newest first."""
    return connection.execute(
        "SELECT subject, consent_type, consent_id, expires_at, vendors FROM consents INDEXED BY consents_granted"
        " WHERE status = 'GRANTED' AND (expires_at IS NULL OR expires_at > ?)"
        " ORDER BY updated_at DESC, subject DESC, consent_type DESC LIMIT ? OFFSET ?",
        (now, limit, offset),
    ).fetchall()


def vendors_of(text: str) -> tuple[int, ...]:
    """Vendor ids as they are stored."""
    return msgspec.json.decode(text, type=tuple[int, ...])


def counts(connection: sqlite3.Connection, now: Instant) -> dict[str, int]:
    """How many statements in force are of each status; a grant that ran out counts as EXPIRED."""
    rows = connection.execute(
        "SELECT CASE WHEN status = 'GRANTED' AND expires_at <= ? THEN 'EXPIRED' ELSE status END, count(*)"
        " FROM consents GROUP BY 1",
        (now,),
    )
    return dict(rows.fetchall())


def history(connection: sqlite3.Connection, subject: str) -> list[Entry]:
    """Ledger entries about a subject, oldest first, what was sealed and not dropped by age included. Raises StoreError.

    Sealed entries stand in no index: their files are read one after the other.
    """
    found: list[Entry] = []
    hot = connection.execute("SELECT min(seq) FROM ledger_entries").fetchone()[0]
    try:
        for seq, at, kind, text in sealed_entries(connection, PERSONAL, ("consent", "privacy")):
            if hot is None or seq < hot:
                body = msgspec.json.decode(text, type=dict)
                if body.get("subject") == subject:
                    found.append((seq, Instant(at), kind, body))
    except BadSegment as bad:
        raise StoreError(f"the record about this person is not whole: {bad}") from bad
    rows = connection.execute(
        "SELECT seq, at, kind, body FROM ledger_entries"
        f" WHERE kind IN ('consent', 'privacy') AND {_SUBJECT} = ? ORDER BY seq",
        (subject,),
    ).fetchall()
    return found + [(seq, Instant(at), kind, msgspec.json.decode(body)) for seq, at, kind, body in rows]


def _row(new: Consent, now: Instant) -> tuple[object, ...]:
    return (
        new.subject,
        new.consent_type.value,
        new.status.value,
        new.source.value,
        new.consent_id,
        new.generation,
        new.said_at,
        new.granted_at,
        new.revoked_at,
        new.expires_at,
        None if new.vendors is None else msgspec.json.encode(new.vendors).decode(),
        new.version,
        new.legal_basis,
        new.evidence,
        now,
    )


def _consent(row: tuple[Any, ...]) -> Consent:
    return Consent(
        subject=row[0],
        consent_type=ConsentType(row[1]),
        status=Status(row[2]),
        source=Source(row[3]),
        consent_id=row[4],
        generation=row[5],
        said_at=row[6],
        granted_at=row[7],
        revoked_at=row[8],
        expires_at=row[9],
        vendors=None if row[10] is None else vendors_of(row[10]),
        version=row[11],
        legal_basis=row[12],
        evidence=row[13],
    )


def _body(new: Consent) -> Mapping[str, object]:
    """What was said; who said it only as a token, and what shows it only as ciphertext."""
    return {
        "consent_id": new.consent_id,
        "consent_type": new.consent_type.value,
        "evidence": new.evidence,
        "expires_at": new.expires_at,
        "legal_basis": new.legal_basis,
        "source": new.source.value,
        "status": new.status.value,
        "subject": new.subject,
        "vendors": None if new.vendors is None else list(new.vendors),
        "version": new.version,
    }
