"""The vendor's side for tests and the demo: a market with its API, in process or on loopback."""

from __future__ import annotations

from kiki_agent.sandbox import (
    EffectsLog,
    Faults,
    Market,
    SandboxServer,
    SandboxService,
    run_sandbox,
    start_or_adopt,
    stop,
)

__all__ = [
    "EffectsLog",
    "Faults",
    "Market",
    "SandboxServer",
    "SandboxService",
    "run_sandbox",
    "start_or_adopt",
    "stop",
]
