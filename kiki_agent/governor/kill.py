"""The kill switch by file and by signal: for when nobody can or wants to reach the HTTP interface."""

from __future__ import annotations

from pathlib import Path

from kiki_agent.model import SECOND, Instant
from kiki_agent.runtime.loop import Loop
from kiki_agent.shield import Shield

FILE = "KILL"
"""Name of the file in the data folder. While it is there the switch stays on; its text is the reason."""
_LONGEST_REASON = 200


class KillWatch(Loop):
    """Throws the kill switch when the file is there or the signal came."""

    name = "kill"
    period = SECOND

    def __init__(self, shield: Shield, folder: Path) -> None:
        self._shield = shield
        self._path = folder / FILE
        self._signalled = ""

    def signal(self, name: str) -> None:
        """A signal asked for it; takes effect with the next tick, at most a second later."""
        self._signalled = name

    async def tick(self, now: Instant) -> str | None:
        """Look; returns why nothing was done."""
        reason = self._reason()
        if reason is None:
            return "nobody asks to stop"
        self._signalled = ""
        if self._shield.killed:
            return "spending is stopped already"
        await self._shield.kill(True, reason, now)
        return None

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
