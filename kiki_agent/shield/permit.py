"""A permit: money set aside for one placed bid."""

from __future__ import annotations

from dataclasses import dataclass

from kiki_agent.model import Instant


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to spend once up to an amount. It ends by commit or release; until then the amount stays reserved."""

    reservation_id: str
    sequence: int
    """Grows by one with each reservation of this database."""
    connector: str
    campaign_id: str
    amount_micros: int
    at: Instant
    basis: str
    """`not_personal` or `consent:<id>`."""
    allocated: bool
    """Whether the campaign's allocation holds the amount too."""
    expires_at: Instant | None = None
    """When it is given back by itself; None: only by commit or release, because a platform may have taken it."""
