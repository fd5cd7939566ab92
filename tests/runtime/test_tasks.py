"""Tasks: none may end the process, all have an owner, stubborn ones are named. On both kinds of event loop."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from kiki_agent.errors import Bug
from kiki_agent.runtime.clock import in_tick
from kiki_agent.runtime.tasks import OwnedTasks, cancel_all, install, new_event_loop


def plain_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    install(loop)
    return loop


@pytest.fixture(params=[plain_loop, new_event_loop], ids=["asyncio", "preferred"])
def run(request):
    def runner(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    return runner


def test_the_preferred_loop_is_uvloop_where_installed():
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    loop = new_event_loop()
    assert isinstance(loop, uvloop.Loop)
    loop.close()


@pytest.mark.parametrize("way_out", [SystemExit("bye"), KeyboardInterrupt()])
def test_a_task_that_wants_to_exit_only_ends_itself(run, way_out, capsys):
    async def leave() -> None:
        await asyncio.sleep(0)
        raise way_out

    async def main() -> str:
        task = asyncio.create_task(leave(), name="plugin:bad")
        await asyncio.wait([task])
        assert isinstance(task.exception(), Bug)
        assert "plugin:bad tried to end the process" in str(task.exception())
        return "alive"

    assert run(main()) == "alive"
    assert '"event":"exit_attempt"' in capsys.readouterr().err


def test_an_exit_while_being_cancelled_is_caught_too(run):
    async def leave() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            sys.exit(1)

    async def main() -> None:
        task = asyncio.create_task(leave())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert isinstance(task.exception(), Bug)

    run(main())


def test_guarded_tasks_behave_like_tasks(run):
    async def double(number: int) -> int:
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return 2 * number

    async def main() -> list[int]:
        task = asyncio.create_task(double(0), name="doubling")
        assert task.get_name() == "doubling"
        assert "double" in repr(task)
        assert task.get_stack() is not None
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(double(number)) for number in range(3)]
        return [await task, *(task.result() for task in tasks)]

    assert run(main()) == [0, 0, 2, 4]


def test_a_task_cancelled_before_its_first_step_leaves_no_warning(run):
    async def never() -> None:
        raise AssertionError

    async def main() -> None:
        task = asyncio.create_task(never())
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())
    gc.collect()


def test_what_nobody_catches_is_logged_with_its_task(run, capsys):
    async def fail() -> None:
        raise ValueError("lost")

    async def main() -> None:
        task = asyncio.create_task(fail(), name="forgotten")
        await asyncio.wait([task])
        del task
        gc.collect()
        await asyncio.sleep(0)

    run(main())
    assert "forgotten: Task exception was never retrieved" in capsys.readouterr().err


async def test_owned_tasks_are_named_watched_and_ended(capsys):
    failures: list[tuple[str, str]] = []
    owned = OwnedTasks("plugin meta", lambda name, error: failures.append((name, str(error))))
    seen: list[bool] = []

    async def fail() -> None:
        seen.append(in_tick.get())
        raise ValueError("inside")

    token = in_tick.set(True)
    owned.spawn(fail(), "refresh")
    waiting = owned.spawn(asyncio.Event().wait(), "listen")
    in_tick.reset(token)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert failures == [("plugin meta:refresh", "inside")]
    assert seen == [False]
    assert "plugin meta:refresh failed" in capsys.readouterr().err
    assert len(owned) == 1
    assert await owned.close() == []
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="plugin meta is closed"):
        owned.spawn(fail(), "again")


async def test_a_task_that_swallows_cancellation_is_named_and_abandoned():
    release = asyncio.Event()
    owned = OwnedTasks("plugin bad")

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    task = owned.spawn(stubborn(), "forever")
    await asyncio.sleep(0)
    assert await owned.close(0.02) == ["plugin bad:forever"]
    assert not task.done()
    release.set()
    await task


async def test_cancel_all_leaves_the_caller_alone():
    current = asyncio.current_task()
    assert current is not None
    assert await cancel_all({current}, 0.01) == []
    assert not current.cancelling()
