"""One platform in each kind of trouble: how late the loops of all others begin, and what 30 MB answers cost in memory.

    python benchmarks/isolation.py [--seconds 15]

A real agent and a real market with the fault proxy between them; every request of one platform gets into the trouble,
requests of the others pass. The reference is the same agent in fair weather. Delays come from the agent's own metric
`kiki_loop_delay_seconds`, of the loops that have nothing to do with that platform.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import aiohttp
from aiohttp import web

from kiki_agent.model import SECOND
from kiki_agent.runtime.clock import SystemClock
from kiki_agent.testing.crash import SETTINGS
from kiki_agent.testing.processes import AgentProcess, MarketProcess
from kiki_agent.testing.proxy import FaultProxy
from kiki_agent.testing.trouble import Rule, Trouble

AILING = "tiktok"
PROFILES: tuple[tuple[str, Rule | None], ...] = (
    ("fair weather (reference)", None),
    ("latency of 3 s", Rule(Trouble.LATENCY, 1.0, path=AILING, seconds=3)),
    ("connections reset", Rule(Trouble.RESET, 1.0, path=AILING)),
    ("answers lost", Rule(Trouble.LOST, 1.0, path=AILING)),
    ("429, seconds", Rule(Trouble.THROTTLED, 1.0, path=AILING, seconds=2)),
    ("429, date", Rule(Trouble.THROTTLED_DATE, 1.0, path=AILING, seconds=2)),
    ("5xx", Rule(Trouble.BROKEN, 1.0, path=AILING)),
    ("truncated bodies", Rule(Trouble.TRUNCATED, 1.0, path=AILING)),
    ("slow bodies, 3 s", Rule(Trouble.SLOW, 1.0, path=AILING, seconds=3)),
    ("HTML", Rule(Trouble.WRONG_TYPE, 1.0, path=AILING)),
    ("redirects", Rule(Trouble.REDIRECT, 1.0, path=AILING)),
)
_BUCKET = re.compile(r'^kiki_loop_delay_seconds_bucket\{le="([^"]+)",loop="([^"]+)"\} ([0-9.]+)$', re.MULTILINE)


class Delays:
    """Begun ticks by how late they began, of the loops that count."""

    def __init__(self, text: str) -> None:
        self.below: Counter[float] = Counter()
        for bound, loop, count in _BUCKET.findall(text):
            if AILING not in loop:
                self.below[float(bound)] += int(float(count))

    def since(self, before: Delays) -> tuple[int, float, float]:
        """Ticks since then, the share that began within 50 ms, and the bucket that holds the 99th percentile."""
        counts = {bound: count - before.below[bound] for bound, count in sorted(self.below.items())}
        ticks = counts[float("inf")]
        p99 = next((bound for bound, count in counts.items() if count >= 0.99 * ticks), float("inf"))
        return ticks, counts[0.05] / ticks if ticks else 0.0, p99


async def _metrics(agent: AgentProcess) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{agent.port}/metrics") as answer:
        return await answer.text()


async def delays(folder: Path, seconds: float) -> bool:
    """The table of delays; False when a 99th percentile is above 50 ms."""
    settings = {
        **SETTINGS,
        "bidding.interval_s": 0.5,
        "bidding.deadline_s": 0.4,
        "bidding.poll_interval_s": 2,
        "bidding.report_interval_s": 6,
        "bidding.write_interval_s": 1,
        "demo.speed": 1,
    }
    market, clock, good = MarketProcess(folder / "market", settings), SystemClock(), True
    await market.start()
    proxy = await FaultProxy(market.base_url, (), seed=1).start()
    agent = AgentProcess(folder / "agent", dict(settings))
    try:
        market.show(agent.data / "sandbox", proxy.port)
        agent.start()
        await agent.until_ready(60)
        await clock.sleep_for(5 * SECOND)
        print(f"{'trouble of one platform':28}  troubled  ticks of others  within 50 ms  p99 within")
        for name, rule in PROFILES:
            proxy.weather.rules[:] = [] if rule is None else [rule]
            troubled = sum(proxy.counts.values())
            before = Delays(await _metrics(agent))
            await clock.sleep_for(round(seconds * SECOND))
            ticks, share, p99 = Delays(await _metrics(agent)).since(before)
            troubled = sum(proxy.counts.values()) - troubled
            good = good and p99 <= 0.05
            print(f"{name:28}{troubled:>10,}{ticks:>17,}{share:>13.2%} {p99 * 1000:>8.1f} ms", flush=True)
    finally:
        await agent.close()
        await proxy.close()
        await market.close()
    return good


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


async def bodies(calls: int = 60) -> bool:
    """Answers of 30 MB to the client that every plugin has; False when its memory grows with them."""
    from kiki_agent.hooks.http_aiohttp import AiohttpHttp

    piece = b"x" * 1_000_000

    async def huge(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):  # the client has read enough
            for _ in range(30):
                await answer.write(piece)
        return answer

    app = web.Application()
    app.router.add_get("/", huge)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    http = AiohttpHttp()
    refused, seen = 0, []
    for number in range(calls):
        try:
            await http.request("GET", f"http://127.0.0.1:{port}/")
        except Exception:
            refused += 1
        if number % 20 == 19:
            seen.append(_resident_mb())
    await http.close()
    await runner.cleanup()
    levels = ", ".join(f"{mb:.0f}" for mb in seen)
    print(f"\n{calls} answers of 30 MB: {refused} refused; resident MB after each 20: {levels}")
    return refused == calls and seen[-1] - seen[0] < 20


async def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kiki-isolation-") as folder:
        good = await delays(Path(folder), arguments.seconds)
    return 0 if await bodies() and good else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
