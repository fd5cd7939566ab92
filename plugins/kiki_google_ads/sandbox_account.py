"""The account behind the stand-in: the market's campaigns as Google would show them, with budgets and strategies.

Who shares a budget and which strategy bids where follows from a campaign's place in the account, so that it is the same
account on every run: most campaigns have a portfolio strategy of their own with a click ceiling, some maximise clicks
under a ceiling, some bid by hand, one leaves its bids to Google.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from kiki_agent.model import Instant
from kiki_agent.sandbox import CampaignDay, Desk
from kiki_google_ads.sandbox_gaql import Query, Value

FIRST_ID = 20_000_001
SHARED = ((2, 3), (11, 12, 13))
"""Campaigns, by their place, that spend from one budget."""
LEFT_ALONE = 9
"""The campaign whose bids are Google's."""
GROUPS = 2
"""Ad groups of a campaign that bids by hand."""


class GoogleAccount:
    """One customer account over a desk."""

    def __init__(self, desk: Desk, customer: str, currency: str, timezone: str) -> None:
        self.desk = desk
        self.customer = customer
        self.currency, self.timezone = currency, timezone
        self.roas = [2.0] * desk.size
        """Target ROAS of the strategies that have one."""
        self.parameters: dict[int, list[dict[str, str]]] = {}
        """Custom parameters of campaigns."""
        self.orders: set[str] = set()
        """Order numbers of the conversions that came in."""

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
        """What bids for a campaign: PORTFOLIO, or the type of its own strategy."""
        if index == LEFT_ALONE:
            return "MAXIMIZE_CONVERSIONS"
        return {6: "TARGET_SPEND", 7: "TARGET_SPEND", 8: "MANUAL_CPC"}.get(index % 10, "PORTFOLIO")

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
                if 0 <= index < self.desk.size and self.strategy(index) != "PORTFOLIO":
                    return None
            case "adGroups":
                index = (number - 90_000_001) // GROUPS
                if 0 <= index < self.desk.size and self.strategy(index) != "MANUAL_CPC":
                    return None
            case _:
                return None
        return index if 0 <= index < self.desk.size else None

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

    def _campaign(self, index: int) -> dict[str, Value]:
        strategy = self.strategy(index)
        shared = bool(self.members(index))
        row: dict[str, Value] = {
            "campaign.resource_name": self.campaign_name(index),
            "campaign.id": FIRST_ID + index,
            "campaign.name": self.desk.name(index),
            "campaign.status": "ENABLED" if self.desk.active(index) else "PAUSED",
            "campaign.campaign_budget": f"customers/{self.customer}/campaignBudgets/{self.budget_id(index)}",
            "campaign.bidding_strategy_type": "TARGET_ROAS" if strategy == "PORTFOLIO" else strategy,
            "campaign.bidding_strategy_system_status": "ENABLED",
            "campaign_budget.resource_name": f"customers/{self.customer}/campaignBudgets/{self.budget_id(index)}",
            "campaign_budget.id": self.budget_id(index),
            "campaign_budget.amount_micros": self.budget_micros(index),
            "campaign_budget.explicitly_shared": shared,
            "campaign_budget.reference_count": len(self.members(index)) or 1,
            "campaign_budget.period": "DAILY",
        }
        if strategy == "PORTFOLIO":
            name = f"customers/{self.customer}/biddingStrategies/{70_000_001 + index}"
            row |= {
                "campaign.bidding_strategy": name,
                "bidding_strategy.resource_name": name,
                "bidding_strategy.id": 70_000_001 + index,
                "bidding_strategy.name": f"Value of {self.desk.name(index)}",
                "bidding_strategy.type": "TARGET_ROAS",
                "bidding_strategy.campaign_count": 1,
                "bidding_strategy.non_removed_campaign_count": 1,
                "bidding_strategy.target_roas.target_roas": self.roas[index],
                "bidding_strategy.target_roas.cpc_bid_ceiling_micros": self.desk.bid_micros(index),
            }
        elif strategy == "TARGET_SPEND":
            row["campaign.target_spend.cpc_bid_ceiling_micros"] = self.desk.bid_micros(index)
        return row

    def _ad_groups(self, index: int) -> Iterator[dict[str, Value]]:
        for number in range(GROUPS):
            identity = 90_000_001 + index * GROUPS + number
            yield {
                "ad_group.resource_name": f"customers/{self.customer}/adGroups/{identity}",
                "ad_group.id": identity,
                "ad_group.name": f"Group {number + 1}",
                "ad_group.status": "ENABLED",
                "ad_group.campaign": self.campaign_name(index),
                "ad_group.cpc_bid_micros": self.desk.bid_micros(index),
                "campaign.id": FIRST_ID + index,
                "campaign.status": "ENABLED" if self.desk.active(index) else "PAUSED",
                "campaign.bidding_strategy_type": "MANUAL_CPC",
            }


def _metrics(day: CampaignDay) -> dict[str, Value]:
    return {
        "segments.date": day.day,
        "metrics.cost_micros": day.spend_micros,
        "metrics.impressions": day.impressions,
        "metrics.clicks": day.clicks,
        "metrics.conversions": float(day.conversions),
        "metrics.conversions_value": day.revenue_micros / 1_000_000,
    }
