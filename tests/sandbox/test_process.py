"""The sandbox as a process: started once, adopted after that, killed without loss, gone when told or when forgotten."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kiki_agent.model import HOUR, Instant, iso, parse_iso
from kiki_agent.runtime.clock import SystemClock
from kiki_agent.sandbox import (
    EffectsLog,
    Market,
    SandboxFailed,
    SandboxHandle,
    SandboxServer,
    start_or_adopt,
    stop,
)
from kiki_agent.sandbox.adopt import until_ready
from kiki_agent.sandbox.state import EFFECTS_FILE, LOG_FILE, STATE_FILE, read_state

from .vendor import Vendor

pytestmark = pytest.mark.process

CAMPAIGNS, HISTORY_DAYS, SPEED = 12, 2, 600.0


async def start(folder: Path, **options: Any) -> SandboxHandle:
    """A small fast market in a folder."""
    wanted = {"seed": 3, "speed": SPEED, "campaigns": CAMPAIGNS, "history_days": HISTORY_DAYS}
    handle = await start_or_adopt(folder, **(wanted | options))
    await until_ready(folder, handle)
    return handle


def gone(pid: int) -> bool:
    """True when it is no more, or dead and only waits for somebody to bury it."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return True
    return status.rpartition(b")")[2].split()[0] == b"Z"


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while not gone(pid):  # noqa: ASYNC110 - another process tells nobody when it ends
            await asyncio.sleep(0.02)


def kill(pid: int) -> None:
    """End a process this test started, and only that."""
    if not gone(pid):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """Where a sandbox lives; whatever serves it in the end is ended."""
    yield tmp_path
    state = read_state(tmp_path)
    if state is not None and state.pid > 0 and state.pid != os.getpid():
        kill(state.pid)


