"""Call windows over a restart: a vendor goes on counting while the agent is away."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Mapping

from kiki_agent.errors import StoreError
from kiki_agent.hooks.guard import Guard
from kiki_agent.model import MINUTE, SECOND, Instant
from kiki_agent.runtime.clock import Clock
from kiki_agent.runtime.loop import Loop
from kiki_agent.store import Store

OFTEN = 5 * SECOND
SHORT = 10 * MINUTE
"""A window up to this long is kept often: a minute of it may be all that a vendor allows."""


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
    """Keeps the windows while the agent runs and at its end, so that a process that is killed forgets little.

    It forgets at most the calls of the last five seconds of a window of ten minutes or less, of a longer one those of
    the last minute: a small part of what the vendor counts. Simulated time has no restarts, and keeps nothing.
    """

    name = "limits"
    period = MINUTE
    first_due_at_start = False

    def __init__(self, store: Store, clock: Clock, guards: Mapping[str, Guard]) -> None:
        self._store = store
        self._agent_clock = clock
        self._guards = guards
        self._kept: dict[str, tuple[int, Instant]] = {}
        """Connector -> requests when its window was kept last, and when that was."""
        if clock.speed > 0:
            self.period = min(MINUTE, round(OFTEN * max(1.0, clock.speed)))

    async def tick(self, now: Instant) -> str | None:
        """Write the windows that changed and are due."""
        return await self.keep(now, [name for name, guard in self._guards.items() if self._is_due(name, guard, now)])

    async def keep(self, now: Instant, names: Iterable[str] | None = None) -> str | None:
        """Write the windows of these connectors that changed; of all of them at the end."""
        if self._agent_clock.speed == 0:
            return "simulated time has no restarts"
        windows: dict[str, list[int]] = {}
        for name in self._guards if names is None else names:
            guard = self._guards[name]
            if guard.limiter is not None and self._kept.get(name, (0, now))[0] != guard.counts.requests:
                self._kept[name] = guard.counts.requests, now
                windows[name] = guard.limiter.instants(now)
        if not windows:
            return "no call since the last time"
        try:
            await self._store.write(lambda connection: _write(connection, windows, now))
        except StoreError as error:
            self._kept.clear()
            return f"the database takes nothing: {error}"
        return None

    def _is_due(self, name: str, guard: Guard, now: Instant) -> bool:
        if guard.limiter is None or name not in self._kept or guard.limiter.window <= SHORT:
            return True
        return not 0 <= now - self._kept[name][1] < MINUTE
