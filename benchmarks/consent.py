"""What a legal basis costs: asked from memory, said durably, loaded at a start, and the tokens of a customer page.

    python benchmarks/consent.py [--grants 20000]

The reference in the same run is one look-up in a plain dictionary of the same size.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kiki_agent.consent import Consents, ConsentType, Vault, Vendors
from kiki_agent.ledger import Ledger
from kiki_agent.model import Instant, parse_iso
from kiki_agent.store import Store

NOON = parse_iso("2026-03-10T12:00:00Z")
T = ConsentType.TARGETING
SAID = 300
"""Durable grants one after the other, and as many at once."""


def _each(count: int, work: Callable[[], object]) -> float:
    """Microseconds of one of `count` that `work` does, the best of three."""
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best / count * 1e6


def _row(words: str, figure: float, unit: str) -> None:
    print(f"  {words:<64}{figure:>10,.2f} {unit}")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


async def _run(folder: Path, grants: int) -> None:
    store = await Store.open(folder / "a.db", now=NOON)
    ledger = await Ledger.open(store, folder / "a.head", client_id="bench", now=NOON)
    vault = await Vault.open(folder / "a.keys", folder / "a.erased")
    consents = Consents(store, ledger, vault, Vendors(755, {}), grants)
    names = [f"customer-{number:08d}" for number in range(grants)]
    begun = time.perf_counter()
    for at in range(0, grants, 1_000):
        await vault.tokens(names[at : at + 1_000], Instant(NOON + at))
    _row("token of a new customer, pages of 1,000, durable", (time.perf_counter() - begun) / grants * 1e6, "us")
    begun = time.perf_counter()
    for at in range(0, grants, 1_000):
        await vault.tokens(names[at : at + 1_000], Instant(NOON + at))
    _row("token of a known customer, pages of 1,000", (time.perf_counter() - begun) / grants * 1e6, "us")
    begun = time.perf_counter()
    for name in names[:SAID]:
        await consents.grant(name, T, NOON)
    _row("grant, one after the other, durable", (time.perf_counter() - begun) / SAID * 1e3, "ms")
    begun = time.perf_counter()
    for at in range(SAID, grants, 500):
        await asyncio.gather(*(consents.grant(name, T, NOON) for name in names[at : at + 500]))
    _row("grant, 500 at once, durable", (time.perf_counter() - begun) / (grants - SAID) * 1e3, "ms")
    await store.close()
    store = await Store.open(folder / "a.db", now=NOON)
    again = Consents(store, ledger, vault, Vendors(755, {}), grants)
    before = _resident()
    begun = time.perf_counter()
    await again.load(NOON)
    _row(f"load {again.held:,} grants at a start", time.perf_counter() - begun, "s")
    _row("memory of a grant", (_resident() - before) / again.held, "bytes")
    _ask(again, names)
    await store.close()
    await vault.close()


def _ask(consents: Consents, names: list[str]) -> None:
    basis, plain, probe = consents.basis, dict.fromkeys(names, "x"), names[:: max(1, len(names) // 5_000)]
    _row("basis, granted", _each(len(probe), lambda: [basis(name, T, "meta", NOON) for name in probe]), "us")
    _row("basis, nothing said", _each(10_000, lambda: [basis("nobody", T, "meta", NOON) for _ in range(10_000)]), "us")
    _row("reference: a plain dictionary", _each(len(probe), lambda: [plain.get(name) for name in probe]), "us")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grants", type=int, default=20_000)
    given = parser.parse_args()
    print(f"\nLegal basis, {given.grants:,} grants")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_run(Path(folder), given.grants))


if __name__ == "__main__":
    main()
