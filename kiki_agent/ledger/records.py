"""What was done, read back for people."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from kiki_agent.ledger.intents import IntentRow, count_by_kind, find, recent_rows
from kiki_agent.ledger.reallocations import ReallocationRow, list_reallocations
from kiki_agent.model.intent import IntentKind
from kiki_agent.model.receipt import Receipt
from kiki_agent.model.time import Instant
from kiki_agent.store import Store


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

    async def outcomes_by_cause(self, causes: Sequence[str]) -> dict[str, str]:
        """What became of the intents with these causes: cause -> state; a cause without an intent is left out."""
        marks = ", ".join("?" * len(causes))

        def read(connection: sqlite3.Connection) -> dict[str, str]:
            rows = connection.execute(f"SELECT cause, state FROM intents WHERE cause IN ({marks})", tuple(causes))
            return dict(rows.fetchall())

        return await self._store.read(read)
