"""What it takes to put back one change, everything of one cause, or a day: from the record, against what stands now."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from kiki_agent.accounts import CampaignTable, LeverKey
from kiki_agent.governor.changes import Change, standing_value
from kiki_agent.model import Instant, IntentKind

_WHERE = {
    "change": "key = ?",
    "batch": "cause = ? AND cause <> ''",
    "day": "coalesce(settled_at, sent_at) >= ? AND coalesce(settled_at, sent_at) < ?",
}


@dataclass(frozen=True, slots=True)
class Made:
    """A change on record that is in force as far as the agent knows."""

    change: Change
    at: Instant


@dataclass(frozen=True, slots=True)
class RollbackPlan:
    """What would be put back, and what cannot be."""

    found: int
    """Accepted changes on record that were meant."""
    changes: tuple[Change, ...]
    refused: tuple[tuple[Change, str], ...]
    """Levers that are left as they are, and why."""


def find_made(connection: sqlite3.Connection, scope: str, given: Sequence[str | int]) -> list[Made]:
    """Accepted changes of levers, oldest first. `scope`: change (key), batch (cause) or day (from, to)."""
    rows = connection.execute(
        "SELECT connector, campaign_id, kind, before, after, budget_id, coalesce(settled_at, sent_at) FROM intents"
        f" WHERE {_WHERE[scope]} AND state = 'accepted' AND kind <> '{IntentKind.PLACE_BID.value}'"
        " ORDER BY sent_at, settled_at, key",
        tuple(given),
    )
    return [Made(Change(*row[:6]), Instant(row[6])) for row in rows.fetchall()]


def plan(made: Sequence[Made], table: CampaignTable) -> RollbackPlan:
    """One change back per lever: to what stood before the first of the changes, if the last of them still stands."""
    first: dict[LeverKey, Change] = {}
    last: dict[LeverKey, Change] = {}
    for each in made:
        first.setdefault(each.change.key, each.change)
        last[each.change.key] = each.change
    changes: list[Change] = []
    refused: list[tuple[Change, str]] = []
    for key, newest in last.items():
        back = Change(
            newest.connector,
            newest.campaign_id,
            newest.kind,
            newest.after,
            first[key].before,
            newest.budget_id,
        )
        stands = standing_value(table, back)
        if stands is None:
            refused.append((back, "GONE"))
        elif stands == back.after:
            continue  # nothing to put back
        elif stands != back.before:
            refused.append((back, "MOVED"))
        else:
            changes.append(back)
    return RollbackPlan(len(made), tuple(changes), tuple(refused))
