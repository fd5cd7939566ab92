"""A shift of budget between two platforms, carried over any number of cycles, restarts and lost answers.

Its state is what the confirmed intents say: money taken from one connector and not yet given to the other is
outstanding, and the sum of budgets is never above what it was (M4). Decrease first; a refused increase is tried again
twice, then the money goes back where it came from.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from kiki_agent.accounts import Accounts
from kiki_agent.errors import Denied
from kiki_agent.ledger import Outbox
from kiki_agent.model import Campaign, Instant, Intent, IntentKind, intent_key
from kiki_agent.optimizer.plan import BudgetChange, common_step, decrease, increase, spending
from kiki_agent.runtime.log import get_logger
from kiki_agent.store import Store

_ATTEMPTS = 3
"""How often an increase is tried before the decrease is given back."""
_log = get_logger("optimizer")


class Permits(Protocol):
    """The part of the shield, or of the governor, that lets changes out."""

    def may_change_all(self, intents: Sequence[Intent], now: Instant) -> None:
        """Raises Denied when changes that belong together may not go out."""
        ...


class ShiftState(StrEnum):
    """Where a shift stands; the last three are final."""

    DECREASING = "decreasing"
    INCREASING = "increasing"
    RETURNING = "returning"
    DONE = "done"
    RETURNED = "returned"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Shift:
    """One decided move of daily budget."""

    shift_id: str
    run_id: str
    at: Instant
    from_connector: str
    to_connector: str
    from_platform: str
    to_platform: str
    wanted_micros: int
    currency: str
    from_efficiency: str
    to_efficiency: str
    """Decimal text with six places."""
    reason: str
    evidence_as_of: Instant
    state: ShiftState = ShiftState.DECREASING
    attempt: int = 0
    moved_micros: int = 0
    closed_at: Instant | None = None

    @property
    def is_open(self) -> bool:
        """True while money may still be on its way."""
        return self.state in (ShiftState.DECREASING, ShiftState.INCREASING, ShiftState.RETURNING)


def shift_id(client_id: str, from_connector: str, to_connector: str, at: int) -> str:
    """Id derived from the fact: 24 hexadecimal characters."""
    fact = "\x1f".join(("shift", client_id, from_connector, to_connector, str(at)))
    return hashlib.sha256(fact.encode()).hexdigest()[:24]


_COLUMNS = (
    "shift_id, run_id, at, from_connector, to_connector, from_platform, to_platform, wanted_micros, currency,"
    " from_efficiency, to_efficiency, reason, evidence_as_of, state, attempt, moved_micros, closed_at"
)


def _from_row(row: Sequence[object]) -> Shift:
    values = list(row)
    values[13] = ShiftState(str(values[13]))
    return Shift(*values)  # type: ignore[arg-type]


class Shifts:
    """The shifts on record, and the one way to move them on."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        accounts: Accounts,
        permits: Permits,
        on_close: Callable[[sqlite3.Connection, Shift], None],
        *,
        left_alone: Callable[[Campaign], bool] = lambda campaign: False,
    ) -> None:
        """`left_alone(campaign)`: whether its budget was set by somebody else and stays as it is."""
        self._store = store
        self._outbox = outbox
        self._accounts = accounts
        self._permits = permits
        self._left_alone = left_alone
        self._on_close = on_close
        """Writes the record of a closed shift in the transaction that closes it (M5)."""

    async def open_ones(self) -> list[Shift]:
        """Shifts with money possibly on its way, oldest first."""
        return await self._query("WHERE state IN ('decreasing', 'increasing', 'returning') ORDER BY at, shift_id")

    async def recent(self, limit: int = 50) -> list[Shift]:
        """Shifts, newest first."""
        return await self._query("ORDER BY at DESC, shift_id LIMIT ?", limit)

    async def last_givers(self) -> list[Shift]:
        """The last shift that took something from each connector, also one that had to give it back."""
        return await self._query(
            "WHERE state != 'failed' AND at = (SELECT max(at) FROM shifts AS other"
            " WHERE other.from_connector = shifts.from_connector AND other.state != 'failed')"
        )

    async def _query(self, tail: str, *arguments: object) -> list[Shift]:
        def read(connection: sqlite3.Connection) -> list[Shift]:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM shifts {tail}", arguments)
            return [_from_row(row) for row in rows]

        return await self._store.read(read)

    async def open(self, shift: Shift) -> None:
        """Put a decided shift on record before anything is sent."""

        def write(connection: sqlite3.Connection) -> None:
            marks = ", ".join("?" * 17)
            connection.execute(
                f"INSERT INTO shifts ({_COLUMNS}) VALUES ({marks}) ON CONFLICT DO NOTHING",
                (
                    shift.shift_id,
                    shift.run_id,
                    shift.at,
                    shift.from_connector,
                    shift.to_connector,
                    shift.from_platform,
                    shift.to_platform,
                    shift.wanted_micros,
                    shift.currency,
                    shift.from_efficiency,
                    shift.to_efficiency,
                    shift.reason,
                    shift.evidence_as_of,
                    shift.state.value,
                    shift.attempt,
                    shift.moved_micros,
                    shift.closed_at,
                ),
            )

        await self._store.write(write)

    async def advance(self, shift: Shift, now: Instant) -> Shift:
        """Carry a shift as far as confirmed answers allow; waits for nothing that is unsettled."""
        while shift.is_open:
            taken, given, unsettled, sent = await self._balance(shift)
            if unsettled:
                return shift
            outstanding = taken - given
            match shift.state:
                case ShiftState.DECREASING if not sent:
                    if not await self._send(shift, now, shift.from_connector, -shift.wanted_micros):
                        return await self._close(shift, ShiftState.FAILED, 0, now)
                    shift = replace(shift, attempt=0)
                case ShiftState.DECREASING if taken == 0:
                    return await self._close(shift, ShiftState.FAILED, 0, now)
                case ShiftState.DECREASING:
                    shift = await self._save(replace(shift, state=ShiftState.INCREASING))
                case _ if outstanding <= 0:
                    state = ShiftState.DONE if given > 0 else ShiftState.RETURNED
                    return await self._close(shift, state, given, now)
                case ShiftState.INCREASING if shift.attempt >= _ATTEMPTS:
                    shift = await self._save(replace(shift, state=ShiftState.RETURNING))
                case _:
                    target = shift.to_connector if shift.state is ShiftState.INCREASING else shift.from_connector
                    shift = await self._save(replace(shift, attempt=shift.attempt + 1))
                    if not await self._send(shift, now, target, outstanding):
                        return shift
                    left, placed, waiting, _ = await self._balance(shift)
                    if not waiting and left - placed >= outstanding:
                        return shift  # refused; the next cycle tries again
        return shift

    async def abandon(self, shift: Shift, now: Instant) -> Shift:
        """Close a shift where it stands; what an older record knows of it is not what became of it."""
        taken, given, _, _ = await self._balance(shift)
        return await self._close(shift, ShiftState.DONE if given >= taken > 0 else ShiftState.FAILED, given, now)

    async def _balance(self, shift: Shift) -> tuple[int, int, bool, bool]:
        """What was taken and given so far by accepted intents, whether any is unsettled, whether any was sent."""

        def read(connection: sqlite3.Connection) -> list[tuple[str, int, str]]:
            return connection.execute(
                "SELECT connector, after - before, state FROM intents WHERE cause = ?", (shift.shift_id,)
            ).fetchall()

        rows = await self._store.read(read)
        taken = -sum(
            delta for connector, delta, state in rows if connector == shift.from_connector and state == "accepted"
        )
        given = sum(
            delta for connector, delta, state in rows if connector == shift.to_connector and state == "accepted"
        )
        return taken, given, any(state in ("pending", "unknown") for _, _, state in rows), bool(rows)

    def obstacle(self, shift: Shift, now: Instant) -> str:
        """Why a shift could not be carried out now, by both of its halves; empty when it could.

        UNSETTLED, MINIMUM (budgets cannot go lower), NO_CAMPAIGN (none can take more), or a refusal of who permits.
        """
        taken, why = self._intents(shift, now, shift.from_connector, -shift.wanted_micros)
        if not why:
            amount = sum(each.before - each.after for each in taken)
            _, why = self._intents(replace(shift, state=ShiftState.INCREASING), now, shift.to_connector, amount)
        return why

    def changes(self, shift: Shift, now: Instant) -> list[Intent]:
        """Both halves as they would be made, whether they are permitted or not; empty when there is nothing to move."""
        taken = self._planned(shift, now, shift.from_connector, -shift.wanted_micros)
        amount = sum(each.before - each.after for each in taken)
        given = self._planned(replace(shift, state=ShiftState.INCREASING), now, shift.to_connector, amount)
        return [*taken, *given] if taken and given else []

    async def _send(self, shift: Shift, now: Instant, connector: str, amount_micros: int) -> bool:
        """Send budget changes that add up to an amount; False when nothing may or can be changed."""
        intents, why = self._intents(shift, now, connector, amount_micros)
        if why:
            _log.info("shift_held", shift_id=shift.shift_id, connector=connector, reason=why)
            return False
        await self._outbox.send(now, connector, IntentKind.SET_BUDGET, intents)
        return True

    def _intents(self, shift: Shift, now: Instant, connector: str, amount_micros: int) -> tuple[list[Intent], str]:
        """Permitted changes of a connector's budgets that add up to an amount, or why there are none."""
        intents = self._planned(shift, now, connector, amount_micros)
        if any(self._outbox.unsettled(connector, intent.campaign_id) for intent in intents):
            return [], "UNSETTLED"
        try:
            self._permits.may_change_all(intents, now)
        except Denied as refusal:
            return [], str(refusal.reason)
        return intents, "" if intents else "MINIMUM" if amount_micros < 0 else "NO_CAMPAIGN"

    def _planned(self, shift: Shift, now: Instant, connector: str, amount_micros: int) -> list[Intent]:
        """Changes of the budgets that are the agent's to move."""
        campaigns = [each for each in spending(self._accounts.campaigns(connector)) if not self._left_alone(each)]
        step = max(
            common_step(self._accounts.campaigns(shift.from_connector)),
            common_step(self._accounts.campaigns(shift.to_connector)),
        )
        if amount_micros < 0:
            changes = decrease(campaigns, -amount_micros, step)
        else:
            changes = increase(campaigns, amount_micros, step)
        return [self._intent(shift, connector, change, now) for change in changes]

    def _intent(self, shift: Shift, connector: str, change: BudgetChange, now: Instant) -> Intent:
        return Intent(
            key=intent_key(
                connector,
                change.campaign_id,
                IntentKind.SET_BUDGET,
                shift.at,
                shift.shift_id + shift.state,
                shift.attempt,
            ),
            kind=IntentKind.SET_BUDGET,
            connector=connector,
            campaign_id=change.campaign_id,
            before=change.before_micros,
            after=change.after_micros,
            currency=shift.currency,
            reason=shift.reason,
            at=now,
            cause=shift.shift_id,
            budget_id=change.budget_id,
        )

    async def _save(self, shift: Shift) -> Shift:
        await self._store.write(lambda connection: _update(connection, shift))
        return shift

    async def _close(self, shift: Shift, state: ShiftState, moved: int, now: Instant) -> Shift:
        closed = replace(shift, state=state, moved_micros=moved, closed_at=now)

        def write(connection: sqlite3.Connection) -> None:
            _update(connection, closed)
            self._on_close(connection, closed)

        await self._store.write(write)
        return closed


def _update(connection: sqlite3.Connection, shift: Shift) -> None:
    connection.execute(
        "UPDATE shifts SET state = ?, attempt = ?, moved_micros = ?, closed_at = ? WHERE shift_id = ?",
        (shift.state.value, shift.attempt, shift.moved_micros, shift.closed_at, shift.shift_id),
    )
