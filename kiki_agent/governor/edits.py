"""The changes of the last days, counted as the platforms count them: also those whose outcome is unknown."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from kiki_agent.accounts import LEVER_OF, Lever
from kiki_agent.model import DAY, Instant, Intent, IntentKind

REMEMBERED = 2 * DAY


@dataclass(frozen=True, slots=True)
class Edit:
    """One change that was sent and not refused."""

    at: Instant
    before: int
    after: int
    cause: str
    key: str


class Edits:
    """Edits by lever, and what each cause took and gave."""

    def __init__(self) -> None:
        self._by_lever: dict[tuple[str, str, Lever], list[Edit]] = {}
        self._taken: dict[str, int] = {}
        self._given: dict[str, int] = {}

    def sent(self, intent: Intent, entity: str, now: Instant) -> None:
        """A change goes out."""
        if intent.kind is IntentKind.PLACE_BID:
            return
        place = (intent.connector, entity, LEVER_OF[intent.kind])
        kept = self._by_lever.setdefault(place, [])
        if kept and now - kept[0].at > REMEMBERED:
            kept[:] = [each for each in kept if now - each.at <= REMEMBERED]
        kept.append(Edit(now, intent.before, intent.after, intent.cause, intent.key))
        if intent.kind is IntentKind.SET_BUDGET and intent.cause and intent.after > intent.before:
            self._given[intent.cause] = self._given.get(intent.cause, 0) + intent.after - intent.before

    def settled(self, intent: Intent, entity: str, *, accepted: bool) -> None:
        """A change was taken or refused; a refused one counts no more."""
        if intent.kind is IntentKind.PLACE_BID:
            return
        delta = intent.after - intent.before
        budget = intent.kind is IntentKind.SET_BUDGET and bool(intent.cause)
        if accepted and budget and delta < 0:
            self._taken[intent.cause] = self._taken.get(intent.cause, 0) - delta
        if not accepted:
            if budget and delta > 0:
                self._given[intent.cause] = self._given.get(intent.cause, 0) - delta
            kept = self._by_lever.get((intent.connector, entity, LEVER_OF[intent.kind]), [])
            kept[:] = [each for each in kept if each.key != intent.key]

    def covered(self, cause: str) -> int:
        """How much budget a cause took and has not given yet."""
        return self._taken.get(cause, 0) - self._given.get(cause, 0)

    def of(self, connector: str, entity: str, lever: Lever, since: int) -> list[Edit]:
        """Edits of a lever after an instant, oldest first."""
        return [each for each in self._by_lever.get((connector, entity, lever), ()) if each.at > since]

    def net(self, connector: str, lever: Lever, since: int, without: Collection[str] = ()) -> int:
        """Sum of all changes of a connector's levers of one kind after an instant, but for those of some causes."""
        return sum(
            edit.after - edit.before
            for (owner, _, kind), edits in self._by_lever.items()
            if owner == connector and kind is lever
            for edit in edits
            if edit.at > since and edit.cause not in without
        )

    def restore(self, connection: sqlite3.Connection, now: Instant) -> list[tuple[Instant, Intent, str]]:
        """What the record knows of the last days and of shifts under way: sent at, intent, state."""
        columns = "key, kind, connector, campaign_id, before, after, currency, reason, at, cause, budget_id"
        rows = connection.execute(
            f"SELECT {columns}, sent_at, state FROM intents WHERE kind <> 'place_bid' AND (sent_at > ? OR cause IN"
            " (SELECT shift_id FROM shifts WHERE state IN ('decreasing', 'increasing', 'returning')))"
            " ORDER BY sent_at, key",
            (now - REMEMBERED,),
        ).fetchall()
        return [(Instant(row[11]), Intent(row[0], IntentKind(row[1]), *row[2:11]), row[12]) for row in rows]
