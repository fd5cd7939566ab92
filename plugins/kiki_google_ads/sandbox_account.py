"""The account behind the stand-in: the market's campaigns as Google would show them, with budgets and strategies.

Who shares a budget and which strategy bids where follows from a campaign's place in the account, so that it is the same
account on every run: most campaigns have a portfolio strategy of their own with a click ceiling, some maximise clicks
under a ceiling, some bid by hand, one leaves its bids to Google.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from kiki_agent.model import MINUTE, Instant
from kiki_agent.sandbox import CampaignDay, Desk
from kiki_google_ads.sandbox_gaql import Query, Value

FIRST_ID = 20_000_001
SHARED = ((2, 3), (11, 12, 13))
"""Campaigns, by their place, that spend from one budget."""
LEFT_ALONE = 9
"""The campaign whose bids are Google's."""
GROUPS = 2
"""Ad groups of a campaign that bids by hand."""
TOGETHER = 79_000_001
"""Number of the portfolio strategy that several campaigns share."""
SCHEMES = {
    "PORTFOLIO": "targetRoas",
    "PORTFOLIO_VALUE": "maximizeConversionValue",
    "PORTFOLIO_SPEND": "targetSpend",
    "TARGET_ROAS": "targetRoas",
    "MAXIMIZE_CONVERSION_VALUE": "maximizeConversionValue",
    "TARGET_SPEND": "targetSpend",
}
"""What bids for a campaign -> the field that holds its target."""
_TYPES = {"targetRoas": "TARGET_ROAS", "maximizeConversionValue": "MAXIMIZE_CONVERSION_VALUE",
          "targetSpend": "TARGET_SPEND"}  # fmt: skip
_SNAKES = {"targetRoas": "target_roas", "maximizeConversionValue": "maximize_conversion_value",
           "targetSpend": "target_spend"}  # fmt: skip
HISTORY_LAG = 3 * MINUTE
"""A change is in the history this much later."""
HISTORY = 10_000
"""Changes that are kept."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history: what was changed, and both sides of it in the API's own names."""

    kind: str
    """`CAMPAIGN`, `CAMPAIGN_BUDGET` or `AD_GROUP`."""
    resource: str
    campaign: str
    path: str
    """The field, as in a mask."""
    before: Any
    after: Any
    client: str = "GOOGLE_ADS_API"
    by: str = "agent@example.com"


