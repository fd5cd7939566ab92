"""Clocks: the only place that reads time, and one of two that sleep.

Live code sees a `SystemClock` or a `ScaledClock`; simulations see a `SimClock`; parity tests step a `SteppedClock`.
In simulated clocks time stands still while a tick runs, so a sleep inside a tick (a plugin's pause before a retry)
returns at the next turn of the event loop; a background task sleeps until a driver reaches its due time.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Protocol

from kiki_agent.model.time import SECOND, Instant

in_tick: ContextVar[bool] = ContextVar("in_tick", default=False)
"""True inside a tick and everything it awaits; `tasks.OwnedTasks` clears it for background tasks."""

births = [0]
"""Background tasks started so far; in simulations `SimClock.let_newborn_rest` lets new ones run before time moves."""

STEP_TOLERANCE = SECOND
"""Disagreements of wall and monotonic clock up to this are smoothed; larger ones are steps and are followed."""


class Clock(Protocol):
    """What code above the runtime may know about time."""

    @property
    def speed(self) -> float:
        """Seconds of this clock per second on the wall; 0 where time does not pass by itself."""

    def now(self) -> Instant:
        """The present instant."""

    async def sleep_until(self, due: Instant, order: int = 0) -> None:
        """Return when `due` has come; simulated clocks wake sleepers one by one in the order (due, order)."""


class Stopwatch:
    """Wall time that passed since it was made; for metrics and reports only, never for a decision."""

    __slots__ = ("_start",)

    def __init__(self) -> None:
        self._start = time.perf_counter_ns()

    def seconds(self) -> float:
        """Seconds since the start."""
        return (time.perf_counter_ns() - self._start) / 1e9

    def restart(self) -> float:
        """Seconds since the start, and start again."""
        now = time.perf_counter_ns()
        passed, self._start = now - self._start, now
        return passed / 1e9


class SystemClock:
    """The real time. It follows steps of the wall clock; sleeping follows the monotonic clock.

    Between steps `now` never goes back: while the wall clock is being slewed it holds still. A step of more than a
    second, either way, is taken over at once and counted in `steps`. A sleep that began before a step still lasts as
    long as it would have; whoever slept compares its due time with `now` afterwards.
    """

    speed = 1.0

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._wall_ns, self._monotonic_ns, self._sleep = wall_ns, monotonic_ns, sleep
        self._last = wall_ns() // 1_000
        self._anchor = monotonic_ns() // 1_000
        self.steps = 0
        self.last_step = 0
        """Size of the last step in microseconds, negative when the clock was put back."""

    def now(self) -> Instant:
        wall = self._wall_ns() // 1_000
        monotonic = self._monotonic_ns() // 1_000
        step = wall - (self._last + monotonic - self._anchor)
        self._anchor = monotonic
        if -STEP_TOLERANCE <= step <= STEP_TOLERANCE:
            self._last = max(self._last, wall)
        else:
            self.steps += 1
            self.last_step = step
            self._last = wall
        return Instant(self._last)

    async def sleep_until(self, due: Instant, order: int = 0) -> None:
        await self.sleep_for(due - self.now())

    async def sleep_for(self, span: float) -> None:
        """Sleep for a span of microseconds on the monotonic clock; at least one turn of the event loop."""
        end = self._monotonic_ns() + int(span * 1_000)
        remaining = end - self._monotonic_ns()
        await self._sleep(max(0.0, remaining / 1e9))
        while (remaining := end - self._monotonic_ns()) > 0:
            await self._sleep(remaining / 1e9)


class ScaledClock:
    """A clock that runs `speed` times as fast as the wall.

    `epoch_real` and `epoch_sim` are the same moment on the wall and on this clock. Two processes with the same three
    numbers agree about the time, which is how the agent and its market share one.
    """

    def __init__(
        self, speed: float, epoch_real: Instant, epoch_sim: Instant, system: SystemClock | None = None
    ) -> None:
        if not speed > 0:
            raise ValueError(f"the speed of a clock must be positive, was {speed}")
        self.speed = speed
        self.epoch_real, self.epoch_sim = epoch_real, epoch_sim
        self._system = system or SystemClock()

    def now(self) -> Instant:
        return Instant(self.epoch_sim + int((self._system.now() - self.epoch_real) * self.speed))

    async def sleep_until(self, due: Instant, order: int = 0) -> None:
        await self._system.sleep_for((due - self.now()) / self.speed)


class _Sleeper:
    """A task waiting for its due time, and afterwards for its next rest."""

    __slots__ = ("due", "future", "task")

    def __init__(self, due: Instant, task: asyncio.Task[object]) -> None:
        self.due, self.task = due, task
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class SimClock:
    """Simulated time: stands still until a driver moves it."""

    speed = 0.0

    def __init__(self, start: Instant) -> None:
        self.instant = start
        """The present; only a driver assigns it."""
        self.sleepers: list[tuple[Instant, int, int, _Sleeper]] = []
        """Heap of (due, order, sequence, sleeper); drivers look at its head."""
        self._sequence = 0
        self._born = births[0]
        self._rest: tuple[asyncio.Task[object], asyncio.Event] | None = None

    def now(self) -> Instant:
        return self.instant

    async def sleep_until(self, due: Instant, order: int = 0) -> None:
        if in_tick.get():
            await asyncio.sleep(0)
            return
        task = asyncio.current_task()
        assert task is not None, "a coroutine that sleeps always runs in a task"
        sleeper = _Sleeper(max(due, self.instant), task)
        self._sequence += 1
        heapq.heappush(self.sleepers, (sleeper.due, order, self._sequence, sleeper))
        if self._rest is not None and self._rest[0] is task:
            self._rest[1].set()
        await sleeper.future

    async def wake_first(self) -> None:
        """Move time to the first sleeper, wake it, and wait until its task sleeps again or ends."""
        due, _, _, sleeper = heapq.heappop(self.sleepers)
        if sleeper.future.done():
            return
        self.instant = max(self.instant, due)
        rested = asyncio.Event()

        def ended(_: asyncio.Task[object]) -> None:
            rested.set()

        self._rest = (sleeper.task, rested)
        sleeper.task.add_done_callback(ended)
        sleeper.future.set_result(None)
        await rested.wait()
        sleeper.task.remove_done_callback(ended)
        self._rest = None
        await self.let_newborn_rest()

    async def let_newborn_rest(self) -> None:
        """Let background tasks that were just started run to their first sleep.

        To be repeatable such a task sleeps on this clock before it first waits for a thread or a socket.
        """
        if self._born != births[0]:
            self._born = births[0]
            for _ in range(4):
                await asyncio.sleep(0)


class SteppedClock(SimClock):
    """A clock for the live driver in tests: it wakes one sleeper at a time and waits until it rests again."""

    async def run(self, until: Instant, sleepers: int = 0) -> None:
        """Step through everything due before `until`, after at least `sleepers` tasks have gone to sleep."""
        while len(self.sleepers) < sleepers:  # noqa: ASYNC110 - nobody tells when a task has come to rest
            await asyncio.sleep(0)
        while self.sleepers and self.sleepers[0][0] < until:
            await self.wake_first()
        self.instant = max(self.instant, until)
