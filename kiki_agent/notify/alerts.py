"""Alerts: stored in the transaction of their cause, delivered afterwards, retried for a day."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from kiki_agent.errors import PluginError
from kiki_agent.hooks.caller import Caller
from kiki_agent.ledger import Ledger
from kiki_agent.model import DAY, MINUTE, SECOND, Alert, Instant, Severity
from kiki_agent.runtime.loop import Loop
from kiki_agent.store import Store

_MARKERS = {
    Severity.INFO: "\N{INFORMATION SOURCE}",
    Severity.WARNING: "\N{WARNING SIGN}",
    Severity.CRITICAL: "\N{POLICE CARS REVOLVING LIGHT}",
}
"""What a message starts with, so that its weight is seen at a glance (NTF-02)."""
LONGEST_WAIT = 60 * MINUTE
"""Between two tries to deliver an alert."""


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """An alert as people read it back."""

    notification_id: str
    severity: str
    title: str
    message: str
    formatted: str
    metadata: Mapping[str, str]
    created_at: Instant
    read_at: Instant | None


def formatted(alert: Alert) -> str:
    """The text as it is sent: marker, title, message, then one line per metadata entry."""
    lines = [f"{_MARKERS[alert.severity]} {alert.title}", alert.message]
    lines += [f"{key}: {value}" for key, value in sorted(alert.metadata.items())]
    return "\n".join(line for line in lines if line)


class Alerts:
    """The record of what people were told."""

    def __init__(self, store: Store, ledger: Ledger, channels: Sequence[str]) -> None:
        self._store = store
        self._ledger = ledger
        self.channels = tuple(channels)
        """Ids of the notifier instances every alert goes to."""

    def record(self, connection: sqlite3.Connection, alert: Alert) -> bool:
        """Store an alert and its deliveries inside the caller's transaction; False when it was there already."""
        metadata = msgspec.json.encode(dict(sorted(alert.metadata.items()))).decode()
        added = connection.execute(
            "INSERT INTO notifications (notification_id, severity, title, message, formatted, metadata, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                alert.notification_id,
                alert.severity.value,
                alert.title,
                alert.message,
                formatted(alert),
                metadata,
                alert.at,
            ),
        ).rowcount
        if not added:
            return False
        connection.executemany(
            "INSERT INTO notification_deliveries (notification_id, channel, status, next_attempt_at)"
            " VALUES (?, ?, 'pending', ?)",
            [(alert.notification_id, channel, alert.at) for channel in self.channels],
        )
        body = {
            "notification_id": alert.notification_id,
            "severity": alert.severity.value,
            "title": alert.title,
            "message": alert.message,
            "metadata": dict(alert.metadata),
        }
        self._ledger.append(connection, alert.at, "alert", body)
        return True

    async def tell(self, alert: Alert) -> bool:
        """Store an alert in a transaction of its own."""
        return await self._store.write(lambda connection: self.record(connection, alert))

    async def latest(self, limit: int = 50, offset: int = 0) -> list[StoredAlert]:
        """Alerts, newest first."""

        def read(connection: sqlite3.Connection) -> list[StoredAlert]:
            rows = connection.execute(
                "SELECT notification_id, severity, title, message, formatted, metadata, created_at, read_at"
                " FROM notifications ORDER BY created_at DESC, notification_id LIMIT ? OFFSET ?",
                (limit, offset),
            ).fetchall()
            return [
                StoredAlert(row[0], row[1], row[2], row[3], row[4], msgspec.json.decode(row[5]), row[6], row[7])
                for row in rows
            ]

        return await self._store.read(read)

    async def due(self, channel: str, now: Instant, limit: int = 100) -> list[tuple[Alert, int]]:
        """Deliveries of a channel waiting to be tried, the one that waits longest first, with attempts so far."""

        def read(connection: sqlite3.Connection) -> list[tuple[Alert, int]]:
            rows = connection.execute(
                "SELECT n.notification_id, severity, title, message, created_at, metadata, attempts"
                " FROM notification_deliveries d JOIN notifications n USING (notification_id)"
                " WHERE status = 'pending' AND NOT next_attempt_at BETWEEN ? AND ? AND channel = ?"
                " ORDER BY next_attempt_at, notification_id LIMIT ?",
                (now + 1, now + LONGEST_WAIT, channel, limit),  # what waits for longer, a clock was put back under
            ).fetchall()
            return [
                (
                    Alert(row[0], Severity(row[1]), row[2], row[3], Instant(row[4]), msgspec.json.decode(row[5])),
                    row[6],
                )
                for row in rows
            ]

        return await self._store.read(read)

    async def settle(self, alert: Alert, channel: str, attempts: int, error: str, now: Instant) -> None:
        """Note one try: sent, waiting for the next (1, 2, 4 ... 60 minutes), or failed after a day."""
        if not error:
            status, wait = "sent", 0
        else:
            wait = min(LONGEST_WAIT, 2 ** min(attempts, 6) * MINUTE)
            status = "failed" if now + wait - alert.at > DAY else "pending"

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE notification_deliveries SET status = ?, attempts = ?, next_attempt_at = ?, error = ?"
                " WHERE notification_id = ? AND channel = ?",
                (status, attempts + 1, now + wait, error[:500], alert.notification_id, channel),
            )

        await self._store.write(write)


class DeliveryLoop(Loop):
    """Hands waiting alerts to the notifier plugins."""

    name = "notify"
    period = 10 * SECOND

    def __init__(self, alerts: Alerts, caller: Caller) -> None:
        self._alerts = alerts
        self._caller = caller

    async def tick(self, now: Instant) -> str | None:
        """Try what is due, each delivery at most once; a channel that fails keeps its others for the next tick."""
        if not self._alerts.channels:
            return "no notifier is configured"
        tried = 0
        for channel in self._alerts.channels:
            for alert, attempts in await self._alerts.due(channel, now):
                tried += 1
                error = await self._try(channel, alert)
                await self._alerts.settle(alert, channel, attempts, error, now)
                if error:
                    break
        return None if tried else "nothing waits to be delivered"

    async def _try(self, channel: str, alert: Alert) -> str:
        """Hand it over; what went wrong, or nothing."""
        try:
            await self._caller.to(channel, "notify", alert)
        except PluginError as problem:
            return str(problem) or type(problem).__name__
        return ""
