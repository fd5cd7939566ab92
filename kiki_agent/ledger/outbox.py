"""Effects on the outside world: journal, then call, then confirm; what is not known is read back, never sent again."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence

from kiki_agent.errors import AuthExpired, Bug, Outdated, PluginError, RateLimited, Rejected, StoreError, Unsupported
from kiki_agent.ledger.fallback import Fallback
from kiki_agent.ledger.intents import IntentRow, confirm, find, journal, unsettled_rows
from kiki_agent.ledger.ledger import Ledger
from kiki_agent.model.intent import Intent, IntentKind
from kiki_agent.model.receipt import Outcome, Receipt
from kiki_agent.model.time import SECOND, Instant
from kiki_agent.store import Store

Call = Callable[[str, str, tuple[object, ...]], Awaitable[object]]
"""`call(instance_id, verb, args)`; raises PluginError only."""
ConfirmHandler = Callable[[sqlite3.Connection, Intent, Receipt], None]
Gate = Callable[[Instant, Sequence[Intent]], Mapping[str, str]]
"""`gate(now, intents)`: key -> reason of those that may not go out."""

_log = logging.getLogger("kiki_agent.ledger")


class Outbox:
    """The only way a change reaches a platform (M3).

    An intent is durable before its call begins and carries a key derived from the fact; the same key is never sent
    twice. A send goes on to its confirmation even when its caller is cancelled.
    """

    def __init__(self, store: Store, ledger: Ledger, call: Call, *, settle: int = 30 * SECOND) -> None:
        self._store = store
        self._ledger = ledger
        self._call = call
        self._settle = settle
        """Microseconds after which a request can no longer be travelling."""
        self._open: dict[tuple[str, str], dict[str, tuple[Intent, Instant]]] = {}
        self._busy: set[str] = set()
        self._sends: set[asyncio.Task[list[Receipt]]] = set()
        self.fallback: Fallback | None = None
        """Where cuts are written down while the database cannot be written; without it they wait too."""
        self._beside = asyncio.Lock()
        """Held while the fallback is written, and while what it holds enters the ledger and is cleared: a cut made in
        between would be forgotten."""
        self.gate: Gate = lambda now, intents: {}
        """Has the last word on everything that is about to be journaled and sent."""
        self.on_sent: Callable[[Instant, Sequence[Intent]], None] = lambda now, intents: None
        """Hears of intents that are on record and about to be sent."""
        self.confirm_handlers: list[ConfirmHandler] = []
        """Run in the confirming transaction for every receipt that is written, also `unknown` ones; on the database
        thread, and idempotent. One that raises undoes the confirmation, and the intent stays unsettled."""

    async def load(self, now: Instant) -> int:
        """Take up what the last process left open; to be called once, before the first send. How many there are.

        What was journaled and has no receipt may have been sent or not: from now on it is `unknown`. Cuts that were
        written down beside the database enter it first. Raises StoreError.
        """
        if self.fallback is not None:
            await asyncio.to_thread(self.fallback.prepare)
            await self._merge(now)
        rows = await self._store.read(unsettled_rows)
        pending = [row.intent for row in rows if row.state == "pending"]
        for row in rows:
            self._note(row.intent, row.sent_at)
        if pending:
            receipts = [Receipt(intent.key, Outcome.UNKNOWN, "INTERRUPTED") for intent in pending]
            await self._confirm(now, pending, receipts, read_back=False)
        return len(rows)

    def unsettled(self, connector: str, campaign_id: str) -> bool:
        """Whether an intent for the campaign is under way or unknown; nothing new may be meant for it before."""
        return (connector, campaign_id) in self._open

    def unsettled_budget(self, connector: str, budget_id: str) -> bool:
        """The same for a budget that several campaigns share, whichever of them stands for it."""
        return any(
            owner == connector and intent.budget_id == budget_id
            for (owner, _), entries in self._open.items()
            for intent, _ in entries.values()
        )

    @property
    def unsettled_count(self) -> int:
        """Intents that are under way or unknown."""
        return sum(len(intents) for intents in self._open.values())

    # -- sending ------------------------------------------------------------------------------------------------

    async def send(self, now: Instant, connector: str, verb: IntentKind, intents: Sequence[Intent]) -> list[Receipt]:
        """Carry out intents of one connector and one kind in one call; a receipt for each, in their order.

        An intent whose key is on record already is not sent: its receipt is what the record says. One whose campaign
        has an unsettled intent is not sent either: `rejected` with reason UNSETTLED, and nothing is written; nor is one
        the gate holds back, with the gate's reason. Raises
        StoreError when the journal cannot be written, and then nothing was sent; ValueError for mixed intents.
        """
        for intent in intents:
            if intent.connector != connector or intent.kind is not verb:
                raise ValueError(f"{intent.key} is {intent.kind} for {intent.connector}, not {verb} for {connector}")
        if len({intent.key for intent in intents}) < len(intents):
            raise ValueError("two intents of one send have the same key")
        if not intents:
            return []
        task = asyncio.create_task(self._send(now, connector, verb, intents), name=f"outbox {connector} {verb.value}")
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Wait for the sends that are under way; the calls' own deadlines end them."""
        while self._sends:
            await asyncio.wait(list(self._sends))

    async def _send(self, now: Instant, connector: str, verb: IntentKind, intents: Sequence[Intent]) -> list[Receipt]:
        receipts: dict[str, Receipt] = {
            key: Receipt(key, Outcome.REJECTED, reason) for key, reason in self.gate(now, intents).items()
        }
        fresh = []
        for intent in intents:
            if intent.key in receipts:
                continue
            others = self._open.get((connector, intent.campaign_id), {})
            if verb is not IntentKind.PLACE_BID and others.keys() - {intent.key}:
                receipts[intent.key] = Receipt(intent.key, Outcome.REJECTED, "UNSETTLED")
            else:
                fresh.append(intent)
        added = [intent for intent in fresh if self._note(intent, now)]
        self._busy.update(intent.key for intent in added)
        try:
            try:
                known = await self._write_down(now, fresh)
            except BaseException:
                self._forget(added)
                raise
            receipts |= known
            self._forget(
                [intent for intent in added if intent.key in known and known[intent.key].outcome is not Outcome.UNKNOWN]
            )
            going = [intent for intent in fresh if intent.key not in known]
            if going:
                self.on_sent(now, going)
                answers = await self._ask(connector, verb.value, going)
                answers = await self._confirm_safely(now, going, answers)
                receipts |= {receipt.key: receipt for receipt in answers}
        finally:
            self._busy.difference_update(intent.key for intent in added)
        return [receipts[intent.key] for intent in intents]

    async def _write_down(self, now: Instant, intents: Sequence[Intent]) -> dict[str, Receipt]:
        """Make intents durable: in the journal, or, while that takes nothing, cuts in the fallback."""
        try:
            return await self._store.write(lambda connection: self._journal(connection, now, intents))
        except StoreError as error:
            if self.fallback is None or not intents or any(intent.raises_spend for intent in intents):
                raise
            _log.warning("%d cuts are written down beside the database: %s", len(intents), error)
            async with self._beside:
                return await asyncio.to_thread(self.fallback.write_intents, now, intents)

    def _journal(self, connection: sqlite3.Connection, now: Instant, intents: Sequence[Intent]) -> dict[str, Receipt]:
        known = find(connection, [intent.key for intent in intents])
        journal(connection, self._ledger, now, [intent for intent in intents if intent.key not in known])
        return known

    async def _ask(self, connector: str, verb: str, intents: Sequence[Intent]) -> list[Receipt]:
        try:
            answer = await self._call(connector, verb, (tuple(intents),))
            return _checked(answer, intents)
        except PluginError as error:
            outcome, reason = _meaning(error)
        except Exception:
            _log.exception("a call of %s for %s broke its promise to raise plugin errors only", verb, connector)
            outcome, reason = Outcome.UNKNOWN, "AGENT_BUG"
        return [Receipt(intent.key, outcome, reason) for intent in intents]

    async def _confirm_safely(self, now: Instant, intents: Sequence[Intent], receipts: list[Receipt]) -> list[Receipt]:
        """Confirm; when the database refuses, the answers are lost and the intents are unknown until read back.

        Answers to cuts are kept in the fallback; their campaigns stay unsettled until the journal has them. Raises
        StoreError when that is full or cannot be written either: then they are unknown too.
        """
        fallback = self.fallback
        if fallback is not None and any(fallback.knows(intent.key) for intent in intents):
            # the journal does not know them: a confirmation there would change nothing, and so succeed on a full disk
            await self._answer_beside(fallback, now, intents, receipts)
            return receipts
        try:
            await self._confirm(now, intents, receipts, read_back=False)
        except StoreError as error:
            if fallback is not None and not any(intent.raises_spend for intent in intents):
                await self._answer_beside(fallback, now, intents, receipts)
                return receipts
            _log.error("receipts of %d intents could not be written: %s", len(intents), error)
            return [Receipt(intent.key, Outcome.UNKNOWN, "NOT_RECORDED") for intent in intents]
        return receipts

    async def _answer_beside(
        self, fallback: Fallback, now: Instant, intents: Sequence[Intent], receipts: Sequence[Receipt]
    ) -> None:
        async with self._beside:
            await asyncio.to_thread(fallback.write_receipts, now, intents, receipts)

    async def _confirm(
        self, now: Instant, intents: Sequence[Intent], receipts: Sequence[Receipt], *, read_back: bool
    ) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for intent, receipt in zip(intents, receipts, strict=True):
                if confirm(connection, self._ledger, now, intent, receipt, read_back=read_back):
                    for handler in self.confirm_handlers:
                        handler(connection, intent, receipt)

        await self._store.write(work)
        self._forget(
            [
                intent
                for intent, receipt in zip(intents, receipts, strict=True)
                if receipt.outcome is not Outcome.UNKNOWN
            ]
        )

    async def _merge(self, now: Instant) -> None:
        """Let what was written down beside the database enter it, once; what cannot enter yet waits."""
        if self.fallback is None:
            return
        async with self._beside:
            if self.fallback.pending:
                await self._merge_all(now, self.fallback)

    async def _merge_all(self, now: Instant, fallback: Fallback) -> None:
        entries = await asyncio.to_thread(fallback.read)
        intents = {each.intent.key: each.intent for each in entries}
        answered = {each.intent.key: each.receipt for each in entries if each.receipt is not None}

        def work(connection: sqlite3.Connection) -> None:
            known = find(connection, list(intents))
            journal(connection, self._ledger, now, [each for key, each in intents.items() if key not in known])
            for key, receipt in answered.items():
                if confirm(connection, self._ledger, now, intents[key], receipt, read_back=False):
                    for handler in self.confirm_handlers:
                        handler(connection, intents[key], receipt)
            self._ledger.append(connection, now, "control", {"control": "fallback", "intents": len(intents)})

        await self._store.write(work)
        await asyncio.to_thread(fallback.clear)
        _log.info("%d cuts written down beside the database are on record now", len(intents))
        self._forget([intents[key] for key, each in answered.items() if each.outcome is not Outcome.UNKNOWN])

    # -- reading back -------------------------------------------------------------------------------------------

    async def reconcile(self, now: Instant, connector: str | None = None) -> int:
        """Ask the platforms what became of unsettled intents that can no longer be travelling; how many are settled.

        A connector that cannot say leaves them as they are, and so does a database that takes nothing. Raises
        StoreError.
        """
        if self.fallback is not None and self._store.failure is not None and await self._store.probe() is not None:
            return 0
        await self._merge(now)
        due: dict[str, list[Intent]] = {}
        for (owner, _), entries in self._open.items():
            if connector is None or owner == connector:
                for key, (intent, sent_at) in entries.items():
                    if key not in self._busy and now - sent_at >= self._settle:
                        due.setdefault(owner, []).append(intent)
        settled = 0
        for owner in sorted(due):
            intents = due[owner]
            keys = {intent.key for intent in intents}
            self._busy |= keys
            try:
                settled += await self._reconcile_one(now, owner, intents)
            finally:
                self._busy -= keys
        return settled

    async def _reconcile_one(self, now: Instant, connector: str, intents: list[Intent]) -> int:
        try:
            receipts = _checked(await self._call(connector, "reconcile", (tuple(intents),)), intents)
        except PluginError as error:
            _log.info("%s cannot say yet what became of %d intents: %s", connector, len(intents), error)
            return 0
        known = [
            (intent, receipt)
            for intent, receipt in zip(intents, receipts, strict=True)
            if receipt.outcome is not Outcome.UNKNOWN
        ]
        if known:
            await self._confirm(now, [each[0] for each in known], [each[1] for each in known], read_back=True)
        return len(known)

    # -- what is open -------------------------------------------------------------------------------------------

    def _note(self, intent: Intent, sent_at: Instant) -> bool:
        entries = self._open.setdefault((intent.connector, intent.campaign_id), {})
        if intent.key in entries:
            return False
        entries[intent.key] = (intent, sent_at)
        return True

    def _forget(self, intents: Sequence[Intent]) -> None:
        for intent in intents:
            place = (intent.connector, intent.campaign_id)
            entries = self._open.get(place, {})
            entries.pop(intent.key, None)
            if not entries:
                self._open.pop(place, None)


def _checked(answer: object, intents: Sequence[Intent]) -> list[Receipt]:
    if isinstance(answer, Sequence) and len(answer) == len(intents):
        receipts = [receipt for receipt in answer if isinstance(receipt, Receipt)]
        if [receipt.key for receipt in receipts] == [intent.key for intent in intents]:
            return receipts
    raise Bug(
        f"a connector answers {len(intents)} intents with a receipt for each, in their order; was {answer!r:.200}"
    )


def _meaning(error: PluginError) -> tuple[Outcome, str]:
    """What an error of a write says about its effect: none, or nothing at all."""
    match error:
        case Rejected():
            return Outcome.REJECTED, error.reason
        case RateLimited():
            return Outcome.REJECTED, "RATE_LIMITED"
        case AuthExpired():
            return Outcome.REJECTED, "AUTH_EXPIRED"
        case Unsupported():
            return Outcome.REJECTED, "UNSUPPORTED"
        case Outdated():
            return Outcome.REJECTED, "OUTDATED"
        case Bug():
            return Outcome.UNKNOWN, "PLUGIN_BUG"
        case _:
            return Outcome.UNKNOWN, "NO_ANSWER"


__all__ = ["Call", "ConfirmHandler", "IntentRow", "Outbox"]
