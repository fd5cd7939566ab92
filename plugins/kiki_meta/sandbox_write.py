"""Changes of ad sets and campaigns as Meta takes them: forms or JSON, every field by name and type."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from kiki_agent.model import HOUR, Instant
from kiki_agent.sandbox import Change
from kiki_meta.sandbox_account import FIRST_CAMPAIGN, FIRST_SET, LIFETIME, UNCAPPED, MetaAccount

BUDGET_EDITS_PER_HOUR = 4
"""Of one ad set; the next one blocks its budget for an hour (rate limiting page)."""
STRATEGIES = ("COST_CAP", "LOWEST_COST_WITHOUT_CAP", "LOWEST_COST_WITH_BID_CAP", "LOWEST_COST_WITH_MIN_ROAS")
GOALS = ("OFFSITE_CONVERSIONS", "VALUE", "LINK_CLICKS", "IMPRESSIONS", "REACH", "LANDING_PAGE_VIEWS")
LARGEST_MINOR = 10**11

AD_SET_FIELDS = frozenset(
    {"daily_budget", "bid_amount", "bid_strategy", "bid_constraints", "status", "optimization_goal", "name",
     "execution_options"}
)  # fmt: skip
CAMPAIGN_FIELDS = frozenset({"daily_budget", "bid_strategy", "status", "name", "execution_options"})


class Problem(Exception):
    """A request that gets an error."""

    def __init__(
        self, code: int, message: str, *, status: int = 400, subcode: int = 0, transient: bool = False
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.subcode, self.transient = code, message, status, subcode, transient


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
        _known(fields, AD_SET_FIELDS)
        account = self.account
        moves: list[Change] = []
        after: list[Callable[[], None]] = []
        if "daily_budget" in fields:
            if account.members(index):
                raise Problem(100, "Ad set budgets cannot be set while the campaign has a budget.", subcode=1_885_621)
            moves.append(self._budget(index, fields["daily_budget"], now, FIRST_SET + index))
        if "status" in fields:
            status = _word(fields["status"], ("ACTIVE", "PAUSED"), "status")
            moves.append(Change(index, "set_status", int(status == "ACTIVE")))
        strategy = account.strategy(index)
        if "bid_strategy" in fields:
            if account.members(index) or index == LIFETIME:
                raise Problem(100, "The bid strategy is the campaign's while it has the budget.", subcode=1_885_737)
            strategy = _word(fields["bid_strategy"], STRATEGIES, "bid_strategy")
            after.append(lambda: account.strategies.__setitem__(index, strategy))
        if "optimization_goal" in fields:
            goal = _word(fields["optimization_goal"], GOALS, "optimization_goal")
            after.append(lambda: account.goals.__setitem__(index, goal))
        if "bid_constraints" in fields:
            self._check_floor(fields["bid_constraints"], strategy)
        if "bid_amount" in fields:
            if strategy == "LOWEST_COST_WITHOUT_CAP" or index == UNCAPPED:
                raise Problem(100, "bid_amount is not allowed with LOWEST_COST_WITHOUT_CAP.", subcode=1_815_857)
            bid = _whole(fields["bid_amount"], "bid_amount")
            if bid < 1:
                raise Problem(100, "The bid is below the minimum.", subcode=1_885_272)
            moves.append(Change(index, "adjust_bid", bid * account.minor))
        self._make(index, fields, moves, after, now, FIRST_SET + index)

    def _campaign(self, index: int, fields: Mapping[str, Any], now: Instant) -> None:
        _known(fields, CAMPAIGN_FIELDS)
        account = self.account
        moves: list[Change] = []
        after: list[Callable[[], None]] = []
        if "daily_budget" in fields:
            if not account.members(index):
                raise Problem(100, "The budget of this campaign is held by its ad sets.", subcode=1_885_650)
            moves.append(self._budget(index, fields["daily_budget"], now, FIRST_CAMPAIGN + index))
        if "bid_strategy" in fields:
            if not account.members(index):
                raise Problem(100, "The bid strategy is set where the budget is.", subcode=1_885_737)
            strategy = _word(fields["bid_strategy"], STRATEGIES, "bid_strategy")
            members = account.members(index)
            after.append(lambda: account.strategies.update(dict.fromkeys(members, strategy)))
        if "status" in fields:
            status = _word(fields["status"], ("ACTIVE", "PAUSED"), "status")
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
        for move in moves:
            if move.kind == "set_budget":
                before = self.account.budget_micros(index)
                self.account.edited(index, before, move.after, now)
                self._edits.setdefault(node, deque()).append(now)
        self.account.desk.change(moves, now)
        for each in after:
            each()

    def _budget(self, index: int, given: Any, now: Instant, node: int) -> Change:
        amount = _whole(given, "daily_budget") * self.account.minor
        least = int(self.account.account_node()["min_daily_budget"]) * self.account.minor
        if amount < least:
            raise Problem(100, "Your budget is too low.", subcode=1_885_272)
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

    @staticmethod
    def _check_floor(given: Any, strategy: str) -> None:
        if isinstance(given, str):
            try:
                given = msgspec.json.decode(given)
            except msgspec.DecodeError:
                given = None
        if not isinstance(given, dict) or set(given) != {"roas_average_floor"}:
            raise Problem(100, "Param bid_constraints must be an object with roas_average_floor.")
        floor = _whole(given["roas_average_floor"], "roas_average_floor")
        if strategy != "LOWEST_COST_WITH_MIN_ROAS" or not 100 <= floor <= 10_000_000:
            raise Problem(100, "The ROAS floor is not allowed here, or out of range.")


def _known(fields: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in fields:
        if name not in known:
            raise Problem(100, f"Unknown parameter: {name[:60]}")
    if "name" in fields and not (isinstance(fields["name"], str) and 0 < len(fields["name"]) <= 400):
        raise Problem(100, "Param name must be a string.")


def _options(fields: Mapping[str, Any]) -> list[str]:
    given = fields.get("execution_options", [])
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(given)
        except msgspec.DecodeError:
            given = [None]
    if not isinstance(given, list) or any(each not in ("validate_only", "include_recommendations") for each in given):
        raise Problem(100, "Param execution_options must be one of {validate_only, include_recommendations}")
    return given


def _whole(given: Any, name: str) -> int:
    """An unsigned integer; in a form it is text, in JSON a number."""
    text = str(given)
    if isinstance(given, bool) or not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise Problem(100, f"(#100) Param {name} must be an integer")
    if int(text) > LARGEST_MINOR:
        raise Problem(100, f"(#100) Param {name} is too large")
    return int(text)


def _word(given: Any, known: tuple[str, ...], name: str) -> str:
    if given not in known:
        raise Problem(100, f"(#100) Param {name} must be one of {{{', '.join(known)}}}")
    return str(given)
