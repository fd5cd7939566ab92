"""Kills a writing process again and again, and looks at what it left; started by test_crash.py in a process of its own.

Prints one JSON object: kills, acknowledged entries, how many of them are missing, and what was wrong.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from kiki_agent.ledger import DecisionBook, Ledger, verify_file
from kiki_agent.model import Decision, DecisionOutcome, DecisionSource, Instant
from kiki_agent.store import Store


async def write_until_killed(folder: Path, run: int, pipe: int) -> None:
    """Many writers at once, some of which fail; every durable number is told through the pipe."""
    store = await Store.open(folder / "agent.db", now=Instant(run))
    ledger = await Ledger.open(store, folder / "ledger.head", client_id="demo", now=Instant(run))
    if ledger.hold_reason is not None:
        os.write(pipe, f"held: {ledger.hold_reason}\n".encode())
        os._exit(3)
    book = DecisionBook(store, ledger)
    await book.load()

    async def writer(lane: int) -> None:
        for number in range(1_000_000):
            text = f"{run}.{lane}.{number}"

            def work(connection: object, text: str = text, bad: bool = number % 5 == 4) -> None:
                ledger.append(connection, Instant(run), "control", {"text": text})  # type: ignore[arg-type]
                if bad:
                    raise KeyError

            try:
                await store.write(work)
                os.write(pipe, f"{text}\n".encode())
            except KeyError:
                pass
            if lane == 0:
                bid = Decision("meta", "c", "meta", number, DecisionOutcome.ACCEPTED, "R", DecisionSource.AI, "v", run)
                book.record(Instant(run), [bid])
                await ledger.write_head()

    await asyncio.gather(*[writer(lane) for lane in range(8)])


def child(folder: Path, run: int, pipe: int) -> None:
    try:
        asyncio.run(write_until_killed(folder, run, pipe))
    finally:
        os._exit(4)


def main(folder: Path, kills: int) -> dict[str, object]:
    acknowledged: set[str] = set()
    problems: list[str] = []
    for run in range(kills):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            child(folder, run, writing)
        os.close(writing)
        heard = b""
        while heard.count(b"\n") < 20 + 37 * (run % 9):
            piece = os.read(reading, 4096)
            if not piece:
                break
            heard += piece
        os.kill(pid, signal.SIGKILL)
        while piece := os.read(reading, 4096):
            heard += piece
        os.close(reading)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            problems.append(f"run {run} ended by itself: {heard[-300:]!r}")
        lines = heard.decode().split("\n")[:-1]
        problems += [line for line in lines if line.startswith("held")]
        acknowledged |= set(lines)
        found = verify_file(folder / "agent.db", folder / "ledger.head")
        if not found.ok:
            problems.append(f"after run {run}: {found.problem}")
    return {"kills": kills, "acknowledged": len(acknowledged), **asyncio.run(look(folder, acknowledged, problems))}


async def look(folder: Path, acknowledged: set[str], problems: list[str]) -> dict[str, object]:
    store = await Store.open(folder / "agent.db", now=Instant(10**6))
    ledger = await Ledger.open(store, folder / "ledger.head", client_id="demo", now=Instant(10**6))
    rows = await store.read(
        lambda connection: connection.execute(
            "SELECT json_extract(body, '$.text') FROM ledger_entries WHERE kind = 'control'"
        ).fetchall()
    )
    stored = [text for (text,) in rows]
    if ledger.hold_reason is not None:
        problems.append(ledger.hold_reason)
    if len(stored) != len(set(stored)):
        problems.append("an entry stands twice")
    if any(int(text.rsplit(".", 1)[1]) % 5 == 4 for text in stored):
        problems.append("an entry of a function that raised stands in the ledger")
    answer = {
        "epoch": store.epoch,
        "missing": len(acknowledged - set(stored)),
        "problems": problems,
        "whole": (await ledger.verify()).ok,
    }
    await store.close()
    return answer


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
