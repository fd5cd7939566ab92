"""Call windows over a restart: a vendor goes on counting while the agent is away."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Mapping

from kiki_agent.errors import StoreError
from kiki_agent.hooks.guard import Guard
from kiki_agent.model import MINUTE, Instant
from kiki_agent.runtime.clock import Clock
from kiki_agent.runtime.loop import Loop
from kiki_agent.store import Store


def read_windows(connection: sqlite3.Connection) -> dict[str, list[int]]:
    """Connector -> instants of calls, oldest first, as they were kept last."""
    found: dict[str, list[int]] = {}
    for connector, blob in connection.execute("SELECT connector, calls FROM call_windows"):
        found[connector] = array("q", blob).tolist()
    return found


def _write(connection: sqlite3.Connection, windows: Mapping[str, list[int]], now: Instant) -> None:
    connection.executemany(
        "INSERT INTO call_windows (connector, calls, at) VALUES (?, ?, ?)"
        " ON CONFLICT (connector) DO UPDATE SET calls = excluded.calls, at = excluded.at",
        [(connector, array("q", calls).tobytes(), now) for connector, calls in windows.items()],
    )


class CallWindows(Loop):
    """Keeps the windows once a minute and at the end; a process that is killed forgets at most its last minute.

    Simulated time has no restarts, and keeps nothing.
    """

    name = "limits"
    period = MINUTE
    first_due_at_start = False

    def __init__(self, store: Store, clock: Clock, guards: Mapping[str, Guard]) -> None:
        self._store = store
        self._agent_clock = clock
        self._guards = guards
        self._kept: dict[str, int] = {}

    async def tick(self, now: Instant) -> str | None:
        """Write the windows that changed."""
        if self._agent_clock.speed == 0:
            return "simulated time has no restarts"
        windows: dict[str, list[int]] = {}
        for name, guard in self._guards.items():
            if guard.limiter is not None and self._kept.get(name) != guard.counts.requests:
                self._kept[name] = guard.counts.requests
                windows[name] = guard.limiter.instants(now)
        if not windows:
            return "no call since the last time"
        try:
            await self._store.write(lambda connection: _write(connection, windows, now))
        except StoreError as error:
            self._kept.clear()
            return f"the database takes nothing: {error}"
        return None
