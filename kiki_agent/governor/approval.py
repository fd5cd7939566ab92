"""What needs a person's approval: raises above an amount, in one step or in many small ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence

from kiki_agent.accounts import Lever
from kiki_agent.errors import Denied
from kiki_agent.governor.changes import entity_of_intent
from kiki_agent.governor.checks import since
from kiki_agent.governor.edits import Edits
from kiki_agent.governor.reasons import Held
from kiki_agent.model import Instant, Intent, IntentKind, decimal_text
from kiki_agent.shield import AllocationView, Shield
from kiki_agent.store import Store

Wish = Mapping[str, str | int | None]
"""What `Shield.allocate` takes, by name, and `before_micros`."""
REMEMBERED_S = 3 * 24 * 3_600
"""How long it is known that a person asked for something, in seconds: longer than the span raises are counted over."""


def check_small_steps(
    intents: Sequence[Intent], edits: Edits, asked: Collection[str], above_micros: int | None, now: Instant
) -> None:
    """Raises of 24 hours that nobody was asked about stay within what needs no approval.

    Counted net for each budget, and for all budgets of a connector together. `asked` are the causes a person asked
    for; what they did does not count. Raises Denied APPROVAL.
    """
    if above_micros is None:
        return
    budgets: dict[tuple[str, str], int] = {}
    for each in intents:
        if each.kind is IntentKind.SET_BUDGET:
            place = (each.connector, entity_of_intent(each))
            budgets[place] = budgets.get(place, 0) + each.after - each.before
    connectors: dict[str, int] = {}
    for (connector, entity), delta in budgets.items():
        connectors[connector] = connectors.get(connector, 0) + delta
        recent = edits.of(connector, entity, Lever.BUDGET, since(now))
        net = sum(edit.after - edit.before for edit in recent if edit.cause not in asked)
        _judge(f"budget of {connector}/{entity}", delta, net, above_micros, intents[0].currency)
    for connector, delta in connectors.items():
        net = edits.net(connector, Lever.BUDGET, since(now), without=asked)
        _judge(f"budgets of {connector}", delta, net, above_micros, intents[0].currency)


def _judge(what: str, delta: int, net: int, above_micros: int, currency: str) -> None:
    if delta > 0 and net + delta > above_micros:
        raised, most = decimal_text(net + delta, currency), decimal_text(above_micros, currency)
        raise Denied(
            Held.APPROVAL,
            f"{what}: with this step they would be raised by {raised} a day within 24 hours, and all above {most}"
            " needs approval",
        )


def causes_of_people(connection: sqlite3.Connection, after: int) -> list[str]:
    """Causes people asked for: orders and approved shifts that are under way, or were decided after an instant."""
    rows = connection.execute(
        "SELECT order_id FROM orders WHERE closed_at IS NULL OR closed_at > ? UNION"
        " SELECT json_extract(facts, '$.shift_id') FROM suggestions"
        " LEFT JOIN shifts ON shift_id = json_extract(facts, '$.shift_id')"
        " WHERE kind = 'shift' AND suggestions.state = 'approved' AND (decided_at > ? OR shifts.state IS NULL"
        " OR shifts.state IN ('decreasing', 'increasing', 'returning'))",
        (after, after),
    )
    return [row[0] for row in rows]


class Allocations:
    """Allocations that people give. For each campaign it is known what a person last approved or lowered it to.

    Raises are counted from there, so that many small ones are one large one.
    """

    def __init__(self, shield: Shield, store: Store, above_micros: int | None) -> None:
        self._shield = shield
        self._store = store
        self._above = above_micros
        self._bases: dict[str, int] = {}

    def load(self, connection: sqlite3.Connection) -> None:
        """Know what the last process knew."""
        self._bases = dict(connection.execute("SELECT campaign_id, base_micros FROM allocation_bases").fetchall())

    def needs_approval(self, campaign_id: str, before_micros: int, wanted_micros: int) -> bool:
        """Whether a raise waits for a person."""
        if self._above is None or wanted_micros <= before_micros:
            return False
        return wanted_micros - self._bases.get(campaign_id, 0) > self._above

    async def give(self, wish: Wish, now: Instant, *, approved: bool = False) -> AllocationView:
        """Give a campaign what needs no approval, or has it. Raises Denied, StoreError."""
        given = {name: value for name, value in wish.items() if name != "before_micros"}
        changed = await self._shield.allocate(now=now, **given)  # type: ignore[arg-type]
        if approved or self._above is None or changed.budget_micros < int(wish["before_micros"] or 0):
            self._bases[changed.campaign_id] = changed.budget_micros
            await self._store.write(
                lambda connection: _write_base(connection, changed.campaign_id, changed.budget_micros, now)
            )
        return changed


def _write_base(connection: sqlite3.Connection, campaign_id: str, base_micros: int, now: Instant) -> None:
    connection.execute(
        "INSERT INTO allocation_bases (campaign_id, base_micros, at) VALUES (?, ?, ?) ON CONFLICT (campaign_id)"
        " DO UPDATE SET base_micros = excluded.base_micros, at = excluded.at",
        (campaign_id, base_micros, now),
    )
