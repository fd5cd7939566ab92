"""Telling the platforms: the last decision of each campaign, rarely, in batches, and never while one is unsettled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from kiki_agent.config import BiddingSettings
from kiki_agent.errors import Denied
from kiki_agent.flow.bidder import Bidder
from kiki_agent.flow.patience import CUT_EVERY, Patience
from kiki_agent.flow.reasons import reason_name
from kiki_agent.flow.rule import Write, due_writes, in_order
from kiki_agent.ledger import Outbox
from kiki_agent.model import SECOND, Instant, Intent, IntentKind, Outcome, Receipt, intent_key
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.loop import Loop

RATE_LIMITED = "RATE_LIMITED"
"""Reason of a receipt when the platform asked for patience."""
BATCH_EVERY = 120 * SECOND
"""Plain changes of a connector gather this long, so that one call carries several; cuts and resumptions do not wait."""
LEAST_PATIENCE = 60 * SECOND
"""Given when it is not known how much was asked for."""

_log = get_logger("syncflow")


class Guard(Protocol):
    """The part of the shield that lets changes out."""

    def may_change(self, intent: Intent, now: Instant) -> None:
        """Raises Denied when the change may not go out."""
        ...


class BidWriter(Loop):
    """Sends one connector's coalesced changes (decision 2): the decision loop is not the write loop.

    A refused change waits like a made one before it is tried again; an unknown outcome blocks its campaign until the
    outbox has read it back.
    """

    def __init__(
        self,
        settings: BiddingSettings,
        connector: str,
        bidder: Bidder,
        shield: Guard,
        outbox: Outbox,
        *,
        currency: str = "USD",
        patience: Patience | None = None,
        on_denied: Callable[[Sequence[Intent], str, str, Instant], None] = lambda intents, reason, why, now: None,
        fitted: Callable[[Intent, Instant], Intent] = lambda intent, now: intent,
    ) -> None:
        """`on_denied(intents, reason code, why they were meant, now)` hears of changes that may not go out.

        `fitted(intent, now)` is a change as far as it may go.
        """
        self.name = f"write:{connector}"
        self.connector = connector
        self.period = round(settings.write_interval_s * SECOND)
        self._gap = round(settings.min_write_gap_s * SECOND)
        self._least_change = settings.min_change_percent / 100
        self._bidder = bidder
        self._accounts = bidder.accounts
        self._shield = shield
        self._outbox = outbox
        self._currency = currency
        self._tried: dict[str, Instant] = {}
        self._patience = patience
        self._on_denied = on_denied
        self._fitted = fitted
        self._retry_at: Instant | None = None
        self._batch_due = 0
        self._cut_due = 0
        self.sent = 0
        self.accepted = 0
        self.rejected = 0
        self.unknown = 0
        self.denied = 0
        self.last_denial = ""

    async def tick(self, now: Instant) -> str | None:
        """Settle what is unsettled, then send what is due. Returns why nothing was sent."""
        if self._outbox.unsettled_count:  # also what others sent: budgets, and what the last process left
            await self._outbox.reconcile(now, self.connector)
        table = self._accounts.table
        if self._bidder.version != table.version:
            return "no decisions about these campaigns yet"
        wait = self._asked_to_wait(now)
        low, high = table.bounds[self.connector]
        writes = due_writes(
            now,
            low,
            high,
            table,
            self._bidder.standing,
            gap=self._gap,
            least_change=self._least_change,
            tried_at=self._tried_at,
            doubted=self._doubted(),
        )
        if wait > 0:  # a stop of spending is tried all the same, but not again and again
            writes = [each for each in writes if each.cut] if now >= self._cut_due else []
            if not writes:
                return f"{self.connector} asked for patience for another {wait / SECOND:.0f} s"
            self._cut_due = now + CUT_EVERY
        if now < self._batch_due:
            writes = [each for each in writes if each.cut or each.kind is IntentKind.SET_STATUS]
        if not writes:
            return "no change is due"
        if any(not each.cut and each.kind is IntentKind.ADJUST_BID for each in writes):
            self._batch_due = now + BATCH_EVERY
        sent = 0
        for kind, batch in in_order(writes):
            intents = self._permitted(batch, now)
            size = self._accounts.batch_size(self.connector)
            for begin in range(0, len(intents), size):
                part = intents[begin : begin + size]
                if self.stop_new_work() and not all(not intent.raises_spend for intent in part):
                    return "the time of this tick is used up"
                self._note(now, part, await self._outbox.send(now, self.connector, kind, part))
                sent += len(part)
        return None if sent else f"every due change waits: {self.last_denial or 'an outcome is still unknown'}"

    def _asked_to_wait(self, now: Instant) -> int:
        asked = self._patience.until(self.connector, now) if self._patience is not None else 0
        return max(asked, self._retry_at or 0) - now

    def _doubted(self) -> list[int]:
        """Rows of this connector that we stopped and that a read showed as running since."""
        doubted, index = self._accounts.levers.doubted, self._accounts.table.index
        return sorted(index[key] for key in doubted if key[0] == self.connector and key in index) if doubted else []

    def _tried_at(self, row: int) -> int:
        return self._tried.get(self._accounts.table.rows[row].campaign_id, 0)

    def _permitted(self, batch: list[Write], now: Instant) -> list[Intent]:
        """The intents that may go out now."""
        intents = []
        for write in batch:
            campaign_id = self._accounts.table.rows[write.row].campaign_id
            if self._outbox.unsettled(self.connector, campaign_id):
                continue
            intent = Intent(
                key=intent_key(self.connector, campaign_id, write.kind, now),
                kind=write.kind,
                connector=self.connector,
                campaign_id=campaign_id,
                before=write.before,
                after=write.after,
                currency=self._currency,
                reason=reason_name(write.reason),
                at=now,
            )
            fitted = self._fitted(intent, now)
            if abs(fitted.after - fitted.before) >= self._least_change * fitted.before:
                intent = fitted  # else it is not worth a call, and the whole wish is what is held back
            try:
                self._shield.may_change(intent, now)
            except Denied as denial:
                self.denied += 1
                self.last_denial = denial.reason
                self._tried[campaign_id] = now
                self._on_denied([intent], denial.reason, intent.reason, now)
                continue
            intents.append(intent)
        return intents

    def _note(self, now: Instant, intents: list[Intent], receipts: list[Receipt]) -> None:
        self.sent += len(intents)
        for intent, receipt in zip(intents, receipts, strict=True):
            match receipt.outcome:
                case Outcome.ACCEPTED:
                    self.accepted += 1
                    self._tried.pop(intent.campaign_id, None)
                case Outcome.REJECTED:
                    self.rejected += 1
                    self._tried[intent.campaign_id] = now
                    if receipt.reason == RATE_LIMITED:
                        self._retry_at = Instant(now + LEAST_PATIENCE)
                    text = f"{self.connector} refused a change of {intent.campaign_id}: {receipt.reason}"
                    _log.warning("change_refused", text, connector=self.connector, reason=receipt.reason)
                case Outcome.UNKNOWN:
                    self.unknown += 1
                    self._tried[intent.campaign_id] = now
