"""The table of intents: what was meant for a platform and how it ended. The ledger's entries are the record of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kiki_agent.ledger.ledger import Ledger
from kiki_agent.model.intent import Intent, IntentKind
from kiki_agent.model.receipt import Outcome, Receipt
from kiki_agent.model.time import Instant

COLUMNS = (
    "key, kind, connector, campaign_id, before, after, currency, reason, at, cause,"
    " budget_id, ltv_micros, confidence_permille, note, basis"
)


@dataclass(frozen=True, slots=True)
class IntentRow:
    """An intent and what became of it."""

    intent: Intent
    sent_at: Instant
    state: str
    """pending, accepted, rejected or unknown."""
    outcome_reason: str
    vendor_ref: str
    settled_at: Instant | None


def journal(connection: sqlite3.Connection, ledger: Ledger, now: Instant, intents: Iterable[Intent]) -> None:
    """Write intents down before they are sent."""
    for intent in intents:
        connection.execute(
            f"INSERT INTO intents ({COLUMNS}, sent_at, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending')",
            (
                intent.key,
                intent.kind.value,
                intent.connector,
                intent.campaign_id,
                intent.before,
                intent.after,
                intent.currency,
                intent.reason,
                intent.at,
                intent.cause,
                intent.budget_id,
                intent.ltv_micros,
                intent.confidence_permille,
                intent.note,
                intent.basis,
                now,
            ),
        )
        body: dict[str, str | int] = {
            "after": intent.after,
            "at": intent.at,
            "before": intent.before,
            "campaign_id": intent.campaign_id,
            "cause": intent.cause,
            "connector": intent.connector,
            "currency": intent.currency,
            "key": intent.key,
            "kind": intent.kind.value,
            "reason": intent.reason,
        }
        for name in ("budget_id", "ltv_micros", "confidence_permille", "note"):
            value = getattr(intent, name)
            if value:
                body[name] = value
        if intent.kind is IntentKind.PLACE_BID:
            body["basis"] = intent.basis
        ledger.append(connection, now, "intent", body)


def confirm(
    connection: sqlite3.Connection, ledger: Ledger, now: Instant, intent: Intent, receipt: Receipt, *, read_back: bool
) -> bool:
    """Write down how an intent ended; False when it was settled already, and then nothing is written."""
    settled = receipt.outcome is not Outcome.UNKNOWN
    changed = connection.execute(
        "UPDATE intents SET state = ?, outcome_reason = ?, vendor_ref = ?, settled_at = ?"
        " WHERE key = ? AND state IN ('pending', 'unknown')",
        (receipt.outcome.value, receipt.reason, receipt.vendor_ref, now if settled else None, intent.key),
    ).rowcount
    if not changed:
        return False
    body = {
        "campaign_id": intent.campaign_id,
        "connector": intent.connector,
        "key": intent.key,
        "outcome": receipt.outcome.value,
        "read_back": read_back,
        "reason": receipt.reason,
        "vendor_ref": receipt.vendor_ref,
    }
    ledger.append(connection, now, "receipt", body)
    return True


def find(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Receipt]:
    """What is on record for keys that are known; a pending one counts as unknown."""
    known = {}
    for key in keys:
        row = connection.execute(
            "SELECT state, outcome_reason, vendor_ref FROM intents WHERE key = ?", (key,)
        ).fetchone()
        if row is not None:
            outcome = Outcome.UNKNOWN if row[0] == "pending" else Outcome(row[0])
            known[key] = Receipt(key, outcome, row[1], row[2])
    return known


def unsettled_rows(connection: sqlite3.Connection) -> list[IntentRow]:
    """Intents without a settling receipt, oldest first."""
    return _rows(connection, "state IN ('pending', 'unknown') ORDER BY sent_at, key", ())


def recent_rows(
    connection: sqlite3.Connection, since: Instant, kinds: Sequence[IntentKind], limit: int
) -> list[IntentRow]:
    """Intents sent since an instant, newest first; all kinds when none is named."""
    marks = ", ".join("?" * len(kinds))
    wanted = f"sent_at >= ? {f'AND kind IN ({marks})' if kinds else ''} ORDER BY sent_at DESC, key LIMIT ?"
    return _rows(connection, wanted, (since, *(kind.value for kind in kinds), limit))


def count_by_kind(connection: sqlite3.Connection, since: Instant) -> dict[IntentKind, int]:
    """How many intents of each kind were sent since an instant."""
    rows = connection.execute("SELECT kind, count(*) FROM intents WHERE sent_at >= ? GROUP BY kind", (since,))
    return {IntentKind(kind): count for kind, count in rows}


def _rows(connection: sqlite3.Connection, condition: str, arguments: tuple[str | int, ...]) -> list[IntentRow]:
    rows = connection.execute(
        f"SELECT {COLUMNS}, sent_at, state, outcome_reason, vendor_ref, settled_at FROM intents WHERE {condition}",
        arguments,
    ).fetchall()
    return [
        IntentRow(
            Intent(row[0], IntentKind(row[1]), *row[2:15]),
            Instant(row[15]),
            row[16],
            row[17],
            row[18],
            None if row[19] is None else Instant(row[19]),
        )
        for row in rows
    ]
