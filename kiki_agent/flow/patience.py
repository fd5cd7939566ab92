"""Remembering until when a platform asked to be left alone with changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kiki_agent.errors import RateLimited
from kiki_agent.model import Instant

Call = Callable[[str, str, tuple[object, ...]], Awaitable[object]]
"""`call(instance_id, verb, args)`, as the outbox wants it."""


class Patience:
    """A call for the outbox that notes each `RateLimited` on its way; writers ask before they send."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.retry_at: dict[str, Instant] = {}
        """Connector -> instant before which no change should go out."""

    async def __call__(self, instance_id: str, verb: str, args: tuple[object, ...]) -> object:
        """Call through; raises what the call raises."""
        try:
            return await self._call(instance_id, verb, args)
        except RateLimited as limit:
            self.retry_at[instance_id] = Instant(max(limit.retry_at, self.retry_at.get(instance_id, 0)))
            raise
