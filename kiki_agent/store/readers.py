"""A few read-only connections, each on its own thread; whoever wants to read takes the next free one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kiki_agent.errors import StoreError
from kiki_agent.store.seat import Seat, uri
from kiki_agent.store.trouble import Damaged, world_error

T = TypeVar("T")
_Item = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]


class Readers:
    """The pool. Each function sees one snapshot of the database."""

    def __init__(self, damaged: Callable[[StoreError], None]) -> None:
        self._damaged = damaged
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Item] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._seats: list[Seat] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    async def open(self, path: Path, count: int, busy_seconds: float) -> None:
        """Open the connections."""
        for number in range(count):
            seat = await Seat.take(uri(path, read_only=True), busy_seconds=busy_seconds)
            self._seats.append(seat)
            await seat.run(_prepare)
            self._tasks.append(asyncio.create_task(self._serve(seat), name=f"store reader {number}"))

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on a free connection and give its answer."""
        if self._closed:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((work, future))
        while self._idle:
            sleeper = self._idle.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
                break
        return await future

    async def close(self) -> None:
        """Break off what is being read, refuse what waits, close the connections."""
        self._closed = True
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(StoreError("the store is closing"))
        for sleeper in self._idle:
            if not sleeper.done():
                sleeper.set_result(None)
        for seat in self._seats:
            await seat.interrupt()
        await asyncio.gather(*self._tasks)
        for seat in self._seats:
            await seat.close()

    async def _serve(self, seat: Seat) -> None:
        while True:
            if not self._waiting:
                if self._closed:
                    return
                sleeper = self._loop.create_future()
                self._idle.append(sleeper)
                await sleeper
                continue
            work, future = self._waiting.popleft()
            if future.done():
                continue
            try:
                answer = await seat.run(partial(_snapshot, work))
            except Exception as error:
                self._failed(future, error)
            else:
                if not future.done():
                    future.set_result(answer)
            del work, future

    def _failed(self, future: asyncio.Future[Any], error: Exception) -> None:
        reason = world_error(error)
        if isinstance(reason, Damaged):
            self._damaged(reason)
        if not future.done():
            future.set_exception(reason or (RuntimeError(repr(error)) if isinstance(error, StopIteration) else error))


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA cache_size = -4096")
    connection.execute("PRAGMA temp_store = MEMORY")


def _snapshot(work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
