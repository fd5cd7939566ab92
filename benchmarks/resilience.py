"""What a check of money, calls and circuits costs: `python benchmarks/resilience.py [--quick]`.

One table of one run: the sliding window, the limiter and the breaker, each beside libraries that do the same, with 100,
10,000 and 1,000,000 records in it. The libraries are no part of the project; those that are not installed are left out,
with a note how to have them:

    pip install aiolimiter pyrate-limiter limits pybreaker purgatory
"""

from __future__ import annotations

import asyncio
import importlib
import os
import platform
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import thread_time_ns
from typing import Any

import numpy as np

from kiki_agent.hooks.guard import CircuitRule, Guard
from kiki_agent.hooks.specs import VERBS, Verb
from kiki_agent.kernels import load_compiled
from kiki_agent.model import Instant, Intent, IntentKind
from kiki_agent.runtime.breaker import Breaker, BreakerRule
from kiki_agent.runtime.clock import SimClock
from kiki_agent.runtime.limiter import Limiter, Priority, RateLimit
from kiki_agent.shield import SlidingWindow

NOW = 1_790_000_000_000_000
SPAN = 600_000_000
SIZES = (100, 10_000, 1_000_000)
ROUNDS = 7
LEAST = 20
NO_LIMIT = 10**15
Timed = Callable[[int], float]
"""Do so many operations; seconds of CPU they took, the empty loop taken off."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing to measure."""

    name: str
    make: Callable[[int], Timed]
    """How to time it with so many records in it."""
    holds: bool = True
    """Whether it holds records at all; what holds none is measured once."""
    grows: bool = False
    """Whether it holds more after each operation, so that few are made at a time."""


def main() -> None:
    """Print the table."""
    quick = "--quick" in sys.argv
    sizes = SIZES[:2] if quick else SIZES
    missing: list[str] = []
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"CPython {platform.python_version()}, {os.cpu_count()} cores, load {load}")
    print(f"{'ns of CPU an operation, with so many records in it':<60}" + "".join(f"{size:>14,}" for size in sizes))
    for title, rows in (
        ("Window: one spend checked and recorded", windows(missing)),
        ("Limiter: one call checked and counted, the window not full", limiters(missing)),
        ("Limiter: one call refused, the window full", full_limiters(missing)),
        ("Breaker: one call that works, the circuit closed", breakers(missing)),
        ("Breaker: one call refused, the circuit open", open_breakers(missing)),
        ("A whole call through the guard of a connector: limits, pace, circuit", guards()),
    ):
        print(title)
        for row in rows:
            figures = (measured(row, size, 2_000 if quick else 20_000) for size in (sizes if row.holds else sizes[:1]))
            print(f"  {row.name:<58}" + "".join(f"{each:>14,.{1 if each < 100 else 0}f}" for each in figures))
    for name in dict.fromkeys(missing):
        print(f"skipped: {name} is not installed (pip install {name})")


