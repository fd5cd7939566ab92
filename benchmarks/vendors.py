"""One question to a vendor and its answer, both sides together: the connector, the wire format, and the stand-in.

    python benchmarks/vendors.py

In process as in a backtest, 20 campaigns, CPU microseconds a call; the market itself is not counted.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time

from kiki_agent.config import load
from kiki_agent.hooks.context import ContextFactory
from kiki_agent.hooks.http import InProcessHttp
from kiki_agent.hooks.manager import Plugins
from kiki_agent.model import DAY, SECOND, DayWindow, Instant, parse_iso
from kiki_agent.runtime.clock import SimClock
from kiki_agent.sandbox import EffectsLog, Faults, Market, SandboxService
from kiki_agent.sandbox.wiring import vendor_offers, with_sandbox

NOW = parse_iso("2026-06-01T12:00:00Z")
WINDOW = DayWindow("2026-05-31", "2026-06-01")
CALLS = 300
EVERY = 5 * SECOND
"""Between two calls, so that no limit is met."""
READS: dict[str, tuple[object, ...]] = {
    "fetch_spend": (Instant(NOW - NOW % DAY),),
    "fetch_performance": (WINDOW, None),
    "fetch_campaigns": (),
}


async def _measured(plugins: Plugins, market: Market, clock: SimClock, connector: str, verb: str) -> list[float]:
    taken = []
    for _ in range(CALLS):
        clock.instant = Instant(clock.instant + EVERY)
        market.advance_to(clock.instant)
        begun = time.process_time_ns()
        await plugins.caller.to(connector, verb, *READS[verb])
        taken.append((time.process_time_ns() - begun) / 1_000)
    return taken


async def main() -> None:
    settings = load(None, os.environ, {"mode": "backtest"}).settings
    clock = SimClock(NOW)
    market = Market(1, NOW, 120, 20)
    offers = vendor_offers(settings)
    service = SandboxService(market, EffectsLog(), Faults(), vendors=offers)
    factory = ContextFactory(clock=clock, make_http=lambda _: InProcessHttp(service.handle, clock))
    filled = with_sandbox(settings, "http://sandbox.internal", "sandbox", "sandbox", offers)
    plugins = await Plugins.load(filled, make_context=factory, simulated=True)
    print(f"\n{'µs, median (best)':<22}" + "".join(f"{verb:>22}" for verb in READS))
    for connector in ("google_ads", "meta", "tiktok"):
        cells = []
        for verb in READS:
            taken = await _measured(plugins, market, clock, connector, verb)
            cells.append(f"{statistics.median(taken):,.0f} ({min(taken):,.0f})")
        print(f"{connector:<22}" + "".join(f"{cell:>22}" for cell in cells))
    await plugins.close()


if __name__ == "__main__":
    asyncio.run(main())
