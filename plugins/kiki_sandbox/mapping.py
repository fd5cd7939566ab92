"""Their words and units, and ours: decimal text and micros, ENABLED and active, client_ref and key.

Field names of the structs are the API's. Amounts and times that do not parse count as a garbled answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kiki_agent.errors import Temporary
from kiki_agent.model import (
    Campaign,
    CampaignStatus,
    Customer,
    CustomerPage,
    Instant,
    Intent,
    IntentKind,
    Outcome,
    PerformanceReport,
    PerformanceRow,
    Platform,
    Receipt,
    SpendReport,
    SpendRow,
    decimal_text,
    micros_from_text,
    parse_iso,
)


class TokenBody(msgspec.Struct):
    """Answer of /token."""

    access_token: str
    expires_in: int


class ErrorDetail(msgspec.Struct):
    """What went wrong."""

    code: str
    message: str = ""


class ErrorBody(msgspec.Struct):
    """Body of every error, also of those inside a 200."""

    error: ErrorDetail


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


class CampaignsBody(msgspec.Struct):
    """One page of campaigns."""

    campaigns: list[CampaignItem]
    next_page_token: str


class PerformanceItem(msgspec.Struct):
    """One campaign on one day."""

    campaign: str
    date: str
    impressions: int
    clicks: int
    conversions: int
    cost: str
    value: str


class PerformanceBody(msgspec.Struct):
    """One page of a report."""

    rows: list[PerformanceItem]
    as_of: str
    final_before: str
    next_cursor: str | None


class SpendItem(msgspec.Struct):
    """Cost so far of one campaign on one day."""

    campaign: str
    date: str
    cost: str


class SpendBody(msgspec.Struct):
    """Spend report."""

    rows: list[SpendItem]
    as_of: str


class CustomerItem(msgspec.Struct):
    """One customer."""

    id: str
    source: str
    first_order_at: str
    orders: int
    total: str
    last_order_at: str
    updated_at: str


class CustomersBody(msgspec.Struct):
    """One page of customers."""

    customers: list[CustomerItem]
    cursor: str
    more: bool


class ResultItem(msgspec.Struct):
    """What became of one operation."""

    client_ref: str
    status: str
    effect_id: str = ""
    code: str = ""
    message: str = ""


class ResultsBody(msgspec.Struct):
    """Answer to a batch."""

    results: list[ResultItem]


class EffectItem(msgspec.Struct):
    """One change that was made."""

    client_ref: str
    effect_id: str
    campaign: str
    kind: str


class EffectsBody(msgspec.Struct):
    """Changes found by our keys."""

    effects: list[EffectItem]


PATHS = {
    IntentKind.ADJUST_BID: "bids",
    IntentKind.SET_BUDGET: "budgets",
    IntentKind.SET_STATUS: "status",
    IntentKind.PLACE_BID: "placements",
}
"""Path of the endpoint for a kind of intent."""
_FIELDS = {
    IntentKind.ADJUST_BID: "max_cpc",
    IntentKind.SET_BUDGET: "daily_budget",
    IntentKind.PLACE_BID: "amount",
}
_STATES = {"ENABLED": CampaignStatus.ACTIVE, "PAUSED": CampaignStatus.PAUSED}


def micros(text: str) -> int:
    """Micros of an amount in their notation. Raises Temporary when it is none."""
    try:
        return micros_from_text(text)
    except ValueError as error:
        raise Temporary(f"the sandbox's answer is garbled: {error}") from None


def instant(text: str) -> Instant:
    """The instant of a time in their notation. Raises Temporary when it is none."""
    try:
        return parse_iso(text)
    except ValueError:
        raise Temporary(f"the sandbox's answer is garbled: {text[:40]!r} is no time") from None


def price_text(amount: int) -> str:
    """Their notation of micros: two decimals when exact, else six, so that a wrong step is refused and not rounded."""
    text = decimal_text(amount, "USD")
    if micros_from_text(text) == amount:
        return text
    sign = "-" if amount < 0 else ""
    units, rest = divmod(abs(amount), 1_000_000)
    return f"{sign}{units}.{rest:06d}"


def campaign(item: CampaignItem, connector: str, platform: str) -> Campaign:
    """Ours from theirs. Raises Temporary on a state nobody knows."""
    status = _STATES.get(item.state)
    if status is None:
        raise Temporary(f"the sandbox's answer is garbled: campaign state {item.state[:40]!r}")
    return Campaign(
        connector=connector,
        campaign_id=item.id,
        platform=platform,
        name=item.name,
        status=status,
        daily_budget_micros=micros(item.daily_budget),
        bid_micros=micros(item.max_cpc),
        currency=item.currency,
        bid_step_micros=micros(item.cpc_step),
        min_bid_micros=micros(item.min_cpc),
        min_budget_micros=micros(item.min_daily_budget),
        budget_step_micros=micros(item.budget_step),
    )


def performance(body: PerformanceBody) -> PerformanceReport:
    """Ours from theirs."""
    rows = tuple(
        PerformanceRow(
            row.campaign, row.date, row.impressions, row.clicks, row.conversions, micros(row.cost), micros(row.value)
        )
        for row in body.rows
    )
    return PerformanceReport(rows, instant(body.as_of), body.final_before, body.next_cursor)


def spend(body: SpendBody) -> SpendReport:
    """Ours from theirs."""
    return SpendReport(
        tuple(SpendRow(row.campaign, row.date, micros(row.cost)) for row in body.rows), instant(body.as_of)
    )


def customers(body: CustomersBody) -> CustomerPage:
    """Ours from theirs; a source that is no platform we know becomes empty."""
    return CustomerPage(tuple(_customer(item) for item in body.customers), body.cursor, body.more)


def operations(kind: IntentKind, intents: Sequence[Intent]) -> bytes:
    """Body of a batch."""
    items = []
    for intent in intents:
        item = {"campaign": intent.campaign_id, "client_ref": intent.key}
        if kind is IntentKind.SET_STATUS:
            item["state"] = "ENABLED" if intent.after else "PAUSED"
        else:
            item[_FIELDS[kind]] = price_text(intent.after)
        items.append(item)
    return msgspec.json.encode({"operations": items})


def receipts(body: ResultsBody, intents: Sequence[Intent]) -> list[Receipt]:
    """One receipt per intent, in order; one the answer leaves out, or speaks of in an unknown word, is unknown."""
    found = {result.client_ref: result for result in body.results}
    return [_receipt(found.get(intent.key), intent) for intent in intents]


def _receipt(result: ResultItem | None, intent: Intent) -> Receipt:
    if result is None:
        return Receipt(intent.key, Outcome.UNKNOWN, "NOT_MENTIONED")
    if result.status == "OK":
        return Receipt(intent.key, Outcome.ACCEPTED, vendor_ref=result.effect_id)
    if result.status == "ERROR":
        return Receipt(intent.key, Outcome.REJECTED, result.code or "UNSPECIFIED")
    return Receipt(intent.key, Outcome.UNKNOWN, "UNCLEAR_STATUS")


def _customer(item: CustomerItem) -> Customer:
    try:
        platform = Platform.parse(item.source).value
    except ValueError:
        platform = ""
    return Customer(
        customer_id=item.id,
        platform=platform,
        acquired_at=instant(item.first_order_at),
        purchases=item.orders,
        revenue_micros=micros(item.total),
        last_purchase_at=instant(item.last_order_at),
        updated_at=instant(item.updated_at),
    )
