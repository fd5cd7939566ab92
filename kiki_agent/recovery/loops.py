"""The rhythms of recovery: a backup a day, and the wait after a restore until every platform has told what it spent."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from kiki_agent.ledger import Ledger
from kiki_agent.model import MINUTE, SECOND, Instant, iso
from kiki_agent.recovery.backups import Reason
from kiki_agent.recovery.restoring import RESTORED
from kiki_agent.recovery.service import Backups, Busy
from kiki_agent.runtime.loop import Loop
from kiki_agent.store import Store, get_meta, set_meta


class BackupLoop(Loop):
    """Makes a backup when the newest daily one is old enough. A tick begins it, a later tick says how it ended."""

    name = "backup"
    first_due_at_start = False

    def __init__(self, backups: Backups, interval_s: float, speed: float, held: Callable[[], str | None]) -> None:
        """`speed` is the clock's: a disk fills in real time, however fast a demo runs. `held()` says why the record is
        not to be trusted; what is not trusted is not backed up over what is."""
        scale = max(1.0, speed)
        self.period = round(10 * MINUTE * scale)
        self._interval = round(interval_s * SECOND * scale)
        self._backups = backups
        self._held = held
        self._begun = False

    async def tick(self, now: Instant) -> str | None:
        """Begin a backup when one is due. Raises StoreError when the last one failed."""
        if self._begun and self._backups.making is None:
            self._begun = False
            await self._backups.outcome()
        if self._backups.making is not None:
            return f"backup {self._backups.making} is being made, {self._backups.progress:.0%}"
        if (held := self._held()) is not None:
            return f"no backup while the record is not trusted: {held}"
        newest = next((each for each in await self._backups.listed() if each.reason == Reason.DAILY), None)
        if newest is not None and 0 <= now - newest.made_at < self._interval:
            return f"the newest daily backup is {(now - newest.made_at) / SECOND / 3600:.1f} h old"
        try:
            self._backups.begin(Reason.DAILY)
        except Busy as busy:
            return str(busy)
        self._begun = True
        return None


class RestoredHold(Loop):
    """After a restore: nothing is permitted until every platform has told its campaigns and its spend.

    What was spent since the backup is not in the restored record, so windows and days are too empty until the platforms
    have told. Where it is not known either what was placed since, nothing is permitted before those days and windows
    have ended. The mark of the restore goes after that, in the database, so a restart waits again.
    """

    name = "restored"
    period = 2 * SECOND

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        connectors: Sequence[str],
        heard: Callable[[str], bool],
        hold: Callable[[str | None], None],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._connectors = tuple(connectors)
        self._heard = heard
        self._hold = hold
        self._mark: dict[str, str | int] | None = None

    @property
    def waiting(self) -> bool:
        """Whether the database was restored and the platforms have not all told yet."""
        return self._mark is not None

    async def load(self) -> bool:
        """Look for the mark of a restore, and hold when it is there. Raises StoreError."""
        text = await self._store.read(lambda connection: get_meta(connection, RESTORED))
        if text:
            self._mark = msgspec.json.decode(text, type=dict[str, str | int])
            self._hold(self._reason())
        return self.waiting

    async def note(self, now: Instant) -> None:
        """Put the restore on record, once. Raises StoreError."""
        if self._mark is not None and not self._mark.get("noted"):
            noted = {**self._mark, "noted": 1}
            await self._store.write(lambda connection: self._note(connection, noted, now))
            self._mark = noted

    async def tick(self, now: Instant) -> str | None:
        """End the hold when every platform has told. Raises StoreError."""
        if self._mark is None:
            return "nothing was restored"
        if self._silent() or now < int(self._mark.get("until", 0)):
            self._hold(self._reason())
            return self._reason()
        await self._store.write(lambda connection: set_meta(connection, RESTORED, ""))
        self._mark = None
        self._hold(None)
        return None

    def _silent(self) -> list[str]:
        return [connector for connector in self._connectors if not self._heard(connector)]

    def _reason(self) -> str:
        assert self._mark is not None
        text = f"the record was restored from {self._mark.get('backup')}; "
        until = int(self._mark.get("until", 0))
        if until:
            text += f"what was placed since is not known, so nothing is permitted before {iso(Instant(until))}; "
        silent = ", ".join(self._silent()) or ("none" if until else "none, at the next tick it ends")
        return f"{text}waiting to hear from: {silent}"

    def _note(self, connection: sqlite3.Connection, mark: dict[str, str | int], now: Instant) -> None:
        body = {"control": "restore", "backup": mark["backup"], "seq": mark["seq"]}
        self._ledger.append(connection, now, "control", body)
        set_meta(connection, RESTORED, msgspec.json.encode(mark).decode())
