"""What limits and circuits cost: `python benchmarks/resilience.py [--quick]`.

The limiter and the breaker beside libraries that do the same, in one table of one run. The libraries are no part of the
project; those that are not installed are left out, with a note how to have them:

    pip install aiolimiter pyrate-limiter limits pybreaker purgatory
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from functools import partial
from time import thread_time_ns
from typing import Any

from kiki_agent.hooks.guard import CircuitRule, Guard
from kiki_agent.hooks.specs import VERBS, Verb
from kiki_agent.model import Instant, Intent, IntentKind
from kiki_agent.runtime.breaker import Breaker, BreakerRule
from kiki_agent.runtime.clock import SimClock
from kiki_agent.runtime.limiter import Limiter, Priority, RateLimit

NOW = 1_790_000_000_000_000
ROUNDS = 9
Timed = Callable[[int], float]
"""Do so many operations; seconds of CPU they took, the empty loop taken off."""


def main() -> None:
    """Print both tables."""
    count = 2_000 if "--quick" in sys.argv else 20_000
    missing: list[str] = []
    table("Limiter: one call checked and counted, the window not full", limiters(missing), count)
    table("Limiter: one call refused, the window full", full_limiters(missing), count)
    table("Breaker: one call that works, the circuit closed", breakers(missing), count)
    table("Breaker: one call refused, the circuit open", open_breakers(missing), count)
    table("A whole call through the guard of a connector: limits, pace, circuit", guards(), count)
    for name in dict.fromkeys(missing):
        print(f"skipped: {name} is not installed (pip install {name})")


def table(title: str, rows: list[tuple[str, Timed]], count: int) -> None:
    """One line each, the best of several rounds, ours first."""
    print(f"{title}\n{'':<44} {'ns an operation':>16} {'times ours':>11}")
    ours = 0.0
    for name, timed in rows:
        best = min(timed(count) for _ in range(ROUNDS)) / count * 1e9
        ours = ours or best
        print(f"  {name:<42} {best:>16,.0f} {best / ours:>11.1f}")
    print()


def plain(function: Callable[[int], object]) -> Timed:
    """Time a function of the number of the operation."""

    def timed(count: int) -> float:
        begun = thread_time_ns()
        for number in range(count):
            function(number)
        took = thread_time_ns() - begun
        begun = thread_time_ns()
        for number in range(count):
            nothing(number)
        return max(took - (thread_time_ns() - begun), 1) / 1e9

    return timed


def nothing(number: int) -> None:
    """What the empty loop calls."""


def optional(name: str, package: str, missing: list[str]) -> Any:
    """A module, or None and a note."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing.append(package)
        return None


# -- limiters -------------------------------------------------------------------------------------------------------


def limiters(missing: list[str]) -> list[tuple[str, Timed]]:
    """Ours keeps an exact window and a guard of bursts; its instants are 61 ms apart, 984 of 1,000 calls are in it."""
    ours = Limiter(RateLimit(1_000, 60, 100))
    step = 61_000
    at = [NOW]

    def take(number: int) -> None:
        at[0] += step
        ours.take(at[0], Priority.FIRST)

    rows = [("kiki_agent Limiter, exact window and burst", plain(take))]
    aiolimiter = optional("aiolimiter", "aiolimiter", missing)
    if aiolimiter is not None:
        rows.append(("aiolimiter, leaky bucket", awaited(lambda: aiolimiter.AsyncLimiter(10**9, 1).acquire)))
    pyrate = optional("pyrate_limiter", "pyrate-limiter", missing)
    if pyrate is not None:
        rows.append(("pyrate-limiter, window in memory", plain(_pyrate(pyrate, 10**9))))
    limits = optional("limits", "limits", missing)
    if limits is not None:
        rows.append(("limits, moving window in memory", plain(_limits(limits, 1_000_000))))
    return rows


def full_limiters(missing: list[str]) -> list[tuple[str, Timed]]:
    """The question that is asked most while a limit is reached."""
    ours = Limiter(RateLimit(1_000, 60, 100))
    for _ in range(1_000):
        ours.take(NOW, burst=False)
    rows = [("kiki_agent Limiter", plain(lambda number: ours.take(NOW, Priority.FIRST)))]
    pyrate = optional("pyrate_limiter", "pyrate-limiter", missing)
    if pyrate is not None:
        ask = _pyrate(pyrate, 10)
        for number in range(11):
            ask(number)
        rows.append(("pyrate-limiter", plain(ask)))
    limits = optional("limits", "limits", missing)
    if limits is not None:
        hit = _limits(limits, 1_000)
        for number in range(1_001):
            hit(number)
        rows.append(("limits, moving window in memory", plain(hit)))
    return rows


