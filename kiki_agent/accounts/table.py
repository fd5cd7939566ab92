"""The columns of all campaigns, one row each, in the stable order (connector, campaign id)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kiki_agent.model import Campaign, CampaignStatus

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]

_REMEMBERED = (
    "spend_today_micros",
    "spend_as_of",
    "spend_rate_micros_per_s",
    "mean_rate_per_ks",
    "clicks",
    "conversions",
    "spend_micros",
    "revenue_micros",
    "bid_set_at",
)


def even_level(parts: Ints, most: int) -> int:
    """The largest amount to which parts have to be cut so that together they stay within `most`."""
    left, many = most, len(parts)
    for part in np.sort(parts).tolist():
        if part * many >= left:
            return left // many
        left, many = left - part, many - 1
    return int(parts.max(initial=0))


class CampaignTable:
    """What is known about each campaign, as columns of n rows. Readers take the arrays; only `Accounts` writes them."""

    def __init__(self, connectors: Sequence[str]) -> None:
        self.connectors = list(connectors)
        """Sorted ids; `connector_index` points into it."""
        self.version = 0
        """Grows when rows come or go; whoever keeps arrays of n rows of its own then rebuilds them."""
        self.facts = 0
        """Grows when anything but spend changes: budgets, bids, status, performance."""
        self.rows: list[Campaign] = []
        self.index: dict[tuple[str, str], int] = {}
        self.bounds: dict[str, tuple[int, int]] = dict.fromkeys(self.connectors, (0, 0))
        """First row and row after the last of each connector."""
        self.day_caps: dict[str, int | None] = {}
        """What each connector may spend a day; plans are made within it."""
        self._allocate(0)

    def _allocate(self, n: int) -> None:
        self.connector_index: Ints = np.zeros(n, dtype=np.int64)
        self.active: Flags = np.zeros(n, dtype=np.uint8)
        """1 when the platform lets the campaign spend."""
        self.held: Flags = np.zeros(n, dtype=np.uint8)
        """1 when it is paused because the agent paused it, and may be resumed by the agent."""
        self.daily_budget_micros: Ints = np.zeros(n, dtype=np.int64)
        """The whole budget the campaign spends from, also where others spend from it too."""
        self.owns_budget: Flags = np.ones(n, dtype=np.uint8)
        """1 for one campaign of each budget, so that sums count every budget once."""
        self.pace_budget_micros: Ints = np.zeros(n, dtype=np.int64)
        """The part of the daily budget the campaign plans its day with: an even part of a shared one, and no more than
        fits with the others into the cap of the connector's day."""
        self._part_micros: Ints = np.zeros(n, dtype=np.int64)
        """The same before the cap."""
        self.steers_bid: Flags = np.ones(n, dtype=np.uint8)
        """1 when the platform takes bids for the campaign."""
        self.bid_micros: Ints = np.zeros(n, dtype=np.int64)
        """Bid in force at the platform: read from it, or confirmed by it."""
        self.bid_step_micros: Ints = np.ones(n, dtype=np.int64)
        self.min_bid_micros: Ints = np.zeros(n, dtype=np.int64)
        self.spend_today_micros: Ints = np.zeros(n, dtype=np.int64)
        """Reported spend of the account day that is running."""
        self.spend_as_of: Ints = np.zeros(n, dtype=np.int64)
        """Instant the reported spend covers; 0 = never reported."""
        self.spend_rate_micros_per_s: Ints = np.zeros(n, dtype=np.int64)
        """Upper estimate of the speed of spending since that instant."""
        self.mean_rate_per_ks: Ints = np.zeros(n, dtype=np.int64)
        """Smoothed speed of spending, micros per 1,000 seconds."""
        self.clicks: Ints = np.zeros(n, dtype=np.int64)
        """Clicks of recent days whose conversions are in, see `accounts.MATURED_DAYS`."""
        self.conversions: Ints = np.zeros(n, dtype=np.int64)
        """Conversions of the same days."""
        self.spend_micros: Ints = np.zeros(n, dtype=np.int64)
        """Spend over the whole look-back."""
        self.revenue_micros: Ints = np.zeros(n, dtype=np.int64)
        """Revenue over the whole look-back."""
        self.bid_set_at: Ints = np.zeros(n, dtype=np.int64)
        """Instant of the last bid change the platform confirmed; 0 = none by this agent."""

    def __len__(self) -> int:
        return len(self.rows)

    def replace_rows(self, rows: Sequence[Campaign], held: frozenset[tuple[str, str]]) -> Ints:
        """Take a new set of campaigns over; what is remembered about known ones moves with them.

        Returns for each new row its old row, or -1.
        """
        ordered = sorted(rows, key=lambda each: (each.connector, each.campaign_id))
        old = {name: getattr(self, name) for name in _REMEMBERED}
        origin = np.array([self.index.get((each.connector, each.campaign_id), -1) for each in ordered], dtype=np.int64)
        known = origin >= 0
        self.rows = ordered
        self.index = {(each.connector, each.campaign_id): row for row, each in enumerate(ordered)}
        self._allocate(len(ordered))
        for name, values in old.items():
            getattr(self, name)[known] = values[origin[known]]
        numbers = {connector: number for number, connector in enumerate(self.connectors)}
        for row, each in enumerate(ordered):
            self.connector_index[row] = numbers[each.connector]
            self._write(row, each)
            self.held[row] = (each.connector, each.campaign_id) in held and each.status is CampaignStatus.PAUSED
        edges = np.searchsorted(self.connector_index, np.arange(len(self.connectors) + 1))
        self.bounds = {connector: (int(edges[number]), int(edges[number + 1])) for connector, number in numbers.items()}
        self._share_out()
        self.version += 1
        self.facts += 1
        return origin

    def set_row(self, row: int, campaign: Campaign) -> None:
        """State a known campaign anew."""
        if self.rows[row] != campaign:
            before = self.rows[row]
            part, runs = int(self._part_micros[row]), self._may_run(row)
            regrouped = before.budget_id != campaign.budget_id or (
                campaign.budget_id != ""
                and (before.status, before.daily_budget_micros) != (campaign.status, campaign.daily_budget_micros)
            )
            self.rows[row] = campaign
            self._write(row, campaign)
            if campaign.status is CampaignStatus.ACTIVE:
                self.held[row] = 0
            if regrouped:
                self._share_out()
            elif (part, runs) != (int(self._part_micros[row]), self._may_run(row)):
                self._fit(campaign.connector)
            self.facts += 1

    def plan_within(self, connector: str, day_cap_micros: int | None) -> None:
        """Let the campaigns of a connector plan their day within its cap."""
        if self.day_caps.get(connector) != day_cap_micros:
            self.day_caps[connector] = day_cap_micros
            self._fit(connector)
            self.facts += 1

    def most_a_day(self, connector: str) -> Ints:
        """What each campaign of a connector can be expected to spend a day: its budget, and never above the cap."""
        low, high = self.bounds[connector]
        budgets, cap = self.daily_budget_micros[low:high], self.day_caps.get(connector)
        return budgets if cap is None else np.minimum(budgets, cap)

    def set_bid(self, row: int, bid_micros: int) -> None:
        """The platform confirmed a bid."""
        self.set_row(row, replace(self.rows[row], bid_micros=bid_micros))

    def set_budget(self, row: int, daily_budget_micros: int) -> None:
        """The platform confirmed a daily budget; all campaigns that spend from it have it."""
        for other in self.sharing(row):
            self.set_row(other, replace(self.rows[other], daily_budget_micros=daily_budget_micros))

    def sharing(self, row: int) -> list[int]:
        """The rows that spend from the same budget, this one included."""
        budget, connector = self.rows[row].budget_id, self.rows[row].connector
        if not budget:
            return [row]
        low, high = self.bounds[connector]
        return [other for other in range(low, high) if self.rows[other].budget_id == budget]

    def set_active(self, row: int, active: bool, *, by_us: bool) -> None:
        """The platform confirmed that a campaign runs or is paused."""
        status = CampaignStatus.ACTIVE if active else CampaignStatus.PAUSED
        self.set_row(row, replace(self.rows[row], status=status))
        self.held[row] = 1 if by_us and not active else 0
        if self.rows[row].budget_id:
            self._share_out()
        else:
            self._fit(self.rows[row].connector)

    def _share_out(self) -> None:
        """Divide shared budgets: the first row that runs stands for each, and all plan with a part."""
        groups: dict[tuple[str, str], list[int]] = {}
        for row, each in enumerate(self.rows):
            self.owns_budget[row] = 1
            self._part_micros[row] = each.daily_budget_micros
            if each.budget_id:
                groups.setdefault((each.connector, each.budget_id), []).append(row)
        for rows in groups.values():
            running = [row for row in rows if self._may_run(row)]
            self.owns_budget[rows] = 0
            self.owns_budget[(running or rows)[0]] = 1
            self._part_micros[running] //= max(1, len(running))
        for connector in self.connectors:
            self._fit(connector)

    def _fit(self, connector: str) -> None:
        """Plan with no more than the day's cap: the largest parts give way first, so that one takes no other's."""
        low, high = self.bounds[connector]
        parts, cap = self._part_micros[low:high], self.day_caps.get(connector)
        planned = self.pace_budget_micros[low:high]
        planned[:] = parts
        runs = (self.active[low:high] | self.held[low:high]).astype(bool)
        if cap is not None and int(parts[runs].sum()) > cap:
            planned[runs] = np.minimum(parts[runs], even_level(parts[runs], cap))

    def _may_run(self, row: int) -> bool:
        return bool(self.active[row] or self.held[row])

    def _write(self, row: int, campaign: Campaign) -> None:
        self.active[row] = campaign.status is CampaignStatus.ACTIVE
        self.daily_budget_micros[row] = campaign.daily_budget_micros
        if not campaign.budget_id:
            self._part_micros[row] = campaign.daily_budget_micros
        self.bid_micros[row] = campaign.bid_micros
        self.bid_step_micros[row] = campaign.bid_step_micros
        self.min_bid_micros[row] = campaign.min_bid_micros
        self.steers_bid[row] = campaign.steers_bid
