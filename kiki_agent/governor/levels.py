"""The autonomy ladder: what the agent may do at one platform, raised by people only."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum

from kiki_agent.ledger import Ledger
from kiki_agent.model import Instant


class Level(StrEnum):
    """Rungs, lowest first."""

    WATCH = "watch"
    """Nothing is written to the platform, whatever happens."""
    SUGGEST = "suggest"
    """Changes are suggested; what people approve is done. Safety cuts go out by themselves."""
    ACT_LIMITED = "act_limited"
    """The agent acts, as long as the net change of 24 hours stays within a limit."""
    ACT = "act"
    """The agent acts within caps, quotas and steps."""

    @property
    def rank(self) -> int:
        """0 for the lowest."""
        return list(Level).index(self)


@dataclass(frozen=True, slots=True)
class Standing:
    """The level of one connector, and who set it."""

    level: Level
    limit_permille: int
    """At `act_limited`: net change of 24 hours, in thousandths of what stood before."""
    set_by: str
    reason: str
    at: Instant


def read_levels(connection: sqlite3.Connection) -> dict[str, Standing]:
    """What people set, by connector."""
    rows = connection.execute("SELECT connector, level, limit_permille, set_by, reason, at FROM autonomy")
    return {row[0]: Standing(Level(row[1]), row[2], row[3], row[4], Instant(row[5])) for row in rows}


def write_level(
    connection: sqlite3.Connection, ledger: Ledger, connector: str, before: Level, standing: Standing
) -> None:
    """Write a level and its row in the ledger."""
    connection.execute(
        "INSERT INTO autonomy (connector, level, limit_permille, set_by, reason, at) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (connector) DO UPDATE SET level = excluded.level, limit_permille = excluded.limit_permille,"
        " set_by = excluded.set_by, reason = excluded.reason, at = excluded.at",
        (
            connector,
            standing.level.value,
            standing.limit_permille,
            standing.set_by,
            standing.reason,
            standing.at,
        ),
    )
    body = {
        "control": "autonomy",
        "connector": connector,
        "before": before.value,
        "level": standing.level.value,
        "limit_permille": standing.limit_permille,
        "by": standing.set_by,
        "reason": standing.reason,
    }
    ledger.append(connection, standing.at, "control", body)
