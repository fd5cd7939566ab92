"""The shapes of Google's answers, and the queries that ask for them; nothing here decides or converts.

Integers of 64 bits come as text, fractional numbers as numbers, unset fields are left out. Fields we do not read are
passed over, so that a newer minor version of the API breaks nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kiki_google_ads.errors import Status

Number = int | str
"""An int64 as the API writes it: text in answers, either in requests."""

CAMPAIGNS = (
    "SELECT campaign.id, campaign.name, campaign.status, campaign.bidding_strategy, campaign.bidding_strategy_type,"
    " campaign.bidding_strategy_system_status, campaign.target_roas.target_roas,"
    " campaign.maximize_conversion_value.target_roas,"
    " campaign.target_spend.cpc_bid_ceiling_micros, campaign_budget.id, campaign_budget.amount_micros,"
    " campaign_budget.explicitly_shared, campaign_budget.reference_count, campaign_budget.period,"
    " bidding_strategy.id, bidding_strategy.type, bidding_strategy.non_removed_campaign_count,"
    " bidding_strategy.target_roas.target_roas, bidding_strategy.target_roas.cpc_bid_ceiling_micros,"
    " bidding_strategy.maximize_conversion_value.target_roas,"
    " bidding_strategy.maximize_conversion_value.cpc_bid_ceiling_micros,"
    " bidding_strategy.target_spend.cpc_bid_ceiling_micros"
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
    "SELECT campaign.id, metrics.cost_micros, metrics.clicks, segments.date FROM campaign"
    " WHERE segments.date BETWEEN '{}' AND '{}'"
)
_PARAMETERS = "SELECT campaign.id, campaign.url_custom_parameters FROM campaign WHERE campaign.id IN ({})"
_HISTORY = (
    "SELECT change_event.change_date_time, change_event.change_resource_type, change_event.change_resource_name,"
    " change_event.resource_change_operation, change_event.client_type, change_event.user_email,"
    " change_event.old_resource, change_event.new_resource, change_event.changed_fields, change_event.campaign"
    " FROM change_event WHERE change_event.change_date_time >= '{}' AND change_event.change_date_time <= '{}'"
    " AND change_event.change_resource_type IN ('CAMPAIGN', 'CAMPAIGN_BUDGET', 'AD_GROUP')"
    " ORDER BY change_event.change_date_time LIMIT 10000"
)


def performance_query(first_day: str, last_day: str) -> str:
    """What campaigns did on account days, both included."""
    return _PERFORMANCE.format(first_day, last_day)


def spend_query(first_day: str, last_day: str) -> str:
    """What campaigns cost on account days, both included; the clicks tell a day without cost from a cost left out."""
    return _SPEND.format(first_day, last_day)


def parameters_query(campaign_ids: list[str]) -> str:
    """Custom parameters of some campaigns."""
    return _PARAMETERS.format(", ".join(campaign_ids))


def history_query(begin: str, end: str) -> str:
    """Who changed what between two account times, `YYYY-MM-DD hh:mm:ss`, at most 30 days ago."""
    return _HISTORY.format(begin, end)


class Camel(msgspec.Struct, rename="camel"):
    """Base of all shapes: names in camel case, as JSON has them."""


class TargetRoas(Camel):
    """Ratio of value to cost, and in portfolios a ceiling; `maximizeConversionValue` has the same fields."""

    target_roas: float | str = 0
    cpc_bid_ceiling_micros: Number = 0


class TargetSpend(Camel):
    """Maximize clicks."""

    cpc_bid_ceiling_micros: Number = 0


class Parameter(Camel):
    """One custom parameter."""

    key: str = ""
    value: str = ""


class CampaignRow(Camel):
    """One campaign."""

    resource_name: str = ""
    id: Number = 0
    name: str = ""
    status: str = ""
    bidding_strategy: str = ""
    bidding_strategy_type: str = ""
    bidding_strategy_system_status: str = ""
    target_roas: TargetRoas | None = None
    maximize_conversion_value: TargetRoas | None = None
    target_spend: TargetSpend | None = None
    url_custom_parameters: list[Parameter] = []


class BudgetRow(Camel):
    """One budget."""

    resource_name: str = ""
    id: Number = 0
    amount_micros: Number = 0
    explicitly_shared: bool = False
    reference_count: Number = 0
    period: str = "DAILY"


class StrategyRow(Camel):
    """One portfolio strategy."""

    resource_name: str = ""
    type: str = ""
    non_removed_campaign_count: Number = 0
    target_roas: TargetRoas | None = None
    maximize_conversion_value: TargetRoas | None = None
    target_spend: TargetSpend | None = None


class AdGroupRow(Camel):
    """One ad group."""

    resource_name: str = ""
    campaign: str = ""
    cpc_bid_micros: Number = 0


class CustomerRow(Camel):
    """The account."""

    currency_code: str = ""
    time_zone: str = ""


class Metrics(Camel):
    """What a campaign did."""

    cost_micros: Number = 0
    impressions: Number = 0
    clicks: Number = 0
    conversions: float | str = 0
    conversions_value: float | str = 0


class Segments(Camel):
    """When it did it."""

    date: str = ""


class Changed(Camel):
    """The fields of a resource that were changed, before or after."""

    campaign: CampaignRow | None = None
    campaign_budget: BudgetRow | None = None
    ad_group: AdGroupRow | None = None


class ChangeRow(Camel):
    """One line of the account's history."""

    change_date_time: str = ""
    change_resource_type: str = ""
    change_resource_name: str = ""
    resource_change_operation: str = ""
    client_type: str = ""
    user_email: str = ""
    old_resource: Changed | None = None
    new_resource: Changed | None = None
    changed_fields: str = ""
    campaign: str = ""


class Row(Camel):
    """One row of a result."""

    campaign: CampaignRow | None = None
    campaign_budget: BudgetRow | None = None
    bidding_strategy: StrategyRow | None = None
    ad_group: AdGroupRow | None = None
    customer: CustomerRow | None = None
    metrics: Metrics | None = None
    segments: Segments | None = None
    change_event: ChangeRow | None = None


class Page(Camel):
    """Answer of `googleAds:search`, and one part of the answer of `googleAds:searchStream`."""

    results: list[Row] = []
    next_page_token: str = ""
    field_mask: str = ""
    error: Status | None = None
    """A stream that breaks off says so here, under a status of 200."""


class Mutated(Camel):
    """Answer to a change."""

    results: list[dict[str, Any]] = []
    partial_failure_error: Status | None = None
    error: Status | None = None
