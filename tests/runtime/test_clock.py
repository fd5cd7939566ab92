"""Clocks: steps of the wall clock, scaling, and the order in which simulated sleepers wake."""

from __future__ import annotations

import asyncio

import pytest

from kiki_agent.model.time import DAY, HOUR, MILLISECOND, SECOND, Instant
from kiki_agent.runtime.clock import ScaledClock, SimClock, SteppedClock, SystemClock, in_tick

from .scripts import START, until


class World:
    """A wall clock and a monotonic clock that tests turn by hand, in microseconds."""

    def __init__(self) -> None:
        self.wall: int = START
        self.monotonic = 77 * SECOND
        self.slept: list[float] = []

    def pass_by(self, span: int, *, wall: int | None = None) -> None:
        self.monotonic += span
        self.wall += span if wall is None else wall

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_by(round(seconds * SECOND))

    def clock(self) -> SystemClock:
        return SystemClock(lambda: self.wall * 1000, lambda: self.monotonic * 1000, self.sleep)


def test_the_system_clock_follows_the_wall():
    world = World()
    clock = world.clock()
    world.pass_by(SECOND)
    assert clock.now() == START + SECOND
    assert clock.steps == 0


def test_small_steps_back_hold_the_clock_still():
    world = World()
    clock = world.clock()
    world.pass_by(SECOND)
    before = clock.now()
    world.pass_by(10 * MILLISECOND, wall=-500 * MILLISECOND)
    assert clock.now() == before
    world.pass_by(600 * MILLISECOND)
    assert clock.now() == world.wall > before
    assert clock.steps == 0


@pytest.mark.parametrize("step", [-365 * DAY, -HOUR, -2 * SECOND, 2 * SECOND, HOUR, 365 * DAY])
def test_large_steps_are_followed_once(step):
    world = World()
    clock = world.clock()
    clock.now()
    world.pass_by(SECOND, wall=SECOND + step)
    assert clock.now() == world.wall
    assert (clock.steps, clock.last_step) == (1, step)
    world.pass_by(SECOND)
    assert clock.now() == world.wall
    assert clock.steps == 1


async def test_many_small_steps_back_add_up_to_one_that_is_followed():
    world = World()
    clock = world.clock()
    for _ in range(5):
        world.pass_by(0, wall=-400 * MILLISECOND)
        clock.now()
    assert clock.now() - world.wall <= SECOND


@pytest.mark.parametrize("step", [-HOUR, HOUR])
async def test_a_sleep_lasts_as_long_as_planned_whatever_the_wall_does(step):
    world = World()
    clock = world.clock()

    async def sleep_through_a_step(seconds: float) -> None:
        world.slept.append(seconds)
        world.pass_by(round(seconds * SECOND), wall=round(seconds * SECOND) + step)

    world.sleep = sleep_through_a_step  # type: ignore[method-assign]
    clock = SystemClock(lambda: world.wall * 1000, lambda: world.monotonic * 1000, sleep_through_a_step)
    begin = world.monotonic
    await clock.sleep_until(Instant(START + 2 * SECOND))
    assert world.monotonic - begin == 2 * SECOND
    assert world.slept == [2.0]


async def test_an_early_wake_up_sleeps_on():
    world = World()

    async def short(seconds: float) -> None:
        world.slept.append(seconds)
        world.pass_by(max(1, round(seconds * SECOND * 0.75)))

    clock = SystemClock(lambda: world.wall * 1000, lambda: world.monotonic * 1000, short)
    await clock.sleep_until(Instant(START + SECOND))
    assert world.wall >= START + SECOND
    assert len(world.slept) > 1


async def test_two_scaled_clocks_with_the_same_epochs_agree():
    world = World()
    sim = Instant(START - 30 * DAY)
    agent = ScaledClock(60, START, sim, world.clock())
    market = ScaledClock(60, START, sim, world.clock())
    world.pass_by(10 * SECOND)
    assert agent.now() == market.now() == sim + 600 * SECOND
    await agent.sleep_until(Instant(sim + 660 * SECOND))
    assert world.slept == [1.0]
    assert agent.now() == sim + 660 * SECOND


def test_a_clock_must_run():
    with pytest.raises(ValueError, match="positive"):
        ScaledClock(0, START, START)


async def test_sleepers_wake_one_by_one_in_order_of_due_time_and_order():
    clock = SteppedClock(START)
    seen: list[tuple[str, int]] = []

    async def sleeper(name: str, due: int, order: int) -> None:
        await clock.sleep_until(Instant(START + due), order)
        seen.append((name, clock.now() - START))
        await asyncio.get_running_loop().run_in_executor(None, sum, range(10))
        seen.append((name, clock.now() - START))

    plans = [("late", 5, 0), ("second", 3, 2), ("first", 3, 1), ("third", 3, 2), ("early", 1, 9)]
    tasks = [asyncio.create_task(sleeper(*plan)) for plan in plans]
    await clock.run(Instant(START + 10), sleepers=5)
    await asyncio.gather(*tasks)
    names = ["early", "first", "second", "third", "late"]
    due = {name: at for name, at, _ in plans}
    assert seen == [(name, due[name]) for name in names for _ in range(2)]
    assert clock.now() == START + 10


async def test_a_cancelled_sleeper_moves_no_time():
    clock = SimClock(START)
    task = asyncio.create_task(clock.sleep_until(Instant(START + SECOND)))
    await until(lambda: clock.sleepers)
    task.cancel()
    await asyncio.wait([task])
    await clock.wake_first()
    assert clock.now() == START


async def test_inside_a_tick_a_simulated_sleep_takes_no_time():
    clock = SimClock(START)
    token = in_tick.set(True)
    await clock.sleep_until(Instant(START + HOUR))
    in_tick.reset(token)
    assert clock.now() == START
    assert not clock.sleepers
