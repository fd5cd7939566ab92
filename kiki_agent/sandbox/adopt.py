"""The agent's side of the sandbox process: adopt the one that runs, start one, end it. Imports no market."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from kiki_agent.errors import KikiError
from kiki_agent.hooks.api import SandboxOffer
from kiki_agent.model import MILLISECOND, SECOND, Instant
from kiki_agent.runtime.clock import SystemClock
from kiki_agent.sandbox.state import CLIENT_ID, LOG_FILE, SandboxState, mounted, read_state

START_TIMEOUT_S = 60.0
STOP_TIMEOUT = 5 * SECOND


class SandboxFailed(KikiError):
    """The sandbox process could not be started."""


@dataclass(frozen=True, slots=True)
class SandboxHandle:
    """A running sandbox."""

    port: int
    pid: int
    nonce: str
    client_id: str
    client_secret: str
    seed: int
    epoch: Instant
    """Instant at which its clock and the real one agree; an older one when the market goes on."""
    speed: float
    adopted: bool
    """True when the process was running already."""
    continued: bool
    """True when the market was there before, as a process or as a log of effects that was replayed."""

    @property
    def base_url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.port}"


async def start_or_adopt(
    folder: Path,
    *,
    seed: int = 1,
    epoch: Instant | None = None,
    speed: float = 1.0,
    campaigns: int = 120,
    history_days: int = 30,
    fault_rate: float = 0.0,
    idle_exit_s: float = 600.0,
    port: int = 0,
    vendors: Sequence[SandboxOffer] = (),
) -> SandboxHandle:
    """Adopt the sandbox that serves this folder, or start one in a session of its own.

    Returns when it listens; until its market is there it answers 503 with Retry-After, see `until_ready`. A running
    sandbox of another seed, speed or size is ended first. Raises SandboxFailed.
    """
    wanted = (seed, speed, campaigns, history_days)
    known = read_state(folder)
    if known is not None and await _alive(known):
        if known.market == wanted and known.vendors == mounted(vendors):
            return _handle(known, adopted=True, continued=True)
        await _end(known)
    options = {
        "--port": port,
        "--seed": seed,
        "--speed": speed,
        "--campaigns": campaigns,
        "--history-days": history_days,
        "--fault-rate": fault_rate,
        "--idle-exit": idle_exit_s,
    }
    if epoch is not None:
        options["--epoch"] = epoch
    await asyncio.to_thread(_launch, folder, options, mounted(vendors).split())
    started = read_state(folder)
    if started is None or (known is not None and started.nonce == known.nonce):
        raise SandboxFailed(f"the sandbox started but left no state in {folder}")
    return _handle(started, adopted=False, continued=known is not None and known.epoch == started.epoch)


async def until_ready(folder: Path, handle: SandboxHandle) -> None:
    """Return when the market is there. Raises SandboxFailed when its process ended before."""
    clock = SystemClock()
    while (said := await _health(_state(handle))) is None or said.get("status") != "ok":
        if said is None and _has_ended(handle.pid):
            raise SandboxFailed(f"the sandbox ended before its market was there: {_last_words(folder)}")
        await clock.sleep_for(50 * MILLISECOND)


async def stop(handle: SandboxHandle) -> None:
    """End the process a handle means, unless something else has its place by now; returns when it is gone."""
    state = _state(handle)
    if await _alive(state):
        await _end(state)


def _state(handle: SandboxHandle) -> SandboxState:
    return SandboxState(
        handle.pid, handle.port, handle.nonce, handle.client_secret, handle.seed, handle.epoch, handle.speed, 0, 0
    )


def _handle(state: SandboxState, *, adopted: bool, continued: bool) -> SandboxHandle:
    return SandboxHandle(
        port=state.port,
        pid=state.pid,
        nonce=state.nonce,
        client_id=CLIENT_ID,
        client_secret=state.secret,
        seed=state.seed,
        epoch=Instant(state.epoch),
        speed=state.speed,
        adopted=adopted,
        continued=continued,
    )


async def _alive(state: SandboxState) -> bool:
    """True when the process at the state's port knows the state's nonce."""
    return state.pid > 0 and state.port > 0 and await _health(state) is not None


async def _health(state: SandboxState) -> Mapping[str, object] | None:
    """What the sandbox says of itself; None when it says nothing, or another is in its place."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(f"http://127.0.0.1:{state.port}/v1/health") as answer,
        ):
            said = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    return said if isinstance(said, dict) and said.get("nonce") == state.nonce else None


async def _end(state: SandboxState) -> None:
    """SIGTERM, and SIGKILL when that does not help; the caller has made sure that the process is ours."""
    clock = SystemClock()
    due = clock.now() + STOP_TIMEOUT
    with suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGTERM)
        while not _has_ended(state.pid):
            await clock.sleep_for(20 * MILLISECOND)
            if clock.now() > due:
                os.kill(state.pid, signal.SIGKILL)


def _has_ended(pid: int) -> bool:
    """True for a process that is gone, or dead with its number still taken.

    A child that nobody waits for is buried by the first process of the system, in a container perhaps never.
    """
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[:1] == [b"Z"]


def _launch(folder: Path, options: Mapping[str, float], vendors: Sequence[str]) -> None:
    """Start the process and wait for its word. Raises SandboxFailed with what it said last."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [sys.executable, "-m", "kiki_agent.sandbox", str(folder), "--detach"]
    arguments += [text for name, value in options.items() for text in (name, str(value))]
    arguments += [text for vendor in vendors for text in ("--vendor", vendor)]
    with (folder / LOG_FILE).open("ab") as log:
        said_before = log.tell()
        child = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    assert child.stdout is not None
    with child.stdout as pipe:
        heard = b""
        while b"\n" not in heard:
            readable, _, _ = select.select([pipe], [], [], START_TIMEOUT_S)
            part = os.read(pipe.fileno(), 4096) if readable else b""
            if not part:
                break
            heard += part
        child.wait()
    if b"\n" not in heard:
        raise SandboxFailed(f"the sandbox did not start: {_last_words(folder, said_before)}")


def _last_words(folder: Path, since: int = 0) -> str:
    """The last line of the sandbox's log."""
    try:
        with (folder / LOG_FILE).open("rb") as log:
            log.seek(since)
            lines = log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"
