"""The single writer: what waits is committed together.

A batch is every function that waits when the one before it has ended. It runs on the database thread inside one
BEGIN IMMEDIATE ... COMMIT, each function in a savepoint of its own; with `synchronous=FULL` it is on the disk when the
futures are resolved. There is no timer: while one batch is being committed the next one gathers.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from kiki_agent.errors import Fault, StoreError
from kiki_agent.store.seat import Seat
from kiki_agent.store.trouble import Damaged, world_error

T = TypeVar("T")

HIGH_WATER = 8_192
"""Functions and joined rows, waiting or running, above which `room` makes submitters wait."""
HARD_LIMIT = 262_144
"""Above this nothing more is taken: the disk does not follow, and memory must not pay for it."""
WAL_LIMIT = 64 * 1024 * 1024
"""A WAL file above this is folded back even if readers have to be waited for."""

_Item = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]
_Outcome = tuple[bool, Any]


class Writer:
    """Queue, batches and the state of failure. Owned by the event loop; `_commit` alone runs on the database thread."""

    def __init__(self, seat: Seat, path: Path, epoch: int) -> None:
        self._seat = seat
        self._wal = path.with_name(path.name + "-wal")
        self._wal_limit = WAL_LIMIT
        self._until_wal_check = 1
        self._epoch = str(epoch)
        self._loop = asyncio.get_running_loop()
        self._queue: list[_Item] = []
        self._queued = 0
        self._running = 0
        self._tail: asyncio.Future[Any] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._watchers: list[asyncio.Future[None]] = []
        self._closed = False
        self._sealed: StoreError | None = None
        self.failure: str | None = None
        self._full_at = 0
        """Pages of the file when it last could not grow; 0 once it grew again."""
        self.commits = 0
        self.before_commit: list[Callable[[sqlite3.Connection], None]] = []
        self.after_commit: list[Callable[[], None]] = []
        self.on_rollback: list[Callable[[], None]] = []
        self._task = asyncio.create_task(self._work(), name="store writer")

    # -- on the event loop --------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Functions and joined rows that wait or are being committed."""
        return self._queued + self._running

    @property
    def damaged(self) -> bool:
        """Whether the writer was sealed because the file is damaged."""
        return isinstance(self._sealed, Damaged)

    @property
    def asks_for_room(self) -> bool:
        """Whether the file could not grow, and has not grown since."""
        return self._full_at > 0

    def found_room(self) -> None:
        """There was room for more than a small change: a full disk is over."""
        self._full_at = 0
        if self._sealed is None:
            self.failure = None

    def submit(self, work: Callable[[sqlite3.Connection], T], weight: int) -> asyncio.Future[T]:
        """Queue a function; see `Store.submit`."""
        future: asyncio.Future[T] = self._loop.create_future()
        if self._sealed is not None or self._closed or self._queued > HARD_LIMIT:
            return self._refused(future)
        self._queue.append((work, future))
        self._queued += weight
        self._tail = future
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)
        return future

    def join(self, future: asyncio.Future[Any], weight: int) -> bool:
        """See `Store.join`."""
        if self._tail is not future or self._queued > HARD_LIMIT:
            return False
        self._queued += weight
        return True

    async def below(self, level: int) -> None:
        """Wait until fewer than `level` wait or run."""
        while self._queued + self._running >= level:
            watcher = self._loop.create_future()
            self._watchers.append(watcher)
            await watcher

    def seal(self, error: StoreError) -> None:
        """Take nothing more, for good: the file is damaged or somebody else's."""
        if self._sealed is None:
            self._sealed = error
        self.failure = str(self._sealed)

    async def close(self) -> None:
        """Commit what waits, then stop."""
        self._closed = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        await self._task

    def _refused(self, future: asyncio.Future[T]) -> asyncio.Future[T]:
        if self._sealed is not None:
            error = type(self._sealed)(str(self._sealed))
        elif self._closed:
            error = StoreError("the store is closed")
        else:
            error = StoreError(f"the disk does not follow: {self._queued} changes wait")
            self.failure = str(error)
        _fail(future, error)
        return future

    async def _work(self) -> None:
        while True:
            if not self._queue:
                if self._closed:
                    return
                self._wake = self._loop.create_future()
                await self._wake
                self._wake = None
                continue
            batch, self._queue = self._queue, []
            self._running, self._queued = self._queued, 0
            self._tail = None
            try:
                outcomes = await self._seat.run(partial(self._commit, batch))
            except Exception as error:
                self._failed(batch, error)
            else:
                self._settled(batch, outcomes)
            self._running = 0
            watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                if not watcher.done():
                    watcher.set_result(None)
            del batch

    def _settled(self, batch: list[_Item], outcomes: list[_Outcome]) -> None:
        if self._sealed is None and not self._full_at:
            self.failure = None  # after a full disk only a file that grew says that it is over
        self.commits += 1
        for (_, future), (fine, value) in zip(batch, outcomes, strict=True):
            if future.done():
                continue  # its caller was cancelled; the work is committed all the same
            if fine:
                future.set_result(value)
            elif isinstance(value, StoreError):
                _fail(future, value)
            else:
                future.set_exception(value)

    def _failed(self, batch: list[_Item], error: Exception) -> None:
        reason = world_error(error) or (error if isinstance(error, StoreError) else None)
        if reason is None:
            reason = StoreError(f"the commit failed: {type(error).__name__}: {error}")
        if isinstance(reason, (Damaged, Superseded)):
            self.seal(reason)
        self.failure = str(reason)
        for _, future in batch:
            if not future.done():
                _fail(future, type(reason)(str(reason)))

    # -- on the database thread ---------------------------------------------------------------------------------

    def _commit(self, batch: list[_Item], connection: sqlite3.Connection) -> list[_Outcome]:
        execute = connection.execute
        outcomes: list[_Outcome] = []
        try:
            execute("BEGIN IMMEDIATE")
            row = execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
            if row is None or row[0] != self._epoch:
                raise Superseded("another agent took over this database; this one writes no more")
            for work, _ in batch:
                outcomes.append(self._run_one(connection, work))
            for hook in self.before_commit:
                hook(connection)
            execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                execute("ROLLBACK")
            self._rolled_back()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                self._full_at = execute("PRAGMA page_count").fetchone()[0]
            raise
        if self._full_at and execute("PRAGMA page_count").fetchone()[0] > self._full_at:
            self._full_at = 0
        for done in self.after_commit:
            done()
        self._bound_wal(connection)
        return outcomes

    def _run_one(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any]) -> _Outcome:
        execute = connection.execute
        execute("SAVEPOINT one")
        try:
            result = work(connection)
        except BaseException as error:
            if world_error(error) is not None or not connection.in_transaction:
                raise
            execute("ROLLBACK TO one")
            execute("RELEASE one")
            self._rolled_back()
            if isinstance(error, StopIteration) or not isinstance(error, Exception):
                return False, Fault(f"a function handed to the store raised {type(error).__name__}")
            return False, error
        if not connection.in_transaction:
            raise Fault(f"{getattr(work, '__qualname__', work)} ended the transaction it was called in")
        execute("RELEASE one")
        return True, None if type(result) is sqlite3.Cursor else result

    def _rolled_back(self) -> None:
        for hook in self.on_rollback:
            hook()

    def _bound_wal(self, connection: sqlite3.Connection) -> None:
        """Fold a long WAL back; while readers prevent that, try again only when it has doubled."""
        self._until_wal_check -= 1
        if self._until_wal_check > 0:
            return
        self._until_wal_check = 64
        try:
            size = os.stat(self._wal).st_size
        except OSError:
            return
        if size > self._wal_limit:
            try:
                blocked = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.Error:
                blocked = 1  # the commit itself stands; the next one meets the error again if it lasts
            self._wal_limit = 2 * size if blocked else WAL_LIMIT


class Superseded(StoreError):
    """The epoch in the file is no longer ours."""


def _fail(future: asyncio.Future[Any], error: StoreError) -> None:
    """Hand the error to whoever waits; silent when nobody does, because `failure` tells it."""
    future.set_exception(error)
    cast("asyncio.Future[object]", future).exception()
