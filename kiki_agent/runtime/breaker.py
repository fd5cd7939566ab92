"""A circuit breaker: after failures in a row nothing is sent for a while, then a few probes decide.

Pure: whoever asks hands in the present instant in microseconds and, when made, a source of chance for the jitter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal, cast

SECOND: Final = 1_000_000
PROBE_PATIENCE: Final = SECOND
"""Who finds all probes under way asks again after this many microseconds."""


class Circuit(IntEnum):
    """State of a breaker; the numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2

    @property
    def word(self) -> Literal["closed", "half_open", "open"]:
        """As answers spell it."""
        return cast(Literal["closed", "half_open", "open"], self.name.lower())


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a breaker opens, and how it closes again."""

    failures: int = 3
    """So many in a row open it."""
    reset: int = 30 * SECOND
    """Microseconds it stays open at least."""
    successes: int = 2
    """So many in a row close it again; as many probes may be under way at a time."""
    jitter: float = 0.1
    """Up to this share is added to `reset`, so that many breakers do not try again all at once."""


class Breaker:
    """One operation of one connector: `enter` before a call, `leave` after it, with the generation that was entered.

    Calls that began before the state changed no longer count when they end.
    """

    __slots__ = (
        "_drawn",
        "_probes",
        "_successes",
        "chance",
        "failures",
        "generation",
        "on_change",
        "opened_at",
        "rule",
        "state",
        "transitions",
    )

    def __init__(self, rule: BreakerRule, chance: Callable[[], float] = lambda: 0.0) -> None:
        """`chance()` is a number in [0, 1)."""
        self.rule = rule
        self.chance = chance
        self.state = Circuit.CLOSED
        self.failures = 0
        """Failures in a row."""
        self.opened_at: int | None = None
        """When it opened last, while it is not closed."""
        self.generation = 0
        """Grows with each change of state."""
        self.transitions = 0
        self.on_change: Callable[[Circuit], None] | None = None
        self._drawn = 0.0
        self._probes = 0
        self._successes = 0

    def enter(self, now: int) -> int:
        """Begin a call: 0. Or the instant from which to ask again, and then `leave` is not called."""
        if self.state is Circuit.CLOSED:
            return 0
        if self.state is Circuit.OPEN:
            due = self._due(now)
            if now < due:
                return due
            self._become(Circuit.HALF_OPEN)
        if self._probes >= self.rule.successes:
            return now + PROBE_PATIENCE
        self._probes += 1
        return 0

    def peek(self, now: int) -> int:
        """What `enter` would answer; begins nothing."""
        if self.state is Circuit.CLOSED:
            return 0
        if self.state is Circuit.OPEN:
            due = self._due(now)
            return due if now < due else 0
        return now + PROBE_PATIENCE if self._probes >= self.rule.successes else 0

    def leave(self, now: int, ok: bool, generation: int) -> None:
        """End a call that was entered in this generation."""
        if generation != self.generation:
            return
        if self.state is Circuit.CLOSED:
            if ok:
                self.failures = 0
                return
            self.failures += 1
            if self.failures >= self.rule.failures:
                self._open(now)
        elif self.state is Circuit.HALF_OPEN:
            self._probes -= 1
            if not ok:
                self.failures += 1
                self._open(now)
                return
            self._successes += 1
            if self._successes >= self.rule.successes:
                self.failures = 0
                self.opened_at = None
                self._become(Circuit.CLOSED)

    def withdraw(self, generation: int) -> None:
        """End a call that said nothing about the other side: nothing was sent."""
        if generation == self.generation and self.state is Circuit.HALF_OPEN:
            self._probes -= 1

    def close(self) -> None:
        """Close by order of a person; failures are forgotten."""
        self.failures = 0
        self.opened_at = None
        if self.state is not Circuit.CLOSED:
            self._become(Circuit.CLOSED)

    def _open(self, now: int) -> None:
        self.opened_at = now
        self._drawn = self.chance()
        self._become(Circuit.OPEN)

    def _due(self, now: int) -> int:
        """The instant from which probes go through, by the rule in force now.

        A clock that was put back does not keep the breaker open for longer than its time.
        """
        if self.opened_at is None or now < self.opened_at:
            self.opened_at = now
        return self.opened_at + round(self.rule.reset * (1 + self.rule.jitter * self._drawn))

    def _become(self, state: Circuit) -> None:
        self.state = state
        self.generation += 1
        self.transitions += 1
        self._probes = 0
        self._successes = 0
        if self.on_change is not None:
            self.on_change(state)
