"""Google's words and units, and ours: micros as text, fractional conversions, resource names, strategies.

Amounts are micros of the account's currency (one unit is 1,000,000), integers written as JSON strings; target ROAS is a
ratio. Fields that are zero are left out of answers. Field names of the structs are the API's, in camel case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import Enum, auto
from typing import Any

import msgspec

from kiki_agent.errors import Temporary
from kiki_agent.model import Campaign, CampaignStatus, Intent, PerformanceRow, SpendRow, minor_exponent
from kiki_agent.model.money import MAX_MICROS, MICROS
from kiki_google_ads.errors import Status

Number = int | str
"""An int64 as the API writes it: text in answers, either in requests."""

CAMPAIGNS = (
    "SELECT campaign.id, campaign.name, campaign.status, campaign.bidding_strategy, campaign.bidding_strategy_type,"
    " campaign.bidding_strategy_system_status, campaign.target_roas.target_roas,"
    " campaign.target_spend.cpc_bid_ceiling_micros, campaign_budget.id, campaign_budget.amount_micros,"
    " campaign_budget.explicitly_shared, campaign_budget.reference_count, campaign_budget.period,"
    " bidding_strategy.id, bidding_strategy.type, bidding_strategy.non_removed_campaign_count,"
    " bidding_strategy.target_roas.target_roas, bidding_strategy.target_roas.cpc_bid_ceiling_micros"
    " FROM campaign WHERE campaign.status != 'REMOVED' ORDER BY campaign.id"
)
AD_GROUPS = (
    "SELECT ad_group.id, ad_group.campaign, ad_group.cpc_bid_micros FROM ad_group"
    " WHERE ad_group.status != 'REMOVED' AND campaign.bidding_strategy_type = 'MANUAL_CPC' ORDER BY ad_group.id"
)
ACCOUNT = "SELECT customer.id, customer.currency_code, customer.time_zone, customer.test_account FROM customer"
_PERFORMANCE = (
    "SELECT campaign.id, metrics.cost_micros, metrics.impressions, metrics.clicks, metrics.conversions,"
    " metrics.conversions_value, segments.date FROM campaign WHERE segments.date BETWEEN '{}' AND '{}'"
)
_SPEND = (
    "SELECT campaign.id, metrics.cost_micros, segments.date FROM campaign WHERE segments.date BETWEEN '{}' AND '{}'"
)

LOWEST_ROAS, HIGHEST_ROAS = Decimal("0.01"), Decimal(1000)
"""Bounds of a target ROAS (bidding.proto)."""
PARAMETER_LENGTH = 250
"""Longest value of a custom parameter, in bytes (Google Ads help, "Create custom parameters")."""
LEAST_MICROS: Mapping[int, int] = {0: MICROS, 2: 10_000, 3: 1_000}
"""Billable unit by decimals of the currency: amounts are multiples of the smallest coin."""


class Lever(Enum):
    """What sets a campaign's bids."""

    PORTFOLIO = auto()
    """The click ceiling of a portfolio strategy of its own, with a target ROAS."""
    TARGET_SPEND = auto()
    """The click ceiling of the campaign."""
    MANUAL = auto()
    """The click bids of its ad groups."""
    TARGET_ROAS = auto()
    """A target ROAS on the campaign, which takes no ceiling; moved only when the value of a customer is known."""
    NONE = auto()
    """Google alone."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a campaign's levers are: resource names for writing."""

    campaign: str
    budget: str
    lever: Lever
    strategy: str = ""
    ad_groups: tuple[str, ...] = ()
    target_roas: Decimal | None = None
    """In force at the campaign, for `Lever.TARGET_ROAS`."""


class _Camel(msgspec.Struct, rename="camel"):
    pass


class TargetRoas(_Camel):
    """Ratio of value to cost, and a ceiling in portfolios."""

    target_roas: float | str = 0
    cpc_bid_ceiling_micros: Number = 0


class TargetSpend(_Camel):
    """Maximize clicks."""

    cpc_bid_ceiling_micros: Number = 0


class CampaignRow(_Camel):
    """One campaign."""

    resource_name: str = ""
    id: Number = 0
    name: str = ""
    status: str = ""
    bidding_strategy: str = ""
    bidding_strategy_type: str = ""
    bidding_strategy_system_status: str = ""
    target_roas: TargetRoas | None = None
    target_spend: TargetSpend | None = None


class BudgetRow(_Camel):
    """One budget."""

    resource_name: str = ""
    id: Number = 0
    amount_micros: Number = 0
    explicitly_shared: bool = False
    reference_count: Number = 0
    period: str = "DAILY"


