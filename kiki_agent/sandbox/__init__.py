"""A market of simulated people, auctions and campaigns on six platforms, shaped by real data, and its ad platform API.

Here live the market itself (columns advanced by one kernel), the drawing of its campaigns, the generic vendor API in
front of it (pure request handling, an HTTP server, a process of its own) and its log of effects. Nothing here knows
the agent: what the agent learns about the market it learns through HTTP requests, like from any other platform.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kiki_agent.sandbox.adopt import SandboxFailed, SandboxHandle, start_or_adopt, stop, until_ready
    from kiki_agent.sandbox.desk import Answer, CampaignDay, Change, Desk, VendorApi
    from kiki_agent.sandbox.effects import EffectsLog
    from kiki_agent.sandbox.faults import AnswerLost, Fault, Faults
    from kiki_agent.sandbox.market import Market
    from kiki_agent.sandbox.process import run_sandbox
    from kiki_agent.sandbox.server import SandboxServer
    from kiki_agent.sandbox.service import SandboxService

__all__ = [
    "Answer",
    "AnswerLost",
    "CampaignDay",
    "Change",
    "Desk",
    "EffectsLog",
    "Fault",
    "Faults",
    "Market",
    "SandboxFailed",
    "SandboxHandle",
    "SandboxServer",
    "SandboxService",
    "VendorApi",
    "run_sandbox",
    "start_or_adopt",
    "stop",
    "until_ready",
]

_HOMES = {
    "Answer": "desk",
    "AnswerLost": "faults",
    "CampaignDay": "desk",
    "Change": "desk",
    "Desk": "desk",
    "VendorApi": "desk",
    "EffectsLog": "effects",
    "Fault": "faults",
    "Faults": "faults",
    "Market": "market",
    "SandboxFailed": "adopt",
    "SandboxHandle": "adopt",
    "SandboxServer": "server",
    "SandboxService": "service",
    "run_sandbox": "process",
    "start_or_adopt": "adopt",
    "stop": "adopt",
    "until_ready": "adopt",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use, so that naming the sandbox costs no import of arrays or servers."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)
