"""An assembled agent on the sandbox market in process, under either driver, with a script of what goes wrong.

Also a program, so that another process can do the same run: `python world.py PATH SEED MINUTES [SHIFT_SECONDS]` prints
the head of its ledger.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":  # before anything of the agent is imported: the wall clock of this process is elsewhere
    _shift = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    _time, _time_ns = time.time, time.time_ns
    time.time = lambda: _time() + _shift
    time.time_ns = lambda: _time_ns() + int(_shift * 1e9)

from kiki_agent.agent import Agent, World  # noqa: E402
from kiki_agent.config import Mode, Settings, load  # noqa: E402
from kiki_agent.hooks.http import InProcessHttp  # noqa: E402
from kiki_agent.model import DAY, MINUTE, SECOND, Instant, parse_iso  # noqa: E402
from kiki_agent.runtime import log  # noqa: E402
from kiki_agent.runtime.clock import SimClock, SteppedClock  # noqa: E402
from kiki_agent.runtime.driver import LiveDriver, SimDriver  # noqa: E402
from kiki_agent.runtime.metrics import Metrics  # noqa: E402
from kiki_agent.runtime.purity import simulated_world  # noqa: E402
from kiki_agent.runtime.signals import Signals  # noqa: E402
from kiki_agent.runtime.supervisor import LoopReport  # noqa: E402
from kiki_agent.sandbox import layout as at  # noqa: E402
from kiki_agent.sandbox.effects import Effect, EffectsLog  # noqa: E402
from kiki_agent.sandbox.faults import Fault, Faults  # noqa: E402
from kiki_agent.sandbox.market import Market  # noqa: E402
from kiki_agent.sandbox.service import CLIENT_ID, CLIENT_SECRET, SandboxService  # noqa: E402
from kiki_agent.sandbox.wiring import vendor_offers, with_sandbox  # noqa: E402

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
from tests.agent.matching import CAMPAIGNS as CAMPAIGNS_KNOWN  # noqa: E402
from tests.agent.matching import LEDGER, keyed  # noqa: E402

START = parse_iso("2026-01-05T00:00:00Z")
BASE_URL = "http://sandbox.internal"
CAMPAIGNS, HISTORY_DAYS = 36, 10

HOPPING = '''
"""The sandbox's connector and notifier, with a thread in the way of every read of spend and of every write of bids."""
import asyncio
from kiki_agent import hookimpl
from kiki_sandbox.config import SandboxConfig
from kiki_sandbox.connector import SandboxConnector

class Hopping(SandboxConnector):
    @hookimpl
    async def fetch_spend(self, since):
        await asyncio.to_thread(sum, range(20_000))
        return await SandboxConnector.fetch_spend(self, since)

    @hookimpl
    async def adjust_bid(self, intents):
        receipts = await SandboxConnector.adjust_bid(self, intents)
        return await asyncio.to_thread(list, receipts)

def register(api):
    api.connector("hopping", Hopping, config=SandboxConfig)
