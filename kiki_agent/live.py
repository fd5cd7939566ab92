"""The agent as a process: demo, dry-run and live. Listens first, then builds, then ticks; ends in stages.

`/health` answers from the first second; `/ready` once the record is open and the platforms were read.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from kiki_agent.accounts import Poller
from kiki_agent.agent import KERNEL_MODULES, Agent, World
from kiki_agent.config import Loaded, Mode, Settings
from kiki_agent.errors import KikiError, StoreError
from kiki_agent.governor import Governor, links
from kiki_agent.hooks.http_aiohttp import AiohttpHttp
from kiki_agent.model import MILLISECOND, SECOND, Instant
from kiki_agent.recovery import Backups, Restored, restore
from kiki_agent.recovery.backups import database_of
from kiki_agent.recovery.beside import clear_away, hand_back, left_behind, make_place, stand_in_path, trouble_of
from kiki_agent.recovery.service import Busy
from kiki_agent.recovery.standing import Standing, read_orders, stopped
from kiki_agent.runtime import log, tasks
from kiki_agent.runtime.clock import Clock, ScaledClock, Stopwatch, SystemClock
from kiki_agent.runtime.driver import LiveDriver
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.shutdown import Stage, StopRequest, leave_now, shut_down
from kiki_agent.runtime.signals import Signals
from kiki_agent.runtime.watchdog import Watchdog
from kiki_agent.sandbox.adopt import SandboxFailed, SandboxHandle, start_or_adopt, stop, until_ready
from kiki_agent.sandbox.wiring import vendor_offers, with_sandbox
from kiki_agent.store import AlreadyRunning, Damaged
from kiki_agent.store.lock import LockFile
from kiki_agent.store.schema import lock_path
from kiki_agent.value import ValueLoop
from kiki_agent.web import Services, create_app

KERNELS_FROM = 1_000
"""Campaigns from which compiled kernels are worth what they cost. The compiler takes some 130 MB of memory; below this
size the plain twins decide a tick in a few milliseconds of its two seconds (docs/performance.md)."""
MARKET_PATIENCE_S = 3.0
"""Wall seconds after the process began until which the start waits for the demo's market. Where its kernel has to be
compiled first it takes longer; then the agent is ready before the market is, and asks nobody anything until then."""
FIRST_READ_S = 60.0
"""Wall seconds that the first look at budgets waits for the first reading of a late market."""
TRY_AGAIN = 2_000 * MILLISECOND
"""Wall time after which a database that could not be used is tried again."""
IDLE_EXIT_S = 600.0
"""Wall seconds after which a demo's sandbox ends by itself when no agent asks it anything any more."""

_log = log.get_logger("agent")


def main(loaded: Loaded) -> NoReturn:
    """Run until stopped, then end the process, so that no stubborn task or thread can hold it up.

    Raises ConfigError, AlreadyRunning and other KikiErrors when the start fails.
    """
    loop = tasks.new_event_loop()
    asyncio.set_event_loop(loop)
    process = _Process(loaded, Stopwatch())
    try:
        code = loop.run_until_complete(process.run())
    except BaseException:
        loop.run_until_complete(process.abandon())
        loop.close()
        raise
    leave_now(code)


def _rank(governor: Governor, connector: str) -> int:
    return governor.standing(connector).level.rank


def _is_frozen(governor: Governor, connector: str) -> int:
    return governor.frozen(connector) is not None


