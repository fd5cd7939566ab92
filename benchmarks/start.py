"""From kill -9 to ready, and the whole chain verified, with a ledger of a million entries.

    python benchmarks/start.py [--entries 1000000] [--starts 5] [--folder DIR]

The demo is started once, so that its database is a real one; its ledger is filled through the ledger's own append; then
the agent is started, killed with SIGKILL while it works, and started again. What is measured is the wall time from the
start of the process until /ready answers 200, with the market of the demo running all along.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from kiki_agent.ledger import Ledger
from kiki_agent.ledger.canonical import canonical
from kiki_agent.model import SECOND, Instant
from kiki_agent.runtime.clock import Stopwatch, SystemClock
from kiki_agent.store import Store

COMMAND = str(Path(sys.executable).with_name("kiki-agent"))
CHUNK = 1_000


class Agent:
    """The demo as a process on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> tuple[float, float]:
        """Start it; seconds until it is ready, and seconds of CPU it took for that."""
        watch = Stopwatch()
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, "demo", "--set", f"http.port={self.port}"], cwd=self.folder, stdout=log, stderr=log
            )
        while True:
            with suppress(OSError), urllib.request.urlopen(self.url("/ready"), timeout=5) as answer:
                if answer.status == 200:
                    return watch.seconds(), _cpu(self.process.pid)
            if self.process.poll() is not None or watch.seconds() > 120:
                raise SystemExit(f"the agent did not come up: see {self.folder}/agent.log")
            time.sleep(0.005)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def status(self) -> dict[str, object]:
        with urllib.request.urlopen(self.url("/status"), timeout=10) as answer:
            return dict(json.load(answer))

    def verify(self) -> tuple[int, float]:
        """Entries, and seconds a walk along all of them takes while the agent works."""
        watch = Stopwatch()
        with urllib.request.urlopen(self.url("/api/v1/ledger/verify"), timeout=120) as answer:
            found = json.load(answer)
        if not found["ok"]:
            raise SystemExit(f"the ledger does not verify: {found}")
        return int(found["entries"]), watch.seconds()

    def command(self, *arguments: str) -> float:
        """Run a command beside or after the agent; seconds it took."""
        watch = Stopwatch()
        subprocess.run([COMMAND, *arguments, "--set", "mode=demo"], cwd=self.folder, check=True, capture_output=True)
        return watch.seconds()

    def end(self, number: signal.Signals) -> float:
        """End it with a signal; seconds until it is gone."""
        assert self.process is not None
        watch = Stopwatch()
        self.process.send_signal(number)
        self.process.wait(timeout=60)
        return watch.seconds()

    def end_market(self) -> None:
        with suppress(OSError, ValueError, ProcessLookupError):
            pid = int(json.loads((self.folder / "data" / "sandbox" / "sandbox.json").read_text())["pid"])
            if pid > 0:  # it is 0 once the market has ended by itself
                os.kill(pid, signal.SIGKILL)


def _cpu(pid: int) -> float:
    """User and system seconds of a process: fields 14 and 15 of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def fill(database: Path, entries: int) -> tuple[int, float]:
    """Append decisions through the ledger until there are so many; entries a second."""
    now = SystemClock().now()
    store = await Store.open(database, now=now)
    ledger = await Ledger.open(store, database.with_suffix(".head"), client_id="demo", now=now)
    missing = entries - ledger.head[0]
    watch = Stopwatch()
    for begin in range(0, missing, CHUNK):
        numbers = range(begin, min(begin + CHUNK, missing))
        rows = [(Instant(now + number * SECOND // 10), _body(number)) for number in numbers]
        await store.write(lambda connection, rows=rows: ledger.append_encoded(connection, "decision", rows))  # type: ignore[misc]
    seconds = watch.seconds()
    await ledger.write_head()
    await ledger.verify(whole=True)  # what a running agent does once a day
    await store.close()
    return missing, missing / seconds if missing > 0 else 0.0


def _body(number: int) -> bytes:
    return canonical(
        {
            "basis": "not_personal",
            "bid_micros": 1_000_000 + number % 997,
            "campaign_id": str(100_001 + number % 120),
            "connector": "tiktok",
            "ended_ticks": number % 900,
            "ltv_micros": 21_000_000 + number % 1_000,
            "model_version": "credibility-2026-01-05",
            "outcome": "ACCEPTED",
            "platform": "tiktok",
            "reason": "ON_PLAN",
            "source": "ai",
        }
    )


def main(folder: Path, entries: int, starts: int) -> None:
    agent = Agent(folder)
    try:
        first, _ = agent.start()
        agent.end(signal.SIGTERM)
        appended, rate = asyncio.run(fill(folder / "data" / "demo.db", entries))
        size = (folder / "data" / "demo.db").stat().st_size
        agent.start()
        times = []
        for _ in range(starts):
            time.sleep(6)  # some work to be killed in
            agent.end(signal.SIGKILL)
            times.append(agent.start())
        found, seconds = agent.verify()
        backed_up = agent.command("backup")
        stopped = agent.end(signal.SIGTERM)
        backup = next((folder / "data" / "backups").glob("*-manual.db"))
        restored = agent.command("restore", str(backup))
    finally:
        if agent.process is not None and agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait()
        agent.end_market()
    print(f"{'ledger entries':58}{found:>12,}")
    print(f"{'megabytes of the database':58}{size / 1e6:>12,.0f}")
    print(f"{'appended through the ledger, rows a second':58}{rate:>12,.0f}  ({appended:,} rows)")
    print(f"{'first start, seconds to ready (market made)':58}{first:>12.2f}")
    shown = ", ".join(f"{wall:.2f}" for wall, _ in sorted(times))
    print(f"{'after kill -9, seconds to ready, worst of ' + str(starts):58}{max(times)[0]:>12.2f}  ({shown})")
    print(f"{'of them CPU of the agent, worst':58}{max(cpu for _, cpu in times):>12.2f}")
    print(f"{'whole chain verified by the working agent, rows a second':58}{found / seconds:>12,.0f}")
    print(f"{'kiki-agent backup beside the agent, proved, seconds':58}{backed_up:>12.2f}")
    print(f"{'kiki-agent restore, proved, seconds':58}{restored:>12.2f}")
    print(f"{'SIGTERM to the end, seconds':58}{stopped:>12.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the database is made; default: the temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        main(Path(name), arguments.entries, arguments.starts)
