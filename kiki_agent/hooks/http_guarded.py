"""HTTP that a guard counts: the one place through which requests of connectors leave."""

from __future__ import annotations

from collections.abc import Mapping

from kiki_agent.hooks.guard import Guard
from kiki_agent.hooks.http import HttpAnswer, HttpClient


class GuardedHttp:
    """An `HttpClient` whose every request is counted, and held back when the vendor's limit is reached."""

    def __init__(self, inner: HttpClient, guard: Guard) -> None:
        self.inner = inner
        self._guard = guard

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10,
    ) -> HttpAnswer:
        """As `HttpClient.request`; raises RateLimited when the request was held back, so that it never left."""
        await self._guard.request()
        return await self.inner.request(method, url, headers=headers, params=params, body=body, timeout_s=timeout_s)

    async def close(self) -> None:
        """Let go of all connections."""
        await self.inner.close()
