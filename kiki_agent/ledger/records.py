"""What was done, read back for people."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from kiki_agent.ledger.decisions import first_since
from kiki_agent.ledger.intents import IntentRow, count_by_kind, find, recent_rows
from kiki_agent.ledger.reallocations import ReallocationRow, list_reallocations
from kiki_agent.model.intent import IntentKind
from kiki_agent.model.receipt import Receipt
from kiki_agent.model.time import Instant
from kiki_agent.store import Store

AUDITED = ("consent", "privacy", "control")
"""Kinds of entries an auditor asks for."""
AUDITED_KINDS = "kind IN ('consent', 'privacy', 'control')"
"""Spelled as in the index of these entries."""


class Records:
    """Questions about shifts and changes; reads only."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def reallocations(
        self, *, client_id: str | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[list[ReallocationRow], int]:
        """Shifts of budget, newest first, and how many there are in all (LED-02)."""
        return await self._store.read(
            lambda connection: list_reallocations(connection, client_id=client_id, limit=limit, offset=offset)
        )

    async def intents(self, *, since: Instant, kinds: Sequence[IntentKind] = (), limit: int = 50) -> list[IntentRow]:
        """Changes sent to platforms since an instant, newest first; all kinds when none is named."""
        return await self._store.read(lambda connection: recent_rows(connection, since, kinds, limit))

    async def receipt(self, key: str) -> Receipt | None:
        """What is on record for the key of an intent; `unknown` while it is under way, None when there is none."""
        return (await self._store.read(lambda connection: find(connection, [key]))).get(key)

    async def counts(self, *, since: Instant) -> dict[IntentKind, int]:
        """How many changes of each kind were sent to platforms since an instant."""
        return await self._store.read(lambda connection: count_by_kind(connection, since))

    async def audit(
        self, kinds: Sequence[str], since: Instant | None, limit: int, offset: int
    ) -> tuple[list[tuple[int, Instant, str, dict[str, object]]], int]:
        """Entries about people and orders (`AUDITED`), newest first: number, instant, kind, body; and how many.

        `kinds` are some of `AUDITED`; all of them when none is named.
        """
        return await self._store.read(lambda connection: _audit(connection, kinds, since, limit, offset))

    async def vetoes(self, since: Instant) -> tuple[int, dict[str, int]]:
        """How many changed decisions there were since an instant, and the reasons of those that let no bid through."""
        return await self._store.read(lambda connection: _vetoes(connection, since))

    async def outcomes_by_cause(self, causes: Sequence[str]) -> dict[str, str]:
        """What became of the intents with these causes: cause -> state; a cause without an intent is left out."""
        marks = ", ".join("?" * len(causes))

        def read(connection: sqlite3.Connection) -> dict[str, str]:
            rows = connection.execute(f"SELECT cause, state FROM intents WHERE cause IN ({marks})", tuple(causes))
            return dict(rows.fetchall())

        return await self._store.read(read)


def _audit(
    connection: sqlite3.Connection, kinds: Sequence[str], since: Instant | None, limit: int, offset: int
) -> tuple[list[tuple[int, Instant, str, dict[str, object]]], int]:
    chosen = [each for each in kinds if each in AUDITED] or list(AUDITED)
    first = 0 if since is None else first_since(connection, since)
    where = f"{AUDITED_KINDS} AND kind IN ({', '.join('?' * len(chosen))}) AND seq >= ?"
    arguments = (*chosen, first)
    total = connection.execute(f"SELECT count(*) FROM ledger_entries WHERE {where}", arguments).fetchone()[0]
    rows = connection.execute(
        f"SELECT seq, at, kind, body FROM ledger_entries WHERE {where} ORDER BY seq DESC LIMIT ? OFFSET ?",
        (*arguments, limit, offset),
    ).fetchall()
    return [(seq, Instant(at), kind, msgspec.json.decode(body)) for seq, at, kind, body in rows], total


def _vetoes(connection: sqlite3.Connection, since: Instant) -> tuple[int, dict[str, int]]:
    rows = connection.execute(
        "SELECT json_extract(body, '$.outcome') = 'REJECTED', json_extract(body, '$.reason'), count(*)"
        " FROM ledger_entries WHERE seq >= ? AND kind = 'decision' GROUP BY 1, 2 ORDER BY 3 DESC, 2",
        (first_since(connection, since),),
    ).fetchall()
    return sum(count for _, _, count in rows), {reason: count for refused, reason, count in rows if refused}
