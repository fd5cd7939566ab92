"""Drivers decide when loops tick: `LiveDriver` by the clock, `SimDriver` by a heap of due times.

Both pass the nominal due time, report to the same supervisor and follow the same rules of back-off, so a backtest is
the live agent with another driver. A `LiveDriver` on a `SteppedClock` gives the very order of a `SimDriver`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass

from kiki_agent.model.time import SECOND, Instant
from kiki_agent.runtime.clock import Clock, SimClock, Stopwatch, births, in_tick
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.loop import Loop
from kiki_agent.runtime.supervisor import LoopHealth, Supervisor

_log = get_logger("driver")

BREATHE_EVERY = 64
"""Simulated ticks between two turns of the event loop, so that threads can hand in what they have done."""
MONITOR_SECONDS = 0.5
HUNG_SECONDS = 5.0
"""Wall time a tick may always take before anybody calls it hanging."""
CANCEL_HUNG_SECONDS = 60.0
"""Wall time after which a tick that is also more than three periods old is cancelled, so that its loop goes on."""

TickObserver = Callable[[str, float, float], None]


class TickEnded(Exception):
    """A tick was ended from outside, or ended in a way that is not an ordinary failure."""


@dataclass(eq=False, slots=True)
class _Tended:
    """One loop in the care of a live driver."""

    loop: Loop
    order: int
    health: LoopHealth
    due: Instant
    task: asyncio.Task[None] | None = None
    asleep: bool = False
    woken: bool = False
    """Its sleep was cut short to tick at once."""
    ending: str = ""
    """Why its tick was cancelled by the driver."""
    watch: Stopwatch | None = None
    """Runs while its tick does."""


class LiveDriver:
    """One task per loop. Due times stay on the grid of the start; what is overdue is skipped and counted."""

    def __init__(self, observe: TickObserver | None = None) -> None:
        self._observe = observe
        """Told (loop, wall seconds, wall seconds by which it began after it was due) after each tick."""
        self._tended: dict[str, _Tended] = {}
        self._stopping = False
        self._idle = asyncio.Event()

    async def run(self, supervisor: Supervisor, clock: Clock, until: Instant | None = None) -> None:
        """Tick all loops until `stop`, or until no due time before `until` is left."""
        start = clock.now()
        for order, loop in enumerate(supervisor.loops, start=1):
            due = supervisor.first_due(loop, start)
            self._tended[loop.name] = _Tended(loop, order, supervisor.health[loop.name], due)
        supervisor.restarter, supervisor.waker = self._restart, self._wake
        for tended in self._tended.values():
            tended.task = asyncio.create_task(
                self._tend(supervisor, clock, tended, until), name=f"loop:{tended.loop.name}"
            )
        monitor = asyncio.create_task(self._monitor(supervisor, clock), name="driver:monitor")
        tasks = [tended.task for tended in self._tended.values() if tended.task is not None]
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            supervisor.restarter = supervisor.waker = None
            monitor.cancel()
            for task in tasks:
                task.cancel()
            self._idle.set()

    async def stop(self, grace_seconds: float = 3.0) -> list[str]:
        """Begin no further tick, let running ones finish within the grace, then cancel; names of those that stay."""
        self._stopping = True
        for tended in self._tended.values():
            tended.loop.cut_short()
            if tended.asleep and tended.task is not None:
                tended.task.cancel()
        tasks = {tended.task: tended.loop.name for tended in self._tended.values() if tended.task is not None}
        if not tasks:
            return []
        _, pending = await asyncio.wait(tasks, timeout=grace_seconds)
        for task in pending:
            task.cancel()
        if pending:
            _, pending = await asyncio.wait(pending, timeout=0.2)
        return sorted(tasks[task] for task in pending)

    # one loop

    async def _tend(self, supervisor: Supervisor, clock: Clock, tended: _Tended, until: Instant | None) -> None:
        health = tended.health
        while not self._stopping and (until is None or tended.due < until):
            try:
                nominal = await self._sleep(supervisor, clock, tended)
                if nominal is None:
                    continue
                if not health.paused:
                    await self._tick(supervisor, clock, tended, nominal)
                base = tended.due if nominal >= tended.due else Instant(tended.due - health.period)
                tended.due = supervisor.next_due(health, base, clock.now())
            except asyncio.CancelledError:
                raise
            except Exception as error:  # our own fault, not the tick's: say so and go on with the next due time
                _log.error("driver_bug", f"The driver stumbled over loop {health.name}", loop=health.name, error=error)
                supervisor.restarted(health)
                tended.due = Instant(max(tended.due, clock.now()) + health.period)

    async def _sleep(self, supervisor: Supervisor, clock: Clock, tended: _Tended) -> Instant | None:
        """Wait for the due time; the nominal time to tick for, or None when there is nothing to tick for."""
        tended.asleep = True
        try:
            await clock.sleep_until(tended.due, tended.order)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not tended.woken or task is None or task.uncancel() > 0:
                raise
            tended.woken = False
            return clock.now()
        finally:
            tended.asleep = False
        if self._stopping:
            return None
        tended.due = supervisor.catch_up(tended.health, tended.due, clock.now())
        return tended.due

    async def _tick(self, supervisor: Supervisor, clock: Clock, tended: _Tended, nominal: Instant) -> None:
        health, loop = tended.health, tended.loop
        if supervisor.troubled:
            supervisor.watch(nominal)
        loop.arm(clock)
        health.ticks += 1
        health.running_since = nominal
        tended.watch = Stopwatch()
        delay = max(0.0, (clock.now() - nominal) / SECOND / (clock.speed or 1.0))
        token = in_tick.set(True)
        try:
            reason = await loop.tick(nominal)
        except asyncio.CancelledError:
            failure = self._why_cancelled(tended)
            if failure:
                supervisor.failed(health, clock.now(), TickEnded(failure))
        except (SystemExit, KeyboardInterrupt) as error:
            supervisor.failed(health, clock.now(), TickEnded(f"the tick tried to end the process: {error!r}"))
        except Exception as error:
            supervisor.failed(health, clock.now(), error)
        else:
            supervisor.succeeded(health, nominal, reason)
        finally:
            in_tick.reset(token)
            self._forget_ending(tended)
            health.running_since = None
            seconds = tended.watch.seconds()
            tended.watch = None
            health.last_tick_seconds = seconds
            health.busy_seconds += seconds
            if clock.now() > nominal + (loop.deadline or loop.period):
                health.late += 1
            if self._observe is not None:
                self._observe(health.name, seconds, delay)

    def _why_cancelled(self, tended: _Tended) -> str:
        """Why a tick ended in a cancellation; empty for a restart by a person. Raises when the task itself must end."""
        task = asyncio.current_task()
        if tended.ending and not self._stopping:
            why, tended.ending = tended.ending, ""
            if task is not None:
                task.uncancel()
            return "" if why == "restart" else why
        if self._stopping or (task is not None and task.cancelling()):
            raise asyncio.CancelledError
        return "the tick was cancelled from inside"

    def _forget_ending(self, tended: _Tended) -> None:
        """A tick that was to be ended came back by itself: take the cancellation back."""
        task = asyncio.current_task()
        if tended.ending and task is not None and not self._stopping:
            tended.ending = ""
            task.uncancel()

    # from outside

    def _restart(self, name: str) -> None:
        tended = self._tended[name]
        if tended.watch is not None:
            self._end_tick(tended, "restart")
        else:
            self._wake(name)

    def _wake(self, name: str) -> bool:
        tended = self._tended[name]
        if not tended.asleep or tended.woken or self._stopping or tended.task is None:
            return False
        tended.woken = True
        tended.task.cancel()
        return True

    def _end_tick(self, tended: _Tended, why: str) -> None:
        if not tended.ending and tended.task is not None:
            tended.ending = why
            tended.task.cancel()

    async def _monitor(self, supervisor: Supervisor, clock: Clock) -> None:
        """Look for ticks that do not come back. Never acts in a simulation: no time passes there during a tick."""
        while True:
            await asyncio.sleep(MONITOR_SECONDS)
            now = clock.now()
            for tended in self._tended.values():
                since = tended.health.running_since
                if tended.watch is None or since is None or now - since <= 3 * tended.health.period:
                    continue
                seconds = tended.watch.seconds()
                if seconds > HUNG_SECONDS:
                    supervisor.hanging(tended.health, now)
                if seconds > CANCEL_HUNG_SECONDS:
                    self._end_tick(tended, f"the tick hung for {seconds:.0f} s and was cancelled")


class SimDriver:
    """All loops in one task, as fast as they go, on simulated time."""

    def __init__(
        self, progress: Callable[[Instant, int], None] | None = None, progress_every: int = 4_096, timed: bool = False
    ) -> None:
        self._progress = progress
        """Told (simulated time, ticks so far) every `progress_every` ticks and at the end."""
        self._progress_every = progress_every
        self._timed = timed
        """Whether to measure the wall time of each loop into `LoopHealth.busy_seconds`."""
        self._stopping = False
        self.ticks = 0

    async def run(self, supervisor: Supervisor, clock: SimClock, until: Instant | None = None) -> None:
        """Tick everything due before `until`, or until `stop`; leaves the clock at `until`."""
        heap = self._heap(supervisor, clock.now())
        sleepers = clock.sleepers
        born = births[0]
        token = in_tick.set(True)
        try:
            while heap and not self._stopping:
                due, order, loop, health = heap[0]
                if until is not None and due >= until:
                    break
                if sleepers and sleepers[0][:2] <= (due, order):
                    await clock.wake_first()
                    continue
                clock.instant = due
                if supervisor.troubled:
                    supervisor.watch(due)
                if not health.paused:
                    await self._tick(supervisor, loop, health, due)
                following = supervisor.next_due(health, due, due)
                heapq.heapreplace(heap, (following, order, loop, health))
                self.ticks += 1
                if born != births[0]:
                    born = births[0]
                    await clock.let_newborn_rest()
                if self.ticks % BREATHE_EVERY == 0:
                    await asyncio.sleep(0)
                if self._progress is not None and self.ticks % self._progress_every == 0:
                    self._progress(due, self.ticks)
            await self._finish(clock, until)
        finally:
            in_tick.reset(token)

    async def stop(self, grace_seconds: float = 3.0) -> list[str]:
        """End `run` after the tick under way."""
        self._stopping = True
        return []

    @staticmethod
    def _heap(supervisor: Supervisor, start: Instant) -> list[tuple[Instant, int, Loop, LoopHealth]]:
        heap = [
            (supervisor.first_due(loop, start), order, loop, supervisor.health[loop.name])
            for order, loop in enumerate(supervisor.loops, start=1)
        ]
        heapq.heapify(heap)
        return heap

    async def _tick(self, supervisor: Supervisor, loop: Loop, health: LoopHealth, due: Instant) -> None:
        health.ticks += 1
        watch = Stopwatch() if self._timed else None
        try:
            reason = await loop.tick(due)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            supervisor.failed(health, due, TickEnded("the tick was cancelled from inside"))
        except (SystemExit, KeyboardInterrupt) as error:
            supervisor.failed(health, due, TickEnded(f"the tick tried to end the process: {error!r}"))
        except Exception as error:
            supervisor.failed(health, due, error)
        else:
            if health.failures_in_a_row or health.faulted:
                supervisor.succeeded(health, due, reason)
            else:
                health.last_success, health.last_reason = due, reason
        if watch is not None:
            health.busy_seconds += watch.seconds()

    async def _finish(self, clock: SimClock, until: Instant | None) -> None:
        if until is not None and not self._stopping:
            while clock.sleepers and clock.sleepers[0][0] < until:
                await clock.wake_first()
            clock.instant = max(clock.instant, until)
        if self._progress is not None:
            self._progress(clock.instant, self.ticks)
