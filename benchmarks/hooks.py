"""What isolation costs: a plugin call and a fan-out, live and in simulation, beside a bare await in the same run.

    python benchmarks/hooks.py [--calls 10000] [--repeats 7]

Calls are for ticks and batches, never per bid or per row; the table says why.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from kiki_agent.config import Settings
from kiki_agent.hooks.context import ContextFactory
from kiki_agent.hooks.http import InProcessHttp
from kiki_agent.hooks.manager import Plugins
from kiki_agent.model import Instant
from kiki_agent.runtime.clock import SimClock, Stopwatch
from kiki_agent.runtime.tasks import new_event_loop

NOW = Instant(1_790_000_000_000_000)
ACCOUNTS = 6
ROWS = 20

PLUGIN = f"""
from kiki_agent import Capabilities, hookimpl
from kiki_agent.model import Instant, SpendReport, SpendRow

ROWS = tuple(SpendRow(f"c{{index}}", "2026-09-21", index * 1_000_000) for index in range({ROWS}))

class Measured:
    def __init__(self, context):
        self.context = context
        self.capable = Capabilities()

    @hookimpl
    async def check(self):
        await self.context.http.request("GET", "http://vendor/v1/campaigns", params={{"page": "1"}})

    @hookimpl
    async def capabilities(self):
        return self.capable

    @hookimpl
    async def fetch_spend(self, since):
        return SpendReport(ROWS, since)

def register(api):
    api.connector("measured", Measured)
"""


class Bare:
    """The same method, awaited by somebody who trusts it."""

    async def capabilities(self) -> object:
        return self


def vendor(
    method: str, target: str, headers: Mapping[str, str], body: bytes, now: Instant
) -> tuple[int, Mapping[str, str], bytes]:
    """A service that answers at once."""
    return 200, {"content-type": "application/json"}, b"{}"


async def load(folder: Path, *, simulated: bool) -> Plugins:
    """Six accounts of one class."""
    clock = SimClock(NOW)
    tables = {f"account{index}": {"plugin": "measured", "platform": "meta"} for index in range(ACCOUNTS)}
    settings = Settings.model_validate({"plugins": {"allow": ["measured"], "folder": str(folder)}, "connector": tables})
    factory = ContextFactory(clock=clock, make_http=lambda _: InProcessHttp(vendor, clock))
    return await Plugins.load(settings, make_context=factory, simulated=simulated, points=())


async def microseconds(call: Callable[[], Awaitable[object]], calls: int, repeats: int) -> float:
    """Median over the repeats of the time of one call."""
    found = []
    for _ in range(repeats):
        watch = Stopwatch()
        for _ in range(calls):
            await call()
        found.append(watch.seconds() / calls * 1e6)
    return statistics.median(found)


async def measure(calls: int, repeats: int) -> list[tuple[str, float]]:
    """(what, microseconds) for each way of calling."""
    rows = [("bare await", await microseconds(Bare().capabilities, calls, repeats))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "measured.py").write_text(PLUGIN)
        for title, simulated in (("live", False), ("simulated", True)):
            plugins = await load(folder, simulated=simulated)
            to, fan = plugins.caller.to, plugins.caller.fan
            few = max(1, calls // ACCOUNTS)
            rows += [
                (f"{title}: to", await microseconds(partial(to, "account0", "capabilities"), calls, repeats)),
                (
                    f"{title}: to, report of {ROWS} rows checked",
                    await microseconds(partial(to, "account0", "fetch_spend", NOW), calls, repeats),
                ),
                (
                    f"{title}: to, one request in process",
                    await microseconds(partial(to, "account0", "check"), calls, repeats),
                ),
                (
                    f"{title}: fan over {ACCOUNTS}, per instance",
                    await microseconds(partial(fan, "connector", "capabilities"), few, repeats) / ACCOUNTS,
                ),
            ]
            await plugins.close()
    return rows


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        rows = runner.run(measure(options.calls, options.repeats))
    bare = rows[0][1]
    print("| call | microseconds | times a bare await |\n|---|---:|---:|")
    for title, value in rows:
        print(f"| {title} | {value:.2f} | {value / bare:.0f} |")


if __name__ == "__main__":
    main()
