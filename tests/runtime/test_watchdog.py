"""The watchdog names who blocks the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kiki_agent.runtime.tasks import new_event_loop
from kiki_agent.runtime.watchdog import Block, Watchdog

from .scripts import until


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, new_event_loop], ids=["asyncio", "preferred"])
@pytest.mark.parametrize(
    ("blame", "expected"), [(None, "plugin:slow"), (lambda: "slow.fetch_spend", "slow.fetch_spend")]
)
def test_a_blocked_loop_is_noticed_and_the_blocker_named(factory, blame, expected, capsys):
    noticed = threading.Event()
    blocks: list[Block] = []
    lags: list[float] = []

    def hold_everything_up() -> None:
        watch = threading.Event()
        while dog.blocks == 0:
            watch.wait(0.005)
        noticed.set()

    async def slow() -> None:
        hold_everything_up()

    async def main() -> None:
        dog.start()
        with pytest.raises(RuntimeError, match="already"):
            dog.start()
        await asyncio.create_task(slow(), name="plugin:slow")
        await until(lambda: blocks)
        dog.stop()

    dog = Watchdog(0.05, 0.01, on_lag=lags.append, on_block=blocks.append, blame=blame)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert noticed.is_set()
    assert blocks[0].label == expected
    assert "hold_everything_up" in blocks[0].stack
    assert blocks[0].seconds >= 0.05
    assert max(lags) >= 0.05
    events = capsys.readouterr().err
    assert f"The event loop is blocked by {expected}" in events
    assert "loop_unblocked" in events


def test_a_free_loop_is_left_alone_and_a_closed_one_ends_the_watch(capsys):
    lags: list[float] = []
    dog = Watchdog(5.0, 0.001, on_lag=lags.append)

    async def main() -> None:
        dog.start()
        await until(lambda: len(lags) >= 5)

    with asyncio.Runner() as runner:
        runner.run(main())
    assert dog.blocks == 0
    thread = next(thread for thread in [dog._thread] if thread is not None)
    thread.join(20)  # it may have knocked at the moment of closing, and then waits for its limit
    assert not thread.is_alive()
    assert capsys.readouterr().err == ""
