"""A store with a ledger and its folder of backups."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kiki_agent.ledger import Ledger, Reallocation, record_reallocation
from kiki_agent.model import DAY, Instant, parse_iso
from kiki_agent.recovery import Backup, Backups, Reason, Restored, make_backup, restore
from kiki_agent.recovery.backups import new_name
from kiki_agent.runtime import log
from kiki_agent.store import Store

NOON = parse_iso("2026-03-10T12:00:00Z")


@dataclass
class Office:
    """One database, opened and closed any number of times."""

    folder: Path
    now: Instant = NOON
    client_id: str = "demo"
    _store: Store | None = field(default=None, init=False)
    _ledger: Ledger | None = field(default=None, init=False)

    @property
    def database(self) -> Path:
        return self.folder / "agent.db"

    @property
    def head(self) -> Path:
        return self.folder / "agent.head"

    @property
    def kept(self) -> Path:
        return self.folder / "backups"

    @property
    def store(self) -> Store:
        assert self._store is not None
        return self._store

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None
        return self._ledger

    async def open(self) -> None:
        self._store = await Store.open(self.database, now=self.now, busy_seconds=0.1)
        self._ledger = await Ledger.open(self._store, self.head, client_id=self.client_id, now=self.now)

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()
            self._store = self._ledger = None

    async def write(self, entries: int) -> None:
        """So many entries of the ledger, and one shift."""

        def work(connection: sqlite3.Connection) -> None:
            for number in range(entries):
                self.ledger.append(connection, self.now, "control", {"amount_micros": number})
            shift = Reallocation("demo", "PLATFORM_META", "PLATFORM_X", 5, "USD", 1.0, 2.0, "test", 1)
            record_reallocation(connection, shift)

        await self.store.write(work)
        await self.ledger.write_head()

    def service(self, **options: int) -> Backups:
        return Backups(
            self.database,
            self.head,
            self.kept,
            daily=options.get("daily", 7),
            weekly=options.get("weekly", 4),
            now=lambda: self.now,
        )

    def back_up(self, reason: Reason = Reason.MANUAL, days: float = 0) -> Backup:
        now = Instant(self.now + round(days * DAY))
        name = new_name(self.kept, self.database.stem, reason, now)
        return make_backup(self.database, self.kept, name, reason, now, known_head=self.head)

    def restore(self, name: str, client_id: str = "demo") -> Restored:
        return restore(self.database, self.head, self.kept / f"{name}.db", client_id=client_id, now=self.now)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    office = Office(tmp_path)
    await office.open()
    yield office
    await office.close()


@pytest.fixture(scope="package", autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of log lines of simulated time only hide what a failing test says."""
    before = log._output.rank
    log._output.rank = 100
    yield
    log._output.rank = before
