"""Where the agent and people meet: suggestions, what they decide, the orders that follow, and roll backs."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from kiki_agent.accounts import Accounts
from kiki_agent.config import Settings
from kiki_agent.errors import Denied
from kiki_agent.governor import outside, rollback, suggestions
from kiki_agent.governor.approval import REMEMBERED_S, Allocations, causes_of_people
from kiki_agent.governor.changes import Change, entity_of_intent, standing_value, to_json
from kiki_agent.governor.holds import Hold
from kiki_agent.governor.levels import Level
from kiki_agent.governor.orders import Order, Orders, order_id
from kiki_agent.governor.outside import SeenEdit
from kiki_agent.governor.reasons import Held
from kiki_agent.governor.rollback import RollbackPlan
from kiki_agent.governor.suggestions import Suggestion, ended, suggestion_id
from kiki_agent.ledger import Ledger, Outbox
from kiki_agent.model import DAY, SECOND, Instant, Intent, micros_from_text
from kiki_agent.runtime.signals import Signals
from kiki_agent.shield import Shield
from kiki_agent.store import Store

if TYPE_CHECKING:
    from kiki_agent.governor.governor import Governor

SAME_SHARE = 0.05
"""A wish that differs less than this from what was suggested or noted last is the same wish."""


KEPT = 90 * DAY
"""How long suggestions that have ended are listed; the ledger keeps them as long as it keeps decisions."""
DECLINED_SHARE = 0.25
"""What was declined is not suggested again for a while, nor anything this near to it."""


class Desk:
    """Suggestions, orders and roll backs of all connectors."""

    def __init__(
        self,
        governor: Governor,
        settings: Settings,
        store: Store,
        ledger: Ledger,
        outbox: Outbox,
        accounts: Accounts,
        shield: Shield,
        signals: Signals,
    ) -> None:
        self._governor = governor
        self._store = store
        self._ledger = ledger
        self._accounts = accounts
        self._shield = shield
        self._signals = signals
        self._lives = round(settings.governor.suggestion_s * SECOND)
        above = settings.governor.approval_above
        self.allocations = Allocations(shield, store, None if above is None else micros_from_text(above))
        self._hold_span = round(settings.governor.outside_hold_s * SECOND)
        self.orders = Orders(store, ledger, outbox, accounts, self._permit, settings.currency)
        self.open: dict[str, Suggestion] = {}
        """Open suggestions by subject."""
        self.approved_shifts: list[Suggestion] = []
        """Shifts a person approved and nobody has begun yet; the optimizer takes them."""
        self.on_approved_shift: Callable[[], None] = lambda: None
        """Hears that there is one."""
        self.asked_causes: set[str] = set()
        """Causes a person asked for: orders, and shifts that were approved."""
        self._declined: dict[str, list[tuple[int, Instant]]] = {}
        self._next_pruning = Instant(0)
        self._noted: dict[str, int] = {}
        self._deciding = asyncio.Lock()

    async def load(self, now: Instant) -> None:
        """Take up what the last process left open, and what people said to it."""
        found, _ = await self._store.read(lambda connection: suggestions.read(connection, "open", 1_000_000, 0))
        self.open = {each.subject: each for each in found}
        self.approved_shifts = await self._store.read(suggestions.approved_shifts)
        await self.orders.load()
        since = now - REMEMBERED_S * SECOND
        self.asked_causes = {*await self._store.read(partial(causes_of_people, after=since))}
        for each in await self._store.read(partial(suggestions.declined, after=now - self._lives)):
            self._refuse_for_a_while(each)
        await self._store.read(self.allocations.load)

    # -- who asked -----------------------------------------------------------------------------------------------

    def asked_for(self, intent: Intent) -> bool:
        """Whether a person asked for the change."""
        return bool(intent.cause) and intent.cause in self.asked_causes

    def ordered(self, intent: Intent) -> bool:
        """Whether it is part of an order, which lowers before it raises by itself."""
        return intent.cause in self.orders.open

    def _permit(self, intents: Sequence[Intent], now: Instant) -> None:
        self._governor.may_change_all(intents, now)

    # -- suggestions ---------------------------------------------------------------------------------------------

    def suggest(
        self, intents: Sequence[Intent], held_by: str, why: str, now: Instant, *, facts: str = "{}"
    ) -> Suggestion | None:
        """Put changes before people; None when they know already. Changes with `facts` belong to a shift."""
        changes = tuple(Change.of(each) for each in intents)
        kind: Literal["change", "shift"] = "change" if facts == "{}" else "shift"
        connector = changes[0].connector
        subject = "/".join(changes[0].key) if kind == "change" else f"shift/{connector}/{changes[-1].connector}"
        known = self.open.get(subject)
        wanted = _wanted(kind, changes)
        if self._declined_lately(subject, wanted, now):
            return None
        if known is not None:
            if _same(_wanted(kind, known.changes), wanted) and known.changes[0].before == changes[0].before:
                return None
            self._end(ended(known, "replaced", "agent", now))
        made = Suggestion(
            suggestion_id(subject, now, to_json(changes)),
            kind,
            subject,
            connector,
            why,
            held_by,
            changes,
            facts,
            now,
            Instant(now + self._lives),
        )
        self.open[subject] = made
        self._store.submit(lambda connection: suggestions.insert(connection, self._ledger, made))
        self._signals.publish("suggestion", {"at": now, "suggestion_id": made.suggestion_id, "state": "open"})
        title = f"{connector}: suggestions wait for a person"
        text = "Look at them on the page or with kiki-agent approvals list."
        self._governor.tell("INFO", title, text, connector)  # told once an hour, however many there are
        return made

    def _declined_lately(self, subject: str, wanted: int, now: Instant) -> bool:
        return any(
            now < until and (wanted == said or abs(said - wanted) < DECLINED_SHARE * said)
            for said, until in self._declined.get(subject, ())
        )

    def _refuse_for_a_while(self, declined: Suggestion) -> None:
        if declined.changes and declined.decided_at is not None:
            until = Instant(declined.decided_at + self._lives)
            said = (_wanted(declined.kind, declined.changes), until)
            self._declined.setdefault(declined.subject, []).append(said)

    # -- allocations ---------------------------------------------------------------------------------------------

    async def suggest_allocation(self, wish: Mapping[str, str | int | None], why: str, now: Instant) -> Suggestion:
        """Put a raise of an allocation before people, durably; the same wish again is the same suggestion.

        `wish` is what `Shield.allocate` takes, and `before_micros`. Raises StoreError; Denied when the shield would.
        """
        self._shield.check_allocation(**{name: value for name, value in wish.items() if name != "before_micros"})  # type: ignore[arg-type]
        subject = f"allocation/{wish['campaign_id']}"
        facts = json.dumps({"allocation": dict(wish)}, sort_keys=True)
        known = self.open.get(subject)
        if known is not None and known.facts == facts and now < known.expires_at:
            return known
        if known is not None:
            self._end(ended(known, "replaced", "agent", now))
        ends = Instant(now + self._lives)
        made = Suggestion(
            suggestion_id(subject, now, facts), "change", subject, "", why, Held.APPROVAL.value, (), facts, now, ends
        )
        self.open[subject] = made
        await self._store.submit(lambda connection: suggestions.insert(connection, self._ledger, made))
        self._signals.publish("suggestion", {"at": now, "suggestion_id": made.suggestion_id, "state": "open"})
        return made

    async def _allocate(self, found: Suggestion, now: Instant) -> None:
        """Give the campaign what was approved. Raises Denied."""
        wish = json.loads(found.facts)["allocation"]
        stands = await self._shield.budget(wish["campaign_id"])
        if (stands.budget_micros if stands is not None else 0) != wish["before_micros"]:
            await self._end(ended(found, "stale", "agent", now, "the allocation has changed"))
            raise Denied(Held.MOVED, f"suggestion {found.suggestion_id} is stale: the allocation has changed")
        await self.allocations.give(wish, now, approved=True)

    def would_have(self, intents: Sequence[Intent], held_by: str, now: Instant) -> None:
        """Note what would have been done, once per lever and wish."""
        fresh = []
        for intent in intents:
            place = "/".join((intent.connector, entity_of_intent(intent), intent.kind.value))
            if place in self._noted and _same(self._noted[place], intent.after):
                continue
            self._noted[place] = intent.after
            fresh.append(intent)
        if not fresh:
            return

        def write(connection: sqlite3.Connection) -> None:
            for intent in fresh:
                body = {
                    "connector": intent.connector,
                    "campaign_id": intent.campaign_id,
                    "kind": intent.kind.value,
                    "before": intent.before,
                    "after": intent.after,
                    "why": intent.reason,
                    "held_by": str(held_by),
                }
                self._ledger.append(connection, now, "would_have", body)

        self._store.submit(write)

    def tidy(self, now: Instant) -> int:
        """End suggestions that are too old, or about an account that has moved; how many."""
        self._forget_old(now)
        gone = 0
        for each in list(self.open.values()):
            if now >= each.expires_at:
                self._end(ended(each, "expired", "agent", now))
            elif self._moved(each):
                self._end(ended(each, "stale", "agent", now, "the account has moved"))
            else:
                continue
            gone += 1
        return gone

    def _forget_old(self, now: Instant) -> None:
        """Once a day: what ended long ago is not listed any more, and what was declined is free again."""
        if now < self._next_pruning:
            return
        self._next_pruning = Instant(now + DAY)
        self._store.submit(partial(suggestions.prune, before=now - max(KEPT, self._lives)))
        for subject, said in list(self._declined.items()):
            said[:] = [each for each in said if now < each[1]]
            if not said:
                del self._declined[subject]

    def _moved(self, each: Suggestion) -> bool:
        table = self._accounts.table
        return any(standing_value(table, change) != change.before for change in each.changes)

    def _tell_end(self, each: Suggestion) -> None:
        self._signals.publish(
            "suggestion", {"at": each.decided_at, "suggestion_id": each.suggestion_id, "state": each.state}
        )

    def _end(self, each: Suggestion) -> asyncio.Future[bool]:
        self.open.pop(each.subject, None)
        self._tell_end(each)
        return self._store.submit(lambda connection: suggestions.close(connection, self._ledger, each))

    async def list_suggestions(self, state: str | None, limit: int, offset: int) -> tuple[list[Suggestion], int]:
        """Suggestions, newest first, and how many there are in all."""
        return await self._store.read(lambda connection: suggestions.read(connection, state, limit, offset))

    async def find(self, name: str) -> Suggestion:
        """A suggestion by its id. Raises Denied NOT_FOUND."""
        for each in self.open.values():
            if each.suggestion_id == name:
                return each
        found = await self._store.read(lambda connection: suggestions.read_one(connection, name))
        if found is None:
            raise Denied("NOT_FOUND", f"there is no suggestion {name[:64]!r}")
        return found

    async def approve(self, name: str, by: str, note: str, now: Instant) -> tuple[Suggestion, Order | None]:
        """Do what was suggested. Raises Denied: NOT_FOUND, CONFLICT when it has ended, MOVED, WATCH."""
        async with self._deciding:
            found = await self._decidable(name, now)
            for connector in sorted({each.connector for each in found.changes}):
                if self._governor.standing(connector).level is Level.WATCH:
                    raise Denied(Held.WATCH, f"{connector} is only watched; raise its level first")
            decided = ended(found, "approved", by, now, note)
            if not found.changes:
                await self._allocate(found, now)
                await self._end(decided)
                return decided, None
            if found.kind == "change":
                return decided, await self._order("suggestion", found.suggestion_id, found.changes, by, now, decided)
            self.asked_causes.add(str(json.loads(found.facts)["shift_id"]))
            await self._end(decided)
            self.approved_shifts.append(decided)
            self.on_approved_shift()
            return decided, None

    async def decline(self, name: str, by: str, note: str, now: Instant) -> Suggestion:
        """Do not do it, and do not suggest the same again for a while. Raises Denied: NOT_FOUND, CONFLICT."""
        async with self._deciding:
            found = await self._decidable(name, now, moved_is_fine=True)
            decided = ended(found, "declined", by, now, note)
            await self._end(decided)
            self._refuse_for_a_while(decided)
            return decided

    async def _decidable(self, name: str, now: Instant, *, moved_is_fine: bool = False) -> Suggestion:
        found = await self.find(name)
        if found.state != "open" or self.open.get(found.subject) is not found:
            raise Denied("CONFLICT", f"suggestion {name} was {found.state} already")
        if now >= found.expires_at:
            await self._end(ended(found, "expired", "agent", now))
            raise Denied("CONFLICT", f"suggestion {name} has expired")
        if not moved_is_fine and self._moved(found):
            await self._end(ended(found, "stale", "agent", now, "the account has moved"))
            raise Denied(Held.MOVED, f"suggestion {name} is stale: the account has moved since it was made")
        return found

    # -- orders and roll back ------------------------------------------------------------------------------------

    async def _order(
        self,
        kind: Literal["suggestion", "rollback"],
        subject: str,
        changes: tuple[Change, ...],
        by: str,
        now: Instant,
        approved: Suggestion | None = None,
    ) -> Order:
        """Put an order on record, with the end of the suggestion it comes from, and begin it."""
        order = Order(order_id(kind, subject, now), kind, subject, changes, by, now)
        self.asked_causes.add(order.order_id)
        if approved is None:
            await self.orders.make(order)
        else:
            known = self.open.pop(approved.subject)  # at once: a new wish about the same may come meanwhile
            try:
                await self.orders.make(order, lambda connection: suggestions.close(connection, self._ledger, approved))
            except BaseException:
                self.open.setdefault(approved.subject, known)
                raise
            self._tell_end(approved)
        return await self.orders.advance(order, now)

    async def plan_rollback(self, scope: str, given: Sequence[str | int]) -> RollbackPlan:
        """What it takes to put back a change (key), a batch (cause) or a day (from, to)."""

        def read(connection: sqlite3.Connection) -> tuple[list[rollback.Made], int]:
            made = rollback.find_made(connection, scope, given)
            return made, rollback.given_up(connection, made)

        made, given_up = await self._store.read(read)
        return rollback.plan(made, self._accounts.table, given_up, self._watched(made))

    def _watched(self, made: Sequence[rollback.Made]) -> frozenset[str]:
        named = {each.change.connector for each in made}
        return frozenset(each for each in named if self._governor.standing(each).level is Level.WATCH)

    async def roll_back(
        self, scope: str, given: Sequence[str | int], by: str, now: Instant
    ) -> tuple[RollbackPlan, Order | None]:
        """Put changes back, lowering first, and leave their levers alone for a while. Raises Denied.

        NOT_FOUND when nothing of it is on record, WATCH when nothing may be written where it was done, MOVED when
        nothing of it still stands, SUM when it would only raise budgets and nothing covers that.
        """
        async with self._deciding:
            plan = await self.plan_rollback(scope, given)
            if not plan.found:
                raise Denied("NOT_FOUND", "no accepted change of that kind is on record")
            if not plan.changes:
                if not plan.refused:
                    raise Denied("CONFLICT", "all of it is put back already")
                watched = sorted({each.connector for each, why in plan.refused if why == Held.WATCH})
                if watched:
                    raise Denied(Held.WATCH, f"{', '.join(watched)} is only watched; raise its level first")
                if any(why == Held.SUM for _, why in plan.refused):
                    raise Denied(Held.SUM, "what it raised elsewhere is not lowered with it, so no budget is raised")
                raise Denied(Held.MOVED, "the account has moved since; nothing was put back")
            order = await self._order("rollback", "/".join(map(str, (scope, *given))), plan.changes, by, now)
            self._leave_alone(plan.changes, now)
            return plan, order

    def _leave_alone(self, changes: Sequence[Change], now: Instant) -> None:
        for each in changes:
            connector, entity, lever = each.key
            hold = Hold(
                connector, entity, lever, each.campaign_id, each.after, "rollback", now, Instant(now + self._hold_span)
            )
            self._governor.holds.put(hold)
            self._store.submit(partial(outside.write_pin, ledger=self._ledger, hold=hold, by="rollback", now=now))

    async def carry_on(self, now: Instant) -> int:
        """Move on orders that waited for an answer; how many there are."""
        waiting = list(self.orders.open.values())
        for order in waiting:
            await self.orders.advance(order, now)
        return len(waiting)

    async def edits_of_others(self, limit: int, offset: int) -> tuple[list[SeenEdit], int]:
        """Edits of others, newest first, and how many there are in all."""
        return await self._store.read(lambda connection: outside.read_edits(connection, limit, offset))


def _wanted(kind: str, changes: Sequence[Change]) -> int:
    """The one number wishes about the same thing are compared by: the new value, or how much a shift moves."""
    return changes[-1].after if kind == "change" else sum(abs(each.after - each.before) for each in changes)


def _same(one: int, other: int) -> bool:
    return abs(one - other) < SAME_SHARE * max(1, abs(one)) or one == other
