"""The optimizer over a real store, ledger, outbox and shield; only the platforms behind it follow a script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kiki_agent.accounts import Account, Accounts
from kiki_agent.config import Settings
from kiki_agent.errors import UnknownOutcome
from kiki_agent.ledger import Ledger, Outbox
from kiki_agent.model import (
    MINUTE,
    SECOND,
    Campaign,
    CampaignStatus,
    Instant,
    Intent,
    IntentKind,
    Outcome,
    PerformanceReport,
    PerformanceRow,
    Platform,
    Receipt,
    parse_iso,
)
from kiki_agent.notify import Alerts
from kiki_agent.optimizer import Optimizer, Shift
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.shield import Caps, Shield
from kiki_agent.store import Store

NOON = parse_iso("2026-03-10T12:00:00Z")
DAY_OF_DATA = "2026-03-09"
UNIT = 1_000_000
CYCLE = 5 * MINUTE
SETTLE = 30 * SECOND
WORTH = {"meta": 300, "tiktok": 100, "microsoft": 500}
"""Lifetime value by platform, all of them at one price per customer: TikTok gives to Microsoft."""
BUDGETS = {"meta": (100, 100), "tiktok": (60, 40), "microsoft": (50, 50, 20)}

Answer = str
"""What a platform does with one change: ok, refuse, lost (done, no answer), dropped (not done, no answer), die (done,
and then the agent's process ends)."""


@dataclass
class Effect:
    """One change at a platform, and the sum of all budgets after it."""

    intent: Intent
    total: int


class Platforms:
    """All accounts; `script` gives the answer to each change, `ok` when it is empty."""

    def __init__(self) -> None:
        self.budgets = {
            (name, f"{name}-{number}"): units * UNIT
            for name, each in BUDGETS.items()
            for number, units in enumerate(each)
        }
        self.start = dict(self.budgets)
        self.effects: list[Effect] = []
        self.calls: list[tuple[str, str, int]] = []
        """Connector, verb, number of changes."""
        self.script: list[Answer] = []
        self.before_call: Callable[[str, Sequence[Intent]], None] = lambda connector, intents: None

    @property
    def total(self) -> int:
        """Sum of all budgets now."""
        return sum(self.budgets.values())

    async def __call__(self, connector: str, verb: str, arguments: tuple[object, ...]) -> object:
        """The plugin seam, as the outbox has it."""
        (intents,) = arguments
        assert isinstance(intents, tuple)
        self.calls.append((connector, verb, len(intents)))
        if verb == "reconcile":
            done = {effect.intent.key for effect in self.effects}
            return [
                Receipt(each.key, Outcome.ACCEPTED if each.key in done else Outcome.REJECTED, "READ_BACK")
                for each in intents
            ]
        assert verb == "set_budget"
        self.before_call(connector, intents)
        answers = [self.script.pop(0) if self.script else "ok" for _ in intents]
        receipts = []
        for intent, answer in zip(intents, answers, strict=True):
            if answer in ("ok", "lost", "die"):
                assert self.budgets[connector, intent.campaign_id] == intent.before
                self.budgets[connector, intent.campaign_id] = intent.after
                self.effects.append(Effect(intent, self.total))
            outcome = {"refuse": Outcome.REJECTED, "lost": Outcome.UNKNOWN, "dropped": Outcome.UNKNOWN}
            receipts.append(Receipt(intent.key, outcome.get(answer, Outcome.ACCEPTED), answer))
        if "die" in answers:
            raise asyncio.CancelledError
        if all(receipt.outcome is Outcome.UNKNOWN for receipt in receipts):
            raise UnknownOutcome("no answer")
        return receipts


class House:
    """One process of the agent, as far as the optimizer is concerned."""

    store: Store
    ledger: Ledger
    outbox: Outbox
    shield: Shield
    accounts: Accounts
    alerts: Alerts
    optimizer: Optimizer

    @classmethod
    async def open(
        cls,
        folder: Path,
        platforms: Platforms,
        now: Instant = NOON,
        *,
        worth: dict[str, int] | None = None,
        **options: Any,
    ) -> House:
        """Start on whatever the last process left in the folder, and read the platforms."""
        self = cls()
        self.platforms, self.worth = platforms, worth or WORTH
        names = list(BUDGETS)
        guards = {"cooldown_s": 0, "consume_evidence": False, "floor_share": 0, "min_conversions": 1}
        settings = Settings.model_validate(
            {
                "optimizer": guards | options,
                "connector": {name: {"plugin": "sandbox", "platform": name} for name in names},
            }
        )
        self.store = await Store.open(folder / "agent.db", synchronous="OFF", readers=1, now=now)
        self.ledger = await Ledger.open(self.store, folder / "agent.head", client_id="demo", now=now)
        caps = dict.fromkeys(names, Caps(5_000 * UNIT, None))
        self.shield = await Shield.open(self.store, self.ledger, settings, caps, now)
        self.accounts = await Accounts.open(
            self.store, [Account(name, name) for name in names], lookback_days=7, now=now
        )
        self.outbox = Outbox(self.store, self.ledger, platforms, settle=SETTLE)
        self.outbox.confirm_handlers.append(self.accounts.confirm)
        self.alerts = Alerts(self.store, self.ledger, ["desk"])
        self.optimizer = Optimizer(
            settings,
            {name: Platform.parse(name) for name in names},
            store=self.store,
            ledger=self.ledger,
            outbox=self.outbox,
            accounts=self.accounts,
            value=SimpleNamespace(platform_value=self._value),
            shield=self.shield,
            alerts=self.alerts,
            signals=Signals(),
            metrics=Metrics(process=False),
        )
        await self.outbox.load(now)
        await self.outbox.reconcile(now)
        self.read(now)
        return self

    def _value(self, platform: str, now: Instant) -> SimpleNamespace:
        return SimpleNamespace(average_ltv_micros=self.worth[platform] * UNIT)

    def read(self, now: Instant) -> None:
        """What the pollers would know: budgets as they are, spend and customers of yesterday."""
        for name, each in BUDGETS.items():
            campaigns = [
                Campaign(name, f"{name}-{number}", name, "", CampaignStatus.ACTIVE, budget, UNIT)
                for number, budget in enumerate(self.platforms.budgets[name, f"{name}-{n}"] for n in range(len(each)))
            ]
            self.accounts.take_campaigns(name, campaigns, now, self.accounts.receipts)
            row = PerformanceRow(f"{name}-0", DAY_OF_DATA, 10_000, 500, 20, 2_000 * UNIT, 0)
            self.accounts.take_performance(name, PerformanceReport((row,), now, DAY_OF_DATA), now)
            self.accounts.close_report(name)

    async def cycle(self, now: Instant) -> str | None:
        """Read back what can be, then one tick of the optimizer."""
        await self.outbox.reconcile(now)
        return await self.optimizer.tick(now)

    async def shifts(self) -> list[Shift]:
        """All shifts, oldest first."""
        return sorted(await self.optimizer.history(), key=lambda shift: (shift.at, shift.shift_id))

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        await self.store.drain()
        return await self.store.read(lambda connection: connection.execute(sql).fetchall())

    async def close(self) -> None:
        """End without ceremony, as a crash would."""
        await self.outbox.drain()
        await self.store.close()


def of(platforms: Platforms, connector: str) -> int:
    """Sum of a connector's budgets at the platform."""
    return sum(budget for (name, _), budget in platforms.budgets.items() if name == connector)


def keys(effects: Iterable[Effect]) -> list[str]:
    """Their keys in order."""
    return [effect.intent.key for effect in effects]


__all__ = ["BUDGETS", "CYCLE", "NOON", "SETTLE", "UNIT", "House", "IntentKind", "Platforms", "keys", "of"]
