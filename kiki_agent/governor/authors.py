"""Who made an edit that was not ours, as far as the platform's own change history tells.

The edit itself is on record and respected at once; who made it is asked afterwards and becomes an entry of its own,
for histories are minutes late. One call asks for all edits of a connector that wait; it is made at most three times.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Sequence
from typing import Protocol

from kiki_agent.accounts import Lever, OutsideEdit
from kiki_agent.errors import PluginError, Unsupported
from kiki_agent.hooks.edit import AccountEdit
from kiki_agent.ledger import Ledger
from kiki_agent.model import DAY, MINUTE, Instant
from kiki_agent.runtime.log import get_logger
from kiki_agent.store import Store

TRIES = (0, 5 * MINUTE, 20 * MINUTE)
"""So long after an edit was seen the history is asked for: Google's is three minutes late, Meta's a quarter hour."""
REACH = DAY
"""An edit was made at most this long before it was seen; a platform that was silent for longer keeps it unsaid."""
SKEW = 10 * MINUTE
"""How far a platform's clock may be from ours."""

_log = get_logger("governor")


class Ask(Protocol):
    """The part of the plugin caller that is needed here; calls pass limits and circuits on their way."""

    def __call__(self, instance_id: str, verb: str, *args: object) -> Awaitable[object]:
        """Call one verb of one instance; raises nothing but PluginError."""
        ...


class Authors:
    """The edits whose author is not known yet."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self.ask: Ask | None = None
        """None until plugins can be called."""
        self._store = store
        self._ledger = ledger
        self._waiting: dict[str, list[tuple[OutsideEdit, int]]] = {}
        self._loaded = False

    def add(self, edits: Sequence[OutsideEdit]) -> None:
        """Edits that were just put on record."""
        for each in edits:
            self._waiting.setdefault(each.connector, []).append((each, 0))

    async def look(self, now: Instant) -> int:
        """Ask the histories that are due; how many edits were settled."""
        if not self._loaded:
            self._loaded = True
            self.add(await self._store.read(lambda connection: _unsaid(connection, now)))
        if not self._waiting or self.ask is None:
            return 0
        settled = 0
        for connector in sorted(self._waiting):
            if any(now - edit.at >= TRIES[tries] for edit, tries in self._waiting[connector]):
                settled += await self._look_at(connector, self.ask, now)
        return settled

    async def _look_at(self, connector: str, ask: Ask, now: Instant) -> int:
        waiting = self._waiting.pop(connector)
        since = min(edit.at for edit, _ in waiting) - REACH
        try:
            told = await ask(connector, "fetch_edits", Instant(since))
        except Unsupported:
            return 0  # it keeps no history: they stay `outside`
        except PluginError as error:
            told = None
            text = f"{connector} did not tell who made an edit: {error}"
            _log.warning("history_not_read", text, connector=connector, error=type(error).__name__)
        history = [each for each in told if isinstance(each, AccountEdit)] if isinstance(told, list | tuple) else None
        found: list[tuple[OutsideEdit, AccountEdit | None]] = []
        later: list[tuple[OutsideEdit, int]] = []
        for edit, tries in waiting:
            author = author_of(edit, history or ())
            last = now - edit.at >= TRIES[-1] or tries + 1 >= len(TRIES)
            if author is not None or (last and history is not None):
                found.append((edit, author))
            elif not last:
                later.append((edit, tries + 1))
        if later:
            self._waiting[connector] = later + self._waiting.get(connector, [])
        if found:
            await self._store.write(lambda connection: _write(connection, self._ledger, found, now))
        return len(found)


def author_of(edit: OutsideEdit, history: Sequence[AccountEdit]) -> AccountEdit | None:
    """The newest line of a history that made the edit: of that lever, in time, and to that value where it is said."""
    candidates = [
        each
        for each in history
        if edit.campaign_id in each.campaign_ids
        and each.lever == edit.lever.value
        and edit.at - REACH <= each.at <= edit.at + SKEW
        and each.after in (None, edit.after)
    ]
    return max(candidates, key=lambda each: (each.after is not None, each.at), default=None)


def _write(
    connection: sqlite3.Connection,
    ledger: Ledger,
    found: Sequence[tuple[OutsideEdit, AccountEdit | None]],
    now: Instant,
) -> None:
    """An entry that says who made which edit, beside the one that says what it was."""
    for edit, author in found:
        source = "unknown" if author is None else author.made_by
        through = "" if author is None else author.through
        made_at = None if author is None else int(author.at)
        place = (edit.connector, edit.entity, edit.lever.value, edit.at)
        connection.execute(
            "UPDATE external_edits SET source = ?, through = ?, made_at = ?"
            " WHERE connector = ? AND entity = ? AND lever = ? AND at = ?",
            (source, through, made_at, *place),
        )
        body = {
            "connector": edit.connector,
            "campaign_id": edit.campaign_id,
            "entity": edit.entity,
            "lever": edit.lever.value,
            "after": edit.after,
            "seen_at": edit.at,
            "made_at": made_at,
            "source": source,
            "through": through,
        }
        ledger.append(connection, now, "external", body)


def _unsaid(connection: sqlite3.Connection, now: Instant) -> list[OutsideEdit]:
    """The young edits of the last process whose author is not known."""
    rows = connection.execute(
        "SELECT connector, campaign_id, entity, lever, before, after, at FROM external_edits"
        " WHERE source = 'outside' AND at > ? ORDER BY id",
        (now - TRIES[-1],),
    ).fetchall()
    return [OutsideEdit(row[0], row[1], row[2], Lever(row[3]), row[4], row[5], Instant(row[6])) for row in rows]
