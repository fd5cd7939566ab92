"""Everything an ad platform does to its customers on a bad day, by rate or by order."""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from kiki_agent.sandbox.noise import seed_key, unit


class Fault(StrEnum):
    """One way a request can go wrong."""

    ERROR = "error"
    """500, nothing done."""
    GARBAGE = "garbage"
    """200 with a body that is no JSON, nothing done."""
    LOST = "lost"
    """Done, and the connection breaks instead of an answer."""
    FAILED = "failed"
    """200 that says inside that it failed, nothing done."""
    THROTTLED = "throttled"
    """429 with Retry-After, nothing done."""


BY_RATE = (Fault.ERROR, Fault.GARBAGE, Fault.LOST, Fault.FAILED)


class AnswerLost(ConnectionError):
    """The request was processed and its answer never sent; the server drops the connection."""


class Faults:
    """Which request fails, and how: a function of seed and request number, and of what a test ordered."""

    def __init__(self, rate: float = 0.0, seed: int = 0, *, fair_start: bool = False) -> None:
        """With `fair_start` so many requests go well first as there are on average between two that do not."""
        self.rate = rate
        self._fair = round(1 / rate) if fair_start and rate > 0 else 0
        self.requests = 0
        """Requests that could have failed so far."""
        self.injected = 0
        """Requests that did."""
        self._key = seed_key(seed, 900_000)
        self._ordered: deque[tuple[str, Fault]] = deque()

    def order(self, fault: Fault, *, path: str = "", times: int = 1) -> None:
        """Let the next `times` requests whose path contains `path` fail in this way."""
        self._ordered.extend([(path, fault)] * times)

    def next(self, path: str) -> Fault | None:
        """The fault of the next request."""
        number = self.requests
        self.requests = number + 1
        for index, (part, fault) in enumerate(self._ordered):
            if part in path:
                del self._ordered[index]
                self.injected += 1
                return fault
        if self.rate > 0 and number >= self._fair and unit(self._key, number * 2) < self.rate:
            self.injected += 1
            return BY_RATE[int(unit(self._key, number * 2 + 1) * len(BY_RATE))]
        return None
