"""Shutdown: every stage gets its turn, whoever does not end is named, and signals ask for it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from kiki_agent.runtime.shutdown import Stage, StopRequest, shut_down

from .scripts import until


async def test_all_stages_run_in_order_whatever_happens_in_one():
    order: list[str] = []
    release = asyncio.Event()

    def stage(name: str, action=None) -> Stage:
        async def run() -> object:
            order.append(name)
            return await action() if action is not None else None

        return Stage(name, 0.05, run)

    async def fail() -> None:
        raise OSError("disk full")

    async def hang() -> None:
        await asyncio.Event().wait()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    async def leftovers() -> list[str]:
        return ["plugin meta:refresh"]

    async def give_up() -> None:
        raise asyncio.CancelledError

    results = await shut_down(
        [
            *(stage("loops", fail), stage("calls", hang), stage("plugins", stubborn), stage("tasks", leftovers)),
            *(stage("odd", give_up), stage("writer")),
        ]
    )
    assert order == ["loops", "calls", "plugins", "tasks", "odd", "writer"]
    assert [(result.name, result.stragglers, result.error) for result in results] == [
        ("loops", (), "OSError: disk full"),
        ("calls", ("calls",), "cut off after 0.05 s"),
        ("plugins", ("plugins",), "cut off after 0.05 s"),
        ("tasks", ("plugin meta:refresh",), ""),
        ("odd", (), "cancelled itself"),
        ("writer", (), ""),
    ]
    assert [result.clean for result in results] == [False] * 5 + [True]
    release.set()
    await asyncio.sleep(0)


async def test_budgets_that_do_not_fit_are_refused_at_once():
    async def nothing() -> None: ...

    with pytest.raises(ValueError, match=r"need 12\.4 s, allowed are 10\.0 s"):
        await shut_down([Stage("a", 6, nothing), Stage("b", 6, nothing)])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_asks_for_the_shutdown(number):
    left: list[int] = []
    request = StopRequest(left.append)
    request.install()
    try:
        os.kill(os.getpid(), number)
        assert await request.wait() == number.name
        assert request.asked
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.01)
        assert left == []
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: left)
        assert left == [130]
        assert request.reason == number.name
    finally:
        request.uninstall()


SCRIPT = """
import asyncio, threading
from kiki_agent.runtime.shutdown import Stage, StopRequest, leave_now, shut_down
from kiki_agent.runtime.tasks import new_event_loop

async def stubborn():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def main():
    request = StopRequest()
    request.install()
    task = asyncio.create_task(stubborn())
    threading.Thread(target=threading.Event().wait).start()
    print("up", flush=True)
    await request.wait()
    async def drain():
        print("drained")
    await shut_down([Stage("loops", 0.1, lambda: task), Stage("drain", 1, drain)])
    leave_now(0)

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""


def test_a_process_with_a_stubborn_task_and_a_stuck_thread_still_leaves():
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "drained\n")
    assert "Shutdown stage 'loops' did not end cleanly" in errors