class GoogleAccount:
    """One customer account over a desk."""

    def __init__(
        self, desk: Desk, customer: str, currency: str, timezone: str, strategies: Mapping[int, str] | None = None
    ) -> None:
        """`strategies` gives single campaigns another strategy than the one of their place."""
        self._strategies = strategies or {}
        self.events: deque[tuple[Instant, int, Event]] = deque(maxlen=HISTORY)
        """The history: when, its number, what."""
        self.group_bids: dict[str, int] = {}
        """Bids of ad groups, where they are not the campaign's."""
        self._count = 0
        self._zone = ZoneInfo(timezone)
        self.desk = desk
        self.customer = customer
        self.currency, self.timezone = currency, timezone
        self.roas = [2.0] * desk.size
        """Target ROAS of the strategies that have one."""
        self.parameters: dict[int, list[dict[str, str]]] = {}
        """Custom parameters of campaigns."""

    @cached_property
    def _groups(self) -> dict[int, tuple[int, ...]]:
        found: dict[int, tuple[int, ...]] = {}
        for group in SHARED:
            members = tuple(index for index in group if index < self.desk.size)
            if len(members) > 1:
                found |= dict.fromkeys(members, members)
        return found

    def members(self, index: int) -> tuple[int, ...]:
        """Campaigns that spend from the same budget; empty for a budget of its own."""
        return self._groups.get(index, ())

    def strategy(self, index: int) -> str:
        """What bids for a campaign: a kind of portfolio, or the type of its own strategy."""
        if index in self._strategies:
            return self._strategies[index]
        if index == LEFT_ALONE:
            return "MAXIMIZE_CONVERSIONS"
        return {6: "TARGET_SPEND", 7: "TARGET_SPEND", 8: "MANUAL_CPC"}.get(index % 10, "PORTFOLIO")

    def in_portfolio(self, index: int) -> bool:
        """Whether a campaign's strategy is a resource of its own."""
        return self.strategy(index).startswith("PORTFOLIO")

    def scheme(self, index: int) -> str:
        """The field that holds a campaign's target, on the campaign or its portfolio strategy; empty for others."""
        return SCHEMES.get(self.strategy(index), "")

    def bid_at(self, index: int, ratio: float, unit: int) -> int:
        """The price of a click that another target ROAS leads to: a stricter target pays less."""
        bid = round(self.desk.bid_micros(index) * self.roas[index] / ratio)
        return max(unit, bid - bid % unit)

    def budget_micros(self, index: int) -> int:
        """The whole budget a campaign spends from."""
        return sum(self.desk.budget_micros(each) for each in self.members(index) or (index,))

    # -- names ----------------------------------------------------------------------------------------------------

    def campaign_name(self, index: int) -> str:
        """Resource name of a campaign."""
        return f"customers/{self.customer}/campaigns/{FIRST_ID + index}"

    def budget_id(self, index: int) -> int:
        """Number of the budget a campaign spends from."""
        return 50_000_001 + min(self.members(index) or (index,))

    def find(self, name: str, kind: str) -> int | None:
        """The campaign behind a resource name: `campaigns`, `campaignBudgets`, `biddingStrategies` or `adGroups`."""
        parts = name.split("/")
        if len(parts) != 4 or parts[0] != "customers" or parts[1] != self.customer or parts[2] != kind:
            return None
        if not (parts[3].isascii() and parts[3].isdecimal()) or len(parts[3]) > 12:
            return None
        number = int(parts[3])
        match kind:
            case "campaigns":
                index = number - FIRST_ID
            case "campaignBudgets":
                index = number - 50_000_001
                if 0 <= index < self.desk.size and self.budget_id(index) != number:
                    return None
            case "biddingStrategies":
                index = number - 70_000_001
                if 0 <= index < self.desk.size and (not self.in_portfolio(index) or not self.scheme(index)):
                    return None
            case "adGroups":
                index = (number - 90_000_001) // GROUPS
                if 0 <= index < self.desk.size and self.strategy(index) != "MANUAL_CPC":
                    return None
            case _:
                return None
        return index if 0 <= index < self.desk.size else None

    def is_first_group(self, name: str) -> bool:
        """Whether an ad group is the one that moves the bid of its campaign."""
        return (int(name.rpartition("/")[2]) - 90_000_001) % GROUPS == 0

    def set_group_bid(self, index: int, name: str, bid: int, before: int) -> None:
        """One ad group's bid; the others keep theirs, also when the campaign's bid in the market moves with it."""
        for number in range(GROUPS):
            sibling = f"customers/{self.customer}/adGroups/{90_000_001 + index * GROUPS + number}"
            self.group_bids.setdefault(sibling, before)
        self.group_bids[name] = bid

    # -- history --------------------------------------------------------------------------------------------------

    def note(self, event: Event, now: Instant) -> None:
        """A change that was made."""
        self._count += 1
        self.events.append((now, self._count, event))

    def budget_event(self, index: int, after: int) -> Event:
        """The daily amount of a budget; one that several campaigns share belongs to none of them."""
        name = f"customers/{self.customer}/campaignBudgets/{self.budget_id(index)}"
        campaign = "" if self.members(index) else self.campaign_name(index)
        before = self.budget_micros(index)
        return Event("CAMPAIGN_BUDGET", name, campaign, "amountMicros", str(before), str(after))

    def status_event(self, index: int, after: int) -> Event:
        """Paused or enabled."""
        words = ("PAUSED", "ENABLED")
        name = self.campaign_name(index)
        return Event("CAMPAIGN", name, name, "status", words[self.desk.active(index)], words[after])

    def bid_event(self, index: int, path: str, after: int) -> Event:
        """The ceiling of a campaign."""
        name = self.campaign_name(index)
        return Event("CAMPAIGN", name, name, path, str(self.desk.bid_micros(index)), str(after))

    def ratio_event(self, index: int, path: str, after: float) -> Event:
        """The target of a campaign."""
        name = self.campaign_name(index)
        return Event("CAMPAIGN", name, name, path, self.roas[index], after)

    def group_event(self, index: int, name: str, after: int) -> Event:
        """The bid of an ad group."""
        before = self.group_bids.get(name, self.desk.bid_micros(index))
        return Event("AD_GROUP", name, self.campaign_name(index), "cpcBidMicros", str(before), str(after))

    def _history(self, now: Instant) -> Iterator[dict[str, Value]]:
        for at, number, event in self.events:
            if at > now - HISTORY_LAG:
                continue
            side = {"CAMPAIGN": "campaign", "CAMPAIGN_BUDGET": "campaignBudget", "AD_GROUP": "adGroup"}[event.kind]
            yield {
                "change_event.resource_name": f"customers/{self.customer}/changeEvents/{at}~{number}~1",
                "change_event.change_date_time": self.local(at),
                "change_event.change_resource_type": event.kind,
                "change_event.change_resource_name": event.resource,
                "change_event.resource_change_operation": "UPDATE",
                "change_event.client_type": event.client,
                "change_event.user_email": event.by,
                "change_event.old_resource": {side: _nested(event.path, event.before)},
                "change_event.new_resource": {side: _nested(event.path, event.after)},
                "change_event.changed_fields": event.path,
                "change_event.campaign": event.campaign,
            }

    def local(self, at: Instant) -> str:
        """A time on the account's clock, as the history writes it."""
        moment = (_EPOCH + timedelta(microseconds=at)).astimezone(self._zone)
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")

    # -- rows -----------------------------------------------------------------------------------------------------

    def rows(self, query: Query, now: Instant) -> Iterator[Mapping[str, Value]]:
        """Everything the resource of a query holds, as flat fields."""
        match query.resource:
            case "customer":
                yield {
                    "customer.id": int(self.customer),
                    "customer.currency_code": self.currency,
                    "customer.time_zone": self.timezone,
                    "customer.descriptive_name": "Simulated account",
                    "customer.test_account": True,
                }
            case "change_event":
                first, last = query.times or ("", "")
                for line in self._history(now):
                    if first <= str(line["change_event.change_date_time"])[:19] <= last:
                        yield line
            case "ad_group":
                for index in range(self.desk.size):
                    if self.strategy(index) == "MANUAL_CPC":
                        yield from self._ad_groups(index)
            case "campaign" if query.days is None:
                for index in range(self.desk.size):
                    yield self._campaign(index)
            case "campaign":
                assert query.days is not None
                plain = all(name.startswith(("metrics.", "segments.", "campaign.id")) for name in query.fields)
                for day in self.desk.days(*query.days, now):
                    facts = {"campaign.id": FIRST_ID + day.campaign} if plain else self._campaign(day.campaign)
                    yield {**facts, **_metrics(day)}

    def report(self, query: Query, now: Instant) -> list[dict[str, Any]] | None:
        """The rows of a plain report as JSON has them, made in one go; None for any other query.

        Spend is asked for every minute, so this is the path that is walked most.
        """
        wanted = _plain_report(query)
        if wanted is None or query.days is None:
            return None
        rows = []
        for day in self.desk.days(*query.days, now):
            metrics: dict[str, Any] = {}
            for name, read in wanted:
                value = read(day)
                if value:
                    metrics[name] = value
            name, number = self._names[day.campaign]
            row = {"campaign": {"id": number, "resourceName": name}, "segments": {"date": day.day}}
            rows.append(row | {"metrics": metrics} if metrics else row)
        return rows

    @cached_property
    def _names(self) -> list[tuple[str, str]]:
        return [(self.campaign_name(index), str(FIRST_ID + index)) for index in range(self.desk.size)]

    def _campaign(self, index: int) -> dict[str, Value]:
        strategy = self.strategy(index)
        shared = bool(self.members(index))
        together = strategy == "PORTFOLIO_TOGETHER"
        scheme = "targetRoas" if together else self.scheme(index)
        row: dict[str, Value] = {
            "campaign.resource_name": self.campaign_name(index),
            "campaign.id": FIRST_ID + index,
            "campaign.name": self.desk.name(index),
            "campaign.status": "ENABLED" if self.desk.active(index) else "PAUSED",
            "campaign.campaign_budget": f"customers/{self.customer}/campaignBudgets/{self.budget_id(index)}",
            "campaign.bidding_strategy_type": _TYPES[scheme] if scheme else strategy,
            "campaign.bidding_strategy_system_status": "ENABLED",
            "campaign_budget.resource_name": f"customers/{self.customer}/campaignBudgets/{self.budget_id(index)}",
            "campaign_budget.id": self.budget_id(index),
            "campaign_budget.amount_micros": self.budget_micros(index),
            "campaign_budget.explicitly_shared": shared,
            "campaign_budget.reference_count": len(self.members(index)) or 1,
            "campaign_budget.period": "DAILY",
        }
        row["campaign.url_custom_parameters"] = self.parameters.get(index) or None
        if together or self.in_portfolio(index):
            number = TOGETHER if together else 70_000_001 + index
            name = f"customers/{self.customer}/biddingStrategies/{number}"
            count = sum(each == strategy for each in self._strategies.values()) if together else 1
            row |= {
                "campaign.bidding_strategy": name,
                "bidding_strategy.resource_name": name,
                "bidding_strategy.id": number,
                "bidding_strategy.name": f"Value of {self.desk.name(index)}",
                "bidding_strategy.type": _TYPES[scheme],
                "bidding_strategy.campaign_count": count,
                "bidding_strategy.non_removed_campaign_count": count,
            }
            row |= self._target("bidding_strategy", scheme, index, ceiling=True)
        elif scheme:
            row |= self._target("campaign", scheme, index, ceiling=scheme == "targetSpend")
        return row

    def _target(self, resource: str, scheme: str, index: int, *, ceiling: bool) -> dict[str, Value]:
        place = f"{resource}.{_SNAKES[scheme]}"
        ratio: dict[str, Value] = {} if scheme == "targetSpend" else {f"{place}.target_roas": self.roas[index]}
        return ratio | ({f"{place}.cpc_bid_ceiling_micros": self.desk.bid_micros(index)} if ceiling else {})

    def _ad_groups(self, index: int) -> Iterator[dict[str, Value]]:
        for number in range(GROUPS):
            identity = 90_000_001 + index * GROUPS + number
            name = f"customers/{self.customer}/adGroups/{identity}"
            yield {
                "ad_group.resource_name": name,
                "ad_group.id": identity,
                "ad_group.name": f"Group {number + 1}",
                "ad_group.status": "ENABLED",
                "ad_group.campaign": self.campaign_name(index),
                "ad_group.cpc_bid_micros": self.group_bids.get(name, self.desk.bid_micros(index)),
                "campaign.id": FIRST_ID + index,
                "campaign.status": "ENABLED" if self.desk.active(index) else "PAUSED",
                "campaign.bidding_strategy_type": "MANUAL_CPC",
            }