class StrategyRow(_Camel):
    """One portfolio strategy."""

    resource_name: str = ""
    type: str = ""
    non_removed_campaign_count: Number = 0
    target_roas: TargetRoas | None = None


class AdGroupRow(_Camel):
    """One ad group."""

    resource_name: str = ""
    campaign: str = ""
    cpc_bid_micros: Number = 0


class CustomerRow(_Camel):
    """The account."""

    currency_code: str = ""
    time_zone: str = ""


class Metrics(_Camel):
    """What a campaign did."""

    cost_micros: Number = 0
    impressions: Number = 0
    clicks: Number = 0
    conversions: float | str = 0
    conversions_value: float | str = 0


class Segments(_Camel):
    """When it did it."""

    date: str = ""


class Row(_Camel):
    """One row of a result."""

    campaign: CampaignRow | None = None
    campaign_budget: BudgetRow | None = None
    bidding_strategy: StrategyRow | None = None
    ad_group: AdGroupRow | None = None
    customer: CustomerRow | None = None
    metrics: Metrics | None = None
    segments: Segments | None = None


class Page(_Camel):
    """Answer of `googleAds:search`."""

    results: list[Row] = []
    next_page_token: str = ""


class Chunk(_Camel):
    """One part of the answer of `googleAds:searchStream`."""

    results: list[Row] = []


class Mutated(_Camel):
    """Answer to a change."""

    results: list[dict[str, Any]] = []
    partial_failure_error: Status | None = None


@dataclass(slots=True)
class Account:
    """All campaigns with their levers, as one read found them."""

    campaigns: list[Campaign] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    """By campaign id."""


def whole(value: Number, what: str) -> int:
    """An integer out of text or number. Raises Temporary for anything else, also below 0 or beyond belief."""
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise Temporary(f"the answer of Google Ads is garbled: {what} is {text[:24]!r}")
    return int(text)


def micros_of(value: float | str, what: str) -> int:
    """Micros of an amount in whole units, rounded half to even."""
    try:
        exact = Decimal(str(value))
    except InvalidOperation:
        exact = Decimal("NaN")
    if not exact.is_finite() or not 0 <= exact * MICROS <= MAX_MICROS:
        raise Temporary(f"the answer of Google Ads is garbled: {what} is {str(value)[:24]!r}")
    return int((exact * MICROS).to_integral_value())


def count_of(value: float | str, what: str) -> int:
    """A whole number of conversions; Google splits one conversion over several clicks, we round half to even."""
    return int(Decimal(micros_of(value, what)).scaleb(-6).to_integral_value())


def step_micros(currency: str) -> int:
    """The billable unit: the smallest coin of the currency."""
    return LEAST_MICROS[minor_exponent(currency)]


def queries(first_day: str, last_day: str) -> tuple[str, str]:
    """The performance query and the spend query of a span of account days."""
    return _PERFORMANCE.format(first_day, last_day), _SPEND.format(first_day, last_day)


def account_of(rows: Sequence[Row], ad_groups: Sequence[Row], connector: str, platform: str, currency: str) -> Account:
    """Campaigns with budgets and levers. Raises Temporary on what makes no sense."""
    groups: dict[str, list[AdGroupRow]] = {}
    for row in ad_groups:
        if row.ad_group is not None:
            groups.setdefault(row.ad_group.campaign, []).append(row.ad_group)
    found = Account()
    for row in rows:
        if row.campaign is None or row.campaign_budget is None:
            raise Temporary("the answer of Google Ads is garbled: a campaign without a budget")
        campaign, place = _campaign(row.campaign, row.campaign_budget, row.bidding_strategy, groups,
                                    connector, platform, currency)  # fmt: skip
        found.campaigns.append(campaign)
        found.places[campaign.campaign_id] = place
    return found


def _campaign(
    row: CampaignRow,
    budget: BudgetRow,
    strategy: StrategyRow | None,
    groups: Mapping[str, Sequence[AdGroupRow]],
    connector: str,
    platform: str,
    currency: str,
) -> tuple[Campaign, Place]:
    lever, bid = _lever(row, strategy, groups.get(row.resource_name, ()))
    step = step_micros(currency)
    shared = budget.explicitly_shared or whole(budget.reference_count, "a reference count") > 1
    campaign = Campaign(
        connector=connector,
        campaign_id=str(whole(row.id, "a campaign id")),
        platform=platform,
        name=row.name,
        status=CampaignStatus.ACTIVE if row.status == "ENABLED" else CampaignStatus.PAUSED,
        daily_budget_micros=whole(budget.amount_micros, "a budget"),
        bid_micros=bid or step,
        currency=currency,
        bid_step_micros=step,
        min_bid_micros=step,
        min_budget_micros=step,
        budget_step_micros=step,
        budget_id=str(whole(budget.id, "a budget id")) if shared else "",
        steers_bid=lever is not Lever.NONE and lever is not Lever.TARGET_ROAS and bid > 0,
        steers_budget=budget.period == "DAILY",
        learning=row.bidding_strategy_system_status.startswith("LEARNING"),
    )
    place = Place(
        campaign=row.resource_name,
        budget=budget.resource_name,
        lever=lever,
        strategy=row.bidding_strategy,
        ad_groups=tuple(each.resource_name for each in groups.get(row.resource_name, ())),
        target_roas=Decimal(str(row.target_roas.target_roas)) if row.target_roas is not None else None,
    )
    return campaign, place


