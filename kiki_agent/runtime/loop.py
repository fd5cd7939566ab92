"""The shape of everything the agent does again and again."""

from __future__ import annotations

from abc import ABC, abstractmethod

from kiki_agent.model.time import Instant
from kiki_agent.runtime.clock import Clock


class Loop(ABC):
    """Something that is done once a period. It never sleeps and never reads a clock; a driver decides when it ticks."""

    name: str
    """Unique in the agent; shown in health, logs and metrics."""
    period: int
    """Microseconds between two due times."""
    deadline: int = 0
    """Microseconds after the start of a tick when no new work may begin; 0 means the period."""
    essential: bool = False
    """While an essential loop is faulted no spend may be raised."""
    first_due_at_start: bool = True
    """Whether the first tick comes at once or one period after the start."""

    _clock: Clock | None = None
    _stop_at: int = 0

    @abstractmethod
    async def tick(self, now: Instant) -> str | None:
        """Do the work of the due time `now`.

        Returns None when it acted, or one sentence saying why there was nothing to do. Raises when it failed.
        """

    def stop_new_work(self) -> bool:
        """True when the running tick has used up its time: finish what is under way, begin nothing new."""
        return self._clock is not None and self._clock.now() >= self._stop_at

    def arm(self, clock: Clock) -> None:
        """Start the time of one tick; for live drivers. In simulation no time passes inside a tick."""
        self._clock = clock
        self._stop_at = clock.now() + (self.deadline or self.period)

    def cut_short(self) -> None:
        """Let the running tick begin nothing new, because the agent is stopping."""
        self._stop_at = 0
