"""Agents that are wrong on purpose, so that a proof can show that it would see it."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Sequence
from typing import Any

from kiki_agent.ledger import Outbox
from kiki_agent.ledger.intents import journal
from kiki_agent.model import Instant, Intent, Outcome, Receipt
from kiki_agent.shield.book import Book


def journal_late() -> None:
    """An outbox that calls first and writes down afterwards what it did: a kill in between loses the intent."""
    kept: dict[str, Intent] = {}

    def later(self: Outbox, connection: sqlite3.Connection, now: Instant, intents: Sequence[Intent]) -> dict[str, Any]:
        kept.update((intent.key, intent) for intent in intents)
        return {}

    confirm = Outbox._confirm

    async def both(
        self: Outbox, now: Instant, intents: Sequence[Intent], receipts: Sequence[Receipt], *, read_back: bool
    ) -> None:
        fresh = [kept.pop(intent.key) for intent in intents if intent.key in kept]
        await self._store.write(lambda connection: journal(connection, self._ledger, now, fresh))
        await confirm(self, now, intents, receipts, read_back=read_back)

    setattr(Outbox, "_journal", later)  # noqa: B010
    setattr(Outbox, "_confirm", both)  # noqa: B010


def resend() -> None:
    """An outbox that sends an unknown change again instead of reading back."""

    async def again(self: Outbox, now: Instant, connector: str, intents: list[Intent]) -> int:
        for intent in intents:
            answers = await self._ask(connector, intent.kind.value, [intent])
            if answers[0].outcome is not Outcome.UNKNOWN:
                await self._confirm(now, [intent], answers, read_back=True)
        return len(intents)

    setattr(Outbox, "_reconcile_one", again)  # noqa: B010


def overspend() -> None:
    """A shield whose windows are always empty."""

    def never(self: Book, amount: int, now: int) -> str | None:
        return None if self.reported_micros + self.placed_micros + self.reserved_micros + amount < 10**12 else "day"

    setattr(Book, "shortage", never)  # noqa: B010


WAYS: dict[str, Callable[[], None]] = {"journal-late": journal_late, "resend": resend, "overspend": overspend}
"""What can be broken, by name."""


def command(way: str) -> tuple[str, ...]:
    """The agent's command line with one thing broken. Raises KeyError for an unknown way."""
    name = WAYS[way].__name__
    text = f"from kiki_agent.testing import broken; broken.{name}(); from kiki_agent.cli import main; main()"
    return (sys.executable, "-c", text)
