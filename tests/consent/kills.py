"""Kills a process that grants, revokes and erases, at random points. `python -m tests.consent.kills 500`.

The parent forks, hears what was acknowledged, and kills. The next child opens the same folder and must find every
acknowledged grant and revocation, no trace of anybody whose erasure was acknowledged or on the list, and a whole chain.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from kiki_agent.consent import DENIED, ConsentType
from kiki_agent.model import Instant
from tests.consent.rooms import NOON, Room

T = ConsentType.TARGETING
NAME = re.compile(rb"who-\d{6}-x")
DOINGS = ("granted", "revoked", "erased")
PER_FOLDER = 50


async def _live(folder: Path, known: dict[str, str], pipe: int, seed: int) -> None:
    dice = random.Random(seed)
    room = await Room(folder, starts=seed).start(Instant(NOON + seed))
    await _check(room, known, pipe)
    people = sorted(known)[-20:]
    number = 1 + max((int(name[4:10]) for name in known), default=0)
    while True:
        if not people or dice.random() < 0.4:
            people.append(f"who-{number:06d}-x")
            number += 1
        name, doing = dice.choice(people), dice.choice(DOINGS)
        _tell(pipe, "begun", name)
        if doing == "granted":
            await room.consents.grant(name, T, NOON, evidence={"user_agent": f"browser of {name}"})
        elif doing == "revoked" and T in await room.consents.status(name):
            await room.consents.revoke(name, T, NOON)
        elif doing == "erased":
            await room.privacy.erase(name, NOON)
        else:
            doing = "nothing"
        _tell(pipe, doing, name)


async def _check(room: Room, known: dict[str, str], pipe: int) -> None:
    present = {each.decode() for each in NAME.findall(room.bytes())}
    for name, state in known.items():
        allowed = await room.consents.look(name, T, "meta", NOON) != DENIED
        gone = state == "erased" or room.vault.refuses(name)  # also one that was begun and cut off
        if gone and (name in present or allowed or await room.vault.subject(name) is not None):
            _tell(pipe, "wrong", f"{name} was erased and is there")
        elif not gone and state in ("granted", "revoked") and allowed is not (state == "granted"):
            _tell(pipe, "wrong", f"{name} was {state}, and is {'allowed' if allowed else 'denied'}")
    if not (await room.ledger.verify()).ok:
        _tell(pipe, "wrong", "the chain is broken")
    _tell(pipe, "checked", str(len(known)))


def _tell(pipe: int, what: str, fact: str) -> None:
    os.write(pipe, f"{what} {fact}\n".encode())


def run(kills: int, seed: int = 1) -> Counter[str]:
    """Kill that often; what was acknowledged, by kind, and `wrong`, each on standard error."""
    tally: Counter[str] = Counter()
    dice = random.Random(seed)
    known: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as top:
        for number in range(kills + 1):
            folder = Path(top) / str(number // PER_FOLDER)
            if number % PER_FOLDER == 0:
                known = {}
                folder.mkdir()
            _one(folder, known, dice.randrange(2, 60), dice.random() * 0.004, seed * 10_000 + number, tally)
    return tally


def _one(folder: Path, known: dict[str, str], lines: int, wait: float, seed: int, tally: Counter[str]) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            asyncio.run(_live(folder, dict(known), writing, seed))
        except BaseException as error:
            _tell(writing, "wrong", f"{type(error).__name__}: {error}".replace("\n", " ")[:200])
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        heard = b""
        while heard.count(b"\n") < lines and (more := pipe.read(65_536)):
            heard += more
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        while more := pipe.read(65_536):
            heard += more
    os.waitpid(child, 0)
    tally["kills"] += 1
    before: str | None = None
    for line in heard.decode().splitlines():
        what, _, fact = line.partition(" ")
        tally[what] += 1
        if what == "begun":
            before, known[fact] = known.get(fact), "under way"
        elif what in DOINGS:
            known[fact] = what
        elif what == "nothing":
            known.pop(fact)
            if before is not None:
                known[fact] = before
        elif what == "wrong":
            sys.stderr.write(f"kill {tally['kills']}: {fact}\n")


def main() -> int:
    """Print the counts; 0 when nothing was wrong."""
    tally = run(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
    for what in ("kills", "checked", *DOINGS, "wrong"):
        print(f"{what:<10}{tally[what]:>10,}")
    return 1 if tally["wrong"] or not all(tally[each] for each in ("checked", *DOINGS)) else 0


if __name__ == "__main__":
    sys.exit(main())