def awaited(make: Callable[[], Callable[[], Any]]) -> Timed:
    """Time an `await` of what `make()` answers, within one running loop."""

    async def run(count: int) -> float:
        function = make()
        begun = thread_time_ns()
        for _ in range(count):
            await function()
        return (thread_time_ns() - begun) / 1e9

    return lambda count: asyncio.run(run(count))


def _pyrate(module: Any, calls: int) -> Callable[[int], object]:
    bucket = module.InMemoryBucket([module.Rate(calls, module.Duration.MINUTE)])
    limiter = module.Limiter(bucket)
    try:
        limiter.try_acquire("calls", blocking=False)
    except TypeError:  # before version 4 it never waited, and raised unless told otherwise
        limiter = module.Limiter(bucket, raise_when_fail=False)
        return lambda number: limiter.try_acquire("calls")
    return lambda number: limiter.try_acquire("calls", blocking=False)


def _limits(module: Any, calls: int) -> Callable[[int], object]:
    storage = importlib.import_module("limits.storage").MemoryStorage()
    limiter = importlib.import_module("limits.strategies").MovingWindowRateLimiter(storage)
    item = module.RateLimitItemPerMinute(calls)
    return lambda number: limiter.hit(item, "calls")


# -- breakers -------------------------------------------------------------------------------------------------------


def breakers(missing: list[str]) -> list[tuple[str, Timed]]:
    """A call that does nothing and succeeds."""
    ours = Breaker(BreakerRule())

    def call(number: int) -> None:
        if ours.enter(NOW) == 0:
            ours.leave(NOW, True, ours.generation)

    rows = [("kiki_agent Breaker", plain(call))]
    pybreaker = optional("pybreaker", "pybreaker", missing)
    if pybreaker is not None:
        theirs = pybreaker.CircuitBreaker(fail_max=3, reset_timeout=30)
        rows.append(("pybreaker", plain(lambda number: theirs.call(nothing, number))))
    purgatory = optional("purgatory", "purgatory", missing)
    if purgatory is not None:
        rows.append(("purgatory, in memory", plain(_purgatory(purgatory))))
    return rows


def open_breakers(missing: list[str]) -> list[tuple[str, Timed]]:
    """The answer while nothing is sent."""
    ours = Breaker(BreakerRule())
    for _ in range(3):
        ours.enter(NOW)
        ours.leave(NOW, False, ours.generation)
    rows = [("kiki_agent Breaker", plain(lambda number: ours.enter(NOW)))]
    pybreaker = optional("pybreaker", "pybreaker", missing)
    if pybreaker is not None:
        theirs = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=3_600)
        theirs.open()

        def refused(number: int) -> None:
            try:
                theirs.call(nothing, number)
            except pybreaker.CircuitBreakerError:
                return

        rows.append(("pybreaker, an exception", plain(refused)))
    return rows


def _purgatory(module: Any) -> Callable[[int], object]:
    factory = module.SyncCircuitBreakerFactory(default_threshold=3, default_ttl=30)

    def call(number: int) -> None:
        with factory.get_breaker("vendor"):
            nothing(number)

    return call


# -- both in their place ------------------------------------------------------------------------------------------


def guards() -> list[tuple[str, Timed]]:
    """`enter` before a plugin is called and `leave` after it; the plugin's own call is not in it."""
    clock = SimClock(Instant(NOW))
    limited = Guard("meta", clock, limit=RateLimit(200, 3_600), rule=CircuitRule())
    free = Guard("tiktok", clock, rule=CircuitRule())
    verbs = VERBS["connector"]
    intent = Intent("k", IntentKind.ADJUST_BID, "meta", "c1", 1, 2, "USD", "TEST", Instant(NOW))
    read, write, batch = verbs["fetch_spend"], verbs["adjust_bid"], ([intent] * 20,)
    return [
        (name, plain(partial(_through, guard, verb, args)))
        for name, guard, verb, args in (
            ("a change of 20 bids, with a call limit", limited, write, batch),
            ("a read, with a call limit", limited, read, (NOW,)),
            ("a read, without one", free, read, (NOW,)),
        )
    ]


def _through(guard: Guard, verb: Verb, args: tuple[object, ...], number: int) -> None:
    guard.leave(guard.enter(verb, args), verb, (), 0.0, 0.0)


if __name__ == "__main__":
    main()
