"""Connector and CRM source for the sandbox's own vendor API; what demo and backtests talk to, six platforms alike.

The agent's side only: words and units of that API, its errors, its tokens. The market behind it is another package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kiki_agent import PluginApi


def register(api: PluginApi) -> None:
    """Offer the `sandbox` connector and the `sandbox` CRM source."""
    from kiki_sandbox.config import SandboxConfig
    from kiki_sandbox.connector import SandboxConnector
    from kiki_sandbox.crm import SandboxCrm

    api.require(1, 0)
    api.connector("sandbox", SandboxConnector, config=SandboxConfig)
    api.crm("sandbox", SandboxCrm, config=SandboxConfig)
