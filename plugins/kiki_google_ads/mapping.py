"""Google's words and units, and ours: micros as text, fractional conversions, budgets, strategies.

Amounts are micros of the account's currency (one unit is 1,000,000), integers written as JSON strings; target ROAS is a
ratio. Fields that are zero may be left out of answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, auto

from kiki_agent.errors import Temporary
from kiki_agent.model import Campaign, CampaignStatus, PerformanceRow, SpendRow, minor_exponent
from kiki_agent.model.money import MAX_MICROS, MICROS, round_to_step
from kiki_google_ads.errors import CostMissing
from kiki_google_ads.wire import AdGroupRow, BudgetRow, CampaignRow, Metrics, Number, Page, Row, StrategyRow

TELLING_CLICKS = 10
"""So many clicks of one account on one day have cost something."""
LEAST_MICROS: Mapping[int, int] = {0: MICROS, 2: 10_000, 3: 1_000}
"""Billable unit by decimals of the currency: amounts are multiples of the smallest coin."""


class Lever(Enum):
    """What sets a campaign's bids."""

    PORTFOLIO = auto()
    """The click ceiling of a portfolio strategy of its own, where it has one with a target ROAS."""
    CEILING = auto()
    """The click ceiling of a campaign that maximises clicks."""
    MANUAL = auto()
    """The click bids of its ad groups."""
    RATIO = auto()
    """A target ROAS on the campaign, which takes no ceiling; moved only when the value of a customer is known."""
    NONE = auto()
    """Google alone."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a campaign's levers are: resource names for writing, and what was in force when they were read."""

    campaign: str
    budget: str
    lever: Lever
    scheme: str = ""
    """Field of the strategy that is moved: `targetRoas`, `maximizeConversionValue` or `targetSpend`."""
    strategy: str = ""
    ad_groups: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    """Bids or ceilings in force, micros; one for each ad group where those are bid on by hand."""
    ratio: Decimal | None = None
    """Target ROAS in force at the campaign, for `Lever.RATIO`."""


@dataclass(slots=True)
class Account:
    """All campaigns with their levers, as one read found them."""

    campaigns: list[Campaign] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    """By campaign id."""


# -- numbers ----------------------------------------------------------------------------------------------------------


def whole(value: Number, what: str, most: int = 10**18 - 1) -> int:
    """An integer out of text or number. Raises Temporary for anything else, also below 0 or above `most`."""
    text = value if isinstance(value, str) else str(value)
    if text.isdecimal() and text.isascii() and len(text) <= 18:
        number = int(text)
        if number <= most:
            return number
    raise Temporary(f"the answer of Google Ads is garbled: {what} is {text[:24]!r}")


def money(value: Number, what: str) -> int:
    """Micros out of text or number. Raises Temporary as `whole` does, and for amounts beyond belief."""
    return whole(value, what, MAX_MICROS)


def micros_of(value: float | str, what: str) -> int:
    """Micros of an amount in whole units, rounded half to even. Raises Temporary for what is none."""
    if type(value) is float and 0 <= value <= MAX_MICROS // MICROS:
        return round(value * MICROS)  # below 2^53, so exact to the micro
    try:
        exact = Decimal(str(value)) * MICROS
        believed = exact.is_finite() and 0 <= exact <= MAX_MICROS
    except ArithmeticError:
        believed = False
    if not believed:
        raise Temporary(f"the answer of Google Ads is garbled: {what} is {str(value)[:24]!r}")
    return int(exact.to_integral_value())


def count_of(value: float | str, what: str) -> int:
    """A whole number of conversions; Google splits one conversion over several clicks, we round half to even."""
    return round_to_step(micros_of(value, what), MICROS) // MICROS


def step_micros(currency: str) -> int:
    """The billable unit: the smallest coin of the currency."""
    return LEAST_MICROS[minor_exponent(currency)]


# -- campaigns --------------------------------------------------------------------------------------------------------


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
        place = _place(row.campaign, row.campaign_budget, row.bidding_strategy, groups)
        campaign = _campaign(row.campaign, row.campaign_budget, place, connector, platform, currency)
        if campaign.campaign_id in found.places:
            raise Temporary(f"the answer of Google Ads is garbled: campaign {campaign.campaign_id} stands in it twice")
        found.campaigns.append(campaign)
        found.places[campaign.campaign_id] = place
    return found


def _campaign(
    row: CampaignRow, budget: BudgetRow, place: Place, connector: str, platform: str, currency: str
) -> Campaign:
    step = step_micros(currency)
    shared = budget.explicitly_shared or whole(budget.reference_count, "a reference count") > 1
    bid = max(place.levels, default=0)
    return Campaign(
        connector=connector,
        campaign_id=str(whole(row.id, "a campaign id")),
        platform=platform,
        name=row.name,
        status=CampaignStatus.ACTIVE if row.status == "ENABLED" else CampaignStatus.PAUSED,
        daily_budget_micros=money(budget.amount_micros, "a budget"),
        bid_micros=bid or step,
        currency=currency,
        bid_step_micros=step,
        min_bid_micros=step,
        min_budget_micros=step,
        budget_step_micros=step,
        budget_id=str(whole(budget.id, "a budget id")) if shared else "",
        steers_bid=bid > 0,
        steers_budget=budget.period == "DAILY",
        learning=row.bidding_strategy_system_status.startswith("LEARNING"),
    )


