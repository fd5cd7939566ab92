"""The whole machine in one place: what an agent is made of, how it is put together, how it starts and ends.

    store -> ledger -> shield -> accounts -> value -> flow | optimizer; a loop for each rhythm; one supervisor

Only its world differs between the modes: the clock, the door to the platforms, the database (docs/architecture.md).
`live.py` runs it as a process, `backtest/` under simulated time.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from kiki_agent.accounts import Account, Accounts, Poller
from kiki_agent.accounts.records import confirm as confirm_campaign
from kiki_agent.config import ConnectorSettings, Mode, Settings
from kiki_agent.consent import Consents, Privacy, Vault, Vendors, seeded_entropy
from kiki_agent.errors import KikiError
from kiki_agent.flow import Bidder, BidWriter, Flow, Patience, PlacedSettler
from kiki_agent.governor import Governor, GovernorLoop, KillWatch, Level
from kiki_agent.hooks.context import ContextFactory
from kiki_agent.hooks.http import HttpClient
from kiki_agent.hooks.manager import Plugins
from kiki_agent.ledger import DecisionBook, Ledger, Outbox, Records
from kiki_agent.ledger.fallback import Fallback
from kiki_agent.ledger.sealing import Sealer
from kiki_agent.ledger.segments import DECISION, MONEY, PERSONAL
from kiki_agent.ledger.upkeep import HeadLoop, SealLoop, VerifyLoop
from kiki_agent.model import DAY, SECOND, Instant, Intent, Outcome, Platform, Receipt, micros_from_text
from kiki_agent.model.money import MICROS
from kiki_agent.notify import Alerts, DeliveryLoop, NewsLoop
from kiki_agent.optimizer import Optimizer
from kiki_agent.recovery import (
    BackupLoop,
    Backups,
    Ground,
    RestoredHold,
    Standing,
    carry_over,
    keep_before_migration,
    leave_to_carry,
    unfinished_restore,
)
from kiki_agent.resilience import Resilience
from kiki_agent.runtime.clock import Clock
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.loop import Loop
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.runtime.supervisor import Supervisor
from kiki_agent.runtime.tasks import cancel_all
from kiki_agent.shield import Caps, Shield
from kiki_agent.store import Damaged, Store
from kiki_agent.store.lock import LockFile
from kiki_agent.store.schema import keep_copy, lock_path
from kiki_agent.store.store import Synchronous
from kiki_agent.value import Conversions, ConversionsLoop, Value, ValueLoop
from kiki_agent.web import Services

KERNEL_MODULES = ("kiki_agent.kernels.bids", "kiki_agent.kernels.permits")
"""What is compiled in the background of a live agent, and before the first tick of a backtest."""
START_PATIENCE_S = 3.0
"""Wall seconds that a start waits for answers of platforms."""
CALLS_FINISH_S = 1.2
"""Wall seconds that calls under way get at the end, after the loops had theirs."""

_log = get_logger("agent")


@dataclass(frozen=True, slots=True)
class World:
    """What differs between the modes; nothing else does."""

    clock: Clock
    database: Path
    make_http: Callable[[str], HttpClient]
    """Instance id -> its door to the outside: sockets, or the sandbox in process."""
    synchronous: Synchronous = "FULL"
    simulated: bool = False
    damage: str | None = None
    """Why the database is not even to be opened, found by an earlier try; a stand-in stands for it."""
    stand_in: Path | None = None
    """Where that stand-in lies when the disk of the database takes nothing; None: beside the database."""
    standing: Standing | None = None
    """What such a stand-in goes by: switches, levels and holds as the database has them."""
    backups: Backups | None = None
    """Where backups of the database are made; None: nowhere, as in simulations."""
    kill_folder: Path | None = None
    """Where the file is looked for that stops all spending; None: nowhere, as in simulations."""
    locate: Callable[[str], str] = lambda key: "configuration"
    """Where a dotted key of the configuration stands, for findings about plugins."""


class Agent:
    """The parts of one running agent. Made by `build`; `start` it, let a driver tick `loops`, then `close` it."""

    def __init__(self, settings: Settings, world: World, metrics: Metrics, signals: Signals) -> None:
        self.settings = settings
        self.world = world
        self.metrics = metrics
        self.signals = signals
        self.connectors: dict[str, ConnectorSettings] = {
            name: table for name, table in settings.connector.items() if table.enabled
        }
        self.platforms = {name: Platform.parse(table.platform) for name, table in self.connectors.items()}
        self.calls = 0
        """Writes and read-backs that went out through the outbox."""

    kill_watch: KillWatch | None = None
    carried: Standing | None = None
    """What this start took over from the database that a restored one replaced."""
    guard: LockFile | None = None
    """The lock of a database that a stand-in stands for."""
    store: Store
    ledger: Ledger
    decisions: DecisionBook
    patience: Patience
    vault: Vault
    consents: Consents
    privacy: Privacy
    outbox: Outbox
    plugins: Plugins
    resilience: Resilience
    shield: Shield
    accounts: Accounts
    value: Value
    conversions: Conversions
    alerts: Alerts
    governor: Governor
    optimizer: Optimizer
    flow: Flow
    pollers: tuple[Poller, ...]
    value_loop: ValueLoop
    loops: tuple[Loop, ...]
    supervisor: Supervisor

    @classmethod
    async def build(
        cls, settings: Settings, world: World, *, metrics: Metrics, signals: Signals, services: Services | None = None
    ) -> Agent:
        """Open the database and put everything together; parts appear in `services` as they come up.

        Raises ConfigError (plugins), AlreadyRunning, StoreError. Closes what it opened when it fails.
        """
        agent = cls(settings, world, metrics, signals)
        try:
            await agent._open_record(services)
            await agent._open_plugins(services)
            await agent._open_services(services)
        except BaseException:
            await agent.close()
            raise
        agent._tie_loops(services)
        return agent

    # -- putting together ---------------------------------------------------------------------------------------

    async def _open_record(self, services: Services | None) -> None:
        """Store, ledger, decisions: what was done before, and whether it can be trusted."""
        settings, world = self.settings, self.world
        now = world.clock.now()
        hold = world.damage or unfinished_restore(world.database)
        try:
            if hold is None:
                self.store = await self._open_store(world.database, now)
        except Damaged as damage:
            hold = f"the database is damaged: {damage}"
        place = world.stand_in or world.database
        if hold is not None:
            # Left as it is for whoever restores it. A stand-in keeps page and API up; the hold keeps money where it is.
            self.guard = LockFile.take(lock_path(world.database))
            self.store = await self._open_store(world.stand_in or world.database.with_suffix(".hold.db"), now)
            if world.standing is not None:
                await leave_to_carry(self.store, world.standing)
        head = place.with_suffix(".head")
        self.ledger = await Ledger.open(self.store, head, client_id=settings.client_id, now=now, hold=hold)
        self.carried = await carry_over(self.store, self.ledger, now, self._ground())
        self.decisions = DecisionBook(self.store, self.ledger, flush_every=round(settings.ledger.runs_flush_s * SECOND))
        await self.decisions.load()
        await self._open_consents(place, now)
        if services is not None:
            services.consents, services.privacy = self.consents, self.privacy
            services.stand_in = hold
            services.store, services.ledger = self.store, self.ledger
            services.decisions, services.records = self.decisions, Records(self.store)

    async def _open_consents(self, database: Path, now: Instant) -> None:
        """What people allow. Who was erased goes first, whatever a restored backup says of them."""
        synchronous = self.world.synchronous
        self.vault = await Vault.open(
            database.with_suffix(".keys"),
            database.with_suffix(".erased"),
            synchronous=synchronous,
            entropy=seeded_entropy(self._seed()) if self.settings.mode is Mode.BACKTEST else os.urandom,
        )
        platforms: dict[str, frozenset[int]] = {}
        for name, table in self.connectors.items():
            if table.vendor_id is not None:
                platform = self.platforms[name].value
                platforms[platform] = platforms.get(platform, frozenset()) | {table.vendor_id}
        settings = self.settings.consent
        self.consents = Consents(
            self.store, self.ledger, self.vault, Vendors(settings.vendor_id, platforms), settings.most_in_memory
        )
        self.privacy = Privacy(self.store, self.ledger, self.vault, self.consents)
        await self.privacy.reapply(now)
        await self.consents.load(now)

    async def _open_store(self, path: Path, now: Instant) -> Store:
        kept = self.world.backups
        keep = keep_copy if kept is None else keep_before_migration(kept.folder, kept.known_head, now)
        return await Store.open(
            path,
            synchronous=self.world.synchronous,
            readers=self.settings.store.readers,
            now=now,
            keep=keep if path == self.world.database else _keep_nothing,
        )

    async def _open_plugins(self, services: Services | None) -> None:
        world = self.world
        dry = self.settings.mode is Mode.DRY_RUN
        make = ContextFactory(world.clock, world.make_http, self._seed(), dry, self.store)
        self.resilience = await Resilience.open(
            self.settings,
            world.clock,
            self.store,
            self.ledger,
            seed=self._seed(),
            metrics=self.metrics,
            signals=self.signals,
        )
        self.plugins = await Plugins.load(
            self.settings,
            make_context=make,
            make_guard=self.resilience.make_guard,
            simulated=world.simulated,
            observe=self._observe,
            locate=world.locate,
        )
        self.patience = Patience(self._dry_call if dry else self._call, self.resilience.changes_from)
        self.outbox = Outbox(
            self.store,
            self.ledger,
            self.patience,
            # requests travel in real time, however fast a demo's clock runs
            settle=round(self.settings.ledger.settle_s * SECOND * max(1.0, world.clock.speed)),
        )
        if world.synchronous == "FULL" and self.guard is None:
            self.outbox.fallback = Fallback(world.database.with_suffix(".cuts"))
        if services is not None:
            services.plugins, services.outbox, services.resilience = self.plugins, self.outbox, self.resilience

    def _asleep(self, connector: str) -> str:
        """Why nothing is sent to a connector, in words; empty while it takes calls."""
        guard, instance = self.resilience.guards.get(connector), self.plugins.instances.get(connector)
        if guard is not None and not guard.enabled:
            return "it is switched off"
        if instance is not None and instance.state == "quarantined":
            return "its connector failed and was put aside"
        return ""

    async def _open_services(self, services: Services | None) -> None:
        settings, clock = self.settings, self.world.clock
        now = clock.now()
        caps = {name: self.resilience.caps(name, self._caps(table)) for name, table in self.connectors.items()}
        self.shield = await Shield.open(self.store, self.ledger, settings, caps, now, on_event=self.signals.publish)
        self.shield.on_check = lambda outcome, reason: self.metrics.checks(outcome, reason).inc()
        accounts = [
            Account(name, self.platforms[name].value, table.timezone or settings.timezone, settings.currency)
            for name, table in self.connectors.items()
        ]
        self.accounts = await Accounts.open(
            self.store,
            accounts,
            lookback_days=settings.optimizer.lookback_days,
            now=now,
            day_cap=self.shield.daily_cap,
        )
        self.outbox.confirm_handlers.append(self.accounts.confirm)
        self.restored = RestoredHold(
            self.store,
            self.ledger,
            tuple(self.connectors),
            self.accounts.heard,
            lambda reason: self.shield.hold(reason, "restore"),
        )
        await self.restored.load()
        self.governor = await Governor.open(
            settings,
            self.platforms,
            store=self.store,
            ledger=self.ledger,
            outbox=self.outbox,
            accounts=self.accounts,
            shield=self.shield,
            signals=self.signals,
            metrics=self.metrics,
            now=now,
        )
        platforms = sorted({platform.value for platform in self.platforms.values()})
        self.value = await Value.open(
            self.store,
            settings.value,
            client_id=settings.client_id,
            platforms=platforms,
            metrics=self.metrics,
            tokens=self.vault.tokens,
            now=now,
        )
        self.conversions = Conversions(
            self.store,
            self.ledger,
            self.vault,
            self.consents,
            self._call,
            {name: platform.value for name, platform in self.platforms.items()},
            self._may_send,
        )
        channels = [name for name, table in settings.notifier.items() if table.enabled]
        self.alerts = Alerts(self.store, self.ledger, channels)
        self.optimizer = Optimizer(
            settings,
            self.platforms,
            store=self.store,
            ledger=self.ledger,
            outbox=self.outbox,
            accounts=self.accounts,
            value=self.value,
            shield=self.shield,
            alerts=self.alerts,
            signals=self.signals,
            metrics=self.metrics,
            governor=self.governor,
        )
        if services is not None:
            services.governor = self.governor
            services.shield, services.accounts, services.value = self.shield, self.accounts, self.value
            services.alerts, services.conversions = self.alerts, self.conversions
            services.optimizer = self.optimizer if settings.optimizer.enabled else None

    def _tie_loops(self, services: Services | None) -> None:
        """Make the loops; their order is the order in which they tick when due at one instant."""
        settings, world = self.settings, self.world
        bidding = settings.bidding
        caller = self.plugins.caller
        self.pollers = tuple(
            Poller(
                self.accounts,
                name,
                caller,
                self.shield.book,
                poll_interval=round(bidding.poll_interval_s * SECOND),
                report_interval=round(bidding.report_interval_s * SECOND),
                history_days=settings.optimizer.lookback_days,
                tell=self.signals.publish,
            )
            for name in self.connectors
        )
        crm = [name for name, table in settings.crm.items() if table.enabled]
        self.value_loop = ValueLoop(settings.value, self.value, caller, crm)
        self.governor.authors.ask = caller.to
        bidder = Bidder(
            bidding,
            self.accounts,
            self.value,
            self.shield,
            self.decisions,
            signals=self.signals,
            metrics=self.metrics,
            timezone=settings.timezone,
            rescue=self.resilience,
            holds=self.governor.holds,
        )
        writers = [
            BidWriter(
                bidding,
                name,
                bidder,
                self.governor,
                self.outbox,
                currency=settings.currency,
                patience=self.patience,
                on_denied=self.governor.denied,
                fitted=self.governor.fitted,
            )
            for name in self.connectors
        ]
        self.flow = Flow(bidder, writers)
        loops: list[Loop] = [*self.pollers, self.value_loop, bidder, *writers]
        loops.append(PlacedSettler(self.shield, Records(self.store)))
        if settings.mode is not Mode.BACKTEST:
            loops.append(ConversionsLoop(self.conversions))
        if settings.optimizer.enabled:
            loops.append(self.optimizer)
        if world.kill_folder is not None:
            self.kill_watch = KillWatch(self.shield, self.governor, world.kill_folder)
            loops.append(self.kill_watch)
        stop = settings.governor.anomaly_stop
        loops.append(GovernorLoop(self.governor, self.accounts, self.shield, self.store, anomaly_stop=stop))
        loops.append(self.resilience.windows)
        loops.append(HeadLoop(self.ledger, self.decisions, self.store, settings.ledger.head_interval_s))
        loops.append(VerifyLoop(self.ledger, settings.ledger.verify_interval_s))
        if settings.mode is not Mode.BACKTEST:  # its record is there to be compared, and kept whole in one file
            loops.append(SealLoop(self.ledger, self._sealer()))
        if self.restored.waiting:
            loops.append(self.restored)
        if world.backups is not None and self.guard is None:
            world.backups.store = self.store
            speed = world.clock.speed
            loops.append(
                BackupLoop(world.backups, settings.store.backup_interval_s, speed, lambda: self.ledger.hold_reason)
            )
        loops.append(NewsLoop(self.alerts, self.signals, lambda: self.shield.hold_reason))
        if self.alerts.channels:
            loops.append(DeliveryLoop(self.alerts, caller))
        self.loops = tuple(loops)
        self.supervisor = Supervisor(self.loops, self.world.clock, self.signals, on_freeze=self._on_freeze)
        self.resilience.tie(self.shield, self.value, self.supervisor)
        self.governor.reach.asleep = self._asleep
        self.supervisor.on_restart = lambda name: self.metrics.task_restarts(name).inc()
        if services is not None:
            services.supervisor = self.supervisor

    def _sealer(self) -> Sealer:
        ledger = self.settings.ledger
        keep = {MONEY: ledger.money_days, DECISION: ledger.decision_days, PERSONAL: ledger.personal_days}
        return Sealer(
            self.store,
            self.ledger,
            hot=round(ledger.hot_days * DAY),
            keep={kind: round(days * DAY) for kind, days in keep.items()},
        )

    # -- starting and ending ------------------------------------------------------------------------------------

    async def start(self, *, waits_for: str = "") -> None:
        """Settle what the last process left open, and read the platforms once, before any loop ticks.

        What `waits_for` names has to come first: until `read_platforms` no platform and no source is asked.
        """
        now = self.world.clock.now()
        for loop in self._readers():
            loop.waits_for = waits_for
        await self.outbox.load(now)
        await self._together({f"reconcile:{name}": self._settle(name, now) for name in self.connectors})
        if self.restored.waiting:
            await self.optimizer.abandon_open(now)
            await self.restored.note(now)
        if self.carried is not None and self.guard is None:
            self._tell_carried(self.carried)
        if not waits_for:
            await self.read_platforms(START_PATIENCE_S)

    async def read_platforms(self, patience_s: float) -> None:
        """Read all platforms and customers now, and go on without those that take more wall seconds than that."""
        now = self.world.clock.now()
        for loop in self._readers():
            loop.waits_for = ""
        await self._together({loop.name: self._first_read(loop, now) for loop in self._readers()}, patience_s)

    def _readers(self) -> tuple[Poller | ValueLoop, ...]:
        return (*self.pollers, self.value_loop)

    async def _together(
        self, questions: Mapping[str, Coroutine[Any, Any, None]], patience_s: float = START_PATIENCE_S
    ) -> None:
        """Ask all platforms at once. One that does not answer delays nothing: its loops ask again when they are due."""
        if self.world.clock.speed == 0:  # no time passes: nothing to gain by asking all at once, and one order to keep
            for question in questions.values():
                await question
            return
        if not questions:  # no account is configured yet
            return
        asked = {asyncio.create_task(question, name=name) for name, question in questions.items()}
        try:
            answered, slow = await asyncio.wait(asked, timeout=patience_s)
            for task in answered:
                task.result()
            if slow:
                names = sorted(task.get_name() for task in slow)
                _log.warning("slow_start", f"Going on without an answer to {', '.join(names)}", unanswered=names)
        finally:
            await cancel_all(asked, 0.2)

    async def _settle(self, connector: str, now: Instant) -> None:
        await self.outbox.reconcile(now, connector)

    async def _first_read(self, loop: Loop, now: Instant) -> None:
        try:
            await loop.tick(now)
        except KikiError as error:
            _log.warning("first_read_failed", f"{loop.name} could not read at the start: {error}", loop=loop.name)

    async def close(self) -> list[str]:
        """Let started calls finish, close plugins, make everything durable; names of what would not end.

        A call that does not finish in time is cut off and on record as unknown, so it cannot keep the record open.
        """
        stragglers: list[str] = []
        if self.world.backups is not None:
            await self.world.backups.close()
            self.world.backups.store = None
        if hasattr(self, "plugins"):
            await self.plugins.caller.drain(CALLS_FINISH_S)
            stragglers = await self.plugins.caller.end(0.3)
        if hasattr(self, "outbox"):
            await self.outbox.drain()
        if hasattr(self, "plugins"):
            stragglers += await self.plugins.close(0.5, 0.2)
        if hasattr(self, "store"):
            try:
                if hasattr(self, "decisions"):
                    await self.decisions.flush(self.world.clock.now())
                if hasattr(self, "resilience"):
                    await self.resilience.windows.keep(self.world.clock.now())
                if hasattr(self, "shield"):
                    await self.shield.close(self.world.clock.now())
                await self.store.drain()
                if hasattr(self, "ledger"):
                    await self.ledger.write_head()
            except KikiError as error:
                _log.error("not_all_durable", f"The end of the run could not be written: {error}", error=error)
            await self.store.close()
        if hasattr(self, "vault"):
            await self.vault.close()
        if hasattr(self, "outbox") and self.outbox.fallback is not None:
            self.outbox.fallback.close()
        if self.guard is not None:
            self.guard.release()
            self.guard = None
        return stragglers

    # -- what the parts ask of the whole --------------------------------------------------------------------------

    async def _call(self, connector: str, verb: str, arguments: tuple[object, ...]) -> object:
        self.calls += 1
        return await self.plugins.caller.to(connector, verb, *arguments)

    async def _dry_call(self, connector: str, verb: str, arguments: tuple[object, ...]) -> object:
        """In a dry run nothing is changed: every change is on record as refused for that reason.

        A platform that can check a change without making it is asked to, and what it says is the reason.
        """
        intents = [each for each in cast("Sequence[object]", arguments[0]) if isinstance(each, Intent)]
        stated = self.accounts.stated.get(connector)
        if stated is None or not stated.validates or verb == "reconcile":
            return [Receipt(intent.key, Outcome.REJECTED, "DRY_RUN") for intent in intents]
        receipts = cast("Sequence[Receipt]", await self._call(connector, verb, arguments))
        return [
            receipt if receipt.outcome is Outcome.REJECTED else Receipt(receipt.key, Outcome.REJECTED, "DRY_RUN")
            for receipt in receipts
        ]

    def _may_send(self, connector: str) -> str | None:
        """Why nothing about people may be written to a platform now; None when it may."""
        if self.settings.mode is Mode.DRY_RUN:
            return "a dry run sends nothing"
        if self.ledger.hold_reason:
            return "safe hold"
        level = self.governor.standing(connector).level
        return None if level.rank >= Level.ACT_LIMITED.rank else f"at level {level.value} nothing is sent"

    def day_of(self, platform: Platform, number: int) -> float:
        """For gauges, over a platform's connectors: 0 = spent today, 1 = daily cap (in units), 2 = share in use."""
        now = self.world.clock.now()
        days = [self.shield.status(name, now) for name, other in self.platforms.items() if other is platform]
        spent = sum(day.spent_today_micros for day in days)
        reserved = sum(day.reserved_micros for day in days)
        cap = sum(day.daily_cap_micros or 0 for day in days)
        return (spent / MICROS, cap / MICROS, (spent + reserved) / cap if cap else 0.0)[number]

    def _caps(self, table: ConnectorSettings) -> Caps:
        return Caps(
            daily_micros=None if table.daily_cap is None else micros_from_text(table.daily_cap),
            window_micros=None if table.window_cap is None else micros_from_text(table.window_cap),
            timezone=table.timezone or self.settings.timezone,
            currency=self.settings.currency,
        )

    def _ground(self) -> Ground:
        return Ground(
            live=self.settings.mode is Mode.LIVE,
            zones={name: table.timezone or self.settings.timezone for name, table in self.connectors.items()},
            window=round(self.settings.shield.window_s * SECOND),
            confirmed=confirm_campaign,
        )

    def _tell_carried(self, standing: Standing) -> None:
        """People hear what a restore kept of the present, and what it could not know."""
        stopped = bool(standing.unknown) and self.settings.mode is Mode.LIVE
        kept = "; ".join(standing.sentences())
        text = kept or "Nothing stood that the backup does not know"
        if standing.unknown:
            text = f"What stood before is not known for certain: {standing.unknown}. {kept or 'Nothing of it is kept'}"
        if stopped:
            text += ". The kill switch is on and every platform at watch until a person decides; docs/recovery.md"
        severity = "CRITICAL" if stopped else "WARNING"
        news = {"severity": severity, "title": "The record was restored", "message": f"{text}.", "subject": "restore"}
        self.signals.publish("news", news)

    def _seed(self) -> int:
        """Seed of the plugins' repeatable chance: the market's in simulations, else a number of the client's own."""
        if self.settings.mode in (Mode.DEMO, Mode.BACKTEST):
            return self.settings.demo.seed
        return zlib.crc32(self.settings.client_id.encode())

    def _observe(self, instance: str, verb: str, seconds: float, outcome: str) -> None:
        platform = self.platforms.get(instance)
        if platform is not None:
            self.metrics.platform_latency(platform.value).observe(seconds)
        if outcome != "ok":
            self.metrics.plugin_failures(instance, outcome).inc()

    def _on_freeze(self, frozen: bool) -> None:
        self.metrics.frozen.set(1 if frozen else 0)
        self.shield.hold("a loop that must run does not; see /status" if frozen else None)


def _keep_nothing(*_: object) -> None:
    """A stand-in of an older program is worth no copy."""
