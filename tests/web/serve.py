"""Run the page on believable data, to look at it: `python -m tests.web.serve [port] [scene]`."""

from __future__ import annotations

import asyncio
import sys
from itertools import count

from aiohttp import web

from kiki_agent.model import SECOND, Instant
from kiki_agent.web import Services, create_app

from .fakes import FakeAccounts, FakeAlert, FakeOptimizer, FakeShield, RunningClock, services, snapshot


def scene(name: str) -> Services:
    """Services in one of several conditions."""
    clock = RunningClock(speed=60.0 if name == "fast" else 1.0)
    made = services(clock)
    now = clock.now()
    shield, accounts, optimizer = made.shield, made.accounts, made.optimizer
    assert isinstance(shield, FakeShield)
    assert isinstance(accounts, FakeAccounts)
    assert isinstance(optimizer, FakeOptimizer)
    match name:
        case "trouble":
            shield.overshoot = 12_400_000
            shield.capless.add("microsoft")
            made.alerts.items.append(  # type: ignore[union-attr]
                FakeAlert("a1", "CRITICAL", "TikTok refuses the access token", "Sign in again at TikTok.", now)
            )
        case "new":
            optimizer.snapshot, optimizer.recent_shifts, optimizer.last_run = None, [], None
            accounts.as_of = dict.fromkeys(accounts.as_of)
            made.records.rows = []  # type: ignore[union-attr]
        case "hold":
            made.ledger.hold_reason = "the ledger ends at entry 51, but entry 80 is known to have been written"  # type: ignore[union-attr,misc]
    return made


async def live(made: Services) -> None:
    """Let time leave traces: reports arrive, cycles run."""
    accounts, optimizer, supervisor = made.accounts, made.optimizer, made.supervisor
    assert isinstance(accounts, FakeAccounts)
    assert isinstance(optimizer, FakeOptimizer)
    assert supervisor is not None
    for turn in count():
        now = made.clock.now()
        for index, name in enumerate(accounts.as_of):
            if turn % 6 == index and accounts.as_of[name] is not None:
                accounts.as_of[name] = now
                accounts.table.spend_today_micros[accounts.table.bounds[name][0]] += 130_000
        supervisor.health["bidding"].last_success = now
        if optimizer.snapshot is not None and now >= supervisor.health["optimizer"].next_due:
            optimizer.snapshot = snapshot(now, 0.01)
            optimizer.last_run = now
            supervisor.health["optimizer"].next_due = Instant(now + 300 * SECOND)
        await asyncio.sleep(2)


async def main(port: int, name: str) -> None:
    """Serve until interrupted."""
    made = scene(name)
    app = create_app(made)
    from kiki_agent.web.app import HOUSE

    if name not in ("new",):
        for step in range(40):
            made.optimizer.snapshot = snapshot(  # type: ignore[union-attr,misc]
                Instant(made.clock.now() - (12_108 - step * 300) * SECOND), 0.012 * ((step * 7) % 11 - 5) - 0.002 * step
            )
            app[HOUSE].overview.note_cycle()
        made.optimizer.snapshot = snapshot(Instant(made.clock.now() - 108 * SECOND))  # type: ignore[union-attr,misc]
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await live(made)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8080, sys.argv[2] if len(sys.argv) > 2 else "well"))
