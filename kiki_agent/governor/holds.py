"""Levers that are left alone: changed by others, pinned by a person, or put back by one."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

from kiki_agent.accounts import Lever, LeverKey
from kiki_agent.model import Instant

Source = Literal["outside", "pinned", "rollback"]


@dataclass(frozen=True, slots=True)
class Hold:
    """One lever at one value."""

    connector: str
    entity: str
    lever: Lever
    campaign_id: str
    value: int
    """What whoever set it wants to stand."""
    source: Source
    since: Instant
    until: Instant | None
    """None: until it is unpinned."""

    @property
    def key(self) -> LeverKey:
        """Which lever."""
        return self.connector, self.entity, self.lever


class Holds:
    """The holds in force. `version` grows with every change, for those who keep columns of them."""

    def __init__(self) -> None:
        self._holds: dict[LeverKey, Hold] = {}
        self.version = 0

    def find(self, key: LeverKey) -> Hold | None:
        """The hold of a lever."""
        return self._holds.get(key)

    def all(self) -> list[Hold]:
        """All of them, in the order of their keys."""
        return [self._holds[key] for key in sorted(self._holds)]

    def put(self, hold: Hold) -> None:
        """Leave a lever alone."""
        self._holds[hold.key] = hold
        self.version += 1

    def drop(self, key: LeverKey) -> Hold | None:
        """End a hold."""
        found = self._holds.pop(key, None)
        if found is not None:
            self.version += 1
        return found

    def due(self, now: Instant) -> list[Hold]:
        """Holds whose time is over."""
        return [each for each in self._holds.values() if each.until is not None and now >= each.until]


def read_holds(connection: sqlite3.Connection) -> list[Hold]:
    """Holds on record."""
    rows = connection.execute(
        "SELECT connector, entity, lever, campaign_id, value, source, since, until FROM lever_holds"
    )
    return [
        Hold(row[0], row[1], Lever(row[2]), row[3], row[4], row[5], Instant(row[6]), row[7]) for row in rows.fetchall()
    ]


def write_hold(connection: sqlite3.Connection, hold: Hold) -> None:
    """Put a hold on record, in place of an older one of its lever."""
    connection.execute(
        "INSERT INTO lever_holds (connector, entity, lever, campaign_id, value, source, since, until)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (connector, entity, lever) DO UPDATE SET"
        " campaign_id = excluded.campaign_id, value = excluded.value, source = excluded.source,"
        " since = excluded.since, until = excluded.until",
        (
            hold.connector,
            hold.entity,
            hold.lever.value,
            hold.campaign_id,
            hold.value,
            hold.source,
            hold.since,
            hold.until,
        ),
    )


def erase_hold(connection: sqlite3.Connection, key: LeverKey) -> None:
    """Take a hold off the record."""
    connection.execute("DELETE FROM lever_holds WHERE connector = ? AND entity = ? AND lever = ?", key)
