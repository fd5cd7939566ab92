"""What it takes to put back one change, everything of one cause, or a day: from the record, against what stands now."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from kiki_agent.accounts import CampaignTable, LeverKey
from kiki_agent.governor.changes import Change, net, standing_value
from kiki_agent.governor.reasons import Held
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
    cause: str = ""


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
        "SELECT connector, campaign_id, kind, before, after, budget_id, coalesce(settled_at, sent_at), cause"
        " FROM intents"
        f" WHERE {_WHERE[scope]} AND state = 'accepted' AND kind <> '{IntentKind.PLACE_BID.value}'"
        " ORDER BY sent_at, settled_at, key",
        tuple(given),
    )
    return [Made(Change(*row[:6]), Instant(row[6]), row[7]) for row in rows.fetchall()]


def given_up(connection: sqlite3.Connection, made: Sequence[Made]) -> int:
    """By how much everything of the same causes has lowered daily budgets together, in micros; 0 when it has not.

    Only that much may be raised without lowering anything. A shift gives nothing up: what it took it gives elsewhere,
    also where that is another day or still to come.
    """
    budgets = [each for each in made if each.change.kind == IntentKind.SET_BUDGET]
    causes = json.dumps(sorted({each.cause for each in budgets if each.cause}))
    ((raised,),) = connection.execute(
        "SELECT coalesce(sum(after - before), 0) FROM intents WHERE cause IN (SELECT value FROM json_each(?))"
        " AND cause NOT IN (SELECT shift_id FROM shifts) AND kind = ?"
        " AND (state = 'accepted' OR after > before AND state IN ('pending', 'unknown'))",
        (causes, IntentKind.SET_BUDGET.value),
    ).fetchall()
    return max(0, -int(raised) - net([each.change for each in budgets if not each.cause]))


def plan(
    made: Sequence[Made], table: CampaignTable, given_up_micros: int, watched: Collection[str] = ()
) -> RollbackPlan:
    """One change back per lever: to what stood before the first of the changes, if the last of them still stands.

    At a connector that is only `watched` nothing is written, so its changes are refused and those elsewhere go back.
    No budget is raised when one that should be lowered is refused, or when the raises together are more than the
    lowerings and what was `given_up`: rolling back makes no money.
    """
    first: dict[LeverKey, Change] = {}
    last: dict[LeverKey, Change] = {}
    for each in made:
        first.setdefault(each.change.key, each.change)
        last[each.change.key] = each.change
    changes: list[Change] = []
    refused: list[tuple[Change, str]] = []
    lowered: list[Change] = []
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
            lowered.append(back)  # nothing to put back; what was lowered counts
        elif stands != back.before:
            refused.append((back, "MOVED"))
        elif back.connector in watched:
            refused.append((back, Held.WATCH.value))
        else:
            changes.append(back)
    return _covered(RollbackPlan(len(made), tuple(changes), tuple(refused)), lowered, given_up_micros)


def _covered(wanted: RollbackPlan, lowered: Sequence[Change], given_up_micros: int) -> RollbackPlan:
    """The plan without its raises of budgets, where they are not covered."""
    raises = [each for each in wanted.changes if each.kind == IntentKind.SET_BUDGET and each.raises]
    lowerings = [each for each in (*wanted.changes, *lowered) if not each.raises]
    missed = any(each.kind == IntentKind.SET_BUDGET and not each.raises for each, _ in wanted.refused)
    if not missed and net(raises) + net(lowerings) <= given_up_micros:
        return wanted
    kept = tuple(each for each in wanted.changes if each not in raises)
    return replace(wanted, changes=kept, refused=(*wanted.refused, *((each, Held.SUM.value) for each in raises)))