'''
"""A one-file plugin that leaves the event loop's thread and comes back."""

Script = Callable[[Faults], None]


def weather(faults: Faults) -> None:
    """A vendor that is down for a while, one that answers nonsense, and changes whose outcome is not known."""
    faults.order(Fault.ERROR, path="/v1/tiktok/spend", times=6)
    faults.order(Fault.GARBAGE, path="/v1/linkedin/campaigns", times=2)
    faults.order(Fault.LOST, path="/v1/microsoft/bids")
    faults.order(Fault.ERROR, path="/v1/linkedin/bids")
    faults.order(Fault.FAILED, path="/v1/amazon/bids")
    faults.order(Fault.LOST, path="/budgets", times=2)
    faults.order(Fault.THROTTLED, path="/v1/microsoft/spend", times=2)
    faults.order(Fault.ERROR, path="/v1/microsoft/effects")
    faults.order(Fault.LOST, path=":mutate")
    faults.order(Fault.GARBAGE, path="/meta/v", times=3)


def fair(faults: Faults) -> None:
    """Nothing goes wrong."""


@dataclass
class Ended:
    """What a run left behind."""

    head: tuple[int, str]
    verified: bool
    kinds: Counter[str]
    loops: dict[str, LoopReport]
    effects: list[Effect]
    """Every effect of the run in order, as the platforms know it, each with the key of its intent."""
    start_budgets: list[int]
    """Daily budget of each campaign before the run."""
    budgets: list[int]
    """And after it."""
    receipts: dict[str, list[tuple[str, str, bool]]]
    """Key of an intent -> its receipts in order: outcome, reason, whether it was read back."""
    shifts: dict[str, str]
    """Id -> state."""
    unsettled: int
    faults: Faults
    database: Path
    faulted: list[str] = field(default_factory=list)
    """Loops in the order in which they were given up, as often as that happened."""

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Ask the closed database."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


class KeptEffects(EffectsLog):
    """An effects log that forgets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Effect] = []

    def append(self, effects: list[Effect]) -> None:  # type: ignore[override]
        super().append(effects)
        self.all.extend(effects)


def settings_for(folder: Path, seed: int, flags: Mapping[str, str] | None = None, *, hop: bool = True) -> Settings:
    """The shipped configuration on a small market; `hop` lets one connector go through a thread."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {
        "demo.seed": str(seed),
        "demo.campaigns": str(CAMPAIGNS),
        "demo.history_days": str(HISTORY_DAYS),
        "demo.fault_rate": "0",
        "mode": "backtest",
    }
    if hop:
        plugins = folder / "plugins"
        plugins.mkdir(exist_ok=True)
        (plugins / "hopping.py").write_text(HOPPING)
        given |= {
            "plugins.folder": str(plugins),
            "plugins.allow": '["google_ads", "meta", "sandbox", "hopping"]',
            "connector.tiktok.plugin": "hopping",
            "connector.tiktok.base_url": BASE_URL,
        }
    loaded = load(ROOT / "config.toml", {}, given | dict(flags or {}))
    return on_sandbox(loaded.settings).model_copy(update={"mode": Mode.BACKTEST})


def on_sandbox(settings: Settings) -> Settings:
    """The settings, with every connector pointed at the service of this process."""
    return with_sandbox(settings, BASE_URL, CLIENT_ID, CLIENT_SECRET, vendor_offers(settings))


async def run(
    folder: Path,
    *,
    seed: int = 1,
    span: int = 30 * MINUTE,
    stepped: bool = False,
    script: Script = weather,
    flags: Mapping[str, str] | None = None,
    hop: bool = True,
    fault_rate: float = 0.0,
) -> Ended:
    """Build an agent in a folder, run it for a span of simulated time, close it."""
    settings = settings_for(folder, seed, flags, hop=hop)
    database = folder / "agent.db"
    end = Instant(START + span)
    clock: SimClock = SteppedClock(START) if stepped else SimClock(START)
    effects = KeptEffects()
    faults = Faults(fault_rate, seed)
    script(faults)
    market = Market(seed, START, CAMPAIGNS, HISTORY_DAYS)
    service = SandboxService(market, effects, faults, vendors=vendor_offers(settings))
    world = World(
        clock,
        database,
        lambda instance: InProcessHttp(service.handle, clock),
        synchronous="OFF",
        simulated=not stepped,
    )
    agent = await Agent.build(settings, world, metrics=Metrics(process=False), signals=Signals())
    faulted: list[str] = []
    agent.supervisor.on_fault = lambda health: faulted.append(health.name)
    try:
        if isinstance(clock, SteppedClock):
            await agent.start()
            driver = asyncio.create_task(LiveDriver().run(agent.supervisor, clock, end))
            due = [each for each in agent.loops if each.first_due_at_start or START + each.period < end]
            await clock.run(end, sleepers=len(due))
            await driver
        else:
            with simulated_world():
                await agent.start()
                await SimDriver().run(agent.supervisor, clock, end)
        await agent.decisions.flush(end)
        await agent.store.drain()
        verified = (await agent.ledger.verify(whole=True)).ok
        head = agent.ledger.head
        loops = {each.name: each for each in agent.supervisor.report(end)}
        shifts = {each.shift_id: each.state.value for each in await agent.optimizer.history()}
        unsettled = agent.outbox.unsettled_count
    finally:
        await agent.close()
    ended = Ended(
        head=head,
        verified=verified,
        kinds=Counter(),
        loops=loops,
        effects=effects.all,
        start_budgets=market.start_budgets.tolist(),
        budgets=market.control[at.BUDGET].tolist(),
        receipts={},
        shifts=shifts,
        unsettled=unsettled,
        faults=faults,
        database=database,
        faulted=faulted,
    )
    for kind, body in ended.rows("SELECT kind, body FROM ledger_entries ORDER BY seq"):
        ended.kinds[str(kind)] += 1
        if kind == "receipt":
            facts = json.loads(str(body))
            ended.receipts.setdefault(facts["key"], []).append((facts["outcome"], facts["reason"], facts["read_back"]))
    ended.effects = keyed(effects.all, ended.rows(LEDGER), ended.rows(CAMPAIGNS_KNOWN), CAMPAIGNS)
    return ended


def sync(work: Awaitable[Ended]) -> Ended:
    """Run to the end on an event loop of its own."""

    async def wait() -> Ended:
        return await work

    return asyncio.run(wait())


__all__ = ["DAY", "MINUTE", "SECOND", "START", "Ended", "fair", "run", "settings_for", "sync", "weather"]

if __name__ == "__main__":
    log.configure("error", "json")
    done = sync(run(Path(sys.argv[1]), seed=int(sys.argv[2]), span=int(sys.argv[3]) * MINUTE))
    sys.stdout.write(json.dumps({"head": list(done.head), "kinds": dict(done.kinds)}) + "\n")
