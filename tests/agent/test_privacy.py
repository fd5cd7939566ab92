"""A person is erased while the whole agent runs, and their CRM goes on stating them."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from kiki_agent.agent import Agent, World
from kiki_agent.consent import DENIED, ConsentType
from kiki_agent.hooks.http import InProcessHttp
from kiki_agent.model import HOUR, Instant
from kiki_agent.runtime.clock import SimClock
from kiki_agent.runtime.driver import SimDriver
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.purity import simulated_world
from kiki_agent.runtime.signals import Signals
from kiki_agent.sandbox.effects import EffectsLog
from kiki_agent.sandbox.faults import Faults
from kiki_agent.sandbox.market import Market
from kiki_agent.sandbox.service import SandboxService
from kiki_agent.sandbox.wiring import vendor_offers

from .world import CAMPAIGNS, HISTORY_DAYS, START, settings_for

T = ConsentType.TARGETING


async def _run(folder: Path, erase: bool) -> tuple[str, list[str], int]:
    """Hours of a shop with one of its customers erased after the first; head, erased id, customers left."""
    settings = settings_for(folder, 3, hop=False)
    clock = SimClock(START)
    service = SandboxService(
        Market(3, START, CAMPAIGNS, HISTORY_DAYS), EffectsLog(), Faults(0.0, 3), vendors=vendor_offers(settings)
    )
    world = World(
        clock,
        folder / "agent.db",
        lambda instance: InProcessHttp(service.handle, clock),
        synchronous="OFF",
        simulated=True,
    )
    agent = await Agent.build(settings, world, metrics=Metrics(process=False), signals=Signals())
    gone: list[str] = []
    try:
        with simulated_world():
            await agent.start()
            await SimDriver().run(agent.supervisor, clock, Instant(START + HOUR + 1))
            if erase:
                gone = await _erase_some(agent, clock.now())
                await agent.store.write(
                    lambda connection: connection.execute("UPDATE crm_sync_state SET cursor = ''").rowcount
                )
                agent.value_loop._cursors.clear()  # the source states everybody again
            await SimDriver().run(agent.supervisor, clock, Instant(START + 2 * HOUR + 1))
            assert agent.consents.basis(gone[0] if gone else "x", T, "meta", clock.now()) == DENIED
        await agent.store.drain()
        assert (await agent.ledger.verify(whole=True)).ok
        left = await agent.store.read(
            lambda connection: connection.execute("SELECT count(*) FROM customers").fetchone()[0]
        )
        head = agent.ledger.head[1]
    finally:
        await agent.close()
    return head, gone, int(left)


async def _erase_some(agent: Agent, now: Instant) -> list[str]:
    subjects = await agent.store.read(
        lambda connection: [row[0] for row in connection.execute("SELECT customer_id FROM customers LIMIT 5")]
    )
    names = list((await agent.vault.customers(subjects)).values())
    for name in names:
        await agent.consents.grant(name, T, now, evidence={"ip_address": "203.0.113.7"})
        await agent.privacy.erase(name, now)
    return names


def test_who_is_erased_in_mid_run_is_gone_from_every_file(tmp_path: Path) -> None:
    _, gone, left = asyncio.run(_run(tmp_path, erase=True))
    assert len(set(gone)) == 5
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"agent.db", "agent.keys", "agent.erased", "agent.head"}
    # whole ids: `c1-2-3` stands inside `c1-2-30`, so the keys are asked and not searched
    connection = sqlite3.connect(f"file:{tmp_path / 'agent.keys'}?mode=ro", uri=True)
    known = {row[0] for row in connection.execute("SELECT customer_id FROM subjects")}
    connection.close()
    assert not known & set(gone)
    assert left == len(known)
    rest = b"".join(path.read_bytes() for path in files if path.name != "agent.keys")
    assert [name for name in (*gone, *sorted(known)[:200]) if name.encode() in rest] == []


def test_tokens_change_nothing_of_a_run(tmp_path: Path) -> None:
    heads = {asyncio.run(_run(tmp_path / name, erase=False))[0] for name in ("a", "b")}
    assert len(heads) == 1
