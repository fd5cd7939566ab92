"""In a simulated world nobody reads the time, sleeps or throws dice."""

from __future__ import annotations

import asyncio
import random
import time
import uuid

import numpy as np
import pytest

from kiki_agent.errors import Fault
from kiki_agent.model.time import SECOND, Instant
from kiki_agent.runtime.clock import SimClock, Stopwatch
from kiki_agent.runtime.driver import SimDriver
from kiki_agent.runtime.purity import simulated_world
from kiki_agent.runtime.supervisor import Supervisor

from .scripts import START, Scripted


@pytest.mark.parametrize(
    "call",
    [
        *(lambda: time.time(), lambda: time.monotonic(), lambda: time.sleep(0)),
        *(lambda: random.random(), lambda: np.random.rand(), lambda: uuid.uuid4(), lambda: asyncio.sleep(0)),
    ],
)
def test_impure_calls_raise_inside_and_work_again_outside(call):
    with simulated_world(), pytest.raises(Fault, match="in a simulation; take a Clock"):
        call()
    result = call()
    if asyncio.iscoroutine(result):
        result.close()


def test_seeded_generators_stay_allowed():
    with simulated_world():
        assert random.Random(1).random() == random.Random(1).random()
        assert np.random.default_rng(1).random() == np.random.default_rng(1).random()


async def test_drivers_threads_and_the_event_loop_go_on():
    journal: list[tuple[str, float, str]] = []
    clock = SimClock(START)
    supervisor = Supervisor([Scripted("a", journal, 1, hop=True)], clock)
    with simulated_world():
        await SimDriver(timed=True).run(supervisor, clock, Instant(START + 200 * SECOND))
        assert Stopwatch().seconds() >= 0
        async with asyncio.timeout(5):
            await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.001)
    assert supervisor.health["a"].ticks == 200
    assert supervisor.health["a"].failures == 0
