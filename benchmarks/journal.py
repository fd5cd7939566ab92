"""The journal: durable chained rows a second, how long one append and one read take meanwhile, and verification.

Beside the reference in the same run: one commit per row, and one commit per row with the chain. Run it with
`python benchmarks/journal.py [--seconds 4] [--folder DIR]`; DIR must be on the disk that is meant.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from kiki_agent.ledger import DecisionBook, Ledger
from kiki_agent.model import SECOND, Decision, DecisionOutcome, DecisionSource, Instant
from kiki_agent.runtime.clock import Stopwatch
from kiki_agent.store import Store

BODY = {"connector": "meta", "campaign_id": "c-17", "bid_micros": 1_250_000, "reason": "ON_PLAN", "outcome": "ACCEPTED"}
TEXT = '{"bid_micros":1250000,"campaign_id":"c-17","connector":"meta","outcome":"ACCEPTED","reason":"ON_PLAN"}'
Row = tuple[str, str, str]


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def figures(name: str, rows: int, seconds: float, waits: list[float]) -> Row:
    waited = f"{1_000 * quantile(waits, 0.5):.2f} / {1_000 * quantile(waits, 0.99):.2f}" if waits else ""
    return name, f"{rows / seconds:,.0f}", waited


def one_commit_per_row(path: Path, seconds: float) -> Row:
    """What a program does that thinks of one row at a time."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE rows (seq INTEGER PRIMARY KEY, at INTEGER, kind TEXT, body TEXT, hash BLOB) STRICT"
    )
    watch, waits, rows, digest = Stopwatch(), list[float](), 0, bytes(32)
    while watch.seconds() < seconds:
        one = Stopwatch()
        digest = sha256(digest + TEXT.encode()).digest()
        connection.execute("INSERT INTO rows VALUES (?, ?, 'decision', ?, ?)", (rows, rows, TEXT, digest))
        waits.append(one.seconds())
        rows += 1
    passed = watch.seconds()
    connection.close()
    return figures("one commit per row (reference)", rows, passed, waits)


async def appends(store: Store, ledger: Ledger, seconds: float, lanes: int) -> tuple[int, float, list[float]]:
    """`lanes` callers that each append one row, wait until it is durable, and append the next."""
    waits: list[float] = []
    watch = Stopwatch()

    def work(connection: sqlite3.Connection) -> int:
        return ledger.append(connection, Instant(1), "decision", BODY)

    async def lane() -> None:
        while watch.seconds() < seconds:
            one = Stopwatch()
            await store.write(work)
            waits.append(one.seconds())

    await asyncio.gather(*[lane() for _ in range(lanes)])
    return len(waits), watch.seconds(), waits


async def reads_meanwhile(store: Store, work: Callable[[], Awaitable[tuple[int, float, list[float]]]]) -> list[Row]:
    """A reader that asks for fifty rows every 5 ms while the work runs."""
    waits: list[float] = []
    done = asyncio.Event()

    def read(connection: sqlite3.Connection) -> object:
        return connection.execute("SELECT seq, at, body FROM ledger_entries ORDER BY seq DESC LIMIT 50").fetchall()

    async def reader() -> None:
        while not done.is_set():
            one = Stopwatch()
            await store.read(read)
            waits.append(one.seconds())
            await asyncio.sleep(0.005)

    task = asyncio.create_task(reader())
    rows, seconds, appended = await work()
    done.set()
    await task
    return [
        figures("group commit with chain, each row waited for", rows, seconds, appended),
        figures("   reads of 50 rows meanwhile", len(waits), seconds, waits),
    ]


async def book(store: Store, ledger: Ledger, ticks: int, changes: int) -> Row:
    """The two-second loop's way: nobody waits, the queue's mark holds it back."""
    decisions = DecisionBook(store, ledger)
    await decisions.load()
    watch, held = Stopwatch(), 0.0
    for number in range(ticks):
        now = Instant(number * 2 * SECOND)
        changed = [
            Decision("meta", f"c-{n}", "meta", number, DecisionOutcome.ACCEPTED, "ON_PLAN", DecisionSource.AI, "v1", 1)
            for n in range(changes)
        ]
        one = Stopwatch()
        decisions.record(now, changed)
        decisions.tick(now)
        held += one.seconds()
        await store.room()
    await store.drain()
    rows = ticks * changes
    name = f"decision book, {changes} changed a tick ({1e6 * held / rows:.1f} us each on the event loop)"
    return figures(name, rows, watch.seconds(), [])


async def verify(ledger: Ledger) -> Row:
    watch = Stopwatch()
    found = await ledger.verify()
    assert found.ok, found.problem
    return figures(f"verify the whole chain of {found.entries:,} entries", found.entries, watch.seconds(), [])


async def main(seconds: float, folder: Path) -> None:
    table = [one_commit_per_row(folder / "reference.db", seconds)]
    for lanes in (1, 64, 256, 512):
        store = await Store.open(folder / f"lanes{lanes}.db", now=Instant(1))
        ledger = await Ledger.open(store, folder / f"lanes{lanes}.head", client_id="bench", now=Instant(1))
        rows = await reads_meanwhile(store, lambda s=store, g=ledger, n=lanes: appends(s, g, seconds, n))  # type: ignore[misc]
        table += [(f"{rows[0][0]}, {lanes} at once", *rows[0][1:]), rows[1]]
        await store.close()
    store = await Store.open(folder / "book.db", now=Instant(1))
    ledger = await Ledger.open(store, folder / "book.head", client_id="bench", now=Instant(1))
    table.append(await book(store, ledger, 20_000, 1))
    table.append(await book(store, ledger, 20_000, 6))
    table.append(await verify(ledger))
    await store.close()
    width = max(len(row[0]) for row in table)
    print(f"{'synchronous=FULL':{width}}  {'rows/s':>10}  ms p50 / p99")
    for name, rate, waited in table:
        print(f"{name:{width}}  {rate:>10}  {waited}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each of the timed parts runs")
    parser.add_argument("--folder", type=Path, help="where the databases are made; default: the temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        asyncio.run(main(arguments.seconds, Path(name)))