_READ: Mapping[str, tuple[str, Callable[[CampaignDay], Any]]] = {
    "metrics.cost_micros": ("costMicros", lambda day: str(day.spend_micros) if day.spend_micros else ""),
    "metrics.impressions": ("impressions", lambda day: str(day.impressions) if day.impressions else ""),
    "metrics.clicks": ("clicks", lambda day: str(day.clicks) if day.clicks else ""),
    "metrics.conversions": ("conversions", lambda day: float(day.conversions)),
    "metrics.conversions_value": ("conversionsValue", lambda day: day.revenue_micros / 1_000_000),
}


@lru_cache(maxsize=64)
def _plain_report(query: Query) -> tuple[tuple[str, Callable[[CampaignDay], Any]], ...] | None:
    """The metrics of a report by campaign and day; None where a query asks for more, or for less."""
    rest = {name for name in query.fields if name not in _READ}
    if query.tests or query.order or query.limit or rest != {"campaign.id", "segments.date"}:
        return None
    return tuple(_READ[name] for name in query.fields if name in _READ)


def _metrics(day: CampaignDay) -> dict[str, Value]:
    return {
        "segments.date": day.day,
        "metrics.cost_micros": day.spend_micros,
        "metrics.impressions": day.impressions,
        "metrics.clicks": day.clicks,
        "metrics.conversions": float(day.conversions),
        "metrics.conversions_value": day.revenue_micros / 1_000_000,
    }


def _nested(path: str, value: Any) -> Any:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value
