"""What can go wrong between two programs that speak HTTP, and when: by chance from a seed, or by order."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from kiki_agent.sandbox.noise import seed_key, unit


class Trouble(StrEnum):
    """One way in which an exchange goes wrong. "Done" and "not done" are what the server knows of it."""

    LATENCY = "latency"
    """Done; request and answer take `seconds` longer."""
    RESET = "reset"
    """Not done; the connection is reset."""
    LOST = "lost"
    """Done, and the connection is reset instead of an answer."""
    THROTTLED = "throttled"
    """Not done; 429 with Retry-After in seconds."""
    THROTTLED_DATE = "throttled_date"
    """Not done; 429 with Retry-After as a date."""
    BROKEN = "broken"
    """Not done; 500, 502, 503 or 504."""
    TRUNCATED = "truncated"
    """Done; the answer's body ends in the middle."""
    SLOW = "slow"
    """Done; the answer's body arrives in pieces over `seconds`."""
    WRONG_TYPE = "wrong_type"
    """Done; a page of HTML with status 200 instead of the answer."""
    TWICE = "twice"
    """Done twice; the answer is the second one's."""
    REDIRECT = "redirect"
    """Not done; 307 to another path."""


WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Rule:
    """How often a kind of request gets into a kind of trouble."""

    trouble: Trouble
    share: float
    """Of the requests that fit, 0 to 1."""
    methods: Sequence[str] = ()
    """Which methods; all when empty."""
    path: str = ""
    """Regular expression searched for in path and query."""
    seconds: float = 0.05
    """How long latency and slow bodies take; what Retry-After asks for, rounded up."""
    burst: int = 1
    """So many fitting requests in a row get into it once one does."""

    def fits(self, method: str, path: str) -> bool:
        """Whether a request is of the kind that is meant."""
        return (not self.methods or method in self.methods) and re.search(self.path, path) is not None


class Weather:
    """Which request gets into which trouble: a function of seed and request number, and of what was ordered."""

    def __init__(self, rules: Sequence[Rule] = (), seed: int = 0) -> None:
        self.rules = list(rules)
        self.requests = 0
        """Requests so far."""
        self._key = seed_key(seed, 910_000)
        self._ordered: deque[Rule] = deque()
        self._bursts: dict[int, int] = {}

    def order(
        self, trouble: Trouble, *, methods: Sequence[str] = (), path: str = "", times: int = 1, seconds: float = 0.05
    ) -> None:
        """Let the next `times` requests that fit get into this trouble, before any chance is asked."""
        self._ordered.extend([Rule(trouble, 1.0, methods, path, seconds)] * times)

    def next(self, method: str, path: str) -> Rule | None:
        """The trouble of the next request; None for fair weather."""
        number = self.requests
        self.requests = number + 1
        for index, rule in enumerate(self._ordered):
            if rule.fits(method, path):
                del self._ordered[index]
                return rule
        for index, rule in enumerate(self.rules):
            if not rule.fits(method, path):
                continue
            left = self._bursts.get(index, 0)
            if left:
                self._bursts[index] = left - 1
                return rule
            if unit(self._key, number * 64 + index) < rule.share:
                self._bursts[index] = rule.burst - 1
                return rule
        return None