class _Process:
    """One run of the agent as a process."""

    def __init__(self, loaded: Loaded, watch: Stopwatch) -> None:
        self.loaded = loaded
        self.settings = loaded.settings
        self.folder = Path(self.settings.store.folder)
        self.clock: Clock = SystemClock()
        self.metrics = Metrics()
        self.signals = Signals()
        self.stop = StopRequest()
        self.driver = LiveDriver(self.metrics.ticked)
        self.watchdog = Watchdog(
            on_lag=self.metrics.loop_lag.set, on_block=lambda block: self.metrics.loop_blocks.inc(), blame=self._blame
        )
        self.watch = watch
        self.agent: Agent | None = None
        self._killed_early = False
        self.backups = Backups(
            self.database,
            self.database.with_suffix(".head"),
            self.settings.backup_folder,
            daily=self.settings.store.backups_kept,
            weekly=self.settings.store.backups_weekly,
            now=lambda: self.clock.now(),
            publish=self.signals.publish,
        )
        self._build_task: asyncio.Task[None] | None = None
        self._restoring = False
        self._sandbox: asyncio.Task[SandboxHandle] | None = None
        """Starts or adopts the demo's market; never cancelled, so that it is always known what there is to end."""
        self._market: asyncio.Task[None] | None = None
        """Ends when the demo's market is there."""
        self._runner: web.AppRunner | None = None
        self._tasks = tasks.OwnedTasks("agent")

    @property
    def database(self) -> Path:
        """Each mode has a database of its own."""
        return self.folder / f"{self.settings.mode.value.replace('-', '')}.db"

    @property
    def _stand_in(self) -> Path:
        """Where a stand-in lies while the disk of the database takes nothing."""
        return stand_in_path(self.database)

    async def run(self) -> int:
        """Everything from the first listener to the last commit; the exit code."""
        settings = self.settings
        self._check_free()
        log.configure(settings.log.level, settings.log.format, now=lambda: self.clock.now())
        self.stop.install()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._on_kill_signal)
        self.watchdog.start()
        services = self._known_services = self._services()
        await self._listen(services)
        build = self._build_task = asyncio.create_task(self._build(services), name="start")
        stopping = asyncio.create_task(self.stop.wait(), name="stop request")
        await asyncio.wait({build, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if build.done() and not build.cancelled():
            build.result()
        await stopping
        _log.info("stopping", f"Stopping: {self.stop.reason}", reason=self.stop.reason)
        services.starting = "the agent is stopping"
        return await self._end(self._build_task)

    async def abandon(self) -> None:
        """Let go of everything after a start that failed."""
        self.watchdog.stop()
        if self.agent is not None:
            await self.agent.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._market is not None:
            self._market.cancel()
        await self._stop_market(but_not_adopted=True)
        await self._tasks.close()

    # -- start --------------------------------------------------------------------------------------------------

    def _check_free(self) -> None:
        """Raise AlreadyRunning before anything of the other agent is touched."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder {self.folder} (store.folder) cannot be made: {error.strerror}") from error
        LockFile.take(lock_path(self.database)).release()

    def _services(self) -> Services:
        name = version("kiki-agent")
        self.metrics.set_build(name, self.settings.mode.value)
        return Services(
            settings=self.settings,
            clock=self.clock,
            version=name,
            started_at=self.clock.now(),
            metrics=self.metrics,
            signals=self.signals,
            uptime=self.watch,
            backups=self.backups,
            restorer=self._restore,
        )

    async def _listen(self, services: Services) -> None:
        """Answer `/health` from now on."""
        settings = self.settings.http
        self._runner = web.AppRunner(create_app(services), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        for port in (settings.port, *settings.compat_ports):
            try:
                await web.TCPSite(self._runner, settings.host, port).start()
            except OSError as error:
                key = "http.port" if port == settings.port else "http.compat_ports"
                raise KikiError(
                    f"cannot listen on {settings.host}:{port}: {error.strerror or error}; set {key} to a free port"
                ) from error
        addresses = [f"http://{address[0]}:{address[1]}/" for address in self._runner.addresses]
        _log.info("listening", f"Listening on {addresses[0]}", addresses=addresses, mode=self.settings.mode.value)
        if sys.stdout.isatty():
            sys.stdout.write(f"kiki-agent ({self.settings.mode.value}): open {addresses[0]} - Ctrl-C ends it\n")
            sys.stdout.flush()

    async def _build(self, services: Services) -> None:
        """Come up; while the database cannot be used, say why and try again, and never spend meanwhile.

        A damaged one does not get well: a stand-in takes its place, on hold, until a person restores it. Where it
        takes no writes, a stand-in on another disk holds until it does.
        """
        settings = await self._sandboxed(services) if self.settings.mode is Mode.DEMO else self.settings
        await asyncio.to_thread(self._look_for_backups)
        damage: str | None = None
        while True:
            try:
                return await self._come_up(settings, services, damage)
            except AlreadyRunning:
                raise
            except StoreError as error:
                await self._let_go(services, f"safe hold: the database cannot be used: {error}")
                text = f"The database cannot be used, so nothing is spent: {error}"
                _log.error("safe_hold", text, error=error)
                if isinstance(error, Damaged) and damage is None:
                    damage = f"the database is damaged: {error}"
                    continue
                reason = f"the database cannot be used: {error}"
            await self._hold_beside(settings, services, reason)

    async def _hold_beside(self, settings: Settings, services: Services, reason: str) -> None:
        """Hold on a stand-in until the database may be tried again; where there can be none, for one try's time."""
        place = self._stand_in
        obstacle = await asyncio.to_thread(make_place, place)
        if obstacle is None:
            standing = await asyncio.to_thread(read_orders, self.database, self.clock.now())
            try:
                await self._come_up(settings, services, reason, place, None if standing.unknown else standing)
            except AlreadyRunning:
                raise
            except StoreError as error:
                obstacle = str(error)
        if obstacle is not None:
            _log.error("no_stand_in", f"Nothing can be paused either: there is no place for a stand-in: {obstacle}")
            await self._let_go(services, f"safe hold: {reason}")
        while True:
            await self.clock.sleep_until(Instant(self.clock.now() + round(TRY_AGAIN * self.clock.speed)))
            if obstacle is not None or await asyncio.to_thread(trouble_of, self.database) is None:
                break
        await self._let_go(services, "starting: the database can be used again")

    async def _let_go(self, services: Services, starting: str) -> None:
        """End the agent that is there, in order, to make another."""
        services.forget_parts(starting)
        await self.driver.stop(2.7)
        await self._close_agent()
        self.agent = None

    def _take_back(self) -> str | None:
        """Let the record take up what a stand-in did; the reason of a stop that it was told, or None."""
        try:
            cuts = hand_back(self._stand_in, self.database)
        except StoreError as error:
            _log.error("cuts_lost", f"The cuts of a stand-in cannot enter the record yet: {error}")
        else:
            if cuts:
                _log.info("cuts_taken_back", f"The record takes up {cuts} cuts of a stand-in", cuts=cuts)
        return stopped(self._stand_in)

    def _look_for_backups(self) -> None:
        try:
            self.backups.look()
        except StoreError as error:
            _log.warning("backups_unknown", f"The backups cannot be listed: {error}")

    async def _come_up(
        self,
        settings: Settings,
        services: Services,
        damage: str | None,
        stand_in: Path | None = None,
        standing: Standing | None = None,
    ) -> None:
        left = damage is None and left_behind(self._stand_in)
        stop = await asyncio.to_thread(self._take_back) if left else None
        world = World(
            self.clock,
            self.database,
            lambda instance: AiohttpHttp(),
            damage=damage,
            stand_in=stand_in,
            standing=standing,
            backups=self.backups,
            kill_folder=self.folder,
            locate=self.loaded.locate,
        )
        services.starting = "starting: the record is being opened"
        self.driver = LiveDriver(self.metrics.ticked)
        agent = self.agent = await Agent.build(
            settings, world, metrics=self.metrics, signals=self.signals, services=services
        )
        if stop is not None:
            await agent.shield.kill(True, stop, self.clock.now())
        if left and agent.guard is None:
            await asyncio.to_thread(clear_away, self._stand_in)
        self._gauges(agent)
        services.approval_key = self._approval_key()
        if self._killed_early and agent.kill_watch is not None:
            agent.kill_watch.signal("SIGUSR1")
            self._killed_early = False
        services.starting = "starting: the platforms are being read"
        late = self._market is not None and not await self._market_came(self._market)
        await agent.start(waits_for="the simulated market, which is being made" if late else "")
        services.starting = None
        self._tasks.spawn(self.driver.run(agent.supervisor, self.clock), "driver")
        if late:
            self._tasks.spawn(self._catch_up(agent), "market")
        if len(agent.accounts.table) >= KERNELS_FROM:
            self._tasks.spawn(self._load_kernels(), "kernels")
        for component in ("syncvalue", "syncshield", "syncflow", "syncledger", "syncnotify"):
            log.get_logger(component).info("online", f"{component} is online")
        _log.info("ready", "Ready", wall_seconds=round(self.watch.seconds(), 3))

    async def _sandboxed(self, services: Services) -> Settings:
        """Start or adopt the simulated market, share its clock, and point the plugins at it."""
        demo = self.settings.demo
        services.starting = "starting: the simulated market is being started"
        vendors = vendor_offers(self.settings)
        self._sandbox = asyncio.create_task(
            start_or_adopt(
                self.folder / "sandbox",
                seed=demo.seed,
                speed=demo.speed,
                campaigns=demo.campaigns,
                history_days=demo.history_days,
                fault_rate=demo.fault_rate,
                idle_exit_s=IDLE_EXIT_S,
                vendors=vendors,
            ),
            name="sandbox",
        )
        sandbox = await asyncio.shield(self._sandbox)
        self._market = asyncio.create_task(until_ready(self.folder / "sandbox", sandbox), name="market")
        epoch = Instant(sandbox.epoch)
        if demo.speed != 1.0:
            self.clock = services.clock = ScaledClock(demo.speed, epoch, epoch)
            services.started_at = self.clock.now()
        if not sandbox.continued:
            self._set_aside(epoch)
        return with_sandbox(self.settings, sandbox.base_url, sandbox.client_id, sandbox.client_secret, vendors)

    async def _market_came(self, market: asyncio.Task[None]) -> bool:
        """Wait for the market as long as a start may take. Raises SandboxFailed when there will be none."""
        done, _ = await asyncio.wait({market}, timeout=max(0.0, MARKET_PATIENCE_S - self.watch.seconds()))
        if done:
            market.result()
        return bool(done)

    async def _catch_up(self, agent: Agent) -> None:
        """Do what the start could not, once the market is there: read it, and run the cycle that a start runs."""
        assert self._market is not None
        try:
            await self._market
        except SandboxFailed as error:
            _log.error("no_market", f"The simulated market will not come: {error}")
            await self._read_late(agent)  # so that each platform is told as lost
            return
        if self.agent is not agent:  # a stand-in that is not needed any more
            return
        await self._read_late(agent)
        if self.settings.optimizer.enabled and self.settings.optimizer.run_at_start:
            agent.supervisor.run_now("optimizer")
        _log.info("market_read", "The simulated market is there and was read")

    async def _read_late(self, agent: Agent) -> None:
        """Let the loops that read do so now, and wait until each has; a slow one is not cut off."""
        readers: tuple[Poller | ValueLoop, ...] = (*agent.pollers, agent.value_loop)
        health = agent.supervisor.health
        before = {loop.name: health[loop.name].ticks for loop in readers}
        for loop in readers:
            loop.waits_for = ""
            agent.supervisor.run_now(loop.name)
        wall = SystemClock()
        due = wall.now() + round(FIRST_READ_S * SECOND)
        while wall.now() < due and not all(
            health[name].ticks > ticks and health[name].running_since is None for name, ticks in before.items()
        ):
            await wall.sleep_for(50 * MILLISECOND)

    def _set_aside(self, epoch: int) -> None:
        """A new market has no past in common with an older record: keep that under another name."""
        if left_behind(self._stand_in):
            clear_away(self._stand_in)
        if not self.database.exists():
            return
        for suffix in (".db", ".db-wal", ".db-shm", ".head", ".keys", ".erased", ".segments"):
            path = self.database.with_suffix(suffix)
            if path.exists():
                path.replace(path.with_name(f"{path.name}.before-{epoch}"))
        _log.info("record_set_aside", "The record belongs to another market and was set aside", epoch=epoch)

    def _on_kill_signal(self) -> None:
        """SIGUSR1 throws the kill switch, also when it comes before there is one."""
        self._killed_early = True
        if self.agent is not None and self.agent.kill_watch is not None:
            self.agent.kill_watch.signal("SIGUSR1")

    def _approval_key(self) -> bytes | None:
        """The key that signs links; without one there are no links."""
        try:
            return links.load_key(self.folder / "approval.key", os.urandom(links.KEY_BYTES))
        except OSError as error:
            _log.warning("no_links", f"No links for approvals: {error}")
            return None

    def _gauges(self, agent: Agent) -> None:
        metrics = self.metrics
        metrics.read_on_scrape(metrics.db_queue_depth, lambda: agent.store.queue_depth)
        governor, shield = agent.governor, agent.shield
        metrics.read_on_scrape(metrics.suggestions_open, lambda: len(governor.desk.open))
        metrics.read_on_scrape(metrics.kill_switch, lambda: shield.killed)
        for name in governor.connectors:
            rank, frozen = partial(_rank, governor, name), partial(_is_frozen, governor, name)
            metrics.read_on_scrape(metrics.autonomy_level(name), rank)
            metrics.read_on_scrape(metrics.platform_frozen(name), frozen)
        metrics.read_on_scrape(metrics.ledger_entries, lambda: agent.ledger.head[0])
        metrics.read_on_scrape(metrics.signals_dropped, lambda: self.signals.dropped)
        metrics.read_on_scrape(metrics.consents_held, lambda: agent.consents.held)
        metrics.read_on_scrape(metrics.safe_hold, lambda: float(agent.shield.hold_reason is not None))
        metrics.read_on_scrape(metrics.backup_failed, lambda: float(self.backups.failure is not None))
        metrics.read_on_scrape(metrics.backup_age, lambda: self._backup_age())
        metrics.read_loops(agent.supervisor.health.values)
        for platform in sorted(set(agent.platforms.values())):
            spent, limit, used = (partial(agent.day_of, platform, number) for number in range(3))
            circuit = partial(agent.resilience.worst, platform)
            metrics.read_on_scrape(metrics.circuit_state(platform.value), circuit)
            metrics.read_on_scrape(metrics.budget_spent(platform.rpc_name), spent)
            metrics.read_on_scrape(metrics.budget_limit(platform.rpc_name), limit)
            metrics.read_on_scrape(metrics.budget_utilization(platform.rpc_name), used)
        metrics.read_on_scrape(metrics.db_bytes("db"), lambda: agent.store.sizes()["db"])
        metrics.read_on_scrape(metrics.db_bytes("wal"), lambda: agent.store.sizes()["wal"])

    def _backup_age(self) -> float:
        age = self.backups.age_s(self.clock.now())
        return math.nan if age is None else age

    async def _load_kernels(self) -> None:
        """Compile in a child, load in a thread; the twins serve meanwhile, and for good when this fails."""
        from kiki_agent.kernels import compile_in_child, load_compiled

        await compile_in_child(KERNEL_MODULES)
        failed = await asyncio.to_thread(load_compiled, KERNEL_MODULES)
        if failed:
            _log.warning("kernels_not_compiled", "The plain twins go on serving", failed=failed)
        else:
            _log.info("kernels_loaded", "Compiled kernels serve from now on")

    def _blame(self) -> str | None:
        return self.agent.plugins.blame() if self.agent is not None and hasattr(self.agent, "plugins") else None

    # -- the way back ---------------------------------------------------------------------------------------------

    async def _restore(self, name: str) -> Restored:
        """Put a backup in place of a database that cannot be trusted, and come up again on it.

        Raises Busy while the record is sound or another restore runs, StoreError when the backup is not whole.
        """
        services = self._known_services
        if self._restoring:
            raise Busy("a restore is running already")
        if self._untrusted() is None:
            raise Busy("the record is sound; stop the agent and use `kiki-agent restore` to go back to an older one")
        self._restoring = True
        try:
            found = await self.backups.verify(name)
            if found.problem:
                raise StoreError(f"backup {name} is not whole: {found.problem}")
            if self._build_task is not None:
                await tasks.cancel_all({self._build_task}, 5.0)
            await self._let_go(services, f"restoring {name}")
            try:
                return await asyncio.to_thread(
                    restore,
                    self.database,
                    self.backups.known_head,
                    database_of(self.backups.folder, name),
                    client_id=self.settings.client_id,
                    now=self.clock.now(),
                )
            finally:
                self._build_task = self._tasks.spawn(self._build(services), "start after a restore")
        finally:
            self._restoring = False

    def _untrusted(self) -> str | None:
        """Why the record cannot be trusted or used; None when it is sound, or nobody knows yet."""
        services, agent = self._known_services, self.agent
        if agent is None or not hasattr(agent, "ledger"):
            starting = services.starting or ""
            return starting if starting.startswith("safe hold") else None
        if agent.guard is not None or agent.store.damaged:
            return agent.ledger.hold_reason or agent.store.failure
        return agent.ledger.hold_reason

    # -- end ----------------------------------------------------------------------------------------------------

    async def _end(self, build: asyncio.Task[None]) -> int:
        """Begin nothing new, finish what runs, make it durable, fall silent, end the market last."""
        stages = [
            Stage("start", 0.5, lambda: tasks.cancel_all({build}, 0.4)),
            Stage("loops", 3.0, lambda: self.driver.stop(2.7)),
            Stage("record and plugins", 3.4, self._close_agent),
            Stage("http", 1.0, self._close_listener),
            Stage("sandbox", 1.0, self._stop_market),
        ]
        results = await shut_down(stages)
        self.watchdog.stop()
        unclean = [result.name for result in results if not result.clean]
        _log.info("stopped", "Stopped" if not unclean else f"Stopped; not clean: {', '.join(unclean)}", unclean=unclean)
        return 0

    async def _close_agent(self) -> list[str]:
        return await self.agent.close() if self.agent is not None else []

    async def _close_listener(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _stop_market(self, *, but_not_adopted: bool = False) -> None:
        """End the demo's market, also one that is just being started."""
        if self._sandbox is None:
            return
        try:
            sandbox = await self._sandbox
        except SandboxFailed:
            return
        if not (but_not_adopted and sandbox.adopted):
            await stop(sandbox)
