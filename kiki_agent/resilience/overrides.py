"""Settings changed at run time: read at the start, written with the ledger row that says so."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from kiki_agent.ledger import Ledger
from kiki_agent.model import Instant

EVERYWHERE = ""
"""Scope of what holds for all connectors."""

Value = int | bool | str | dict[str, int]
"""Only what the ledger may hold: no fractions."""


@dataclass(slots=True)
class Overrides:
    """Scope (a connector's id, or everywhere) -> key -> value."""

    known: dict[str, dict[str, Value]] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> Overrides:
        """Everything that was changed and not taken back."""
        found = cls()
        for scope, key, value in connection.execute("SELECT scope, key, value FROM setting_overrides"):
            found.known.setdefault(scope, {})[key] = json.loads(value)
        return found

    def of(self, scope: str) -> Mapping[str, Value]:
        """What was changed in a scope."""
        return self.known.get(scope, {})

    def take(self, scope: str, changes: Mapping[str, Value | None]) -> None:
        """Know changes; None takes one back."""
        mine = self.known.setdefault(scope, {})
        for key, value in changes.items():
            if value is None:
                mine.pop(key, None)
            else:
                mine[key] = value


def write(
    connection: sqlite3.Connection, ledger: Ledger, scope: str, changes: Mapping[str, Value | None], now: Instant
) -> None:
    """Write changes and the one ledger row that tells of them; on the database thread."""
    for key, value in changes.items():
        if value is None:
            connection.execute("DELETE FROM setting_overrides WHERE scope = ? AND key = ?", (scope, key))
            continue
        connection.execute(
            "INSERT INTO setting_overrides (scope, key, value, at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (scope, key) DO UPDATE SET value = excluded.value, at = excluded.at",
            (scope, key, json.dumps(value, sort_keys=True), now),
        )
    body: dict[str, object] = {"control": "resilience" if scope == EVERYWHERE else "connector", "set": dict(changes)}
    if scope != EVERYWHERE:
        body["connector"] = scope
    ledger.append(connection, now, "control", body)
