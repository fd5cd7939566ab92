"""Meta's words and units, and ours: minor units of the currency, text for every number, ad sets for campaigns.

Budgets and bids are whole numbers of the account's minor unit: cents for USD, yen for JPY. They are read as text and
written as integers. Spend is decimal text in whole units, a ROAS floor is ROAS x 10,000.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import Enum, auto

import msgspec

from kiki_agent.errors import Temporary
from kiki_agent.model import Campaign, CampaignStatus, PerformanceRow, SpendRow, minor_exponent
from kiki_agent.model.money import MAX_MICROS, MICROS

ACCOUNT_FIELDS = "currency,timezone_name,account_status,min_daily_budget"
CAMPAIGN_FIELDS = "id,name,status,effective_status,daily_budget,lifetime_budget,bid_strategy"
AD_SET_FIELDS = (
    "id,name,campaign_id,status,effective_status,daily_budget,lifetime_budget,bid_amount,bid_strategy,"
    "optimization_goal,learning_stage_info"
)
INSIGHT_FIELDS = "adset_id,spend,impressions,clicks,actions,action_values"
SPEND_FIELDS = "adset_id,spend"

BID_CAP = "LOWEST_COST_WITH_BID_CAP"
CAPPED = frozenset({BID_CAP, "COST_CAP"})
MIN_ROAS = "LOWEST_COST_WITH_MIN_ROAS"
LEARNING = "LEARNING"
ROAS_SCALE = 10_000
LOWEST_FLOOR, HIGHEST_FLOOR = 100, 10_000_000
"""Bounds of `roas_average_floor`: a ROAS of 0.01 to 1,000 (AdCampaignBidConstraint)."""
Text = str | int | float
"""Numbers come as text; a number where text is due is read all the same."""


class Lever(Enum):
    """What moves an ad set's bids."""

    BID_AMOUNT = auto()
    MIN_ROAS = auto()
    """A floor on the return, moved only when the value of a customer is known."""
    NONE = auto()
    """Meta alone."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an ad set's levers are."""

    ad_set: str
    budget: str
    """Id of the node that holds the budget: the ad set or its campaign."""
    lever: Lever
    own_strategy: bool
    """False where the campaign holds the budget, and with it the bid strategy."""


class CampaignNode(msgspec.Struct):
    """A campaign."""

    id: str
    name: str = ""
    status: str = ""
    effective_status: str = ""
    daily_budget: Text = "0"
    lifetime_budget: Text = "0"
    bid_strategy: str = ""


class Learning(msgspec.Struct):
    """Whether Meta still tries out how to deliver."""

    status: str = ""


class AdSetNode(msgspec.Struct):
    """An ad set."""

    id: str
    campaign_id: str = ""
    name: str = ""
    status: str = ""
    effective_status: str = ""
    daily_budget: Text = "0"
    lifetime_budget: Text = "0"
    bid_amount: Text = 0
    bid_strategy: str = ""
    learning_stage_info: Learning | None = None


class AccountNode(msgspec.Struct):
    """The account."""

    currency: str = ""
    timezone_name: str = ""
    min_daily_budget: Text = 0


class Action(msgspec.Struct):
    """How often one kind of event happened, or what it was worth."""

    action_type: str = ""
    value: Text = "0"


class Insight(msgspec.Struct):
    """One ad set on one day."""

    adset_id: str = ""
    date_start: str = ""
    spend: Text = "0"
    impressions: Text = "0"
    clicks: Text = "0"
    actions: list[Action] = []
    action_values: list[Action] = []


class Cursors(msgspec.Struct):
    """Where the next page begins."""

    after: str = ""


class Paging(msgspec.Struct):
    """Whether there is more."""

    cursors: Cursors | None = None
    next: str = ""

    @property
    def cursor(self) -> str:
        """What to pass as `after`; empty on the last page."""
        return self.cursors.after if self.next and self.cursors is not None else ""


class Campaigns(msgspec.Struct):
    """A page of campaigns."""

    data: list[CampaignNode]
    paging: Paging = msgspec.field(default_factory=Paging)


class AdSets(msgspec.Struct):
    """A page of ad sets."""

    data: list[AdSetNode]
    paging: Paging = msgspec.field(default_factory=Paging)


class Insights(msgspec.Struct):
    """A page of insights."""

    data: list[Insight]
    paging: Paging = msgspec.field(default_factory=Paging)


@dataclass(slots=True)
class Account:
    """All ad sets with their levers, as one read found them."""

    campaigns: list[Campaign] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    """By ad set id."""


def offset(currency: str) -> int:
    """Minor units in one unit: 100 for USD, 1 for JPY, 1,000 for KWD."""
    return int(10 ** minor_exponent(currency))


