"""The store: what the rest of the agent sees of its database."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from kiki_agent.errors import StoreError
from kiki_agent.model.time import Instant
from kiki_agent.store.backup import copy_to
from kiki_agent.store.durable import make_private
from kiki_agent.store.lock import LockFile
from kiki_agent.store.meta import get_meta, set_meta
from kiki_agent.store.readers import Readers
from kiki_agent.store.schema import FOLDER, Keep, keep_copy, lock_path, migrate
from kiki_agent.store.seat import Seat, uri
from kiki_agent.store.trouble import Damaged, world_error
from kiki_agent.store.writer import HIGH_WATER, Writer

T = TypeVar("T")
LEAST_ROOM = 4 * 1024 * 1024
"""Bytes of the disk below which it counts as full: a commit, its WAL and the head outside must still find room."""
ROOM_TO_GO_ON = 65_536
"""Bytes that must fit into the database before it counts as cured."""
Synchronous = Literal["FULL", "OFF"]


class Store:
    """One writer, a few readers, one lock. Made by `open`, ended by `close`."""

    def __init__(
        self, path: Path, epoch: int, synchronous: Synchronous, lock: LockFile, seat: Seat, readers: Readers
    ) -> None:
        self.path = path.absolute()
        self.epoch = epoch
        """Grows with every open; a store whose epoch is no longer the file's writes no more."""
        self.synchronous = synchronous
        self._lock = lock
        self._seat = seat
        self._readers = readers
        self._writer = Writer(seat, self.path, epoch)
        self._closed = False
        self._no_room: str | None = None
        self._probes = 0

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        synchronous: Synchronous = "FULL",
        readers: int = 2,
        now: Instant,
        migrate: bool = True,
        migrations: Path = FOLDER,
        busy_seconds: float = 1.0,
        keep: Keep = keep_copy,
    ) -> Store:
        """Take the lock, bring the schema up to date (after `keep`, a backup), raise the epoch, open the readers.

        With `migrate` off a database that lacks migrations is refused. Raises AlreadyRunning when another agent holds
        the database, Damaged when it is not a sound database, StoreError for everything else.
        """
        if sqlite3.sqlite_version_info < (3, 37):
            raise StoreError(f"SQLite 3.37 or newer is needed, this Python brings {sqlite3.sqlite_version}")
        lock = LockFile.take(lock_path(path))
        seat: Seat | None = None
        pool: Readers | None = None
        try:
            _check_rights(path)
            _claim(path)
            seat = await Seat.take(uri(path, read_only=False), busy_seconds=busy_seconds)
            try:
                epoch = await seat.run(
                    lambda connection: _prepare(connection, path, synchronous, now, migrate, migrations, keep)
                )
            except sqlite3.Error as error:
                raise world_error(error) or StoreError(f"{path}: {error}") from error
            store: Store
            pool = Readers(lambda error: store.seal(error))
            await pool.open(path, readers, busy_seconds)
            store = cls(path, epoch, synchronous, lock, seat, pool)
        except BaseException:
            if pool is not None:
                await pool.close()
            if seat is not None:
                await seat.close()
            lock.release()
            raise
        return store

    # -- writing ------------------------------------------------------------------------------------------------

    def submit(self, work: Callable[[sqlite3.Connection], T], *, weight: int = 1) -> asyncio.Future[T]:
        """Queue `work(connection)` for the writer's next batch; functions run in the order of their submission.

        The future holds its result once it is committed, what it raised (its own changes undone, the rest of the batch
        untouched), or StoreError when the batch could not be committed or nothing is taken any more. Cancelling the
        future, or whoever awaits it, changes nothing for the work. `work` runs on the database thread: it may touch
        its connection and what it was given, and must neither commit nor block. `weight` is its share of the queue.
        """
        return self._writer.submit(work, weight)

    def join(self, future: asyncio.Future[Any], *, weight: int = 1) -> bool:
        """True while the work behind `future` waits as the last in the queue: its owner may still add to it.

        So that many small writes become one without changing the order of anything.
        """
        return self._writer.join(future, weight)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Submit and wait until it is committed, which at `synchronous=FULL` means on the disk."""
        if self._writer.depth >= HIGH_WATER:
            await self._writer.below(HIGH_WATER)
        return await self._writer.submit(work, 1)

    async def room(self) -> None:
        """Wait until the queue is below its high-water mark; at once when it is."""
        if self._writer.depth >= HIGH_WATER:
            await self._writer.below(HIGH_WATER)

    async def drain(self) -> None:
        """Wait until everything submitted so far is committed or has failed."""
        await self._writer.below(1)

    async def probe(self) -> str | None:
        """Try a commit, so that a cured database is noticed; `failure` afterwards.

        After a failure the commit asks for some room: a database that takes a little and no more is not cured.
        """
        asked = self._writer.asks_for_room
        self._probes += 1
        value = f"{self.epoch}:{self._probes}"  # another one each time: SQLite writes nothing where nothing changes

        def work(connection: sqlite3.Connection) -> None:
            if asked:
                set_meta(connection, "probe", " " * ROOM_TO_GO_ON)
            set_meta(connection, "probe", value)

        try:
            await self.write(work)
        except StoreError as error:
            return self.failure or str(error)
        if asked:
            self._writer.found_room()
        return self.failure

    @property
    def before_commit(self) -> list[Callable[[sqlite3.Connection], None]]:
        """Called on the database thread with the open transaction of a batch, after its last function."""
        return self._writer.before_commit

    @property
    def after_commit(self) -> list[Callable[[], None]]:
        """Called on the database thread when a batch is committed, before any future is resolved."""
        return self._writer.after_commit

    @property
    def on_rollback(self) -> list[Callable[[], None]]:
        """Called on the database thread whenever changes were undone: of one function, or of a whole batch.

        Whoever keeps in memory what it read from the database forgets it then.
        """
        return self._writer.on_rollback

    # -- reading ------------------------------------------------------------------------------------------------

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work(connection)` on a read-only connection; all it reads is one snapshot of what is committed."""
        return await self._readers.read(work)

    async def backup(self, target: Path) -> None:
        """Copy the database while it is in use; what stood at `target` is replaced when the copy is whole."""
        await self._readers.read(lambda connection: copy_to(connection, target))

    # -- state --------------------------------------------------------------------------------------------------

    @property
    def queue_depth(self) -> int:
        """Functions and joined rows that wait or are being committed."""
        return self._writer.depth

    @property
    def commits(self) -> int:
        """Batches committed so far."""
        return self._writer.commits

    @property
    def failure(self) -> str | None:
        """Why nothing can be committed, or None. A commit that succeeds clears it; damage stays.

        A disk that is almost full counts, also while commits still find room: see `look_for_room`.
        """
        return self._writer.failure or self._no_room

    @property
    def damaged(self) -> bool:
        """Whether the file was found not to be what SQLite wrote; no waiting cures that."""
        return self._writer.damaged

    def look_for_room(self) -> None:
        """Ask the disk how much room is left, and let `failure` tell when it is too little to go on spending."""
        try:
            free = shutil.disk_usage(self.path.parent).free
        except OSError as error:
            self._no_room = f"the disk cannot be asked for its room: {error.strerror}"
            return
        self._no_room = None if free >= LEAST_ROOM else f"the disk is full: {free // 1024} KiB are left"

    def seal(self, error: StoreError) -> None:
        """Take no more writes, for good."""
        self._writer.seal(error)

    def sizes(self) -> dict[str, int]:
        """Bytes of the database file and of its WAL."""
        return {"db": _size(self.path), "wal": _size(self.path.with_name(self.path.name + "-wal"))}

    async def close(self) -> None:
        """Commit what waits, fold the WAL back, close everything, give the lock back. Twice does no harm."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._writer.close()
            await self._readers.close()
            await self._seat.close()
        finally:
            self._lock.release()


def _check_rights(path: Path) -> None:
    """Raise StoreError for files that may not be written, before SQLite makes others with the same rights."""
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if file.exists() and not os.access(file, os.R_OK | os.W_OK):
            raise StoreError(f"the database is read-only: {file} may not be read and written by this user")


def _claim(path: Path) -> None:
    try:
        make_private(path)
    except OSError as error:
        raise StoreError(f"the database {path} cannot be made: {error.strerror}") from error


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _prepare(
    connection: sqlite3.Connection,
    path: Path,
    synchronous: Synchronous,
    now: Instant,
    apply: bool,
    folder: Path,
    keep: Keep,
) -> int:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA recursive_triggers = ON")
    # no temp_store = MEMORY here: in memory SQLite walks the journal of a savepoint anew for every statement in it
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute("PRAGMA journal_size_limit = 16777216")
    connection.execute(f"PRAGMA wal_autocheckpoint = {2_000 if synchronous == 'FULL' else 8_000}")
    migrate(connection, path, now, folder=folder, apply=apply, keep=keep)
    connection.execute("BEGIN IMMEDIATE")
    epoch = int(get_meta(connection, "epoch") or "0") + 1
    set_meta(connection, "epoch", str(epoch))
    connection.execute("COMMIT")
    return epoch


__all__ = ["Damaged", "Store"]