class Remote:
    """Someone who is logged in to a running sandbox."""

    def __init__(self, handle: SandboxHandle) -> None:
        self.handle = handle

    async def __aenter__(self) -> Remote:
        self.session = aiohttp.ClientSession(self.handle.base_url)
        self.headers: dict[str, str] = {}
        grant = {"client_id": self.handle.client_id, "client_secret": self.handle.client_secret}
        said = await self.post("/token", {"grant_type": "client_credentials"} | grant)
        self.headers = {"authorization": f"Bearer {said['access_token']}"}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def get(self, path: str) -> Any:
        async with self.session.get(path, headers=self.headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def post(self, path: str, value: object) -> Any:
        async with self.session.post(path, json=value, headers=self.headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()


async def test_a_sandbox_is_started_adopted_killed_continued_and_stopped(folder: Path) -> None:
    first = await start(folder)
    assert (first.adopted, first.continued) == (False, False)
    assert (folder / STATE_FILE).stat().st_mode & 0o077 == 0

    second = await start(folder)
    assert (second.adopted, second.continued) == (True, True)
    assert (second.pid, second.port, second.nonce) == (first.pid, first.port, first.nonce)

    async with Remote(second) as remote:
        campaigns = (await remote.get("/v1/meta/campaigns"))["campaigns"]
        bid = {"campaign": campaigns[0]["id"], "max_cpc": "7.77", "client_ref": "raise"}
        pause = {"campaign": campaigns[1]["id"], "state": "PAUSED", "client_ref": "pause"}
        done = [await remote.post("/v1/meta/bids", {"operations": [bid]})]
        done.append(await remote.post("/v1/meta/status", {"operations": [pause]}))
        token = remote.headers
    ids = [each["results"][0]["effect_id"] for each in done]

    os.kill(first.pid, signal.SIGKILL)
    await until_gone(first.pid)
    third = await start(folder)
    assert (third.adopted, third.continued) == (False, True)
    assert third.pid != first.pid
    assert third.nonce != first.nonce
    assert (third.epoch, third.client_secret) == (first.epoch, first.client_secret)

    async with Remote(third) as remote:
        remote.headers = token
        found = (await remote.get("/v1/meta/effects?keys=raise,pause"))["effects"]
        assert [each["effect_id"] for each in found] == ids
        listed = (await remote.get("/v1/meta/campaigns"))["campaigns"]
        assert (listed[0]["max_cpc"], listed[1]["state"]) == ("7.77", "PAUSED")
        since = iso(third.epoch - 24 * HOUR)
        spend = await remote.get(f"/v1/meta/spend?since={since}")

    await stop(third)
    assert gone(third.pid)
    state = read_state(folder)
    assert state is not None
    assert (state.pid, state.port) == (0, 0), "it was killed instead of told"
    await stop(third)
    assert (folder / LOG_FILE).read_bytes() == b""

    same = Vendor(Market(3, third.epoch, CAMPAIGNS, HISTORY_DAYS))
    effects = EffectsLog(folder / EFFECTS_FILE)
    assert effects.replay(same.market) == 2
    effects.close()
    same.now = parse_iso(spend["as_of"])
    same.log_in()
    assert same.get(f"/v1/meta/spend?since={since}").json == spend


async def test_another_seed_sets_the_old_log_aside_and_nobody_asking_ends_it(folder: Path) -> None:
    line = b'{"n":1,"key":"k","platform":"meta","campaign":0,"kind":"adjust_bid","before":1,"after":2,"at":3}\n'
    (folder / EFFECTS_FILE).write_bytes(line)
    fields = {"pid": 0, "port": 0, "nonce": "n", "secret": "s", "seed": 3, "epoch": 5, "speed": SPEED}
    fields |= {"campaigns": CAMPAIGNS, "history_days": HISTORY_DAYS}
    (folder / STATE_FILE).write_text(json.dumps(fields))

    epoch = Instant(SystemClock().now() - HOUR)
    handle = await start(folder, seed=4, epoch=epoch, idle_exit_s=1.0)
    assert (handle.seed, handle.epoch, handle.continued) == (4, epoch, False)
    assert handle.client_secret != "s"
    assert (folder / f"{EFFECTS_FILE}.before-{epoch}").read_bytes() == line
    assert (folder / EFFECTS_FILE).read_bytes() == b""

    await until_gone(handle.pid)
    state = read_state(folder)
    assert state is not None
    assert (state.pid, state.seed, state.epoch) == (0, 4, epoch)


async def test_a_sandbox_that_cannot_start_says_why(folder: Path) -> None:
    with pytest.raises(SandboxFailed, match="at least 6 campaigns"):
        await start(folder, campaigns=3)


async def test_a_stale_state_adopts_no_stranger(folder: Path) -> None:
    """Another server has the port of a sandbox that died, and another process its number."""
    server = SandboxServer(SystemClock().now, nonce="someone else")
    await server.start()
    fields = {"pid": os.getpid(), "port": server.port, "nonce": "the dead one", "secret": "s", "seed": 3, "epoch": 5}
    fields |= {"speed": SPEED, "campaigns": 3, "history_days": HISTORY_DAYS}
    (folder / STATE_FILE).write_text(json.dumps(fields))
    try:
        with pytest.raises(SandboxFailed):
            await start(folder, campaigns=3)
        assert server.requests == 1
    finally:
        await server.close()
        (folder / STATE_FILE).unlink(missing_ok=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}', "\x00"])
def test_an_unreadable_state_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    assert read_state(tmp_path) is None


def test_a_state_of_wrong_types_is_none(tmp_path: Path) -> None:
    fields: dict[str, object] = {"pid": 0, "port": 0, "nonce": "n", "secret": "s", "seed": 3, "epoch": 5, "speed": 1.0}
    fields |= {"campaigns": 12, "history_days": 2}
    (tmp_path / STATE_FILE).write_text(json.dumps(fields))
    assert read_state(tmp_path) is not None
    for name in fields:
        (tmp_path / STATE_FILE).write_text(json.dumps(fields | {name: ["x"]}))
        assert read_state(tmp_path) is None
