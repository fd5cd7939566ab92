"""What the shield costs: `python benchmarks/shield.py [--quick]`.

1. Permit the levels of all campaigns of six connectors in one call, as the two-second loop does it.
2. Reserve and commit placed bids through a real database, one after the other and many at once.

The sliding window alone stands in the table of `benchmarks/resilience.py`, beside libraries.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from kiki_agent.config import Settings
from kiki_agent.kernels import load_compiled
from kiki_agent.kernels.permits import permit
from kiki_agent.ledger import Ledger
from kiki_agent.model import SECOND, Instant, parse_iso
from kiki_agent.shield import Caps, LevelRequest, Shield
from kiki_agent.store import Store

NOON = parse_iso("2026-03-10T12:00:00")
SPAN = 600 * SECOND
UNIT = 1_000_000


def main() -> None:
    """Print both tables."""
    quick = "--quick" in sys.argv
    asyncio.run(levels([120] if quick else [120, 1_200, 12_000, 100_000]))
    asyncio.run(bids(200 if quick else 5_000))


async def levels(sizes: list[int]) -> None:
    """One call for all campaigns: twin, then machine code, and the kernel alone."""
    print(f"{'campaigns':>10} {'twin':>12} {'compiled':>12} {'kernel alone':>13} {'ns/campaign':>12}")
    figures: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store, shield = await opened(Path(folder), 6)
        for compiled in (False, True):
            if compiled:
                load_compiled()
                assert permit.compiled
            for size in sizes:
                request = columns(size)
                await shield.permit_levels(NOON, request)
                ticking = ticker(shield, request)
                figures.setdefault(size, []).append(
                    best(ticking, max(3, 400_000 // size if compiled else 3_000 // size))
                )
        for size in sizes:
            kernel = best(kernel_call(size), max(20, 400_000 // size))
            twin, whole = figures[size]
            print(
                f"{size:>10,} {twin / 1e3:>9,.1f} us {whole / 1e3:>9,.1f} us {kernel / 1e3:>10,.1f} us"
                f" {whole / size:>12,.0f}"
            )
        await store.close()
    print()


async def bids(count: int) -> None:
    """Durable reserve and commit of placed bids, with the ledger row of each."""
    with tempfile.TemporaryDirectory() as folder:
        store, shield = await opened(Path(folder), 1)

        async def bid(number: int) -> None:
            now = Instant(NOON + number)
            await shield.commit(await shield.place("c0", "x", 5, now), now)

        started = perf_counter_ns()
        for number in range(count // 10):
            await bid(number)
        alone = (perf_counter_ns() - started) / (count // 10)
        started = perf_counter_ns()
        await asyncio.gather(*(bid(number) for number in range(count)))
        together = (perf_counter_ns() - started) / count
        await store.close()
    print(f"placed bid, reserve and commit, synchronous=FULL: {alone / 1e3:,.0f} us one by one,")
    print(f"{together / 1e3:,.0f} us each of {count:,} at once ({1e9 / together:,.0f} bids/s)")


def best(call: Callable[[], None], times: int) -> float:
    """Nanoseconds of one call, the best of five rounds."""
    rounds = []
    for _ in range(5):
        started = perf_counter_ns()
        for _ in range(times):
            call()
        rounds.append((perf_counter_ns() - started) / times)
    return min(rounds)


def ticker(shield: Shield, request: LevelRequest) -> Callable[[], None]:
    """A tick that needs no lease ends without waiting, so it can be driven without a loop."""

    def tick() -> None:
        try:
            shield.permit_levels(NOON, request).send(None)
        except StopIteration:
            return
        raise AssertionError("the tick waited")

    return tick


def columns(size: int) -> LevelRequest:
    """Campaigns that differ, drawn from a seed."""
    rng = np.random.default_rng(1)
    return LevelRequest(
        connector=np.sort(rng.integers(0, 6, size)),
        wanted_bid=rng.integers(10_000, 2 * UNIT, size),
        min_bid=np.full(size, 10_000),
        daily_budget=rng.integers(10 * UNIT, 1_000 * UNIT, size),
        spend_today=rng.integers(0, 9 * UNIT, size),
        spend_rate=rng.integers(0, 10_000, size),
        data_age=rng.integers(0, 120 * SECOND, size),
        active=np.ones(size, dtype=np.uint8),
    )


def kernel_call(size: int) -> Callable[[], None]:
    """The kernel without the shield around it."""
    request = columns(size)
    facts = [getattr(request, name) for name in LevelRequest.__slots__]
    room = np.tile(np.array([10**14, 10**14, 0], dtype=np.int64), (6, 1))
    out = [np.empty(size, dtype=np.int64) for _ in range(3)]
    reason, held = np.empty(size, dtype=np.uint8), np.empty((6, 2), dtype=np.int64)

    def call() -> None:
        permit(*facts, room, 60 * SECOND, SPAN, *out, reason, held)

    return call


async def opened(folder: Path, connectors: int) -> tuple[Store, Shield]:
    """A shield on a database of its own."""
    store = await Store.open(folder / "bench.db", now=NOON)
    ledger = await Ledger.open(store, folder / "head", client_id="bench", now=NOON)
    caps = {f"c{number}": Caps(10**14, 10**14) for number in range(connectors)}
    return store, await Shield.open(store, ledger, Settings(), caps, NOON)


if __name__ == "__main__":
    main()
