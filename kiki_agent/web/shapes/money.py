"""Allocations, checks, spend and bids by hand."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kiki_agent.model import Instant, parse_iso
from kiki_agent.web.shapes.base import (
    Amount,
    Answer,
    Currency,
    Given,
    Ident,
    PlainNumber,
    PlatformName,
    PositiveAmount,
    Text,
)
from kiki_agent.web.shapes.records import IsoTime


class AllocateBody(Given):
    """Give a campaign a budget, or change it."""

    campaign_id: Ident
    budget: PositiveAmount
    currency: Currency | None = Field(
        default=None, description="As it was; of a new allocation the configured currency."
    )
    start: IsoTime | None = Field(default=None, description="No bid before; null: now; as it was when left out.")
    end: IsoTime | None = Field(
        default=None, description="No bid from then on; null: it does not end; as it was when left out."
    )
    pacing: Literal["even", "accelerated"] | None = Field(
        default=None,
        description="even between start and end, at most a twentieth of the budget ahead; as it was when left out.",
    )

    @property
    def span(self) -> tuple[Instant | None, Instant | None]:
        """The instants named by `start` and `end`."""
        start = None if self.start is None else parse_iso(self.start)
        return start, None if self.end is None else parse_iso(self.end)


class AllocationAnswer(Answer):
    """A campaign's allocation."""

    campaign_id: str
    budget: float
    currency: str
    spent: float
    remaining: float
    status: str = Field(description="scheduled, active, warning, exhausted, expired or pending_approval.")


class PendingAllocation(AllocationAnswer):
    """What stands while a raise waits for approval; the status is pending_approval."""

    suggestion_id: str


class PacingState(Answer):
    """Where an allocation stands on its way."""

    kind: str
    expected: float | None = Field(
        description="What even spending would have spent by now; null without start and end."
    )
    actual: float


class BudgetAnswer(Answer):
    """A campaign's allocation and its use."""

    campaign_id: str
    budget: float
    currency: str
    spent: float
    reserved: float
    remaining: float
    utilization: float = Field(description="spent / budget; above 1 after an overshoot.")
    status: str
    start: str | None
    end: str | None
    pacing: PacingState


class CheckBody(Given):
    """Would this bid be allowed?"""

    campaign_id: Ident
    bid_amount: PositiveAmount
    platform: PlatformName
    customer_id: Ident | None = Field(default=None, description="Whom the bid is about; without a consent: CONSENT.")
    ltv: Amount | None = Field(default=None, description="Predicted value of the customer, if the bid rests on one.")
    reserve: bool = Field(default=False, strict=True, description="true reserves the amount in the same step.")


class BoundAnswer(Answer):
    """One bound of a bid: cap = spent + held + remaining, unless more is spent than the cap; then 0 remains."""

    name: str = Field(description="window, day, client_window, client_day, allocation or pacing.")
    cap: float
    spent: float
    held: float = Field(description="Reserved, or what a platform may still spend at the levels that are set there.")
    remaining: float
    frees_at: str | None = Field(
        description="When the amount fits at the earliest, if nothing else is spent; null: time alone makes no room."
    )


class CheckAnswer(Answer):
    """Whether the bid is allowed, and why not."""

    allowed: bool
    reason: str | None
    remaining: float = Field(description="What one more bid could take: the least of all its bounds.")
    reservation_id: str | None = None
    detail: str | None = Field(default=None, description="Why not, as a sentence.")
    bound: BoundAnswer | None = Field(default=None, description="What refused it; when allowed, what binds first.")


class SpendBody(Given):
    """Spend an amount, or what a reservation holds."""

    campaign_id: Ident
    platform: PlatformName
    amount: PositiveAmount | None = None
    reservation_id: Ident | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.amount is None) == (self.reservation_id is None):
            raise ValueError("exactly one of amount and reservation_id must be given")
        return self


class ReleaseBody(Given):
    """Free a reservation."""

    reservation_id: Ident


class ReleaseAnswer(Answer):
    """The allocation after the release."""

    released: bool
    reservation_id: str


class BidBody(Given):
    """Place one bid by hand."""

    campaign_id: Ident
    platform: PlatformName
    bid_amount: PositiveAmount
    connector: Ident | None = Field(default=None, description="Which account, when a platform has several.")
    customer_id: Ident | None = Field(
        default=None, description="A bid about a person needs their consent; without one it is vetoed with CONSENT."
    )
    predicted_ltv: Amount | None = None
    confidence: Annotated[float, PlainNumber, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="How sure the predicted value is, 0 to 1."
    )
    explanation: Text = Field(default="", description="Why; shown to platforms that can show it. Nothing personal.")
    audience_id: Ident | None = None


class BidAnswer(Answer):
    """What became of the bid; a veto is an answer, not an error."""

    bid_id: str
    status: Literal["ACCEPTED", "REJECTED", "PENDING"] = Field(
        description="PENDING: the platform's answer is unknown; the amount stays reserved until it is read back."
    )
    reason: str | None
    detail: str | None = Field(default=None, description="Why not, as a sentence.")
    platform_reason: str | None = Field(default=None, description="The platform's own word for a refusal.")
    source: Literal["manual"] = "manual"
    remaining_budget: float | None = Field(
        description="What one more bid of this campaign could take: the least of all its bounds."
    )
    bound: BoundAnswer | None = Field(default=None, description="What refused the bid; otherwise, what binds first.")
    circuit_state: str | None = Field(description="closed, half_open or open; null where the connector has no circuit.")
    latency_ms: float
    decision_id: str
