"""The sandbox as a process of its own: serves one folder's market until a signal, or until nobody asks any more."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from kiki_agent.hooks.api import SandboxOffer
from kiki_agent.model import SECOND, Instant
from kiki_agent.runtime.clock import ScaledClock, SystemClock
from kiki_agent.sandbox.adopt import SandboxFailed, SandboxHandle, start_or_adopt, stop
from kiki_agent.sandbox.effects import EffectsLog
from kiki_agent.sandbox.faults import Faults
from kiki_agent.sandbox.market import Market
from kiki_agent.sandbox.server import SandboxServer
from kiki_agent.sandbox.service import SandboxService
from kiki_agent.sandbox.state import (
    CLIENT_ID,
    EFFECTS_FILE,
    LOCK_FILE,
    SandboxState,
    mounted,
    read_state,
    write_state,
)

__all__ = ["SandboxFailed", "SandboxHandle", "run_sandbox", "start_or_adopt", "stop"]


def run_sandbox(
    folder: Path,
    port: int = 0,
    seed: int = 1,
    epoch: Instant | None = None,
    speed: float = 1.0,
    campaigns: int = 120,
    history_days: int = 30,
    fault_rate: float = 0.0,
    idle_exit_s: float = 0.0,
    vendors: Sequence[SandboxOffer] = (),
    *,
    announce: bool = False,
) -> int:
    """Serve a market until a signal, or until nobody asked for `idle_exit_s` wall seconds (0: for ever).

    A market the folder holds already (same seed, speed, size and history) goes on with its own epoch, its log of
    effects replayed; the log of any other is moved aside. With `announce` the port goes to standard output once it
    listens. Returns the exit code: 0, or 1 with a sentence on standard error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        _say(f"another sandbox serves {folder}")
        return 1
    start = SystemClock().now() if epoch is None else epoch
    wanted = SandboxState(
        os.getpid(),
        port,
        secrets.token_hex(16),
        secrets.token_hex(16),
        seed,
        start,
        speed,
        campaigns,
        history_days,
        mounted(vendors),
    )
    return asyncio.run(_serve(folder, _continued(folder, wanted), fault_rate, idle_exit_s, vendors, announce))


def _continued(folder: Path, wanted: SandboxState) -> SandboxState:
    """The wanted state, with the epoch and secret of the market that the folder holds if it is the same one."""
    known = read_state(folder)
    effects = folder / EFFECTS_FILE
    if known is not None and known.market == wanted.market:
        return replace(wanted, epoch=known.epoch, secret=known.secret)
    if effects.exists():
        effects.replace(folder / f"{EFFECTS_FILE}.before-{wanted.epoch}")
    return wanted


async def _serve(
    folder: Path,
    state: SandboxState,
    fault_rate: float,
    idle_exit_s: float,
    vendors: Sequence[SandboxOffer],
    announce: bool,
) -> int:
    system = SystemClock()
    clock = ScaledClock(state.speed, Instant(state.epoch), Instant(state.epoch), system)
    server = SandboxServer(clock.now, nonce=state.nonce, port=state.port)
    try:
        await server.start()
    except OSError as error:
        _say(f"cannot listen on port {state.port}: {error.strerror}")
        return 1
    state = replace(state, port=server.port)
    write_state(folder, state)
    if announce:
        _tell(str(server.port))
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    making = asyncio.create_task(asyncio.to_thread(_make_service, folder, state, clock, fault_rate, vendors))
    reasons = {making, asyncio.create_task(signalled.wait())}
    if idle_exit_s > 0:
        reasons.add(asyncio.create_task(_idle(server, system, idle_exit_s)))
    done, _ = await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if done == {making}:
        try:
            server.service = making.result()
        except (ValueError, OSError, ImportError, AttributeError, KeyError) as error:
            _say(f"no market: {error}")
            code = 1
        else:
            await asyncio.wait(reasons - {making}, return_when=asyncio.FIRST_COMPLETED)
    await _close(folder, state, server)
    if not making.done():
        os._exit(0)  # a thread that compiles cannot be ended
    for task in reasons:
        task.cancel()
    return code


def _make_service(
    folder: Path, state: SandboxState, clock: ScaledClock, fault_rate: float, vendors: Sequence[SandboxOffer]
) -> SandboxService:
    """Make the market and catch up with the present; runs in a thread while the listener answers."""
    market = Market(state.seed, Instant(state.epoch), state.campaigns, state.history_days)
    effects = EffectsLog(folder / EFFECTS_FILE)
    effects.replay(market)
    market.advance_to(clock.now())
    return SandboxService(
        market,
        effects,
        Faults(fault_rate, state.seed, fair_start=True),
        client_id=CLIENT_ID,
        client_secret=state.secret,
        nonce=state.nonce,
        vendors=vendors,
    )


async def _idle(server: SandboxServer, system: SystemClock, idle_exit_s: float) -> None:
    """Return when no request came for this long."""
    seen = -1
    while seen != server.requests:
        seen = server.requests
        await system.sleep_for(idle_exit_s * SECOND)


async def _close(folder: Path, state: SandboxState, server: SandboxServer) -> None:
    await server.close()
    if server.service is not None:
        server.service.effects.close()
    latest = read_state(folder)
    if latest is not None and latest.nonce == state.nonce:
        write_state(folder, replace(state, pid=0, port=0))


def _tell(line: str) -> None:
    """One line for whoever started this process; nobody may be listening any more."""
    with suppress(OSError):
        os.write(1, f"{line}\n".encode())


def _say(sentence: str) -> None:
    sys.stderr.write(f"sandbox: {sentence}\n")