def micros_of_minor(value: Text, currency: str, what: str) -> int:
    """Micros of an amount in minor units. Raises Temporary for anything but a whole number that can be believed."""
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise Temporary(f"the answer of Meta is garbled: {what} is {text[:24]!r}")
    return int(text) * (MICROS // offset(currency))


def minor_of_micros(micros: int, currency: str) -> int:
    """Minor units of micros. Raises ValueError when they are no whole number of them: nothing is rounded here."""
    units, rest = divmod(micros, MICROS // offset(currency))
    if rest:
        raise ValueError(f"{micros} micros are no whole number of the minor unit of {currency}")
    return units


def micros_of(value: Text, what: str) -> int:
    """Micros of decimal text in whole units."""
    try:
        exact = Decimal(str(value))
    except InvalidOperation:
        exact = Decimal("NaN")
    if isinstance(value, bool) or not exact.is_finite() or not 0 <= exact * MICROS <= MAX_MICROS:
        raise Temporary(f"the answer of Meta is garbled: {what} is {str(value)[:24]!r}")
    return int((exact * MICROS).to_integral_value())


def count_of(value: Text, what: str) -> int:
    """A whole number out of text; fractions, which modelled conversions can have, are rounded half to even."""
    return int(Decimal(micros_of(value, what)).scaleb(-6).to_integral_value())


def roas_floor(ltv_micros: int, bid_micros: int) -> int:
    """Worth of a customer against what is paid for one, as Meta's floor: the ratio x 10,000, within its bounds."""
    return min(max(ltv_micros * ROAS_SCALE // bid_micros, LOWEST_FLOOR), HIGHEST_FLOOR)


def account_of(
    campaigns: Sequence[CampaignNode],
    ad_sets: Sequence[AdSetNode],
    least_budget_micros: int,
    connector: str,
    platform: str,
    currency: str,
) -> Account:
    """Ad sets with budgets and levers. Raises Temporary on what makes no sense."""
    parents = {each.id: each for each in campaigns}
    found = Account()
    step = MICROS // offset(currency)
    for node in ad_sets:
        parent = parents.get(node.campaign_id)
        if parent is None:
            continue  # made between the two reads; the next one has both
        if node.effective_status in ("ARCHIVED", "DELETED"):
            continue
        campaign, place = _ad_set(node, parent, least_budget_micros, connector, platform, currency, step)
        found.campaigns.append(campaign)
        found.places[node.id] = place
    return found


def _ad_set(
    node: AdSetNode,
    parent: CampaignNode,
    least_budget_micros: int,
    connector: str,
    platform: str,
    currency: str,
    step: int,
) -> tuple[Campaign, Place]:
    daily = micros_of_minor(parent.daily_budget, currency, "a budget")
    above = daily > 0 or str(parent.lifetime_budget) not in ("0", "")
    if not above:
        daily = micros_of_minor(node.daily_budget, currency, "a budget")
    strategy = parent.bid_strategy if above and parent.bid_strategy else node.bid_strategy
    bid = micros_of_minor(node.bid_amount, currency, "a bid")
    lever = Lever.BID_AMOUNT if strategy in CAPPED and bid > 0 else Lever.NONE
    if strategy == MIN_ROAS:
        lever = Lever.MIN_ROAS
    campaign = Campaign(
        connector=connector,
        campaign_id=node.id,
        platform=platform,
        name=f"{parent.name} / {node.name}",
        status=_status(node, parent),
        daily_budget_micros=daily,
        bid_micros=bid or step,
        currency=currency,
        bid_step_micros=step,
        min_bid_micros=step,
        min_budget_micros=max(least_budget_micros, step),
        budget_step_micros=step,
        budget_id=f"campaign:{parent.id}" if above else "",
        steers_bid=lever is Lever.BID_AMOUNT,
        steers_budget=daily > 0,
        learning=node.learning_stage_info is not None and node.learning_stage_info.status == LEARNING,
    )
    place = Place(node.id, parent.id if above else node.id, lever, own_strategy=not above)
    return campaign, place


def _status(node: AdSetNode, parent: CampaignNode) -> CampaignStatus:
    """Whether it may spend: what Meta computed out of all levels where it says so, else the switches themselves."""
    if node.effective_status:
        return CampaignStatus.ACTIVE if node.effective_status == "ACTIVE" else CampaignStatus.PAUSED
    return CampaignStatus.ACTIVE if node.status == parent.status == "ACTIVE" else CampaignStatus.PAUSED


def performance_rows(rows: Sequence[Insight], purchase: str) -> list[PerformanceRow]:
    """One ad set and day each; rows that make no sense are left out, as their numbers could be booked wrongly."""
    found = []
    for row in rows:
        try:
            found.append(
                PerformanceRow(
                    row.adset_id,
                    row.date_start,
                    count_of(row.impressions, "impressions"),
                    count_of(row.clicks, "clicks"),
                    count_of(_one(row.actions, purchase), "purchases"),
                    micros_of(row.spend, "spend"),
                    micros_of(_one(row.action_values, purchase), "a purchase value"),
                )
            )
        except Temporary:
            continue
    return found


def _one(actions: Sequence[Action], purchase: str) -> Text:
    """The value under one name of an event; the other names tell of the same events, and a second line repeats it."""
    return next((each.value for each in actions if each.action_type == purchase), "0")


def spend_rows(rows: Sequence[Insight]) -> list[SpendRow]:
    """Spend of one ad set on one day each. Raises Temporary: spend that cannot be read must not count as none."""
    return [SpendRow(row.adset_id, row.date_start, micros_of(row.spend, "spend")) for row in rows]


def time_range(first_day: str, last_day: str) -> str:
    """`time_range` of an insights request."""
    return msgspec.json.encode({"since": first_day, "until": last_day}).decode()


def form(values: Mapping[str, object]) -> dict[str, str]:
    """Fields as a form carries them: text as it is, the rest as JSON."""
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in values.items()
    }
