"""Consents, requests of people about their data, and what an auditor asks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from kiki_agent.consent import ConsentType, RequestType
from kiki_agent.model import Instant, parse_iso
from kiki_agent.web.shapes.base import Answer, Given, Ident, PlatformName, Text
from kiki_agent.web.shapes.records import IsoTime, Paging

Period = Literal["daily", "weekly", "monthly", "yearly"]
DAYS = {"daily": 1, "weekly": 7, "monthly": 30, "yearly": 365}
ConsentString = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=65_536)]
Word = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]


class GrantBody(Given):
    """A person allows something."""

    customer_id: Ident
    consent_type: ConsentType
    ip_address: Text = Field(default="", description="Kept encrypted, as evidence.")
    user_agent: Text = Field(default="", description="Kept encrypted, as evidence.")
    legal_basis: Word = "Consent"
    version: Word = Field(default="1.0", description="Of the text the person agreed to.")
    expires_at: IsoTime | None = Field(default=None, description="From then on it is no consent; none: until revoked.")

    @property
    def expires(self) -> Instant | None:
        """The instant named by `expires_at`."""
        return None if self.expires_at is None else parse_iso(self.expires_at)

    @property
    def evidence(self) -> dict[str, str]:
        """What shows that it was said."""
        given = {"ip_address": self.ip_address, "user_agent": self.user_agent}
        return {name: value for name, value in given.items() if value}


class RevokeBody(Given):
    """A person takes something back."""

    customer_id: Ident
    consent_type: ConsentType
    ip_address: Text = ""
    user_agent: Text = ""
    legal_basis: Word = "Consent"
    version: Word = "1.0"

    @property
    def evidence(self) -> dict[str, str]:
        """What shows that it was said."""
        given = {"ip_address": self.ip_address, "user_agent": self.user_agent}
        return {name: value for name, value in given.items() if value}


class StringBody(Given):
    """A consent string of a person."""

    customer_id: Ident
    consent_string: ConsentString = Field(description="IAB TCF 2.2 or 2.3, or GPP with its European section.")


class SaidAnswer(Answer):
    """What is in force now."""

    status: Literal["granted", "revoked"]
    consent_id: str


class ConsentState(Answer):
    """The statement in force about one purpose."""

    status: str = Field(description="GRANTED, DENIED or REVOKED, as it was said.")
    in_force: bool = Field(description="Whether it allows anything now.")
    source: str
    consent_id: str
    granted_at: str | None
    revoked_at: str | None
    expires_at: str | None
    version: str
    legal_basis: str
    vendors: list[int] | None = Field(description="Who a yes is for, in the global vendor list; null: everybody.")


class StatusAnswer(Answer):
    """What a customer said, by purpose; null where they have said nothing, which means no."""

    marketing: ConsentState | None = None
    analytics: ConsentState | None = None
    targeting: ConsentState | None = None
    profiling: ConsentState | None = None
    data_sharing: ConsentState | None = None


class StatusQuery(Given):
    """Whose consents."""

    customer_id: Ident


class BasisQuery(Given):
    """May this be done now?"""

    customer_id: Ident
    consent_type: ConsentType = ConsentType.TARGETING
    platform: PlatformName


class BasisAnswer(Answer):
    """The legal basis a decision made now would have."""

    allowed: bool
    basis: str = Field(description="`consent:<id>` or `denied`.")


class StringAnswer(Answer):
    """What a consent string brought into force."""

    changed: StatusAnswer
    unchanged: int = Field(description="Purposes whose statement in force is newer than the string.")


class RequestBody(Given):
    """A person asks about their data."""

    customer_id: Ident
    request_type: RequestType
    requested_by: Text = Field(default="", description="Who brought it; kept encrypted.")


class SettleBody(Given):
    """What became of a request that waited for a person."""

    status: Literal["COMPLETED", "REJECTED"]


class RequestAnswer(Answer):
    """A request and what became of it."""

    request_id: str
    request_type: str
    status: Literal["PENDING", "COMPLETED", "REJECTED"]
    requested_at: str
    due_at: str
    completed_at: str | None
    notes: str


class RequestWithExport(RequestAnswer):
    """The same, with what is known of the person where that was asked for."""

    export: dict[str, Any] | None = Field(default=None, description="Null for other requests, and after an erasure.")


class ReportQuery(Given):
    """Over which time."""

    period: Period = "monthly"


class RetentionAnswer(Answer):
    """What is kept."""

    ledger_entries: int
    oldest_entry_at: str | None
    erased: int = Field(description="People erased so far.")


class ComplianceAnswer(Answer):
    """Counts an auditor asks for first."""

    period: Period
    since: str
    until: str
    decisions: int = Field(description="Changed decisions of the bidding loop.")
    vetoes: dict[str, int] = Field(
        description="Those that let no bid through, by reason; CONSENT: bids about a person without a basis."
    )
    consents: dict[str, int] = Field(description="Statements in force, by status; EXPIRED are grants that ran out.")
    requests: dict[str, int] = Field(description="Requests of people in the period; overdue: open past their date.")
    retention: RetentionAnswer


class AuditQuery(Paging):
    """Which entries."""

    event_type: Literal["consent", "privacy", "control"] | None = None
    user_id: Ident | None = Field(default=None, description="A customer: entries about them.")
    since: IsoTime | None = None

    @property
    def since_instant(self) -> Instant | None:
        """The instant named by `since`."""
        return None if self.since is None else parse_iso(self.since)


class AuditItem(Answer):
    """One entry of the ledger."""

    seq: int
    at: str
    event_type: str
    event_data: dict[str, Any]
    retention_days: float = Field(description="Entries of this kind are kept for so long, counted from `at`.")


class AuditAnswer(Answer):
    """Entries, newest first."""

    items: list[AuditItem]
    total: int
