"""What an instance remembers between runs: its own key/value rows, and no way to anybody else's."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from kiki_agent.hooks.tasks import unowned

if TYPE_CHECKING:
    from kiki_agent.runtime.clock import Clock
    from kiki_agent.store import Store

MAX_KEYS: Final = 1_000
MAX_KEY_CHARS: Final = 200
MAX_VALUE_CHARS: Final = 65_536


class PluginState:
    """Text by key, durable when `set` returns. Values are the plugin's own business; secrets do not belong here."""

    def __init__(self, instance_id: str, store: Store | None, clock: Clock) -> None:
        self._instance_id = instance_id
        self._store = store
        self._clock = clock
        self._memory: dict[str, str] = {}

    async def get(self, key: str) -> str | None:
        """The value of a key, or None."""
        if self._store is None:
            return self._memory.get(key)

        def read(connection: sqlite3.Connection) -> str | None:
            query = "SELECT value FROM plugin_state WHERE instance_id = ? AND key = ?"
            row = connection.execute(query, (self._instance_id, key)).fetchone()
            return None if row is None else str(row[0])

        with unowned():
            return await self._store.read(read)

    async def set(self, key: str, value: str) -> None:
        """Remember a value. Raises ValueError when key, value or the number of keys is too large."""
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS:
            raise ValueError(f"a state key is a text of 1 to {MAX_KEY_CHARS} characters")
        if not isinstance(value, str) or len(value) > MAX_VALUE_CHARS:
            raise ValueError(f"a state value is a text of at most {MAX_VALUE_CHARS} characters")
        if self._store is None:
            _refuse_beyond_limit(len(self._memory), known=key in self._memory)
            self._memory[key] = value
            return
        now = self._clock.now()

        def write(connection: sqlite3.Connection) -> None:
            mine = (self._instance_id,)
            query = "SELECT count(*), count(*) FILTER (WHERE key = ?) FROM plugin_state WHERE instance_id = ?"
            count, known = connection.execute(query, (key, *mine)).fetchone()
            _refuse_beyond_limit(count, known=bool(known))
            connection.execute(
                "INSERT INTO plugin_state (instance_id, key, value, updated_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
                (self._instance_id, key, value, now),
            )

        with unowned():
            await self._store.write(write)

    async def delete(self, key: str) -> None:
        """Forget a key; forgetting what is not there is fine."""
        if self._store is None:
            self._memory.pop(key, None)
            return

        def write(connection: sqlite3.Connection) -> None:
            query = "DELETE FROM plugin_state WHERE instance_id = ? AND key = ?"
            connection.execute(query, (self._instance_id, key))

        with unowned():
            await self._store.write(write)


def _refuse_beyond_limit(count: int, *, known: bool) -> None:
    if not known and count >= MAX_KEYS:
        raise ValueError(f"a plugin instance remembers at most {MAX_KEYS} keys")
