"""The backups of a running agent: one at a time, in a thread of its own, told to people when one fails."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from kiki_agent.errors import StoreError
from kiki_agent.ledger.segments import own_folder, shared_folder
from kiki_agent.model import SECOND, Instant
from kiki_agent.recovery import backups
from kiki_agent.recovery.backups import Backup, Reason
from kiki_agent.recovery.segments import size_to_bring
from kiki_agent.runtime.log import get_logger
from kiki_agent.store import Store

SPARE_BYTES = 32 * 1024 * 1024
"""Left free on the disk of the backups whatever happens: a backup must not be what fills it."""

Publish = Callable[[str, Mapping[str, object]], None]
_log = get_logger("recovery")


class Busy(StoreError):
    """A backup is being made already."""


class Backups:
    """Makes, proves, lists and removes the backups of one database.

    Works on files, and therefore also while the database cannot be opened; `store` is where backups are put on record
    while there is one.
    """

    def __init__(
        self,
        database: Path,
        known_head: Path,
        folder: Path,
        *,
        daily: int,
        weekly: int,
        now: Callable[[], Instant],
        publish: Publish | None = None,
    ) -> None:
        """`publish(topic, data)` hears `news` for people when a backup fails."""
        self.database = database
        self.known_head = known_head
        self.folder = folder
        self.store: Store | None = None
        self._daily, self._weekly = daily, weekly
        self._now = now
        self._publish = publish
        self._making: asyncio.Task[Backup] | None = None
        self._stop = threading.Event()
        self.last: Backup | None = None
        """The newest backup that was found whole, as far as it was looked for."""
        self.progress = 0.0
        """Share done of the backup that is being made."""
        self.failure: str | None = None
        """Why the last backup was not made or is not whole; None when it is."""

    @property
    def making(self) -> str | None:
        """Name of the backup that is being made."""
        return self._making.get_name() if self._making is not None and not self._making.done() else None

    def age_s(self, now: Instant) -> float | None:
        """Seconds since the newest backup that is whole was made; None when there is none."""
        return None if self.last is None else max(0, now - self.last.made_at) / SECOND

    def look(self) -> list[Backup]:
        """See what is there, newest first. Raises StoreError."""
        found = backups.list_backups(self.folder, self.database.stem)
        self.last = next((each for each in found if each.verified_at is not None), None)
        return found

    async def listed(self) -> list[Backup]:
        """All backups, newest first. Raises StoreError."""
        return await asyncio.to_thread(self.look)

    def begin(self, reason: Reason) -> str:
        """Begin a backup and return at once with its name. Raises Busy, StoreError."""
        if self.making is not None:
            raise Busy(f"backup {self.making} is being made; ask again when it is done")
        self._check_room()
        name = backups.new_name(self.folder, self.database.stem, reason, self._now())
        self.progress = 0.0
        self._stop.clear()
        self._making = asyncio.create_task(self._make(name, reason), name=name)
        self._making.add_done_callback(_seen)
        return name

    async def make(self, reason: Reason) -> Backup:
        """Make a backup and wait for it. Raises Busy, StoreError."""
        self.begin(reason)
        return await self.outcome()

    async def outcome(self) -> Backup:
        """Wait for the backup begun last. Raises StoreError when it could not be made or is not whole."""
        if self._making is None:
            raise StoreError("no backup was begun")
        return await asyncio.shield(self._making)

    async def verify(self, name: str) -> Backup:
        """Prove a backup again, also against what the database says was made. Raises StoreError."""
        found = await asyncio.to_thread(backups.verify_backup, self.folder, name, self._now())
        if self.store is not None and not found.problem:
            noted = await self.store.read(lambda connection: _noted(connection, name))
            if noted is not None and noted != found.sha256:
                raise StoreError(f"backup {name} is not the one this agent made: its note and its bytes were replaced")
        await self._record(found)
        return found

    async def close(self) -> None:
        """Break off what is being made; nothing of it stays."""
        self._stop.set()
        if self._making is not None:
            await asyncio.wait({self._making})

    # -- within --------------------------------------------------------------------------------------------------

    async def _make(self, name: str, reason: Reason) -> Backup:
        try:
            made = await asyncio.to_thread(
                backups.make_backup,
                self.database,
                self.folder,
                name,
                reason,
                self._now(),
                known_head=self.known_head,
                on_progress=self._progressed,
            )
            if made.problem:
                raise StoreError(f"backup {name} is not whole: {made.problem}")
        except StoreError as error:
            self._failed(name, error)
            raise
        self.failure, self.last = None, made
        await self._record(made)
        await asyncio.to_thread(backups.prune_leftovers, self.folder, self.database.stem, self._now())
        await asyncio.to_thread(backups.prune, self.folder, self.database.stem, daily=self._daily, weekly=self._weekly)
        _log.info("backup_made", f"Backup {name} is whole", name=name, entries=made.seq, bytes=made.size_bytes)
        return made

    def _progressed(self, share: float) -> None:
        if self._stop.is_set():
            raise StoreError("the agent is stopping")
        self.progress = share

    def _failed(self, name: str, error: StoreError) -> None:
        if self._stop.is_set():
            return
        self.failure = str(error)
        _log.error("backup_failed", f"Backup {name} failed: {error}", name=name, error=error)
        if self._publish is not None:
            text = f"{error}. The older backups stay; docs/recovery.md says what to do."
            news = {"severity": "CRITICAL", "title": "A backup failed", "message": text, "subject": "backup"}
            self._publish("news", news)

    async def _record(self, backup: Backup) -> None:
        """Put it on record; a database that cannot be written has other troubles, and the backup has its note."""
        if self.store is None:
            return
        try:
            await self.store.write(lambda connection: _record(connection, backup))
        except StoreError as error:
            _log.warning("backup_not_recorded", f"Backup {backup.name} is not on record: {error}", name=backup.name)

    def _check_room(self) -> None:
        backups.prepare_folder(self.folder)
        needed = sum(_size(self.database.with_name(self.database.name + suffix)) for suffix in ("", "-wal"))
        needed += size_to_bring(own_folder(self.database), shared_folder(self.folder / self.database.name))
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise StoreError(f"the folder of backups {self.folder} cannot be used: {error.strerror}") from error
        if free < needed + SPARE_BYTES:
            megabytes = (needed + SPARE_BYTES) // 1_000_000
            full = StoreError(f"{self.folder} has {free // 1_000_000} MB free, a backup needs {megabytes} MB")
            self._failed("", full)
            raise full


def _record(connection: sqlite3.Connection, backup: Backup) -> None:
    connection.execute(
        "INSERT INTO backups (name, made_at, reason, size_bytes, sha256, seq, head_hash, verified_at, problem)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
        " verified_at = excluded.verified_at, problem = excluded.problem",
        (
            backup.name,
            backup.made_at,
            backup.reason,
            backup.size_bytes,
            backup.sha256,
            backup.seq,
            backup.head_hash,
            backup.verified_at,
            backup.problem,
        ),
    )


def _noted(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT sha256 FROM backups WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _seen(task: asyncio.Task[Backup]) -> None:
    """Whoever begins a backup need not wait for it: `failure` and the log tell."""
    if not task.cancelled():
        task.exception()
