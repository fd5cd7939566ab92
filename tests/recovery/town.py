"""A whole agent on a market in process, on simulated time and a real disk, so that real faults meet real parts."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from kiki_agent.agent import Agent, World
from kiki_agent.errors import Temporary
from kiki_agent.hooks.http import HttpAnswer, InProcessHttp
from kiki_agent.model import SECOND, Instant
from kiki_agent.recovery import Backups
from kiki_agent.runtime.clock import SimClock
from kiki_agent.runtime.driver import SimDriver
from kiki_agent.runtime.loop import Loop
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.runtime.supervisor import Supervisor
from kiki_agent.sandbox.effects import Effect
from kiki_agent.sandbox.faults import Faults
from kiki_agent.sandbox.market import Market
from kiki_agent.sandbox.service import SandboxService
from kiki_agent.sandbox.wiring import vendor_offers
from tests.agent.world import CAMPAIGNS, HISTORY_DAYS, START, KeptEffects, settings_for

Event = Callable[["Town"], Awaitable[None]]
QUICK = {"bidding.write_interval_s": "2", "bidding.poll_interval_s": "10", "ledger.settle_s": "1"}


@dataclass
class Seen:
    """What was seen second by second."""

    holds: list[str | None] = field(default_factory=list)
    """Why nothing could be spent."""
    effects: list[int] = field(default_factory=list)
    """Effects at the platforms so far."""
    reserved: list[int] = field(default_factory=list)
    """Micros reserved for placed bids."""
    failures: dict[str, int] = field(default_factory=dict)
    """Failed ticks of each loop."""

    def held(self, first: int, last: int) -> list[bool]:
        """Whether it held, for the seconds first..last."""
        return [reason is not None for reason in self.holds[first : last + 1]]


class Watcher(Loop):
    """Looks once a second, and lets happen what the script says."""

    name = "watcher"
    period = SECOND

    def __init__(self, town: Town, script: Mapping[int, Event], start: Instant) -> None:
        self.seen = Seen()
        self._town, self._script, self._start = town, script, start

    async def tick(self, now: Instant) -> str | None:
        town, shield = self._town, self._town.agent.shield
        self.seen.holds.append(shield.hold_reason)
        self.seen.effects.append(len(town.effects.all))
        self.seen.reserved.append(sum(shield.status(name, now).reserved_micros for name in shield.connectors))
        event = self._script.get((now - self._start) // SECOND)
        if event is not None:
            await event(town)
        return None


class Door:
    """The way to one platform, shut while it is silent."""

    def __init__(self, town: Town, instance: str) -> None:
        self._town, self._instance = town, instance
        self._http = InProcessHttp(town.service.handle, town.clock)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10,
    ) -> HttpAnswer:
        if self._instance in self._town.silent:
            raise Temporary("nobody answers")
        return await self._http.request(method, url, headers=headers, params=params, body=body, timeout_s=timeout_s)

    async def close(self) -> None:
        await self._http.close()


class Town:
    """One market, and the agents that live on it one after the other; an async context."""

    def __init__(self, folder: Path, *, seed: int = 1) -> None:
        self.folder = folder
        self.clock = SimClock(START)
        self.effects = KeptEffects()
        self.settings = settings_for(folder, seed, QUICK, hop=False)
        market = Market(seed, START, CAMPAIGNS, HISTORY_DAYS)
        self.service = SandboxService(market, self.effects, Faults(0.0, seed), vendors=vendor_offers(self.settings))
        self.backups = Backups(
            self.database, self.head, folder / "backups", daily=7, weekly=4, now=lambda: self.clock.now()
        )
        self.silent: set[str] = set()
        """Connectors whose platform answers nothing."""
        self._agent: Agent | None = None

    @property
    def database(self) -> Path:
        return self.folder / "agent.db"

    @property
    def head(self) -> Path:
        return self.folder / "agent.head"

    @property
    def agent(self) -> Agent:
        assert self._agent is not None
        return self._agent

    async def __aenter__(self) -> Town:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self, *, backups: bool = False) -> Agent:
        world = World(
            self.clock,
            self.database,
            lambda instance: Door(self, instance),
            simulated=True,
            backups=self.backups if backups else None,
        )
        self._agent = await Agent.build(self.settings, world, metrics=Metrics(process=False), signals=Signals())
        await self._agent.start()
        return self._agent

    async def live(self, seconds: int, script: Mapping[int, Event] | None = None) -> Seen:
        """Let the agent's loops tick for so many seconds of simulated time; `script` says what happens when.

        What happens in one second happens after the ticks of that second.
        """
        agent = self.agent
        watcher = Watcher(self, script or {}, self.clock.now())
        supervisor = Supervisor(
            (*agent.loops, watcher), self.clock, agent.signals, on_freeze=agent.supervisor.on_freeze
        )
        await SimDriver().run(supervisor, self.clock, Instant(self.clock.now() + seconds * SECOND))
        watcher.seen.failures = {each.name: each.failures for each in supervisor.report()}
        return watcher.seen

    def pass_time(self, span: int) -> None:
        """Let the market go on while the agent stands still, as after a night without it."""
        self.clock.instant = Instant(self.clock.instant + span)

    async def close(self) -> None:
        if self._agent is not None:
            agent, self._agent = self._agent, None
            await agent.close()

    def hold(self) -> str | None:
        """Why nothing may be spent."""
        return self.agent.shield.hold_reason

    def done(self, since: int = 0) -> list[Effect]:
        """What was done at the platforms."""
        return self.effects.all[since:]

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Ask the database, also while the agent lives."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


def raises_spend(effect: Effect) -> bool:
    """Whether more money can flow after an effect."""
    return effect.kind == "place_bid" or effect.after > effect.before
