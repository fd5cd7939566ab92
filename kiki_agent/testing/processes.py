"""The agent and its market as processes of their own: started, asked, killed, started again, by whoever tests them."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from kiki_agent.config import load
from kiki_agent.model import MILLISECOND, SECOND
from kiki_agent.runtime.clock import Stopwatch, SystemClock
from kiki_agent.sandbox.adopt import SandboxHandle, start_or_adopt, stop, until_ready
from kiki_agent.sandbox.state import EFFECTS_FILE, read_state, write_state
from kiki_agent.sandbox.wiring import vendor_offers

START_S = 60.0
"""Wall seconds after which a start has failed; generous, because the market's kernel may have to be compiled."""
AGENT = (sys.executable, "-c", "from kiki_agent.cli import main; main()")
"""The command, without depending on where its script was installed."""


class ProcessFailed(Exception):
    """A process under test did not do what every test needs; the end of its log is in the text."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """This environment without the agent's variables, plus settings such as `{"demo.speed": 60}`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KIKI")}
    return kept | {f"KIKI__{name.replace('.', '__').upper()}": str(value) for name, value in settings.items()}


@dataclass
class MarketProcess:
    """The demo's market, run by the test: it survives its agents, and they find it behind another port.

    An agent that ends in order ends its market too. What it finds in its state file is the number of a stand-in
    that may be ended.
    """

    folder: Path
    settings: Mapping[str, object]
    handle: SandboxHandle | None = None
    _stand_in: subprocess.Popen[bytes] | None = None

    async def start(self) -> MarketProcess:
        """Start it, and wait until its market is there."""
        settings = load(None, environment(self.settings), {}).settings
        demo = settings.demo
        self.handle = await start_or_adopt(
            self.folder,
            seed=demo.seed,
            speed=demo.speed,
            campaigns=demo.campaigns,
            history_days=demo.history_days,
            fault_rate=demo.fault_rate,
            idle_exit_s=600.0,
            vendors=vendor_offers(settings),
        )
        await until_ready(self.folder, self.handle)
        return self

    @property
    def base_url(self) -> str:
        """Where it listens."""
        assert self.handle is not None, "it was started"
        return self.handle.base_url

    def show(self, sandbox_folder: Path, port: int) -> None:
        """Let the next agent of `sandbox_folder` find the market at `port`, where a proxy stands before it."""
        state = read_state(self.folder)
        assert state is not None, "a market that was started left its state"
        if self._stand_in is None or self._stand_in.poll() is not None:
            self._stand_in = subprocess.Popen(["sleep", "86400"], stdin=subprocess.DEVNULL)
        sandbox_folder.mkdir(parents=True, exist_ok=True)
        write_state(sandbox_folder, replace(state, pid=self._stand_in.pid, port=port))

    def effects(self) -> list[dict[str, Any]]:
        """Everything that was done to it, in order; a line that is just being written is left out."""
        path = self.folder / EFFECTS_FILE
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    async def close(self) -> None:
        """End it, and the stand-in."""
        if self.handle is not None:
            await stop(self.handle)
        if self._stand_in is not None:
            self._stand_in.kill()
            self._stand_in.wait()


@dataclass
class AgentProcess:
    """One folder with an agent in it, started and ended any number of times."""

    folder: Path
    settings: dict[str, object] = field(default_factory=dict)
    command: Sequence[str] = AGENT
    arguments: Sequence[str] = ("demo",)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    environ: dict[str, str] = field(default_factory=dict)
    """More variables for the process."""
    _session: aiohttp.ClientSession | None = None
    _clock: SystemClock = field(default_factory=SystemClock)

    @property
    def data(self) -> Path:
        """Where it keeps everything."""
        return self.folder / "data"

    @property
    def database(self) -> Path:
        """Its database."""
        return self.data / "demo.db"

    @property
    def log(self) -> Path:
        """What it said, over all starts."""
        return self.folder / "agent.log"

    def start(self) -> None:
        """Execute the command; returns at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = {"http.port": self.port, "store.folder": self.data, **self.settings}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *self.arguments],
                cwd=self.folder,
                env=environment(wanted) | self.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.starts += 1

    @property
    def runs(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    async def get(self, path: str, seconds: float = 5.0) -> tuple[int, Any]:
        """Status and JSON; (0, None) when nobody answers."""
        return await self._ask("GET", path, None, seconds)

    async def post(self, path: str, body: object, seconds: float = 5.0) -> tuple[int, Any]:
        """Status and JSON; (0, None) when nobody answers."""
        return await self._ask("POST", path, body, seconds)

    async def _ask(self, method: str, path: str, body: object, seconds: float) -> tuple[int, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        try:
            async with self._session.request(
                method,
                f"http://127.0.0.1:{self.port}{path}",
                json=body,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as answer:
                return answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
            return 0, None

    async def until(
        self, path: str, accept: Callable[[int, Any], bool], seconds: float = START_S, every_s: float = 0.02
    ) -> Any:
        """Ask until the answer is accepted. Raises ProcessFailed with the last answer and the end of the log."""
        watch = Stopwatch()
        status, body = 0, None
        while watch.seconds() < seconds:
            status, body = await self.get(path)
            if status and accept(status, body):
                return body
            if not self.runs:
                code = None if self.process is None else self.process.returncode
                raise ProcessFailed(f"it ended with {code}: {self.last_words()}")
            await self._clock.sleep_for(every_s * SECOND)
        raise ProcessFailed(f"{path} was {status} {body} for {seconds:g} s; {self.last_words()}")

    async def until_ready(self, seconds: float = START_S) -> float:
        """Wait until /ready answers 200; wall seconds it took from now."""
        watch = Stopwatch()
        await self.until("/ready", lambda status, body: status == 200, seconds)
        return watch.seconds()

    async def end(self, number: signal.Signals, seconds: float = 30.0) -> tuple[int, float]:
        """Send a signal and wait for the end: exit code, wall seconds. Raises ProcessFailed when it stays."""
        assert self.process is not None, "it was started"
        watch = Stopwatch()
        self.process.send_signal(number)
        while self.process.poll() is None:
            if watch.seconds() > seconds:
                raise ProcessFailed(f"{number.name} did not end it within {seconds:g} s; {self.last_words()}")
            await self._clock.sleep_for(5 * MILLISECOND)
        code, self.process = self.process.returncode, None
        return code, watch.seconds()

    def cpu_seconds(self) -> float:
        """What the process has used so far, by all its threads (Linux)."""
        assert self.process is not None, "it was started"
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def limit_files(self, most_bytes: int) -> None:
        """Let every write beyond this place in any file fail, from now on; -1 lifts the limit."""
        assert self.process is not None, "it was started"
        hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (hard if most_bytes < 0 else most_bytes, hard))

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2_000:] if self.log.exists() else ""

    def events(self) -> list[dict[str, Any]]:
        """The log lines that are JSON."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    async def close(self) -> None:
        """End it hard, if it lives."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        if self._session is not None:
            await self._session.close()
            self._session = None


def state_text(market: MarketProcess) -> str:
    """The market's state file in words, for reports."""
    state = read_state(market.folder)
    return "no state" if state is None else json.dumps({**asdict(state), "secret": "..."})
