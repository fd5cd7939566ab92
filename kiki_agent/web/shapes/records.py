"""What was decided and done, read back."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from kiki_agent.model import DecisionSource, Instant, parse_iso
from kiki_agent.web.shapes.base import Answer, Given, Ident, PlatformName


def _instant(text: str) -> str:
    try:
        parse_iso(text)
    except (ValueError, OverflowError):
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z") from None
    return text


IsoTime = Annotated[str, Field(max_length=40), AfterValidator(_instant)]


class Paging(Given):
    """Which part of a list."""

    limit: int = Field(default=50, ge=1, le=500)
    offset: int = Field(default=0, ge=0, le=10**9)


class DecisionsQuery(Paging):
    """Which decisions."""

    campaign_id: Ident | None = None
    platform: PlatformName | None = None
    source: DecisionSource | None = None
    since: IsoTime | None = None

    @property
    def since_instant(self) -> Instant | None:
        """The instant named by `since`."""
        return None if self.since is None else parse_iso(self.since)


class DecisionItem(Answer):
    """A decision and how long it stood."""

    connector: str
    campaign_id: str
    platform: str
    bid: float
    currency: str
    outcome: str
    reason: str
    source: str
    model_version: str
    predicted_ltv: float
    basis: str
    first_at: str
    last_at: str
    ticks: int = Field(description="How many ticks confirmed it.")


class DecisionsAnswer(Answer):
    """Decisions, newest first."""

    items: list[DecisionItem]
    total: int


class ReallocationsQuery(Paging):
    """Which reallocations."""

    client_id: Ident | None = None


class ReallocationItem(Answer):
    """One move of daily budget between platforms."""

    ledger_entry_id: int
    client_id: str
    from_platform: str
    to_platform: str
    amount_shifted: float
    currency: str
    reason: str
    from_efficiency: float
    to_efficiency: float
    timestamp: int
    run_id: str | None
    notification_id: str | None


class ReallocationsAnswer(Answer):
    """Reallocations, newest first."""

    items: list[ReallocationItem]
    total: int


class VerifyAnswer(Answer):
    """Result of walking the whole hash chain."""

    ok: bool
    entries: int
    head_hash: str
    first_bad: int | None = Field(default=None, description="Number of the first broken entry.")
    problem: str | None = None


class PluginItem(Answer):
    """An instance of a plugin's class, and what it provides."""

    name: str
    plugin: str
    version: str
    kind: str
    platform: str | None
    hooks: list[str]
    state: str
    error: str | None


class PluginsAnswer(Answer):
    """All plugins."""

    items: list[PluginItem]
    total: int
