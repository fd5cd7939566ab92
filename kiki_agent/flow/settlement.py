"""Placed bids whose outcome came late: the amount set aside is spent or given back once the platform has said which."""

from __future__ import annotations

from kiki_agent.errors import Denied
from kiki_agent.ledger import Records
from kiki_agent.model import MINUTE, SECOND, Instant
from kiki_agent.runtime.loop import Loop
from kiki_agent.shield import Permit, Shield

PATIENCE = MINUTE
"""Whoever placed a bid ends its permit within this time; afterwards, also after a crash, this loop does."""
BATCH = 500


class PlacedSettler(Loop):
    """Ends permits by what the record says of their intents, whose `cause` is the reservation's id.

    A permit without an intent was reserved by hand and waits for whoever holds it.
    """

    name = "placed"
    period = 10 * SECOND

    def __init__(self, shield: Shield, records: Records) -> None:
        self._shield = shield
        self._records = records
        self.settled = 0

    async def tick(self, now: Instant) -> str | None:
        """Settle what is known; what is unknown is read back by the writers' loops."""
        waiting = [permit for permit in self._shield.open_permits() if now - permit.at >= PATIENCE][:BATCH]
        if not waiting:
            return "no placed bid waits for its outcome"
        states = await self._records.outcomes_by_cause([permit.reservation_id for permit in waiting])
        done = 0
        for permit in waiting:
            done += await self._settle(permit, states.get(permit.reservation_id, ""), now)
        self.settled += done
        return None if done else "outcomes of placed bids are still unknown"

    async def _settle(self, permit: Permit, state: str, now: Instant) -> bool:
        try:
            if state == "accepted":
                await self._shield.commit(permit, now)
            elif state == "rejected":
                await self._shield.release(permit, now)
            else:
                return False
        except Denied:  # ended meanwhile by whoever placed it
            return False
        return True
