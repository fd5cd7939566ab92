"""Meta's words and units, and ours: minor units of the currency, text for every number, ad sets for campaigns.

Budgets and bids are whole numbers of what Meta counts a currency in (`currency.py`): cents for USD, yen for JPY. They
are read as text and written as integers. Spend is decimal text in whole units, a ROAS floor is ROAS x 10,000.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import Enum, auto

import msgspec

from kiki_agent.errors import Temporary
from kiki_agent.model import Campaign, CampaignStatus, PerformanceRow, SpendRow
from kiki_agent.model.money import MAX_MICROS, MICROS
from kiki_meta.currency import offset, step_micros

ACCOUNT_FIELDS = "currency,timezone_name,account_status,min_daily_budget"
CAMPAIGN_FIELDS = "id,name,status,effective_status,daily_budget,lifetime_budget,bid_strategy"
AD_SET_FIELDS = (
    "id,name,campaign_id,status,effective_status,daily_budget,lifetime_budget,bid_amount,bid_strategy,bid_constraints,"
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
    floor: int = 0
    """The ROAS floor in force, ROAS x 10,000; 0 = none."""
    switched_on: bool = False
    """Its own switch; whether it may spend depends on its campaign too."""


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


class Constraints(msgspec.Struct):
    """What bounds the bids of an ad set besides its bid."""

    roas_average_floor: Text = 0


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
    bid_constraints: Constraints | None = None
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
    """One ad set on one day. Meta leaves actions out when there were none, and never the rest."""

    adset_id: str = ""
    date_start: str = ""
    spend: Text | None = None
    impressions: Text | None = None
    clicks: Text | None = None
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


def micros_of_minor(value: Text, currency: str, what: str) -> int:
    """Micros of an amount in minor units. Raises Temporary for anything but a whole number that can be believed."""
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise Temporary(f"the answer of Meta is garbled: {what} is {text[:24]!r}")
    return int(text) * step_micros(currency)


def minor_of_micros(micros: int, currency: str) -> int:
    """Minor units of micros. Raises ValueError when they are no whole number of them: nothing is rounded here."""
    units, rest = divmod(micros, step_micros(currency))
    if rest or micros < 0:
        raise ValueError(
            f"{micros} micros are no whole number of what Meta counts {currency} in (1/{offset(currency)})"
        )
    return units


def micros_of(value: Text | None, what: str) -> int:
    """Micros of decimal text in whole units. Raises Temporary for what is absent, negative or no number."""
    try:
        exact = Decimal(str(value))
    except InvalidOperation:
        exact = Decimal("NaN")
    if isinstance(value, bool) or not exact.is_finite() or not 0 <= exact * MICROS <= MAX_MICROS:
        raise Temporary(f"the answer of Meta is garbled: {what} is {str(value)[:24]!r}")
    return int((exact * MICROS).to_integral_value())


def count_of(value: Text | None, what: str) -> int:
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
    step = step_micros(currency)
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
    floor = _whole(node.bid_constraints.roas_average_floor) if node.bid_constraints is not None else 0
    place = Place(node.id, parent.id if above else node.id, lever, not above, floor, node.status == "ACTIVE")
    return campaign, place


def _status(node: AdSetNode, parent: CampaignNode) -> CampaignStatus:
    """Whether it may spend: what Meta computed out of all levels where it says so, else the switches themselves."""
    if node.effective_status:
        return CampaignStatus.ACTIVE if node.effective_status == "ACTIVE" else CampaignStatus.PAUSED
    return CampaignStatus.ACTIVE if node.status == parent.status == "ACTIVE" else CampaignStatus.PAUSED


def _whole(value: Text) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise Temporary(f"the answer of Meta is garbled: a ROAS floor is {text[:24]!r}")
    return int(text)


def performance_rows(rows: Sequence[Insight], purchase: str, first_day: str, last_day: str) -> list[PerformanceRow]:
    """One ad set and day each. Rows that make no sense, and those of days nobody asked for, are left out: their numbers
    could be booked wrongly. The caller counts what is missing."""
    found: dict[tuple[str, str], PerformanceRow] = {}
    for row in rows:
        try:
            _expect(row, first_day, last_day)
            found[row.adset_id, row.date_start] = PerformanceRow(
                row.adset_id,
                row.date_start,
                count_of(row.impressions, "impressions"),
                count_of(row.clicks, "clicks"),
                count_of(_one(row.actions, purchase), "purchases"),
                micros_of(row.spend, "spend"),
                micros_of(_one(row.action_values, purchase), "a purchase value"),
            )
        except Temporary:
            continue
    return list(found.values())


def _one(actions: Sequence[Action], purchase: str) -> Text:
    """The value under one name of an event; the other names tell of the same events, and a second line repeats it."""
    return next((each.value for each in actions if each.action_type == purchase), "0")


def spend_rows(rows: Sequence[Insight], first_day: str, last_day: str) -> list[SpendRow]:
    """Spend of one ad set on one day each. Raises Temporary: spend that cannot be read must not count as none.

    A row that comes twice, which pages that shift can bring about, counts once, with the higher spend.
    """
    found: dict[tuple[str, str], SpendRow] = {}
    for row in rows:
        _expect(row, first_day, last_day)
        spend = micros_of(row.spend, "spend")
        key = row.adset_id, row.date_start
        known = found.get(key)
        if known is None or known.spend_micros < spend:
            found[key] = SpendRow(row.adset_id, row.date_start, spend)
    return list(found.values())


def _expect(row: Insight, first_day: str, last_day: str) -> None:
    """A row is one of those that were asked for."""
    if not row.adset_id.isascii() or not row.adset_id.isdecimal():
        raise Temporary(f"the answer of Meta is garbled: an ad set's id is {row.adset_id[:24]!r}")
    if not (first_day <= row.date_start <= last_day and _is_day(row.date_start)):
        got = row.date_start[:12]
        raise Temporary(f"the answer of Meta is garbled: asked for {first_day} to {last_day}, got {got!r}")


def _is_day(text: str) -> bool:
    if len(text) != 10:
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def time_range(first_day: str, last_day: str) -> str:
    """`time_range` of an insights request."""
    return msgspec.json.encode({"since": first_day, "until": last_day}).decode()


def form(values: Mapping[str, object]) -> dict[str, str]:
    """Fields as a form carries them: text as it is, the rest as JSON."""
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in values.items()
    }
