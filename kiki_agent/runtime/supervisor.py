"""Each loop watched alone: health, back-off after failures, and the freeze of spend while an essential one is faulted.

A driver reports every tick here and asks when the next one is due. All rules count in nominal time, so the same script
gives the same states live and simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from kiki_agent.model.time import SECOND, Instant
from kiki_agent.runtime.clock import Clock
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.loop import Loop
from kiki_agent.runtime.signals import Signals

LONGEST_BACK_OFF = 60 * SECOND
FAILURES_TO_FAULT = 5
PERIODS_TO_FAULT = 3

_NEVER = Instant(0)
_T = TypeVar("_T")
_log = get_logger("supervisor")


class LoopState(StrEnum):
    """How a loop is doing."""

    OK = "ok"
    FAILING = "failing"
    FAULTED = "faulted"
    PAUSED = "paused"


@dataclass(slots=True)
class LoopHealth:
    """What is known about one loop. Read it anywhere; only supervisor and driver write it."""

    name: str
    essential: bool
    period: int
    paused: bool = False
    faulted: bool = False
    failures_in_a_row: int = 0
    ticks: int = 0
    """Ticks begun."""
    failures: int = 0
    late: int = 0
    """Ticks that ended after their deadline, counted from the due time."""
    skipped: int = 0
    """Due times that passed while an earlier tick still ran, or the process stood still."""
    restarts: int = 0
    last_success: Instant | None = None
    """Due time of the last tick that did not fail."""
    last_reason: str | None = None
    """Why the last successful tick had nothing to do; None when it acted."""
    last_error: str = ""
    """Text of the last failure; kept after recovery."""
    next_due: Instant = _NEVER
    last_tick_seconds: float = 0.0
    """Wall time of the last tick; 0 in simulation."""
    busy_seconds: float = 0.0
    """Wall time of all ticks together."""
    running_since: Instant | None = None
    """Due time of the tick under way."""
    waiting_since: Instant = _NEVER
    """Where the age of the last success is counted from before there is one, and after a pause."""
    back_off_until: Instant = _NEVER

    @property
    def state(self) -> LoopState:
        """Paused, faulted, failing or ok, in this order of importance."""
        if self.paused:
            return LoopState.PAUSED
        if self.faulted:
            return LoopState.FAULTED
        return LoopState.FAILING if self.failures_in_a_row else LoopState.OK

    def age_seconds(self, now: Instant) -> float | None:
        """Seconds since the last successful tick, None before the first."""
        return None if self.last_success is None else max(0, now - self.last_success) / SECOND


@dataclass(frozen=True, slots=True)
class LoopReport:
    """Health of one loop at one moment, ready to be shown."""

    name: str
    state: LoopState
    essential: bool
    interval_s: float
    age_s: float | None
    """Seconds since the last successful tick."""
    reason: str | None
    """Why nothing was done, or why it fails."""
    next_due: Instant
    ticks: int
    late: int
    skipped: int
    failures: int
    restarts: int
    last_error: str
    last_tick_ms: float


@dataclass(eq=False)
class Supervisor:
    """Keeps the health of all loops. The order of `loops` is their order at one due time."""

    loops: Sequence[Loop]
    clock: Clock
    signals: Signals = field(default_factory=Signals)
    on_fault: Callable[[LoopHealth], None] | None = None
    """Called when a loop becomes faulted."""
    on_freeze: Callable[[bool], None] | None = None
    """Called when `frozen` changes."""
    on_restart: Callable[[str], None] | None = None
    """Called for each loop that had to be restarted."""
    health: dict[str, LoopHealth] = field(init=False)
    frozen: bool = field(default=False, init=False)
    """True while an essential loop is faulted: no spend may be raised."""
    troubled: list[LoopHealth] = field(default_factory=list, init=False)
    """Loops that are failing or faulted; empty in good times, so that watching costs nothing."""
    restarter: Callable[[str], None] | None = field(default=None, init=False)
    """Set by a running live driver: ends the tick under way."""
    waker: Callable[[str], bool] | None = field(default=None, init=False)
    """Set by a running live driver: ticks a sleeping loop now."""

    def __post_init__(self) -> None:
        self.health = {}
        for loop in self.loops:
            if loop.name in self.health:
                raise ValueError(f"two loops are called {loop.name!r}")
            if loop.period <= 0:
                raise ValueError(f"the period of loop {loop.name!r} must be positive, was {loop.period}")
            self.health[loop.name] = LoopHealth(loop.name, loop.essential, loop.period)

    # what a driver reports and asks

    def first_due(self, loop: Loop, start: Instant) -> Instant:
        """Due time of the first tick after a start at `start`."""
        health = self.health[loop.name]
        health.next_due = start if loop.first_due_at_start else Instant(start + loop.period)
        health.waiting_since = health.next_due
        return health.next_due

    def watch(self, now: Instant) -> None:
        """Fault what has been without success for too long; a driver calls this while anything is troubled."""
        for health in list(self.troubled):
            self._judge(health, now)

    def hanging(self, health: LoopHealth, now: Instant) -> None:
        """A tick does not come back; a live driver reports this from time to time."""
        self._judge(health, now, hanging=True)

    def succeeded(self, health: LoopHealth, due: Instant, reason: str | None) -> None:
        """A tick came back."""
        health.last_success = due
        health.last_reason = reason
        if health.failures_in_a_row or health.faulted:
            self._recovered(health)

    def failed(self, health: LoopHealth, now: Instant, error: BaseException) -> None:
        """A tick raised: back off, and fault the loop when it was one too many."""
        health.failures += 1
        health.failures_in_a_row += 1
        health.last_error = f"{type(error).__name__}: {error}"
        exponent = min(health.failures_in_a_row - 1, 16)
        health.back_off_until = Instant(now + min(LONGEST_BACK_OFF, SECOND << exponent))
        if health not in self.troubled:
            self.troubled.append(health)
        if health.failures_in_a_row == 1:
            _log.error("loop_failing", f"{health.name} failed and will be tried again", loop=health.name, error=error)
            self._tell("loop.failing", health)
        else:
            _log.debug("loop_still_failing", loop=health.name, failures=health.failures_in_a_row, why=health.last_error)
        self._judge(health, now)

    def next_due(self, health: LoopHealth, due: Instant, now: Instant) -> Instant:
        """The due time after `due`, on the same grid: past the back-off, past what is overdue (counted as skipped).

        A due time that is exactly now is not overdue. When the clock was put back far, the grid follows it.
        """
        period = health.period
        following = due + period
        if health.failures_in_a_row and following < health.back_off_until:
            following = due - (due - health.back_off_until) // period * period
        if following < now:
            missed = -((following - now) // period)
            health.skipped += missed
            following += missed * period
        health.next_due = Instant(following)
        return self.after_step(health, health.next_due, now)

    def after_step(self, health: LoopHealth, due: Instant, now: Instant) -> Instant:
        """`due`, or an earlier point of its grid when a clock that was put back left it far in the future."""
        back_off_end = health.back_off_until if health.failures_in_a_row else 0
        allowed = max(now + health.period + SECOND, back_off_end) + health.period
        if due > allowed:
            health.back_off_until = min(health.back_off_until, Instant(now + LONGEST_BACK_OFF))
            health.last_success = None if health.last_success is None else min(health.last_success, now)
            health.waiting_since = min(health.waiting_since, now)
            due = Instant(due - (due - now - 1) // health.period * health.period)
        health.next_due = due
        return due

    def catch_up(self, health: LoopHealth, due: Instant, now: Instant) -> Instant:
        """The due time a loop that woke up for `due` should tick for: the latest that has come; others are skipped."""
        missed = (now - due) // health.period
        if missed > 0:
            health.skipped += missed
            return Instant(due + missed * health.period)
        return self.after_step(health, due, now)

    def restarted(self, health: LoopHealth) -> None:
        """A loop's task ended by itself, or a person restarted it."""
        health.restarts += 1
        if self.on_restart is not None:
            self.on_restart(health.name)

    # what people ask

    def pause(self, name: str) -> None:
        """Let due times pass without ticking. KeyError if there is no such loop."""
        health = self.health[name]
        if not health.paused:
            health.paused = True
            self._tell("loop.paused", health)
            self._refreeze()

    def resume(self, name: str) -> None:
        """Tick again from the next due time on. KeyError if there is no such loop."""
        health = self.health[name]
        if health.paused:
            health.paused = False
            health.waiting_since = self.clock.now()
            self._tell("loop.resumed", health)
            self._refreeze()

    def restart(self, name: str) -> None:
        """Forget the back-off, end a tick under way, else tick at once. KeyError if there is no such loop."""
        health = self.health[name]
        health.back_off_until = Instant(0)
        self.restarted(health)
        if self.restarter is not None:
            self.restarter(name)

    def run_now(self, name: str) -> bool:
        """Tick a waiting loop now, outside its grid; False if it is running, paused, or there is no live driver."""
        health = self.health[name]
        return self.waker is not None and not health.paused and self.waker(name)

    def report(self, now: Instant | None = None) -> list[LoopReport]:
        """Health of all loops, for `/status` and `/health`."""
        moment = self.clock.now() if now is None else now
        return [
            LoopReport(
                name=health.name,
                state=health.state,
                essential=health.essential,
                interval_s=health.period / SECOND,
                age_s=health.age_seconds(moment),
                reason=_reason(health),
                next_due=health.next_due,
                ticks=health.ticks,
                late=health.late,
                skipped=health.skipped,
                failures=health.failures,
                restarts=health.restarts,
                last_error=health.last_error,
                last_tick_ms=round(health.last_tick_seconds * 1_000, 3),
            )
            for health in self.health.values()
        ]

    # inside

    def _judge(self, health: LoopHealth, now: Instant, *, hanging: bool = False) -> None:
        if health.faulted or health.paused:
            return
        since = max(health.waiting_since, health.last_success or 0)
        starved = now - since > PERIODS_TO_FAULT * health.period
        if not starved and health.failures_in_a_row < FAILURES_TO_FAULT:
            return
        health.faulted = True
        if health not in self.troubled:
            self.troubled.append(health)
        if hanging:
            health.last_error = f"a tick has been running for {(now - since) / SECOND:.0f} s"
        _log.error(
            "loop_faulted",
            f"{health.name} is faulted{'; spend is frozen' if health.essential else ''}",
            loop=health.name,
            failures=health.failures_in_a_row,
            why=health.last_error,
        )
        self._tell("loop.faulted", health)
        if self.on_fault is not None:
            _guarded(self.on_fault, health)
        self._refreeze()

    def _recovered(self, health: LoopHealth) -> None:
        _log.info("loop_recovered", f"{health.name} works again", loop=health.name, failures=health.failures_in_a_row)
        health.failures_in_a_row = 0
        health.faulted = False
        health.back_off_until = Instant(0)
        if health in self.troubled:
            self.troubled.remove(health)
        self._tell("loop.recovered", health)
        self._refreeze()

    def _refreeze(self) -> None:
        frozen = any(health.faulted and health.essential for health in self.health.values())
        if frozen != self.frozen:
            self.frozen = frozen
            names = [health.name for health in self.health.values() if health.faulted and health.essential]
            self.signals.publish("spend.frozen" if frozen else "spend.thawed", {"loops": names})
            if self.on_freeze is not None:
                _guarded(self.on_freeze, frozen)

    def _tell(self, topic: str, health: LoopHealth) -> None:
        self.signals.publish(topic, {"loop": health.name, "essential": health.essential, "error": health.last_error})


def _guarded(callback: Callable[[_T], None], argument: _T) -> None:
    try:
        callback(argument)
    except Exception as error:  # whoever listens must not stop the watch
        _log.error("callback_failed", "A listener of the supervisor failed", error=error)


def _reason(health: LoopHealth) -> str | None:
    if health.paused:
        return "paused by a person"
    if health.failures_in_a_row or health.faulted:
        return health.last_error
    return health.last_reason
