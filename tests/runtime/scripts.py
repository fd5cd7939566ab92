"""Loops with a script, for the tests of drivers and supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kiki_agent.model.time import SECOND, Instant
from kiki_agent.runtime.loop import Loop

START = Instant(1_750_000_000 * SECOND)


class Scripted(Loop):
    """Notes every tick in a journal shared by all loops, and does what its script says."""

    def __init__(
        self,
        name: str,
        journal: list[tuple[str, float, str]],
        seconds: float = 2.0,
        *,
        essential: bool = False,
        at_start: bool = True,
        fails: Callable[[int], bool] = lambda tick: False,
        hop: bool = False,
    ) -> None:
        self.name = name
        self.period = int(seconds * SECOND)
        self.essential = essential
        self.first_due_at_start = at_start
        self.journal, self.fails, self.hop = journal, fails, hop
        self.count = 0

    async def tick(self, now: Instant) -> str | None:
        self.count += 1
        self.journal.append((self.name, (now - START) / SECOND, "begin"))
        if self.hop:
            await asyncio.get_running_loop().run_in_executor(None, sum, range(1000))
        if self.fails(self.count):
            self.journal.append((self.name, (now - START) / SECOND, "fail"))
            raise ValueError(f"scripted failure {self.count}")
        self.journal.append((self.name, (now - START) / SECOND, "end"))
        return None if self.count % 2 else "nothing to do on even ticks"


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until something has become true."""
    while not condition():  # noqa: ASYNC110 - whoever makes it true does not know that we wait
        await asyncio.sleep(0.001)
