"""The ledger's own rhythms: its head outside the database; now and then a walk along the chain, and the sealing."""

from __future__ import annotations

from kiki_agent.errors import Fault
from kiki_agent.ledger.decisions import DecisionBook
from kiki_agent.ledger.ledger import Ledger
from kiki_agent.ledger.sealing import Sealer
from kiki_agent.model.time import HOUR, SECOND, Instant
from kiki_agent.runtime.loop import Loop
from kiki_agent.store import Store


class HeadLoop(Loop):
    """Copies the chain's head outside the database, and notices when a sick database is well again."""

    name = "head"

    def __init__(self, ledger: Ledger, decisions: DecisionBook, store: Store, interval_s: float) -> None:
        self.period = round(interval_s * SECOND)
        self._ledger = ledger
        self._decisions = decisions
        self._store = store
        self._commits = -1

    async def tick(self, now: Instant) -> str | None:
        """Write the head when it moved. Raises Fault when decisions were lost.

        Where commits go to a disk, that the disk takes them is tried at every tick in which nobody else did.

        Waits first while the writer's queue is long: in simulated time this is what holds the other loops back.
        """
        await self._store.room()
        if self._decisions.failure is not None:
            raise Fault(self._decisions.failure)
        if self._store.synchronous == "FULL":
            self._store.look_for_room()
            if self._store.commits == self._commits or self._store.failure is not None:
                await self._store.probe()  # a database nobody writes to would never tell that it cannot be written
            self._commits = self._store.commits
        elif self._store.failure is not None:
            await self._store.probe()
        if self._store.failure is not None:
            return f"the database cannot be written: {self._store.failure}"
        if self._ledger.hold_reason is not None:
            return f"the chain is not trusted: {self._ledger.hold_reason}"
        await self._ledger.write_head()
        return None


class VerifyLoop(Loop):
    """Verifies the whole chain; a broken one holds all spending (M7)."""

    name = "verify"
    first_due_at_start = False

    def __init__(self, ledger: Ledger, interval_s: float) -> None:
        self.period = round(interval_s * SECOND)
        self._ledger = ledger

    async def tick(self, now: Instant) -> str | None:
        """Walk the chain in a reader. Raises Fault when it is broken."""
        found = await self._ledger.verify(whole=True)
        if not found.ok:
            raise Fault(f"the ledger does not verify: {found.problem}")
        return None


class SealLoop(Loop):
    """Entries that are old leave the table for sealed files, and bodies go when their class is old enough."""

    name = "seal"
    period = HOUR
    first_due_at_start = False

    def __init__(self, ledger: Ledger, sealer: Sealer) -> None:
        self._ledger = ledger
        self._sealer = sealer

    async def tick(self, now: Instant) -> str | None:
        """Seal and drop what is due. Raises Fault when it does not verify, StoreError when it cannot be written."""
        if self._ledger.hold_reason is not None:
            return f"the chain is not trusted: {self._ledger.hold_reason}"
        done = await self._sealer.run(now, self.stop_new_work)
        if not (done.entries or done.dropped or done.removed):
            return "nothing is old enough"
        return None