def measured(row: Row, size: int, count: int) -> float:
    """Nanoseconds of CPU an operation, the best of several rounds, each of some milliseconds."""
    timed = row.make(size)
    timed(LEAST)
    if row.grows:
        count = min(count, max(LEAST, size // 20))
    count = max(LEAST, min(count, round(0.02 / max(timed(LEAST) / LEAST, 1e-9))))
    return min(timed(count) for _ in range(ROUNDS)) / count * 1e9


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


def same(timed: Timed) -> Callable[[int], Timed]:
    """For what holds no records."""
    return lambda size: timed


def nothing(number: int) -> None:
    """What the empty loop calls."""


def optional(name: str, package: str, missing: list[str]) -> Any:
    """A module, or None and a note."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing.append(package)
        return None


# -- windows --------------------------------------------------------------------------------------------------------


def windows(missing: list[str]) -> list[Row]:
    """As many records fall out of ours, the list and the deque as come in; the libraries only ever take in.

    They count calls, one record each, so they are given amounts of 1; ours and the list sum up amounts.
    """
    load_compiled(["kiki_agent.kernels.windows"])
    rows = [
        Row("kiki_agent SlidingWindow, one by one", _one_by_one),
        Row("kiki_agent SlidingWindow, in a batch", _in_a_batch),
        Row("a deque and its sum, for a clock that never jumps", _deque),
        Row("a list, scanned", _scan),
    ]
    limits = optional("limits", "limits", missing)
    if limits is not None:
        rows.append(Row("limits, moving window in memory", partial(_limits_window, limits), grows=True))
    pyrate = optional("pyrate_limiter", "pyrate-limiter", missing)
    if pyrate is not None:
        rows.append(Row("pyrate-limiter, bucket in memory", partial(_pyrate_window, pyrate), grows=True))
    return rows


def _full(size: int) -> tuple[SlidingWindow, int]:
    """A window with so many records, and the time between them."""
    window, gap = SlidingWindow(SPAN), SPAN // size
    for number in range(size):
        window.record(NOW + number * gap, 5)
    return window, gap


def _one_by_one(size: int) -> Timed:
    window, gap = _full(size)
    spend, at = window.try_spend, NOW + size * gap

    def timed(count: int) -> float:
        nonlocal at
        now = at
        begun = thread_time_ns()
        for _ in range(count):
            now += gap
            spend(now, 5, NO_LIMIT)
        took = thread_time_ns() - begun
        at, now = now, at
        begun = thread_time_ns()
        for _ in range(count):
            now += gap
        return max(took - (thread_time_ns() - begun), 1) / 1e9

    return timed


def _in_a_batch(size: int) -> Timed:
    window, gap = _full(size)
    at = NOW + size * gap

    def timed(count: int) -> float:
        nonlocal at
        instants = np.arange(1, count + 1, dtype=np.int64) * gap + at
        amounts = np.full(count, 5, dtype=np.int64)
        at = int(instants[-1])
        begun = thread_time_ns()
        window.try_spend_all(instants, amounts, NO_LIMIT)
        return (thread_time_ns() - begun) / 1e9

    return timed


def _deque(size: int) -> Timed:
    gap = SPAN // size
    log = deque((NOW + number * gap, 5) for number in range(size))
    at, total = NOW + size * gap, 5 * size

    def spend(number: int) -> None:
        nonlocal at, total
        at += gap
        while log and log[0][0] <= at - SPAN:
            total -= log.popleft()[1]
        if total + 5 <= NO_LIMIT:
            log.append((at, 5))
            total += 5

    return plain(spend)


def _scan(size: int) -> Timed:
    gap = SPAN // size
    log = [(NOW + number * gap, 5) for number in range(size)]
    at = NOW + size * gap

    def spend(number: int) -> None:
        nonlocal at
        at += gap
        log[:] = [each for each in log if each[0] + SPAN > at]
        if sum(amount for _, amount in log) + 5 <= NO_LIMIT:
            log.append((at, 5))

    return plain(spend)


def _limits_window(module: Any, size: int) -> Timed:
    memory = importlib.import_module("limits.storage.memory")
    storage = memory.MemoryStorage()
    item = module.RateLimitItemPerHour(NO_LIMIT)
    storage.events[item.key_for("calls")] = [memory.Entry(3_600) for _ in range(size)]
    limiter = importlib.import_module("limits.strategies").MovingWindowRateLimiter(storage)
    return plain(lambda number: limiter.hit(item, "calls"))


def _pyrate_window(module: Any, size: int) -> Timed:
    bucket = module.InMemoryBucket([module.Rate(NO_LIMIT, module.Duration.HOUR)])
    limiter = module.Limiter(bucket)
    limiter.try_acquire("calls", blocking=False)
    bucket.items.extend([bucket.items[0]] * size)
    return plain(lambda number: limiter.try_acquire("calls", blocking=False))


# -- limiters -------------------------------------------------------------------------------------------------------


def limiters(missing: list[str]) -> list[Row]:
    """Ours keeps an exact window and a guard of bursts; 984 of 1,000 calls of its window are in it."""
    rows = [Row("kiki_agent Limiter, exact window and burst", _limiter)]
    aiolimiter = optional("aiolimiter", "aiolimiter", missing)
    if aiolimiter is not None:
        leaky = awaited(lambda: aiolimiter.AsyncLimiter(10**9, 1).acquire)
        rows.append(Row("aiolimiter, leaky bucket", same(leaky), holds=False))
    pyrate = optional("pyrate_limiter", "pyrate-limiter", missing)
    if pyrate is not None:
        rows.append(Row("pyrate-limiter, bucket in memory", partial(_pyrate_window, pyrate), grows=True))
    limits = optional("limits", "limits", missing)
    if limits is not None:
        rows.append(Row("limits, moving window in memory", partial(_limits_window, limits), grows=True))
    return rows


def full_limiters(missing: list[str]) -> list[Row]:
    """The question that is asked most while a limit is reached."""
    rows = [Row("kiki_agent Limiter", _full_limiter)]
    pyrate = optional("pyrate_limiter", "pyrate-limiter", missing)
    if pyrate is not None:
        rows.append(Row("pyrate-limiter, bucket in memory", partial(_full_pyrate, pyrate)))
    limits = optional("limits", "limits", missing)
    if limits is not None:
        rows.append(Row("limits, moving window in memory", partial(_full_limits, limits)))
    return rows


def _limiter(size: int) -> Timed:
    ours = Limiter(RateLimit(size, 60, max(1, size // 10)))
    step = 61_000_000 // size
    at = NOW

    def take(number: int) -> None:
        nonlocal at
        at += step
        ours.take(at, Priority.FIRST)

    for number in range(size):
        take(number)
    return plain(take)


def _full_limiter(size: int) -> Timed:
    ours = Limiter(RateLimit(size, 60, max(1, size // 10)))
    for _ in range(size):
        ours.take(NOW, burst=False)
    return plain(lambda number: ours.take(NOW, Priority.FIRST))


def _full_pyrate(module: Any, size: int) -> Timed:
    bucket = module.InMemoryBucket([module.Rate(size, module.Duration.HOUR)])
    limiter = module.Limiter(bucket)
    limiter.try_acquire("calls", blocking=False)
    bucket.items.extend([bucket.items[0]] * (size - 1))
    return plain(lambda number: limiter.try_acquire("calls", blocking=False))


def _full_limits(module: Any, size: int) -> Timed:
    memory = importlib.import_module("limits.storage.memory")
    storage = memory.MemoryStorage()
    item = module.RateLimitItemPerHour(size)
    storage.events[item.key_for("calls")] = [memory.Entry(3_600) for _ in range(size)]
    limiter = importlib.import_module("limits.strategies").MovingWindowRateLimiter(storage)
    return plain(lambda number: limiter.hit(item, "calls"))


def awaited(make: Callable[[], Callable[[], Any]]) -> Timed:
    """Time an `await` of what `make()` answers, within one running loop."""

    async def run(count: int) -> float:
        function = make()
        begun = thread_time_ns()
        for _ in range(count):
            await function()
        return (thread_time_ns() - begun) / 1e9

    return lambda count: asyncio.run(run(count))


# -- breakers -------------------------------------------------------------------------------------------------------


def breakers(missing: list[str]) -> list[Row]:
    """A call that does nothing and succeeds."""
    ours = Breaker(BreakerRule())

    def call(number: int) -> None:
        if ours.enter(NOW) == 0:
            ours.leave(NOW, True, ours.generation)

    rows = [Row("kiki_agent Breaker", same(plain(call)), holds=False)]
    pybreaker = optional("pybreaker", "pybreaker", missing)
    if pybreaker is not None:
        theirs = pybreaker.CircuitBreaker(fail_max=3, reset_timeout=30)
        rows.append(Row("pybreaker", same(plain(lambda number: theirs.call(nothing, number))), holds=False))
    purgatory = optional("purgatory", "purgatory", missing)
    if purgatory is not None:
        rows.append(Row("purgatory, in memory", same(plain(_purgatory(purgatory))), holds=False))
    return rows


def open_breakers(missing: list[str]) -> list[Row]:
    """The answer while nothing is sent."""
    ours = Breaker(BreakerRule())
    for _ in range(3):
        ours.enter(NOW)
        ours.leave(NOW, False, ours.generation)
    rows = [Row("kiki_agent Breaker", same(plain(lambda number: ours.enter(NOW))), holds=False)]
    pybreaker = optional("pybreaker", "pybreaker", missing)
    if pybreaker is not None:
        theirs = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=3_600)
        theirs.open()

        def refused(number: int) -> None:
            try:
                theirs.call(nothing, number)
            except pybreaker.CircuitBreakerError:
                return

        rows.append(Row("pybreaker, an exception", same(plain(refused)), holds=False))
    return rows


def _purgatory(module: Any) -> Callable[[int], object]:
    factory = module.SyncCircuitBreakerFactory(default_threshold=3, default_ttl=30)

    def call(number: int) -> None:
        with factory.get_breaker("vendor"):
            nothing(number)

    return call


# -- both in their place ------------------------------------------------------------------------------------------


def guards() -> list[Row]:
    """`enter` before a plugin is called and `leave` after it; the plugin's own call is not in it."""
    clock = SimClock(Instant(NOW))
    limited = Guard("meta", clock, limit=RateLimit(200, 3_600), rule=CircuitRule())
    free = Guard("tiktok", clock, rule=CircuitRule())
    verbs = VERBS["connector"]
    intent = Intent("k", IntentKind.ADJUST_BID, "meta", "c1", 1, 2, "USD", "TEST", Instant(NOW))
    read, write, batch = verbs["fetch_spend"], verbs["adjust_bid"], ([intent] * 20,)
    return [
        Row(name, same(plain(partial(_through, guard, verb, args))), holds=False)
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
