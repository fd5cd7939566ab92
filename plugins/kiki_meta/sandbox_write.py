"""Changes of ad sets and campaigns as Meta takes them: forms or JSON, every field by name and type."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from kiki_agent.model import HOUR, Instant
from kiki_agent.sandbox import Change
from kiki_meta.sandbox_account import FIRST_CAMPAIGN, FIRST_SET, LIFETIME, MetaAccount
from kiki_meta.sandbox_wire import Problem, decoded, only, whole, word

BUDGET_EDITS_PER_HOUR = 4
"""Of one ad set; the next one blocks its budget for an hour (rate limiting page)."""
STRATEGIES = ("COST_CAP", "LOWEST_COST_WITHOUT_CAP", "LOWEST_COST_WITH_BID_CAP", "LOWEST_COST_WITH_MIN_ROAS")
GOALS = ("OFFSITE_CONVERSIONS", "VALUE", "LINK_CLICKS", "IMPRESSIONS", "REACH", "LANDING_PAGE_VIEWS")
"""Of Meta's 32 goals those that fit a shop's campaigns."""
CAPPED = ("COST_CAP", "LOWEST_COST_WITH_BID_CAP")
MIN_ROAS = "LOWEST_COST_WITH_MIN_ROAS"

AD_SET_FIELDS = frozenset(
    {"daily_budget", "bid_amount", "bid_strategy", "bid_constraints", "status", "optimization_goal", "name",
     "execution_options"}
)  # fmt: skip
CAMPAIGN_FIELDS = frozenset({"daily_budget", "bid_strategy", "status", "name", "execution_options"})


class Writer:
    """The changes of one account."""

    def __init__(self, account: MetaAccount) -> None:
        self.account = account
        self._edits: dict[int, deque[Instant]] = {}
        self._blocked: dict[int, Instant] = {}

    def change(self, identity: str, fields: Mapping[str, Any], now: Instant) -> None:
        """Check and make a change of a node. Raises Problem."""
        index = self.account.ad_set(identity)
        if index is not None:
            self._ad_set(index, fields, now)
            return
        index = self.account.campaign(identity)
        if index is None:
            raise Problem(
                100,
                f"Unsupported post request. Object with ID '{identity[:40]}' does not exist, cannot be loaded due to"
                " missing permissions, or does not support this operation.",
                subcode=33,
            )
        self._campaign(index, fields, now)

    def _ad_set(self, index: int, fields: Mapping[str, Any], now: Instant) -> None:
        only(fields, AD_SET_FIELDS)
        _named(fields)
        account = self.account
        moves: list[Change] = []
        after: list[Callable[[], None]] = []
        if "daily_budget" in fields:
            if account.members(index) or index == LIFETIME:
                raise Problem(100, "Ad set budgets cannot be set while the campaign has a budget.", subcode=1_885_621)
            moves.append(self._budget(index, fields, now, FIRST_SET + index))
        if "status" in fields:
            status = word(fields["status"], ("ACTIVE", "PAUSED"), "status")
            moves.append(Change(index, "set_status", int(status == "ACTIVE")))
        if "optimization_goal" in fields:
            goal = word(fields["optimization_goal"], GOALS, "optimization_goal")
            after.append(lambda: account.goals.__setitem__(index, goal))
        self._bids(index, fields, moves, after)
        self._make(index, fields, moves, after, now, FIRST_SET + index)

    def _bids(
        self, index: int, fields: Mapping[str, Any], moves: list[Change], after: list[Callable[[], None]]
    ) -> None:
        """Strategy, bid and floor: a capped strategy needs a bid, one for return a floor and value as the goal."""
        account = self.account
        standing = strategy = account.strategy(index)
        if "bid_strategy" in fields:
            if account.members(index) or index == LIFETIME:
                raise Problem(100, "The bid strategy is the campaign's while it has the budget.", subcode=1_885_737)
            strategy = word(fields["bid_strategy"], STRATEGIES, "bid_strategy")
            after.append(lambda: account.strategies.__setitem__(index, strategy))
            if strategy in CAPPED and standing not in CAPPED and "bid_amount" not in fields:
                raise Problem(100, "Bid amount is required for this bid strategy.", subcode=1_815_857)
            if strategy == MIN_ROAS and standing != MIN_ROAS and "bid_constraints" not in fields:
                raise Problem(100, "A ROAS floor is required for this bid strategy.", subcode=1_815_857)
        if "bid_constraints" in fields:
            floor = _floor(fields["bid_constraints"])
            goal = fields.get("optimization_goal", account.goals.get(index))
            if strategy != MIN_ROAS or goal != "VALUE":
                raise Problem(100, "A ROAS floor needs LOWEST_COST_WITH_MIN_ROAS and the goal VALUE.")
            after.append(lambda: account.floors.__setitem__(index, floor))
        if "bid_amount" in fields:
            if strategy not in CAPPED:
                raise Problem(100, f"bid_amount is not allowed with {strategy}.", subcode=1_815_857)
            bid = whole(fields["bid_amount"], "bid_amount")
            if bid < 1:
                raise Problem(100, "The bid is below the minimum.", subcode=1_885_272)
            moves.append(Change(index, "adjust_bid", bid * account.minor))

    def _campaign(self, index: int, fields: Mapping[str, Any], now: Instant) -> None:
        only(fields, CAMPAIGN_FIELDS)
        _named(fields)
        account = self.account
        moves: list[Change] = []
        after: list[Callable[[], None]] = []
        if "daily_budget" in fields:
            if not account.members(index):
                raise Problem(100, "The budget of this campaign is held by its ad sets.", subcode=1_885_650)
            moves.append(self._budget(index, fields, now, FIRST_CAMPAIGN + index))
        if "bid_strategy" in fields:
            if not account.members(index):
                raise Problem(100, "The bid strategy is set where the budget is.", subcode=1_885_737)
            strategy = word(fields["bid_strategy"], STRATEGIES, "bid_strategy")
            members = account.members(index)
            after.append(lambda: account.strategies.update(dict.fromkeys(members, strategy)))
        if "status" in fields:
            status = word(fields["status"], ("ACTIVE", "PAUSED"), "status")
            moves += [
                Change(each, "set_status", int(status == "ACTIVE")) for each in account.members(index) or (index,)
            ]
        self._make(index, fields, moves, after, now, FIRST_CAMPAIGN + index)

    def _make(
        self,
        index: int,
        fields: Mapping[str, Any],
        moves: list[Change],
        after: list[Callable[[], None]],
        now: Instant,
        node: int,
    ) -> None:
        if not set(fields) - {"execution_options"}:
            raise Problem(100, "Nothing to change was given.")
        if "validate_only" in _options(fields):
            return
        desk, unit = self.account.desk, self.account.minor
        for move in moves:
            match move.kind:
                case "set_budget":
                    before = self.account.budget_micros(index)
                    self.account.edited(index, before, move.after, now)
                    self._edits.setdefault(node, deque()).append(now)
                    scope = "campaign" if move.members else "ad_set"
                    self.account.note(f"update_{scope}_budget", node, before // unit, move.after // unit, now)
                case "set_status":
                    scope = "ad_set" if node >= FIRST_SET else "campaign"
                    self.account.note(f"update_{scope}_run_status", node, int(desk.active(index)), move.after, now)
                case _:
                    before = desk.bid_micros(index)
                    self.account.note("update_ad_set_bidding", node, before // unit, move.after // unit, now)
        desk.change(moves, now)
        for each in after:
            each()

    def _budget(self, index: int, fields: Mapping[str, Any], now: Instant, node: int) -> Change:
        amount = whole(fields["daily_budget"], "daily_budget") * self.account.minor
        checking = "validate_only" in _options(fields)
        least = int(self.account.account_node()["min_daily_budget"]) * self.account.minor
        if amount < least:
            raise Problem(100, "Your budget is too low.", subcode=1_885_272)
        if not checking:
            self._check_edits(node, now)
        members = self.account.members(index)
        return Change(min(members or (index,)), "set_budget", amount, members=members)

    def _check_edits(self, node: int, now: Instant) -> None:
        """At most four edits of a budget within an hour; one more closes it for an hour."""
        text = "You have changed the budget of this ad set too often; it can be changed again in an hour."
        if now < self._blocked.get(node, 0):
            raise Problem(17, text, subcode=1_487_632)
        edits = self._edits.setdefault(node, deque())
        while edits and edits[0] <= now - HOUR:
            edits.popleft()
        if len(edits) >= BUDGET_EDITS_PER_HOUR:
            self._blocked[node] = Instant(now + HOUR)
            raise Problem(17, text, subcode=1_487_632)


def _floor(given: Any) -> int:
    if isinstance(given, str):
        given = decoded(given, "Param bid_constraints")
    if not isinstance(given, dict) or set(given) != {"roas_average_floor"}:
        raise Problem(100, "Param bid_constraints must be an object with roas_average_floor.")
    floor = whole(given["roas_average_floor"], "roas_average_floor")
    if not 100 <= floor <= 10_000_000:
        raise Problem(100, "The ROAS floor is out of range.")
    return floor


def _named(fields: Mapping[str, Any]) -> None:
    if "name" in fields and not (isinstance(fields["name"], str) and 0 < len(fields["name"]) <= 400):
        raise Problem(100, "Param name must be a string.")


def _options(fields: Mapping[str, Any]) -> list[str]:
    given = fields.get("execution_options", [])
    if isinstance(given, str):
        given = decoded(given, "Param execution_options")
    if not isinstance(given, list) or any(each not in ("validate_only", "include_recommendations") for each in given):
        raise Problem(100, "Param execution_options must be one of {validate_only, include_recommendations}")
    return given
