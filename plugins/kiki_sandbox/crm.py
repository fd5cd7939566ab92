"""The shop's customers."""

from __future__ import annotations

from kiki_agent import PluginContext, hookimpl
from kiki_agent.model import CustomerPage
from kiki_sandbox import mapping
from kiki_sandbox.client import SandboxClient
from kiki_sandbox.config import SandboxConfig


class SandboxCrm:
    """Incremental reads over the generic vendor API."""

    def __init__(self, context: PluginContext[SandboxConfig]) -> None:
        self._context = context
        self._client = SandboxClient(context)

    @hookimpl
    async def check(self) -> None:
        """Credentials and address in one read."""
        await self._client.read("/v1/customers", mapping.CustomersBody, page_size="1")

    @hookimpl
    async def fetch_customers(self, cursor: str) -> CustomerPage:
        """Customers changed since the cursor."""
        params = {"page_size": str(self._context.config.page_size)}
        if cursor:
            params["cursor"] = cursor
        return mapping.customers(await self._client.read("/v1/customers", mapping.CustomersBody, **params))

    @hookimpl
    async def close(self) -> None:
        """Nothing to let go of: connections belong to the context."""
