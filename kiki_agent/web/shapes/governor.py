"""Levels of autonomy, suggestions, edits of others, roll back."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from kiki_agent.web.shapes.base import Answer, Given, Ident, PlainNumber, Text
from kiki_agent.web.shapes.records import Paging

LevelName = Literal["watch", "suggest", "act_limited", "act"]
LeverName = Literal["budget", "bid", "status"]
SuggestionState = Literal["open", "approved", "declined", "stale", "expired", "replaced"]


class AutonomyItem(Answer):
    """How far the agent may go at one connector."""

    connector: str
    platform: str
    level: LevelName
    limit: float = Field(description="At act_limited: net change of 24 hours as a share of what stood before.")
    set_by: str
    reason: str
    at: str | None = Field(description="When it was set; null while it is as shipped.")
    frozen: str | None = Field(description="Why nothing may be spent until a person thaws it, or null.")
    left_alone: int = Field(description="Levers somebody else set, which the agent leaves alone.")
    platform_rule: str = Field(description="What the platform asks of those who change budgets, and where it says so.")


class AutonomyAnswer(Answer):
    """All connectors."""

    items: list[AutonomyItem]
    total: int


class AutonomyBody(Given):
    """How far the agent may go."""

    level: LevelName
    reason: Text = ""
    limit: Annotated[float, PlainNumber, Field(ge=0.001, le=1)] | None = None


class ReasonBody(Given):
    """Why a person does something."""

    reason: Text = ""


class ChangeItem(Answer):
    """One lever, before and after: amounts as decimal text, a status as active or paused."""

    connector: str
    campaign_id: str
    lever: LeverName
    before: str
    after: str


class AllocationItem(Answer):
    """A raise of an allocation that a person asked for."""

    campaign_id: str
    before: str
    after: str
    currency: str


class SuggestionItem(Answer):
    """Something the agent would do."""

    suggestion_id: str
    kind: Literal["change", "shift"]
    connector: str
    why: str
    held_by: str
    changes: list[ChangeItem]
    allocation: AllocationItem | None = Field(description="What was asked for, where it is about an allocation.")
    made_at: str
    expires_at: str
    state: SuggestionState
    decided_by: str
    decided_at: str | None
    note: str


class SuggestionsAnswer(Answer):
    """Suggestions, newest first."""

    items: list[SuggestionItem]
    total: int
    currency: str


class SuggestionsQuery(Paging):
    """Which suggestions."""

    state: SuggestionState | None = None


class CommentBody(Given):
    """What a person says to a decision."""

    comment: Text = ""


class OrderItem(Answer):
    """Changes a person asked for."""

    order_id: str
    state: Literal["open", "done", "partial", "failed"] = Field(
        description="open while a platform has not answered; partial and failed say why in note"
    )
    note: str


class DecidedAnswer(Answer):
    """A suggestion after a person decided, and what came of it."""

    suggestion: SuggestionItem
    order: OrderItem | None = Field(
        description="Null for declined ones, for shifts, which the optimizer begins, and for allocations."
    )
    sentence: str = Field(description="What was done with it, or what happens next.")


class LinkBody(Given):
    """What the link may do."""

    verb: Literal["approve", "decline"] = "approve"


class LinkAnswer(Answer):
    """A link for one decision; whoever holds it may decide."""

    path: str = Field(description="To be put behind the address people reach the agent at.")
    verb: Literal["approve", "decline"]
    expires_at: str


class ExternalItem(Answer):
    """A change somebody else made at a platform."""

    connector: str
    campaign_id: str
    lever: LeverName
    before: str
    after: str
    source: Literal["person", "vendor", "tool", "unknown", "outside"] = Field(
        description="Who made it, by the platform's change history; `outside` where it says nothing (yet)."
    )
    through: str = Field(description="The program it was made with, in the platform's word; empty where not said.")
    made_at: str | None = Field(description="When it was made, by the platform's history; `at` is when it was seen.")
    at: str


class ExternalAnswer(Answer):
    """Edits of others, newest first."""

    items: list[ExternalItem]
    total: int


class HoldItem(Answer):
    """A lever the agent leaves alone."""

    connector: str
    campaign_id: str
    lever: LeverName
    value: str
    source: Literal["outside", "pinned", "rollback"]
    since: str
    until: str | None = Field(description="Null: until it is unpinned.")


class HoldsAnswer(Answer):
    """All levers that are left alone."""

    items: list[HoldItem]
    total: int


class LeverBody(Given):
    """Which lever."""

    connector: Ident
    campaign_id: Ident
    lever: LeverName


def _day(text: str) -> str:
    try:
        if date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise ValueError("must be a day such as 2026-01-31")


class RollbackBody(Given):
    """What to put back: one change by its key, everything of one cause (a shift, an order), or a day."""

    change: Ident | None = None
    batch: Ident | None = None
    day: Annotated[str, AfterValidator(_day)] | None = None
    preview: bool = False

    @model_validator(mode="after")
    def _one(self) -> RollbackBody:
        if sum(each is not None for each in (self.change, self.batch, self.day)) != 1:
            raise ValueError("exactly one of change, batch and day must be given")
        return self


class RefusedItem(Answer):
    """A lever that is left as it is."""

    change: ChangeItem
    reason: Literal["MOVED", "GONE", "SUM", "WATCH"]


class RollbackAnswer(Answer):
    """What is put back, and what cannot be."""

    preview: bool
    found: int = Field(description="Accepted changes on record that were meant.")
    changes: list[ChangeItem]
    refused: list[RefusedItem]
    order: OrderItem | None
