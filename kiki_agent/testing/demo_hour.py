"""An hour of the demo at speed on a bad day: throttling, batches that fail in part, tokens that expire, lost answers.

`python -m kiki_agent.testing.demo_hour`. One simulated hour passes in a minute; at the end the ledger must equal the
platforms' own logs of effects, and everything that was injected must have been met.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from kiki_agent.model import HOUR, SECOND
from kiki_agent.runtime.clock import Stopwatch, SystemClock
from kiki_agent.sandbox.noise import seed_key, unit
from kiki_agent.testing import report
from kiki_agent.testing.audit import Audit, audit
from kiki_agent.testing.crash import CAMPAIGNS, CAPS, SETTINGS
from kiki_agent.testing.processes import AgentProcess, MarketProcess, ProcessFailed
from kiki_agent.testing.proxy import Exchange, FaultProxy
from kiki_agent.testing.trouble import WRITES, Rule, Trouble

WEATHER = (
    Rule(Trouble.THROTTLED, 0.02, seconds=20),
    Rule(Trouble.THROTTLED_DATE, 0.01, seconds=20),
    Rule(Trouble.LOST, 0.04, WRITES),
    Rule(Trouble.BROKEN, 0.01, burst=2),
    Rule(Trouble.TRUNCATED, 0.01),
    Rule(Trouble.LATENCY, 0.05, seconds=0.03),
)
EXPIRED, SPOILT = 0.03, 0.35
"""Shares: of requests whose token the platform finds expired, of batches in which one change cannot be made."""
_FIRST_CHANGE = (
    (re.compile(rb'"campaign":"\d+"'), b'"campaign":"199999"'),
    (re.compile(rb'"(customers/\d+/(?:biddingStrategies|campaignBudgets|campaigns|adGroups))/\d+"'), rb'"\1/99999999"'),
    (re.compile(rb"relative_url%22%3A%22\d+"), b"relative_url%22%3A%22129999999999999"),
)
"""How a batch names what its first change is about, and what no account has."""


class BadHour:
    """One agent, one market, one proxy, one hour."""

    def __init__(self, folder: Path, *, hours: float = 1.0, speed: float = 60.0, seed: int = 1) -> None:
        settings = {**SETTINGS, "demo.speed": speed, "demo.seed": seed, "demo.fault_rate": 0.01}
        self.market = MarketProcess(folder / "market", settings)
        self.agent = AgentProcess(folder / "agent", dict(settings))
        self.seconds = hours * HOUR / SECOND / speed
        self.counts: Counter[str] = Counter()
        self.found = Audit()
        self.receipts: Counter[str] = Counter()
        self.by_platform: Counter[str] = Counter()
        self._key = seed_key(seed, 960_000)
        self._seed = seed
        self._asked = 0
        self._clock = SystemClock()
        self.proxy: FaultProxy

    async def run(self) -> None:
        """Let the hour pass, settle, end in order, compare. Raises ProcessFailed."""
        await self.market.start()
        self.proxy = await FaultProxy(self.market.base_url, WEATHER, seed=self._seed).start()
        self.proxy.before = self._spoil
        try:
            self.market.show(self.agent.data / "sandbox", self.proxy.port)
            self.agent.start()
            await self.agent.until_ready()
            await self._clock.sleep_for(self.seconds * SECOND)
            self.proxy.before = None
            self.proxy.weather.rules.clear()
            await self._clock.sleep_for(3 * SECOND)
            code, _ = await self.agent.end(signal.SIGTERM)
            if code != 0:
                raise ProcessFailed(f"it ended with {code}: {self.agent.last_words()}")
            effects = self.market.effects()
            self.by_platform = Counter(str(each["platform"]) for each in effects)
            self.found = audit(self.agent.database, effects, CAPS, CAMPAIGNS)
            self._read()
        finally:
            await self.agent.close()
            await self.proxy.close()
            await self.market.close()

    async def _spoil(self, exchange: Exchange) -> None:
        self._asked += 1
        if "/token" in exchange.path:
            return
        if unit(self._key, self._asked * 2) < EXPIRED:
            exchange.headers["Authorization"] = "Bearer expired"
            self.counts["tokens expired"] += 1
        elif exchange.method == "POST" and unit(self._key, self._asked * 2 + 1) < SPOILT:
            for pattern, instead in _FIRST_CHANGE:
                if len(pattern.findall(exchange.body)) > 1:
                    exchange.body = pattern.sub(instead, exchange.body, count=1)
                    self.counts["batches that failed in part"] += 1
                    break

    def _read(self) -> None:
        with closing(sqlite3.connect(f"{self.agent.database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            for (text,) in connection.execute("SELECT body FROM ledger_entries WHERE kind = 'receipt'"):
                body = json.loads(text)
                how = " (read back)" if body["read_back"] else ""
                self.receipts[f"{body['outcome']} {body['reason']}".strip() + how] += 1

    def rows(self) -> list[report.Row]:
        """The table."""
        found, troubles = self.found, self.proxy.counts
        throttled = troubles["throttled"] + troubles["throttled_date"]
        return [
            ("exchanges", sum(troubles.values()), None),
            ("  throttled by the proxy", throttled, throttled > 0),
            ("  tokens expired", self.counts["tokens expired"], self.counts["tokens expired"] > 0),
            ("  answers of 401", self.proxy.statuses[401], None),
            (
                "  batches that failed in part",
                self.counts["batches that failed in part"],
                self.counts["batches that failed in part"] > 0,
            ),
            ("  answers lost", troubles["lost"], troubles["lost"] > 0),
            *((f"receipts: {name}", count, None) for name, count in self.receipts.most_common()),
            *((f"effects at {name}", count, None) for name, count in sorted(self.by_platform.items())),
            ("intents", found.intents, found.intents > 0),
            ("effects", found.effects, found.effects > 0),
            ("accepted intents", found.accepted, found.accepted > 0),
            ("intents still shown as unknown", found.unknown, None),
            ("lost effects", found.lost, found.lost == 0),
            ("double effects", found.double, found.double == 0),
            ("effects nobody meant", found.foreign, found.foreign == 0),
            ("micros permitted over a cap", found.over_cap_micros, found.over_cap_micros == 0),
            ("micros of budget made by shifts", found.over_total_micros, found.over_total_micros == 0),
            ("violations", len(found.problems), not found.problems),
        ]


def main(arguments: Sequence[str]) -> int:
    """0 when the ledger equals the platforms' logs; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m kiki_agent.testing.demo_hour", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0, help="simulated")
    parser.add_argument("--speed", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where everything is kept; default: a folder that is removed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(prefix="kiki-hour-") as spare:
        hour = BadHour(options.folder or Path(spare), hours=options.hours, speed=options.speed, seed=options.seed)
        asyncio.run(hour.run())
    rows = hour.rows()
    title = f"A bad hour of the demo at speed {options.speed:g}: {watch.seconds():.0f} s on {report.machine()}"
    more = {"problems": hour.found.problems}
    report.write(report.as_json(title, rows, more) if options.json else report.table(title, rows))
    for problem in hour.found.problems[:20]:
        report.say(f"VIOLATION: {problem}")
    return 0 if report.sound(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
