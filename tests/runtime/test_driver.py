"""Drivers: the grid of due times, skipped and late ticks, waking, restarting, stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from kiki_agent.model.time import DAY, HOUR, MILLISECOND, SECOND, Instant
from kiki_agent.runtime import driver as driver_module
from kiki_agent.runtime.clock import SimClock, SteppedClock, SystemClock
from kiki_agent.runtime.driver import LiveDriver, SimDriver
from kiki_agent.runtime.loop import Loop
from kiki_agent.runtime.supervisor import LoopState, Supervisor

from .scripts import START, Scripted, until


class Acting(Loop):
    """Notes its due times in seconds and runs an action in each tick."""

    name = "acting"
    period = 2 * SECOND

    def __init__(self, act: Callable[[int], object] | None = None) -> None:
        self.act = act
        self.due: list[float] = []

    async def tick(self, now: Instant) -> str | None:
        self.due.append((now - START) / SECOND)
        if self.act is not None:
            result = self.act(len(self.due))
            if asyncio.iscoroutine(result):
                await result
        return None


async def live(loop: Loop, clock: SteppedClock, seconds: float) -> Supervisor:
    supervisor = Supervisor([loop], clock)
    until = Instant(START + round(seconds * SECOND))
    driver = asyncio.create_task(LiveDriver().run(supervisor, clock, until))
    await clock.run(until, sleepers=1)
    await driver
    return supervisor


async def test_due_times_do_not_drift_when_ticks_take_time():
    clock = SteppedClock(START)

    def slow(tick: int) -> None:
        clock.instant = Instant(clock.instant + 137 * MILLISECOND)

    loop = Acting(slow)
    supervisor = await live(loop, clock, 2000)
    assert loop.due == [2.0 * tick for tick in range(1000)]
    assert (supervisor.health["acting"].skipped, supervisor.health["acting"].late) == (0, 0)


async def test_overdue_ticks_are_skipped_and_counted_never_stacked():
    clock = SteppedClock(START)

    def stall(tick: int) -> None:
        clock.instant = Instant(clock.instant + (7 * SECOND if tick == 2 else 0))

    loop = Acting(stall)
    supervisor = await live(loop, clock, 16)
    assert loop.due == [0, 2, 10, 12, 14]
    assert supervisor.health["acting"].skipped == 3
    assert supervisor.health["acting"].late == 1


async def test_a_tick_that_takes_exactly_its_period_skips_nothing():
    clock = SteppedClock(START)

    def full(tick: int) -> None:
        clock.instant = Instant(clock.instant + 2 * SECOND)

    loop = Acting(full)
    supervisor = await live(loop, clock, 10)
    assert loop.due == [0, 2, 4, 6, 8]
    assert supervisor.health["acting"].skipped == 0


async def test_a_process_that_slept_ticks_once_for_the_latest_due_time():
    clock = SteppedClock(START)
    loop = Acting()
    supervisor = Supervisor([loop], clock)
    driver = LiveDriver()
    task = asyncio.create_task(driver.run(supervisor, clock))
    await clock.run(Instant(START + 3 * SECOND), sleepers=1)
    clock.instant = Instant(START + HOUR + SECOND)
    await clock.wake_first()
    assert loop.due == [0, 2, 3600]
    assert supervisor.health["acting"].skipped == 1798
    await driver.stop()
    await task


@pytest.mark.parametrize("step", [-HOUR, -365 * DAY, HOUR, 365 * DAY])
async def test_the_grid_follows_a_clock_that_was_set(step):
    clock = SteppedClock(START)
    loop = Acting()
    supervisor = Supervisor([loop], clock)
    driver = LiveDriver()
    task = asyncio.create_task(driver.run(supervisor, clock))
    await clock.run(Instant(START + 3 * SECOND), sleepers=1)
    due, order, number, sleeper = clock.sleepers.pop()
    set_to = Instant(clock.instant + step + 2 * SECOND)
    clock.sleepers.append((set_to, order, number, sleeper))
    clock.instant = set_to
    for _ in range(3):
        await clock.wake_first()
    assert loop.due[:2] == [0, 2]
    assert loop.due[3] - loop.due[2] == loop.due[4] - loop.due[3] == 2.0
    assert abs(loop.due[2] - (set_to - START) / SECOND) <= 2.0
    assert due == START + 4 * SECOND
    await driver.stop()
    await task


async def test_the_deadline_of_a_tick_stops_new_work_only():
    clock = SteppedClock(START)
    answers: list[bool] = []

    def work(tick: int) -> None:
        answers.append(loop.stop_new_work())
        clock.instant = Instant(clock.instant + 1500 * MILLISECOND)
        answers.append(loop.stop_new_work())

    loop = Acting(work)
    loop.deadline = 1500 * MILLISECOND
    await live(loop, clock, 4)
    assert answers == [False, True, False, True]


async def test_in_a_simulation_a_tick_always_has_time():
    answers: list[bool] = []
    loop = Acting(lambda tick: answers.append(loop.stop_new_work()))
    clock = SimClock(START)
    await SimDriver().run(Supervisor([loop], clock), clock, Instant(START + 6 * SECOND))
    assert answers == [False, False, False]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), MemoryError()])
@pytest.mark.parametrize("simulated", [True, False])
async def test_whatever_a_tick_raises_is_a_failed_tick(error, simulated):
    def explode(tick: int) -> None:
        if tick == 1:
            raise error

    loop = Acting(explode)
    if simulated:
        clock = SimClock(START)
        supervisor = Supervisor([loop], clock)
        await SimDriver().run(supervisor, clock, Instant(START + 6 * SECOND))
    else:
        supervisor = await live(loop, SteppedClock(START), 6)
    health = supervisor.health["acting"]
    assert (health.ticks, health.failures, health.state) == (3, 1, LoopState.OK)


async def test_a_cancelled_driver_ends_with_all_its_loops():
    clock = SystemClock()
    loop = Acting(lambda tick: asyncio.Event().wait())
    task = asyncio.create_task(LiveDriver().run(Supervisor([loop], clock), clock))
    await until(lambda: loop.due)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("loop:")]


async def test_a_cancelled_simulation_ends():
    clock = SimClock(START)
    loop = Acting(lambda tick: asyncio.Event().wait())
    task = asyncio.create_task(SimDriver().run(Supervisor([loop], clock), clock))
    await until(lambda: loop.due)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_run_now_ticks_once_off_the_grid():
    clock = SteppedClock(START)
    loop = Acting()
    supervisor = Supervisor([loop], clock)
    driver = LiveDriver()
    assert not supervisor.run_now("acting")
    task = asyncio.create_task(driver.run(supervisor, clock))
    await clock.run(Instant(START + SECOND), sleepers=1)
    assert supervisor.run_now("acting")
    assert not supervisor.run_now("acting")
    await until(lambda: len(loop.due) >= 2)
    await clock.run(Instant(START + 5 * SECOND), sleepers=1)
    assert loop.due == [0, 1, 2, 4]
    await driver.stop()
    await task


async def test_a_paused_loop_does_not_tick_and_goes_on_after_resume():
    clock = SimClock(START)
    loop = Acting()
    supervisor = Supervisor([loop], clock)
    supervisor.pause("acting")
    await SimDriver().run(supervisor, clock, Instant(START + 6 * SECOND))
    assert loop.due == []
    assert supervisor.report()[0].reason == "paused by a person"
    supervisor.resume("acting")
    await SimDriver().run(supervisor, clock, Instant(START + 10 * SECOND))
    assert loop.due == [6, 8]


async def test_restart_ends_a_hanging_tick_and_the_loop_goes_on():
    clock = SteppedClock(START)
    loop = Acting(lambda tick: asyncio.Event().wait() if tick == 1 else None)
    supervisor = Supervisor([loop], clock)
    driver = LiveDriver()
    task = asyncio.create_task(driver.run(supervisor, clock))
    await until(lambda: clock.sleepers)
    waking = asyncio.create_task(clock.wake_first())
    await until(lambda: loop.due)
    supervisor.restart("acting")
    await waking
    await clock.run(Instant(START + 3 * SECOND))
    assert loop.due == [0, 2]
    health = supervisor.health["acting"]
    assert (health.restarts, health.failures, health.state) == (1, 0, LoopState.OK)
    await driver.stop()
    await task


async def test_a_tick_that_hangs_is_faulted_then_cancelled_and_the_loop_goes_on(monkeypatch):
    for name in ("MONITOR_SECONDS", "HUNG_SECONDS", "CANCEL_HUNG_SECONDS"):
        monkeypatch.setattr(driver_module, name, 0.001)
    clock = SteppedClock(START)
    loop = Acting(lambda tick: asyncio.Event().wait() if tick == 1 else None)
    supervisor = Supervisor([loop], clock)
    told = supervisor.signals.subscribe()
    driver = LiveDriver()
    task = asyncio.create_task(driver.run(supervisor, clock))
    await until(lambda: clock.sleepers)
    waking = asyncio.create_task(clock.wake_first())
    await until(lambda: loop.due)
    clock.instant = Instant(START + 7 * SECOND)
    await waking
    health = supervisor.health["acting"]
    assert (health.state, health.failures) == (LoopState.FAULTED, 1)
    assert "hung for" in health.last_error
    await clock.run(Instant(START + 9 * SECOND))
    assert loop.due == [0, 8]
    assert health.state is LoopState.OK
    assert [signal.topic for signal in told.drain()] == ["loop.faulted", "loop.failing", "loop.recovered"]
    await driver.stop()
    await task


async def test_stop_lets_a_running_tick_finish_and_tells_it_to_begin_nothing():
    clock = SystemClock()
    gate = asyncio.Event()
    asked: list[bool] = []

    async def finish() -> None:
        await gate.wait()
        asked.append(loop.stop_new_work())

    loop = Acting(lambda tick: finish())
    driver = LiveDriver()
    task = asyncio.create_task(driver.run(Supervisor([loop], clock), clock))
    await until(lambda: loop.due)
    stopping = asyncio.create_task(driver.stop(5))
    await asyncio.sleep(0)
    gate.set()
    assert await stopping == []
    await task
    assert asked == [True]


async def test_stop_names_the_loop_that_does_not_end():
    clock = SystemClock()
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    loop = Acting(lambda tick: stubborn())
    driver = LiveDriver()
    task = asyncio.create_task(driver.run(Supervisor([loop], clock), clock))
    await until(lambda: loop.due)
    assert await driver.stop(0.01) == ["acting"]
    release.set()
    await task


async def test_a_simulation_lets_threads_hand_in_their_work():
    clock = SimClock(START)
    pending: list[asyncio.Future[int]] = []

    def submit(tick: int) -> None:
        pending.append(asyncio.get_running_loop().run_in_executor(None, sum, range(10)))

    loop = Acting(submit)
    most = 0

    def progress(now: Instant, ticks: int) -> None:
        nonlocal most
        most = max(most, sum(not future.done() for future in pending))

    await SimDriver(progress, progress_every=64).run(Supervisor([loop], clock), clock, Instant(START + 4000 * SECOND))
    assert any(future.done() for future in pending[:500])
    await asyncio.gather(*pending)


async def test_the_simulation_stops_between_two_ticks_and_reports_progress():
    clock = SimClock(START)
    reports: list[tuple[int, int]] = []
    driver = SimDriver(lambda now, ticks: reports.append((now - START, ticks)), progress_every=10, timed=True)
    stop: list[object] = []

    def act(tick: int) -> None:
        if tick == 25:
            stop.append(asyncio.ensure_future(driver.stop()))
            return

    loop = Acting(act)
    supervisor = Supervisor([loop], clock)
    await driver.run(supervisor, clock, Instant(START + HOUR))
    assert reports[:2] == [(18 * SECOND, 10), (38 * SECOND, 20)]
    assert reports[-1][1] == driver.ticks == len(loop.due) < 100
    assert supervisor.health["acting"].busy_seconds > 0


async def test_until_is_exclusive_and_the_clock_ends_there():
    clock = SimClock(START)
    journal: list[tuple[str, float, str]] = []
    driver = SimDriver()
    loops = [Scripted("bids", journal, 2), Scripted("cycles", journal, 300)]
    await driver.run(Supervisor(loops, clock), clock, Instant(START + HOUR))
    assert clock.now() == START + HOUR
    assert [loop.count for loop in loops] == [1800, 12]
