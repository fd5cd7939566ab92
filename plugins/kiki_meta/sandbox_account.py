"""The account behind the stand-in: the market's campaigns as ad sets, grouped under campaigns.

Who shares a budget and which strategy bids where follows from an ad set's place in the account: most ad sets have a
budget and a bid cap of their own, some campaigns hold the budget of two or three ad sets, one ad set leaves its bids to
Meta, and one campaign has a lifetime budget that nobody sets by the day.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from kiki_agent.model import HOUR, SECOND, Instant, iso
from kiki_agent.model.money import MICROS
from kiki_agent.sandbox import CampaignDay, Desk
from kiki_meta.currency import step_micros

FIRST_SET, FIRST_CAMPAIGN = 120_200_000_000_001, 120_100_000_000_001
GROUPS = ((3, 4), (8, 9, 10))
"""Ad sets, by their place, whose campaign holds the budget."""
UNCAPPED = 6
LIFETIME = 14
LEARNS_FOR = 6 * HOUR
FIRST_FLOOR = 10_000
"""ROAS floor of an ad set that bids for return before anyone moved it: 1.0."""
KEPT_ACTIVITIES = 5_000
ACTOR, APPLICATION = "100000000000001", "200000000000002"
BIG_EDIT = 0.2
"""A budget that moves by more than this part of itself makes Meta learn anew."""


class MetaAccount:
    """One ad account over a desk."""

    def __init__(self, desk: Desk, account: str, currency: str, timezone: str) -> None:
        self.desk = desk
        self.account = account
        self.currency, self.timezone = currency, timezone
        self.minor = step_micros(currency)
        """Micros of what the currency is counted in."""
        self.goals: dict[int, str] = {}
        self.strategies: dict[int, str] = {}
        self.floors: dict[int, int] = {}
        """ROAS floors, x 10,000."""
        self.activities: deque[tuple[Instant, dict[str, Any]]] = deque(maxlen=KEPT_ACTIVITIES)
        """Edits, oldest first."""
        self.learning_until: dict[int, Instant] = {}
        self._groups = {
            index: members
            for group in GROUPS
            if len(members := tuple(each for each in group if each < desk.size)) > 1
            for index in members
        }
        self._parents = [str(self.parent(index)) for index in range(desk.size)]

    # -- structure --------------------------------------------------------------------------------------------------

    def members(self, index: int) -> tuple[int, ...]:
        """Ad sets that spend from their campaign's budget; empty for a budget of its own."""
        return self._groups.get(index, ())

    def parent(self, index: int) -> int:
        """Number of the campaign of an ad set."""
        return FIRST_CAMPAIGN + min(self.members(index) or (index,))

    def strategy(self, index: int) -> str:
        """What bids for an ad set."""
        usual = "COST_CAP" if index % 7 == 5 else "LOWEST_COST_WITH_BID_CAP"
        return self.strategies.get(index, "LOWEST_COST_WITHOUT_CAP" if index == UNCAPPED else usual)

    def budget_micros(self, index: int) -> int:
        """The whole budget an ad set spends from."""
        return sum(self.desk.budget_micros(each) for each in self.members(index) or (index,))

    def ad_set(self, identity: str) -> int | None:
        """Place of an ad set by its id."""
        return _place(identity, FIRST_SET, self.desk.size)

    def campaign(self, identity: str) -> int | None:
        """Place of the first ad set of a campaign, by the campaign's id."""
        index = _place(identity, FIRST_CAMPAIGN, self.desk.size)
        return index if index is not None and self.parent(index) - FIRST_CAMPAIGN == index else None

    # -- nodes ------------------------------------------------------------------------------------------------------

    def campaign_nodes(self) -> Iterator[dict[str, Any]]:
        """All campaigns."""
        for index in range(self.desk.size):
            if self.parent(index) - FIRST_CAMPAIGN == index:
                yield self.campaign_node(index)

    def campaign_node(self, index: int) -> dict[str, Any]:
        """One campaign; what is not set is left out."""
        node: dict[str, Any] = {
            "id": str(self.parent(index)),
            "name": self.desk.name(index),
            "status": "ACTIVE",
            "effective_status": "ACTIVE",
            "objective": "OUTCOME_SALES",
        }
        if self.members(index):
            node["daily_budget"] = str(self.budget_micros(index) // self.minor)
            node["bid_strategy"] = self.strategy(index)
        elif index == LIFETIME:
            node["lifetime_budget"] = str(self.budget_micros(index) * 30 // self.minor)
            node["bid_strategy"] = self.strategy(index)
        return node

    def ad_set_nodes(self, now: Instant) -> Iterator[dict[str, Any]]:
        """All ad sets."""
        return (self.ad_set_node(index, now) for index in range(self.desk.size))

    def ad_set_node(self, index: int, now: Instant) -> dict[str, Any]:
        """One ad set."""
        status = "ACTIVE" if self.desk.active(index) else "PAUSED"
        node: dict[str, Any] = {
            "id": str(FIRST_SET + index),
            "name": f"Set {index + 1}",
            "campaign_id": str(self.parent(index)),
            "status": status,
            "effective_status": status,
            "optimization_goal": self.goals.get(index, "OFFSITE_CONVERSIONS"),
        }
        own = not self.members(index) and index != LIFETIME
        if own:
            node["daily_budget"] = str(self.budget_micros(index) // self.minor)
            node["bid_strategy"] = self.strategy(index)
        strategy = self.strategy(index)
        if strategy == "LOWEST_COST_WITH_MIN_ROAS":
            node["bid_constraints"] = {"roas_average_floor": self.floors.get(index, FIRST_FLOOR)}
        elif strategy != "LOWEST_COST_WITHOUT_CAP":
            node["bid_amount"] = self.desk.bid_micros(index) // self.minor
        until = self.learning_until.get(index)
        if until is not None:
            node["learning_stage_info"] = {"status": "LEARNING" if now < until else "SUCCESS"}
        return node

    def account_node(self) -> dict[str, Any]:
        """The account."""
        return {
            "id": f"act_{self.account}",
            "account_id": self.account,
            "name": "Simulated account",
            "account_status": 1,
            "currency": self.currency,
            "timezone_name": self.timezone,
            "min_daily_budget": max(1, MICROS // self.minor),
        }

    def insight(self, day: CampaignDay, actions: bool) -> dict[str, Any]:
        """One ad set on one day: every number as text, and the same purchases under three names."""
        row: dict[str, Any] = {
            "account_id": self.account,
            "campaign_id": self._parents[day.campaign],
            "adset_id": str(FIRST_SET + day.campaign),
            "date_start": day.day,
            "date_stop": day.day,
            "spend": _units(day.spend_micros),
            "impressions": str(day.impressions),
            "clicks": str(day.clicks),
        }
        if actions and day.conversions:
            names = ("purchase", "omni_purchase", "offsite_conversion.fb_pixel_purchase")
            row["actions"] = [
                {"action_type": "link_click", "value": str(day.clicks)},
                *({"action_type": name, "value": str(day.conversions)} for name in names),
            ]
            row["action_values"] = [{"action_type": name, "value": _units(day.revenue_micros)} for name in names]
        return row

    def note(
        self,
        event: str,
        node: int,
        before: int,
        after: int,
        now: Instant,
        *,
        actor: str = ACTOR,
        application: str = APPLICATION,
    ) -> None:
        """Keep an edit for the account's history; a run status is told one level down, in numbers.

        Without `application` it was made by hand, without `actor` too by Meta's own automation.
        """
        said: dict[str, Any] = {"old_value": before, "new_value": after}
        if event.endswith("run_status"):
            said = {"run_status": {"old_value": 1 if before else 15, "new_value": 1 if after else 15}}
        moment = iso(Instant(now // SECOND * SECOND)).removesuffix("Z") + "+0000"
        activity = {
            "event_time": moment,
            "event_type": event,
            "object_id": str(node),
            "actor_id": actor,
            "actor_name": "System user" if application else "Somebody",
            "application_id": application,
            "extra_data": msgspec.json.encode(said).decode(),
        }
        self.activities.append((now, activity))

    def edited(self, index: int, before: int, after: int, now: Instant) -> None:
        """A big edit of a budget makes Meta learn anew."""
        if abs(after - before) > BIG_EDIT * max(before, 1):
            for member in self.members(index) or (index,):
                self.learning_until[member] = Instant(now + LEARNS_FOR)


def _place(identity: str, first: int, size: int) -> int | None:
    if not (identity.isascii() and identity.isdecimal()) or len(identity) > 18:
        return None
    index = int(identity) - first
    return index if 0 <= index < size else None


def _units(micros: int) -> str:
    """Decimal text in whole units: two decimals when they suffice, else six."""
    units, rest = divmod(micros, MICROS)
    return f"{units}.{rest // 10_000:02d}" if rest % 10_000 == 0 else f"{units}.{rest:06d}"
