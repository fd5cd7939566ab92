"""The words of the sandbox's own vendor API: bodies as typed structs, amounts as decimal text, dates as text."""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from kiki_agent.model import DAY
from kiki_agent.model.money import MICROS, micros_from_text

CURRENCY = "USD"
MAX_OPERATIONS = 500
MAX_ROWS = 1_000

Amount = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,9})(\.[0-9]{1,6})?\Z")]
"""Decimal text without sign, exponent or leading zeros."""
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class BidOperation(msgspec.Struct, forbid_unknown_fields=True):
    """Set the highest price per click of a campaign."""

    campaign: str
    max_cpc: Amount
    client_ref: Reference

    @property
    def level(self) -> int:
        """Wanted micros."""
        return micros_from_text(self.max_cpc)


class BudgetOperation(msgspec.Struct, forbid_unknown_fields=True):
    """Set the daily budget of a campaign."""

    campaign: str
    daily_budget: Amount
    client_ref: Reference

    @property
    def level(self) -> int:
        """Wanted micros."""
        return micros_from_text(self.daily_budget)


class StateOperation(msgspec.Struct, forbid_unknown_fields=True):
    """Enable or pause a campaign."""

    campaign: str
    state: Literal["ENABLED", "PAUSED"]
    client_ref: Reference

    @property
    def level(self) -> int:
        """Wanted activity, 1 or 0."""
        return int(self.state == "ENABLED")


class PlacementOperation(msgspec.Struct, forbid_unknown_fields=True):
    """Buy one placement directly, outside the auctions, at a fixed amount."""

    campaign: str
    amount: Amount
    client_ref: Reference

    @property
    def level(self) -> int:
        """Price in micros."""
        return micros_from_text(self.amount)


Operation = BidOperation | BudgetOperation | StateOperation | PlacementOperation


class BidBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/{platform}/bids."""

    operations: Annotated[list[BidOperation], msgspec.Meta(min_length=1, max_length=MAX_OPERATIONS)]


class BudgetBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/{platform}/budgets."""

    operations: Annotated[list[BudgetOperation], msgspec.Meta(min_length=1, max_length=MAX_OPERATIONS)]


class StateBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/{platform}/status."""

    operations: Annotated[list[StateOperation], msgspec.Meta(min_length=1, max_length=MAX_OPERATIONS)]


class PlacementBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/{platform}/placements."""

    operations: Annotated[list[PlacementOperation], msgspec.Meta(min_length=1, max_length=MAX_OPERATIONS)]


class Grant(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /token."""

    grant_type: Literal["client_credentials"]
    client_id: str
    client_secret: str


class CampaignItem(msgspec.Struct):
    """One campaign as listed."""

    id: str
    name: str
    state: str
    daily_budget: str
    max_cpc: str
    currency: str
    cpc_step: str
    min_cpc: str
    budget_step: str
    min_daily_budget: str


class PerformanceItem(msgspec.Struct):
    """One campaign on one day."""

    campaign: str
    date: str
    impressions: int
    clicks: int
    conversions: int
    cost: str
    value: str


class SpendItem(msgspec.Struct):
    """Cost so far of one campaign on one day."""

    campaign: str
    date: str
    cost: str


class CustomerItem(msgspec.Struct):
    """One customer of the shop."""

    id: str
    source: str
    first_order_at: str
    orders: int
    total: str
    last_order_at: str
    updated_at: str


class ResultItem(msgspec.Struct, omit_defaults=True):
    """What became of one operation; a batch answers 200 whatever is in here."""

    client_ref: str
    status: str
    effect_id: str = ""
    code: str = ""
    message: str = ""


def amount(micros: int) -> str:
    """Decimal text of micros that are not negative: two decimals when they suffice, else six."""
    units, rest = divmod(micros, MICROS)
    if rest % 10_000 == 0:
        return f"{units}.{rest // 10_000:02d}"
    return f"{units}.{rest:06d}"


@lru_cache(maxsize=1024)
def day_text(day: int) -> str:
    """`YYYY-MM-DD` of a number of days since 1970 (the sandbox's accounts keep UTC days)."""
    return date.fromordinal(_FIRST + day).isoformat()


@lru_cache(maxsize=1024)
def day_number(text: str) -> int:
    """Days since 1970 of `YYYY-MM-DD`. Raises ValueError."""
    if len(text) != 10:
        raise ValueError(f"{text[:20]!r} is not a date such as 2026-01-31")
    return date.fromisoformat(text).toordinal() - _FIRST


def day_of(instant: int) -> int:
    """Days since 1970 of an instant."""
    return instant // DAY


_FIRST = date(1970, 1, 1).toordinal()
