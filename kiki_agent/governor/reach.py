"""How far a stop reaches: where the agent may pause what runs, and what a person does about the other platforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kiki_agent.accounts import Accounts
from kiki_agent.config import Mode
from kiki_agent.governor.levels import Level

if TYPE_CHECKING:
    from kiki_agent.governor.governor import Governor

_BY_HAND = "pause its campaigns at the platform by hand"


@dataclass(frozen=True, slots=True)
class Reached:
    """What the kill switch does at one connector."""

    connector: str
    running: int
    """Campaigns that run there, as last read or confirmed."""
    why_not: str = ""
    """Why nothing is stopped there, as part of a sentence; empty where the stop goes out."""
    what_to_do: str = ""
    """What a person does about it, as part of a sentence."""

    @property
    def missed(self) -> bool:
        """Whether campaigns run on there in spite of a stop."""
        return bool(self.why_not) and self.running > 0


class Reach:
    """Asked whenever a stop is told of, so that nobody is told of one that did not happen."""

    def __init__(self, governor: Governor, accounts: Accounts, mode: Mode) -> None:
        self._governor = governor
        self._accounts = accounts
        self._mode = mode
        self.asleep: Callable[[str], str] = lambda connector: ""
        """Why a connector makes no calls at all (switched off, quarantined), or nothing; set by who knows."""

    def all(self) -> list[Reached]:
        """Every connector."""
        table = self._accounts.table
        found = []
        for connector in self._governor.connectors:
            low, high = table.bounds.get(connector, (0, 0))
            running = int(table.active[low:high].sum())
            found.append(Reached(connector, running, *self._obstacle(connector)))
        return found

    def _obstacle(self, connector: str) -> tuple[str, str]:
        if self._mode is Mode.DRY_RUN:
            return "nothing is sent in a dry run", _BY_HAND
        asleep = self.asleep(connector)
        if asleep:
            return asleep, _BY_HAND
        if self._governor.standing(connector).level is Level.WATCH:
            command = f"kiki-agent autonomy set {connector} suggest --reason ..."
            return (
                "it is only watched, and there the agent writes nothing",
                f"raise its level ({command}), and the stop goes out there too, or {_BY_HAND}",
            )
        lost = self._accounts.lost.get(connector)
        if lost is not None:
            return "it cannot be read at present", f"{_BY_HAND}; the agent stops it as soon as it answers"
        return "", ""
