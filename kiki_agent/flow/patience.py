"""Remembering until when a platform asked to be left alone with changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from kiki_agent.errors import RateLimited
from kiki_agent.model import SECOND, Instant

Call = Callable[[str, str, tuple[object, ...]], Awaitable[object]]
"""`call(instance_id, verb, args)`, as the outbox wants it."""
FreeFrom = Callable[[str, Instant], Instant]
CUT_EVERY: Final = 300 * SECOND
"""A platform that asked for patience is still asked to stop campaigns, this often."""


class Patience:
    """A call for the outbox that notes each `RateLimited` on its way; writers ask before they send."""

    def __init__(self, call: Call, free_from: FreeFrom = lambda connector, now: now) -> None:
        """`free_from(connector, now)` is the instant before which the agent itself would hold a change back."""
        self._call = call
        self._free_from = free_from
        self.retry_at: dict[str, Instant] = {}
        """Connector -> instant before which no change should go out."""

    def until(self, connector: str, now: Instant) -> Instant:
        """The instant before which no change should go out, by the platform's wish or by our own limits."""
        return Instant(max(self.retry_at.get(connector, 0), self._free_from(connector, now)))

    async def __call__(self, instance_id: str, verb: str, args: tuple[object, ...]) -> object:
        """Call through; raises what the call raises."""
        try:
            return await self._call(instance_id, verb, args)
        except RateLimited as limit:
            self.retry_at[instance_id] = Instant(max(limit.retry_at, self.retry_at.get(instance_id, 0)))
            raise
