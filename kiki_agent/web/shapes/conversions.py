"""Conversions a shop tells of, and where each stands."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from kiki_agent.model import Instant, parse_iso
from kiki_agent.web.shapes.base import Amount, Answer, Currency, Given, Ident
from kiki_agent.web.shapes.records import IsoTime

ClickId = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=512, pattern=r"^[\x21-\x7e]+$")]


class ConversionBody(Given):
    """One conversion."""

    connector: Ident = Field(description="The account that brought the click.")
    customer_id: Ident = Field(description="Who bought; without their consent to data_sharing: 409 CONSENT.")
    click_id: ClickId = Field(description="The vendor's own id of the click: gclid, fbclid or fbc.")
    order_id: Ident | None = Field(default=None, description="By it a conversion told twice is recognised.")
    at: IsoTime | None = Field(default=None, description="When it happened; now when left out.")
    value: Amount | None = Field(
        default=None, description="What it is worth; what the customer is predicted to be worth when left out."
    )
    currency: Currency | None = Field(default=None, description="Defaults to the configured currency.")
    name: Ident | None = Field(default=None, description="The vendor's conversion action, where it is another one.")

    @property
    def instant(self) -> Instant | None:
        """The instant named by `at`."""
        return None if self.at is None else parse_iso(self.at)


class ConversionAnswer(Answer):
    """Where a conversion stands."""

    conversion_id: str
    connector: str
    at: str
    value: float
    currency: str
    state: Literal["queued", "accepted", "rejected"]
    reason: str = Field(description="Why it was rejected or still waits; empty in order.")
    attempts: int
    reported_at: str
    settled_at: str | None


class ConversionsAnswer(Answer):
    """How many are kept, by state."""

    queued: int
    accepted: int
    rejected: int
