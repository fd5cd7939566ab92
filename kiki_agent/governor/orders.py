"""Orders of people: approved suggestions and roll backs, carried out lowering first, over any number of restarts.

What is lowered is confirmed before anything is raised; when a budget could not be lowered, no budget is raised.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kiki_agent.accounts import Accounts
from kiki_agent.errors import Denied
from kiki_agent.governor.changes import Change, from_json, standing_value, to_json
from kiki_agent.ledger import Ledger, Outbox
from kiki_agent.model import Instant, Intent, IntentKind
from kiki_agent.runtime.log import get_logger
from kiki_agent.store import Store

_log = get_logger("governor")


@dataclass(frozen=True, slots=True)
class Order:
    """Changes a person asked for."""

    order_id: str
    kind: Literal["suggestion", "rollback"]
    subject: str
    """The suggestion, or what was rolled back."""
    changes: tuple[Change, ...]
    made_by: str
    made_at: Instant
    state: Literal["open", "done", "partial", "failed"] = "open"
    note: str = ""
    """What was not done, and why."""
    closed_at: Instant | None = None


def order_id(kind: str, subject: str, made_at: int) -> str:
    """Id derived from the fact: 24 hexadecimal characters."""
    return hashlib.sha256(f"order\x1f{kind}\x1f{subject}\x1f{made_at}".encode()).hexdigest()[:24]


Permit = Callable[[Sequence[Intent], Instant], None]
_COLUMNS = "order_id, kind, subject, changes, made_by, made_at, state, note, closed_at"


class Orders:
    """The orders under way, and the one way to move them on."""

    def __init__(
        self, store: Store, ledger: Ledger, outbox: Outbox, accounts: Accounts, permit: Permit, currency: str
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._outbox = outbox
        self._accounts = accounts
        self._permit = permit
        """Raises Denied when changes may not go out, though a person asked for them."""
        self._currency = currency
        self.open: dict[str, Order] = {}
        self._busy: set[str] = set()
        self._refused: dict[tuple[str, str], str] = {}

    async def load(self) -> None:
        """Take up what the last process left open."""
        rows = await self._store.read(
            lambda connection: connection.execute(
                f"SELECT {_COLUMNS} FROM orders WHERE state = 'open' ORDER BY made_at, order_id"
            ).fetchall()
        )
        self.open = {row[0]: _from_row(row) for row in rows}

    async def make(self, order: Order, with_it: Callable[[sqlite3.Connection], object] | None = None) -> None:
        """Put an order on record before anything of it is sent; `with_it` writes in the same transaction.

        So what was approved is ordered, however the process ends. Raises StoreError.
        """

        def write(connection: sqlite3.Connection) -> None:
            if with_it is not None:
                with_it(connection)
            connection.execute(
                f"INSERT INTO orders ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    order.order_id,
                    order.kind,
                    order.subject,
                    to_json(order.changes),
                    order.made_by,
                    order.made_at,
                    order.state,
                    order.note,
                    order.closed_at,
                ),
            )
            body: dict[str, object] = {
                "order_id": order.order_id,
                "kind": order.kind,
                "subject": order.subject,
                "by": order.made_by,
                "changes": len(order.changes),
                "state": "open",
            }
            self._ledger.append(connection, order.made_at, "order", body)

        await self._store.write(write)
        self.open[order.order_id] = order

    async def advance(self, order: Order, now: Instant) -> Order:
        """Carry an order as far as confirmed answers allow; the order afterwards."""
        if order.order_id in self._busy or order.order_id not in self.open:
            return order
        self._busy.add(order.order_id)
        try:
            lowering = [each for each in order.changes if not each.raises]
            raising = [each for each in order.changes if each.raises]
            states = await self._carry(order, lowering, now)
            if "waiting" in states:
                return order
            short = any(
                state != "accepted" and each.kind == IntentKind.SET_BUDGET
                for each, state in zip(lowering, states, strict=True)
            )
            if short:
                kept = [each for each in raising if each.kind != IntentKind.SET_BUDGET]
                for each in raising:
                    if each.kind == IntentKind.SET_BUDGET:
                        self._refuse(order, each, "what should be lowered first was not")
                raising = kept
            states += await self._carry(order, raising, now)
            if "waiting" in states:
                return order
            return await self._close(order, now)
        finally:
            self._busy.discard(order.order_id)

    async def _carry(self, order: Order, changes: Sequence[Change], now: Instant) -> list[str]:
        """Send what was not sent, and say what became of each: accepted, refused or waiting."""
        intents = [
            each.intent(order.order_id, self._currency, _REASON[order.kind], now, order.made_at) for each in changes
        ]
        known = await self._states([each.key for each in intents])
        batches: dict[tuple[str, IntentKind], list[Intent]] = {}
        for change, intent in zip(changes, intents, strict=True):
            if intent.key not in known and (order.order_id, intent.key) not in self._refused:
                why = self._obstacle(change, intent, now)
                if why == "UNSETTLED":
                    known[intent.key] = "pending"
                elif why:
                    self._refuse(order, change, why, intent.key)
                else:
                    batches.setdefault((intent.connector, intent.kind), []).append(intent)
        for (connector, kind), batch in batches.items():
            size = self._accounts.batch_size(connector)
            for begin in range(0, len(batch), size):
                part = batch[begin : begin + size]
                receipts = await self._outbox.send(now, connector, kind, part)
                for intent, receipt in zip(part, receipts, strict=True):
                    known[intent.key] = receipt.outcome.value
                    if receipt.outcome.value == "rejected":
                        change = changes[[each.key for each in intents].index(intent.key)]
                        self._refuse(order, change, receipt.reason or "refused by the platform", intent.key)
        meaning = {"accepted": "accepted", "pending": "waiting", "unknown": "waiting"}
        return [meaning.get(known.get(each.key, "refused"), "refused") for each in intents]

    def _obstacle(self, change: Change, intent: Intent, now: Instant) -> str:
        if self._outbox.unsettled(change.connector, change.campaign_id):
            return "UNSETTLED"
        if standing_value(self._accounts.table, change) != change.before:
            return "the account has moved since"
        try:
            self._permit([intent], now)
        except Denied as denied:
            return str(denied)
        return ""

    def _refuse(self, order: Order, change: Change, why: str, key: str = "") -> None:
        self._refused[order.order_id, key or change.campaign_id] = f"{change.campaign_id} ({change.lever.value}): {why}"

    async def _states(self, keys: Sequence[str]) -> dict[str, str]:
        marks = ", ".join("?" * len(keys))
        rows = await self._store.read(
            lambda connection: connection.execute(
                f"SELECT key, state FROM intents WHERE key IN ({marks})", tuple(keys)
            ).fetchall()
        )
        return dict(rows)

    async def _close(self, order: Order, now: Instant) -> Order:
        keys = [each.intent(order.order_id, "", "", now, order.made_at).key for each in order.changes]
        done = sum(state == "accepted" for state in (await self._states(keys)).values())
        state: Literal["done", "partial", "failed"] = (
            "done" if done == len(order.changes) else "partial" if done else "failed"
        )
        mine = [place for place in self._refused if place[0] == order.order_id]
        note = "; ".join(self._refused.pop(place) for place in mine)[:1_000]
        closed = replace(order, state=state, note=note, closed_at=now)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE orders SET state = ?, note = ?, closed_at = ? WHERE order_id = ?",
                (closed.state, closed.note, now, closed.order_id),
            )
            body = {"order_id": closed.order_id, "state": closed.state, "done": done, "note": closed.note}
            self._ledger.append(connection, now, "order", body)

        await self._store.write(write)
        self.open.pop(order.order_id, None)
        _log.info("order_closed", order_id=order.order_id, state=state, done=done, of=len(order.changes), note=note)
        return closed


_REASON = {"suggestion": "approved by a person", "rollback": "put back by a person"}


def _from_row(row: Sequence[object]) -> Order:
    values = list(row)
    values[3] = from_json(str(values[3]))
    return Order(*values)  # type: ignore[arg-type]