def _place(
    row: CampaignRow, budget: BudgetRow, strategy: StrategyRow | None, groups: Mapping[str, Sequence[AdGroupRow]]
) -> Place:
    """What sets the bids, and the bids in force."""
    names = (row.resource_name, budget.resource_name)
    if row.bidding_strategy:
        return _portfolio(names, row.bidding_strategy, strategy)
    match row.bidding_strategy_type:
        case "TARGET_SPEND":
            ceiling = row.target_spend.cpc_bid_ceiling_micros if row.target_spend is not None else 0
            return Place(*names, Lever.CEILING, "targetSpend", levels=(money(ceiling, "a bid ceiling"),))
        case "MANUAL_CPC" if own := groups.get(row.resource_name):
            levels = tuple(money(each.cpc_bid_micros, "a bid") for each in own)
            return Place(*names, Lever.MANUAL, ad_groups=tuple(each.resource_name for each in own), levels=levels)
        case "TARGET_ROAS" if row.target_roas is not None:
            return Place(*names, Lever.RATIO, "targetRoas", ratio=_ratio(row.target_roas.target_roas))
        case "MAXIMIZE_CONVERSION_VALUE" if row.maximize_conversion_value is not None:
            ratio = _ratio(row.maximize_conversion_value.target_roas)
            if ratio:  # without a target it spends the budget at any value, and a target would change what it is
                return Place(*names, Lever.RATIO, "maximizeConversionValue", ratio=ratio)
    return Place(*names, Lever.NONE)


def _portfolio(names: tuple[str, str], name: str, strategy: StrategyRow | None) -> Place:
    """A portfolio strategy is a lever only where one campaign has it: others belong to whoever put them together."""
    if strategy is not None and whole(strategy.non_removed_campaign_count, "a campaign count") <= 1:
        for scheme, target in (
            ("targetRoas", strategy.target_roas),
            ("maximizeConversionValue", strategy.maximize_conversion_value),
            ("targetSpend", strategy.target_spend),
        ):
            if target is not None:
                ceiling = money(target.cpc_bid_ceiling_micros, "a bid ceiling")
                return Place(*names, Lever.PORTFOLIO, scheme, name, levels=(ceiling,))
    return Place(*names, Lever.NONE, strategy=name)


def _ratio(value: float | str) -> Decimal:
    return Decimal(micros_of(value, "a target ROAS")).scaleb(-6)


# -- reports ----------------------------------------------------------------------------------------------------------


def costless_days(reported: Iterable[tuple[str, int, int]]) -> dict[str, int]:
    """Days on which clicks were counted and nothing at all was charged, with their clicks, of (day, clicks, cost).

    A cost of nothing is left out of answers, so a cost that is missing looks just like it. For a few clicks, or for one
    campaign, that may be true: Google takes invalid clicks back. For a whole account's day it is not believed.
    """
    clicks: dict[str, int] = {}
    charged: set[str] = set()
    for day, count, cost in reported:
        clicks[day] = clicks.get(day, 0) + count
        if cost:
            charged.add(day)
    return {day: count for day, count in clicks.items() if count >= TELLING_CLICKS and day not in charged}


def performance_rows(page: Page, first_day: str, last_day: str) -> tuple[list[PerformanceRow], int]:
    """One campaign and day each, and how many rows were left out because they make no sense.

    Those are rows with numbers that are none or negative, of days nobody asked for, any but the first of one campaign
    and day, and those of `costless_days`. Absent metrics are zero (proto3 JSON).
    """
    found: dict[tuple[str, str], PerformanceRow] = {}
    for row in page.results:
        if row.campaign is None or row.segments is None or not _between(first_day, row.segments.date, last_day):
            continue
        metrics = row.metrics or Metrics()
        try:
            made = PerformanceRow(
                str(whole(row.campaign.id, "a campaign id")),
                row.segments.date,
                whole(metrics.impressions, "impressions", MAX_MICROS),
                whole(metrics.clicks, "clicks", MAX_MICROS),
                count_of(metrics.conversions, "conversions"),
                money(metrics.cost_micros, "cost"),
                micros_of(metrics.conversions_value, "a conversion value"),
            )
        except Temporary:
            continue
        found.setdefault((made.campaign_id, made.day), made)
    costless = costless_days((each.day, each.clicks, each.spend_micros) for each in found.values())
    rows = [each for each in found.values() if each.day not in costless]
    return rows, len(page.results) - len(rows)


def spend_rows(pages: Sequence[Page], first_day: str, last_day: str) -> tuple[SpendRow, ...]:
    """Cost of one campaign on one day each.

    Raises Temporary: cost that cannot be read must not count as none; CostMissing where a whole day seems to have none.
    """
    found: list[SpendRow] = []
    clicked: list[tuple[str, int, int]] = []
    seen: set[tuple[str, str]] = set()
    ids: dict[Number, str] = {}
    for page in pages:
        for row in page.results:
            if row.campaign is None or row.segments is None:
                raise Temporary("the answer of Google Ads is garbled: a cost without a campaign or a day")
            day, number = row.segments.date, row.campaign.id
            campaign = ids.get(number) or ids.setdefault(number, str(whole(number, "a campaign id")))
            if not _between(first_day, day, last_day):
                raise Temporary(f"the answer of Google Ads is garbled: a cost of the day {day[:20]!r}")
            if (campaign, day) in seen:
                raise Temporary(f"the answer of Google Ads is garbled: two costs of campaign {campaign} on {day}")
            seen.add((campaign, day))
            metrics = row.metrics
            cost = money(metrics.cost_micros, "cost") if metrics is not None else 0
            found.append(SpendRow(campaign, day, cost))
            if metrics is not None and metrics.clicks:
                clicked.append((day, whole(metrics.clicks, "clicks", MAX_MICROS), cost))
    for day, clicks in costless_days(clicked).items():
        raise CostMissing(f"Google Ads reports {clicks} clicks on {day} and no cost at all, which is not believed")
    return tuple(found)


def _between(first_day: str, day: str, last_day: str) -> bool:
    return len(day) == 10 and first_day <= day <= last_day
