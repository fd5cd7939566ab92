"""The real command as a process of its own, in a folder of its own, on a free port."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("kiki-agent"))
START_S = 60.0
"""Generous: the machine may be busy, and the market's kernel may have to be compiled."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**settings: object) -> dict[str, str]:
    """The environment without this project's variables, plus `bidding__interval_s=1` and the like."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KIKI")}
    return kept | {f"KIKI__{name.upper()}": str(value) for name, value in settings.items()}


BOUND = (
    sys.executable,
    "-SEc",
    "import ctypes, os, sys\n"
    "if os.geteuid() == 0:\n"
    "    for capability in (1, 2): ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])",
)
"""Put before a command: permissions of files bind it, even when it is root (it drops CAP_DAC_OVERRIDE for good)."""


def command(folder: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )


def ended(pid: int) -> bool:
    """Whether a process runs no more, buried or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@dataclass
class Demo:
    """One folder with a demo in it, started and ended any number of times."""

    folder: Path
    settings: dict[str, object] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    before: tuple[str, ...] = ()
    """Put before the command."""

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
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.before, COMMAND, "demo"],
                cwd=self.folder,
                env=environment(http__port=self.port, **self.settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def get(self, path: str, timeout: float = 10) -> tuple[int, Any]:
        """Status and JSON; (0, None) when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    def wait(self, path: str, accept: Callable[[int, Any], bool], seconds: float = START_S) -> Any:
        """Ask until the answer is accepted; fails with the last answer and the end of the log."""
        due = time.monotonic() + seconds
        while time.monotonic() < due:
            status, body = self.get(path)
            if status and accept(status, body):
                return body
            assert self.process is not None
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.last_words()}"
            time.sleep(0.05)
        raise AssertionError(f"{path} was {status} {body}; {self.last_words()}")

    def wait_ready(self) -> None:
        """Until /ready answers 200."""
        self.wait("/ready", lambda status, body: status == 200)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal and wait for the end: exit code, seconds."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        self.process = None
        return code, time.monotonic() - begun

    def sandbox(self) -> dict[str, Any]:
        """The state file of the market's process."""
        return dict(json.loads((self.data / "sandbox" / "sandbox.json").read_text()))

    def effects(self) -> list[dict[str, Any]]:
        """What was done to the market, in order; a line that is just being written is left out."""
        path = self.data / "sandbox" / "sandbox-effects.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database, also while the agent runs."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def events(self) -> list[dict[str, Any]]:
        """The log lines that are JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text()[-2_000:] if self.log.exists() else ""

    def clean_up(self) -> None:
        """End what runs, by its number: the agent, then its market."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        try:
            state = self.sandbox()
        except (OSError, ValueError):
            return
        if state["pid"]:
            for number in (signal.SIGCONT, signal.SIGKILL):
                try:
                    os.kill(state["pid"], number)
                except ProcessLookupError:
                    return
