"""A process that appends and seals until it is killed: `python seal_run.py FOLDER`. Says `go` once it has begun."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from itertools import count
from pathlib import Path

from kiki_agent.ledger import Ledger
from kiki_agent.ledger.sealing import Sealer
from kiki_agent.model import Instant
from kiki_agent.store import Store


async def run(folder: Path) -> None:
    """Every round appends entries, and seals what is a few rounds old; bodies of decisions go some rounds later."""
    store = await Store.open(folder / "agent.db", now=Instant(0))
    begun = await store.read(
        lambda connection: connection.execute("SELECT coalesce(max(at), 0) FROM ledger_entries").fetchone()[0]
    )
    ledger = await Ledger.open(store, folder / "agent.head", client_id="demo", now=Instant(begun))
    assert ledger.hold_reason is None, ledger.hold_reason
    sealer = Sealer(store, ledger, hot=40, keep={"decision": 300}, rows=50, batch=10)
    print("go", flush=True)
    for now in count(begun + 1, 10):

        def append(connection: sqlite3.Connection, now: int = now) -> None:
            for number in range(30):
                ledger.append(connection, Instant(now), ("decision", "spend", "consent")[number % 3], {"n": number})

        await store.write(append)
        await ledger.write_head()
        await sealer.run(Instant(now))


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
