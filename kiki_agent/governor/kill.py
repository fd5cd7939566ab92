"""The kill switch by file and by signal: for when nobody can or wants to reach the HTTP interface."""

from __future__ import annotations

import os
from pathlib import Path

from kiki_agent.governor.governor import Governor
from kiki_agent.model import SECOND, Instant
from kiki_agent.runtime.loop import Loop
from kiki_agent.shield import Shield

FILE = "KILL"
"""Name of the file in the data folder. While it is there the switch stays on; its text is the reason."""
SUBJECT = "kill_switch"
"""What alerts about stops are about, alone or with a connector behind it."""
_LONGEST_REASON = 200


def file_in_the_way(folder: Path) -> Path | None:
    """The file that keeps the switch on, while it is there."""
    path = folder / FILE
    return path if os.path.lexists(path) else None


class KillWatch(Loop):
    """Throws the kill switch when the file is there or the signal came; tells where a stop does not reach."""

    name = "kill"
    period = SECOND

    def __init__(self, shield: Shield, governor: Governor, folder: Path) -> None:
        self._shield = shield
        self._governor = governor
        self._told: set[str] = set()
        self._path = folder / FILE
        self._signalled = ""

    def signal(self, name: str) -> None:
        """A signal asked for it; takes effect with the next tick, at most a second later."""
        self._signalled = name

    async def tick(self, now: Instant) -> str | None:
        """Look; returns why nothing was done."""
        by, reason = "signal" if self._signalled else "file", self._reason()
        self._signalled = ""
        try:
            if reason is None:
                return "nobody asks to stop"
            if self._shield.killed:
                return "spending is stopped already"
            await self._shield.kill(True, reason, now, by)
            return None
        finally:
            self._tell()

    def _tell(self) -> None:
        """While spending is stopped: each platform it does not reach, once."""
        if not self._shield.killed:
            self._told.clear()
            return
        for each in self._governor.reach.all():
            if each.missed and each.connector not in self._told:
                self._told.add(each.connector)
                many = "1 campaign runs" if each.running == 1 else f"{each.running} campaigns run"
                text = f"{many} on there: {each.why_not}. To stop {each.connector}: {each.what_to_do}."
                subject = f"{SUBJECT}:{each.connector}"
                self._governor.tell("CRITICAL", f"{each.connector} is not stopped", text, subject)

    def _reason(self) -> str | None:
        if self._signalled:
            return f"signal {self._signalled}"
        try:
            text = self._path.read_bytes()[: 4 * _LONGEST_REASON]
        except FileNotFoundError:
            return None
        except OSError as error:  # it is there, and that is what counts
            return f"the file {FILE} is there and cannot be read: {error.strerror}"
        words = " ".join(text.decode("utf-8", "replace").split())[:_LONGEST_REASON]
        return f"file {FILE}: {words}" if words else f"file {FILE}"
