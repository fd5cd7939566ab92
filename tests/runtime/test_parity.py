"""The live driver on a stepped clock does exactly what the simulated driver does."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki_agent.model.time import SECOND, Instant
from kiki_agent.runtime.clock import Clock, SimClock, SteppedClock
from kiki_agent.runtime.driver import LiveDriver, SimDriver
from kiki_agent.runtime.loop import Loop
from kiki_agent.runtime.supervisor import Supervisor
from kiki_agent.runtime.tasks import OwnedTasks

from .scripts import START, Scripted

Journal = list[tuple[str, float, str]]


def make_loops(journal: Journal) -> list[Loop]:
    return [
        Scripted("bids", journal, 2, essential=True, fails=lambda tick: 5 <= tick < 12),
        Scripted("writes", journal, 4, hop=True),
        Scripted("poll", journal, 6, at_start=False, hop=True, fails=lambda tick: tick % 3 == 0),
        Scripted("shifts", journal, 60),
        Scripted("odd", journal, 3.5, at_start=False),
    ]


class Background(Loop):
    """Starts a background task on its first tick that sleeps on the clock and notes when it wakes."""

    name = "starter"
    period = 5 * SECOND

    def __init__(self, clock: Clock, journal: Journal) -> None:
        self.clock, self.journal = clock, journal
        self.tasks = OwnedTasks("starter")

    async def tick(self, now: Instant) -> str | None:
        self.journal.append((self.name, (now - START) / SECOND, "tick"))
        await self.clock.sleep_until(Instant(now + SECOND))
        if not len(self.tasks):
            self.tasks.spawn(self.refresh(), "refresh")
        return None

    async def refresh(self) -> None:
        while True:
            await self.clock.sleep_until(Instant(self.clock.now() + 4 * SECOND))
            self.journal.append(("refresh", (self.clock.now() - START) / SECOND, "awake"))
            await asyncio.get_running_loop().run_in_executor(None, sum, range(100))


async def simulate(until: Instant, background: bool) -> tuple[Journal, list[object], list[object]]:
    journal: Journal = []
    clock = SimClock(START)
    loops = make_loops(journal)
    starter = Background(clock, journal)
    supervisor = Supervisor([*loops, starter] if background else loops, clock)
    told = supervisor.signals.subscribe(maxsize=10_000)
    await SimDriver().run(supervisor, clock, until)
    await starter.tasks.close()
    return journal, [(s.topic, s.data) for s in told.drain()], states(supervisor)


async def step(until: Instant, background: bool) -> tuple[Journal, list[object], list[object]]:
    journal: Journal = []
    clock = SteppedClock(START)
    loops = make_loops(journal)
    starter = Background(clock, journal)
    supervisor = Supervisor([*loops, starter] if background else loops, clock)
    told = supervisor.signals.subscribe(maxsize=10_000)
    driver = asyncio.create_task(LiveDriver().run(supervisor, clock, until))
    await clock.run(until, sleepers=len(supervisor.loops))
    await starter.tasks.close()
    await driver
    return journal, [(s.topic, s.data) for s in told.drain()], states(supervisor)


def states(supervisor: Supervisor) -> list[object]:
    return [
        (h.name, h.state, h.ticks, h.failures, h.skipped, h.late, h.last_success, h.last_reason, h.last_error)
        for h in supervisor.health.values()
    ]


@pytest.mark.parametrize("background", [False, True])
async def test_the_live_driver_under_a_stepped_clock_equals_the_simulation(background):
    until = Instant(START + 300 * SECOND)
    simulated = await simulate(until, background)
    stepped = await step(until, background)
    assert simulated[0] == stepped[0]
    assert simulated[1] == stepped[1]
    assert simulated[2] == stepped[2]
    assert {"loop.failing", "loop.faulted", "loop.recovered", "spend.frozen", "spend.thawed"} <= {
        topic for topic, _ in simulated[1]
    }
    assert ("refresh" in {name for name, _, _ in simulated[0]}) is background


async def test_two_runs_are_the_same_run():
    until = Instant(START + 120 * SECOND)
    assert await simulate(until, True) == await simulate(until, True)


async def test_loops_due_at_one_instant_tick_in_their_order_and_never_overlap():
    journal, _, _ = await simulate(Instant(START + 61 * SECOND), False)
    at_start = [name for name, at, what in journal if at == 0 and what == "begin"]
    assert at_start == ["bids", "writes", "shifts"]
    assert all(first[0] == second[0] for first, second in zip(journal[::2], journal[1::2], strict=True))


@settings(max_examples=25, deadline=None)
@given(
    plans=st.lists(
        st.tuples(st.integers(1, 9), st.booleans(), st.booleans(), st.sets(st.integers(1, 30))), min_size=1, max_size=4
    )
)
def test_parity_for_any_script(plans):
    async def both() -> None:
        results = []
        for clock in (SimClock(START), SteppedClock(START)):
            journal: Journal = []
            loops: list[Loop] = [
                Scripted(
                    f"loop{number}", journal, seconds, essential=hop, hop=hop, at_start=at_start, fails=bad.__contains__
                )
                for number, (seconds, hop, at_start, bad) in enumerate(plans)
            ]
            supervisor = Supervisor(loops, clock)
            until = Instant(START + 60 * SECOND)
            if isinstance(clock, SteppedClock):
                driver = asyncio.create_task(LiveDriver().run(supervisor, clock, until))
                await clock.run(until, sleepers=len(loops))
                await driver
            else:
                await SimDriver().run(supervisor, clock, until)
            results.append((journal, states(supervisor), supervisor.frozen))
        assert results[0] == results[1]

    asyncio.run(both())