def _lever(row: CampaignRow, strategy: StrategyRow | None, groups: Sequence[AdGroupRow]) -> tuple[Lever, int]:
    """What sets the bids, and the bid in force (0 where none is stated)."""
    if row.bidding_strategy:
        alone = strategy is not None and whole(strategy.non_removed_campaign_count, "a campaign count") <= 1
        if strategy is None or strategy.target_roas is None or not alone:
            return Lever.NONE, 0  # a strategy of several campaigns belongs to whoever put them together
        return Lever.PORTFOLIO, whole(strategy.target_roas.cpc_bid_ceiling_micros, "a bid ceiling")
    match row.bidding_strategy_type:
        case "TARGET_SPEND":
            ceiling = row.target_spend.cpc_bid_ceiling_micros if row.target_spend is not None else 0
            return Lever.TARGET_SPEND, whole(ceiling, "a bid ceiling")
        case "MANUAL_CPC" if groups:
            return Lever.MANUAL, max(whole(each.cpc_bid_micros, "a bid") for each in groups)
        case "TARGET_ROAS":
            return Lever.TARGET_ROAS, 0
    return Lever.NONE, 0


def performance_rows(rows: Sequence[Row]) -> list[PerformanceRow]:
    """One campaign and day each; rows that make no sense are left out, as their numbers could be booked wrongly."""
    found = []
    for row in rows:
        if row.campaign is None or row.segments is None:
            continue
        metrics = row.metrics or Metrics()
        try:
            found.append(
                PerformanceRow(
                    str(whole(row.campaign.id, "a campaign id")),
                    row.segments.date,
                    whole(metrics.impressions, "impressions"),
                    whole(metrics.clicks, "clicks"),
                    count_of(metrics.conversions, "conversions"),
                    whole(metrics.cost_micros, "cost"),
                    micros_of(metrics.conversions_value, "a conversion value"),
                )
            )
        except Temporary:
            continue
    return found


def spend_rows(rows: Sequence[Row]) -> list[SpendRow]:
    """Cost of one campaign on one day each. Raises Temporary: cost that cannot be read must not count as none."""
    return [
        SpendRow(
            str(whole(row.campaign.id, "a campaign id")),
            row.segments.date,
            whole(row.metrics.cost_micros if row.metrics is not None else 0, "cost"),
        )
        for row in rows
        if row.campaign is not None and row.segments is not None
    ]


def target_roas(ltv_micros: int, bid_micros: int) -> float:
    """Worth of a customer against what is paid for one, as the ratio Google takes (CON-05), clamped to its bounds."""
    ratio = Decimal(ltv_micros) / Decimal(bid_micros)
    return float(min(max(ratio, LOWEST_ROAS), HIGHEST_ROAS).quantize(Decimal("0.0001")))


def signals(intent: Intent) -> list[dict[str, str]]:
    """Custom parameters that carry the value signal and why (CON-07). They steer nothing, they tell."""
    values = {"kikiltv": str(Decimal(intent.ltv_micros).scaleb(-6).normalize().__format__("f"))}
    if intent.confidence_permille:
        values["kikiconf"] = f"{intent.confidence_permille / 1000:.3f}"
    note = {"bid": str(Decimal(intent.after).scaleb(-6).normalize().__format__("f")), "why": intent.note}
    values["kikiwhy"] = _fitting(note)
    return [{"key": key, "value": value} for key, value in values.items()]


def _fitting(note: dict[str, str]) -> str:
    """JSON of a note that Google's length of a value can hold: the explanation is cut, never the JSON."""
    while True:
        text = msgspec.json.encode(note).decode()
        over = len(text.encode()) - PARAMETER_LENGTH
        if over <= 0 or not note["why"]:
            return text
        note["why"] = note["why"][: max(0, len(note["why"]) - max(1, over // 4))]
