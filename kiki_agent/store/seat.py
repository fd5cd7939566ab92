"""One SQLite connection on a thread of its own, and the way to run a plain function there.

aiosqlite offers no public call for that; but `commit` is a public method of a connection, and a connection may be of
our own class. So commit here means: run the next function that waits.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from kiki_agent.errors import StoreError
from kiki_agent.store.trouble import world_error

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]


class SeatConnection(sqlite3.Connection):
    """A connection whose `commit` runs the next waiting function; transactions are spelled out in SQL."""

    waiting: deque[Work[None]]

    def commit(self) -> None:
        """Run the next waiting function on this thread."""
        if not self.waiting:
            raise StoreError("a function handed to the store never commits: the store does")
        self.waiting.popleft()(self)

    def rollback(self) -> None:
        """Refused: a function that wants its work undone raises."""
        raise StoreError("a function handed to the store never rolls back: raise instead, and the store does")


class Seat:
    """A connection and its thread."""

    def __init__(self, proxy: aiosqlite.Connection, waiting: deque[Work[None]]) -> None:
        self._proxy = proxy
        self._waiting = waiting

    @classmethod
    async def take(cls, database: str, *, busy_seconds: float) -> Seat:
        """Open `database` (an SQLite URI) on a new thread. Raises StoreError."""
        waiting: deque[Work[None]] = deque()

        def factory(*args: Any, **kwargs: Any) -> SeatConnection:
            connection = SeatConnection(*args, **kwargs)
            connection.waiting = waiting
            return connection

        try:
            proxy = await aiosqlite.connect(
                database,
                factory=factory,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
                timeout=busy_seconds,
                uri=True,
            )
        except sqlite3.Error as error:
            raise world_error(error) or StoreError(str(error)) from error
        return cls(proxy, waiting)

    async def run(self, work: Work[T]) -> T:
        """Run `work(connection)` on the thread; it runs to its end even when the waiting caller is cancelled."""
        box: list[T] = []
        self._waiting.append(lambda connection: box.append(work(connection)))
        await self._proxy.commit()
        return box[0]

    async def interrupt(self) -> None:
        """Break off the statement that is running now, if any."""
        await self._proxy.interrupt()

    async def close(self) -> None:
        """Close the connection and end the thread, after what is queued."""
        await self._proxy.close()


def uri(path: Path, *, read_only: bool) -> str:
    """The SQLite URI of a database file."""
    return f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
