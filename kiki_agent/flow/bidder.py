"""The loop that decides, every two seconds, what each campaign bids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kiki_agent.accounts import Accounts, Lever
from kiki_agent.config import BiddingSettings
from kiki_agent.flow.pacing import EVEN, Pace, bid_grid, plan_curve, policy_cells
from kiki_agent.flow.reasons import CHECK_FAILED, LEFT_ALONE, PLATFORM_BIDS, SENTENCES, outcome_of, reason_name
from kiki_agent.flow.rule import Standing, settle
from kiki_agent.governor.holds import Holds
from kiki_agent.kernels.bids import decide_bids
from kiki_agent.ledger import DecisionBook
from kiki_agent.model import SECOND, Decision, DecisionSource, Instant, local_day, micros_from_text
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.loop import Loop
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.shield import LevelAnswer, LevelRequest

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]

_log = get_logger("syncflow")


class Permits(Protocol):
    """The part of the shield that permits levels."""

    @property
    def connectors(self) -> Sequence[str]:
        """Ids in the order a request indexes them."""
        ...

    async def permit_levels(self, now: Instant, request: LevelRequest) -> LevelAnswer:
        """May these levels stand?"""
        ...


class Worth(Protocol):
    """The part of the value service a bid needs."""

    def ltv_micros(self, platform: str) -> tuple[int, DecisionSource, str]:
        """What a new customer of a platform is worth, where the number is from, and its model version."""
        ...


class Rescue(Protocol):
    """What decides for platforms that cannot be reached."""

    def fallback(self, connector: str, platform: str) -> tuple[int, DecisionSource, str] | None:
        """The value to use in place of a prediction; None while the connector works."""
        ...

    def decided(self, connector: str) -> None:
        """A decision was made with a fallback value."""
        ...


class Bidder(Loop):
    """Columns in, one kernel call, the shield's permit, and decision rows for what changed (FLW-01, FLW-09, FLW-10).

    `standing` holds the decisions in force; the writers read it when they are due.
    """

    name = "bidding"
    essential = True

    def __init__(
        self,
        settings: BiddingSettings,
        accounts: Accounts,
        value: Worth,
        shield: Permits,
        decisions: DecisionBook,
        *,
        signals: Signals,
        metrics: Metrics,
        timezone: str = "UTC",
        pace: Pace | None = None,
        hour_weights: Sequence[int] = EVEN,
        rescue: Rescue | None = None,
        holds: Holds | None = None,
    ) -> None:
        self.period = round(settings.interval_s * SECOND)
        self.deadline = round(settings.deadline_s * SECOND)
        self.pace = pace or Pace()
        self.accounts = accounts
        self._holds = holds or Holds()
        self._held_seen = (-1, -1)
        self._held_bids: list[tuple[int, int]] = []
        self._held_running: list[int] = []
        self._value = value
        self._rescue = rescue
        self._shield = shield
        self._decisions = decisions
        self._signals = signals
        self._metrics = metrics
        self._timezone = timezone
        self._policy = policy_cells(settings, self.pace)
        self._grid = bid_grid(settings.bid_step_percent, micros_from_text(settings.max_bid))
        self._names = [accounts.accounts[connector].platform for connector in accounts.connectors]
        self._curves = np.tile(plan_curve(hour_weights), (len(self._names), 1))
        self._platforms: Ints = np.zeros((len(self._names), 5), dtype=np.int64)
        self._worth: list[tuple[int, DecisionSource, str]] = []
        self._seen = (-1, -1)
        self._keys: list[tuple[str, str]] = []
        self._allocate(0)
        self.standing = Standing(0)
        self.version = -1
        """`accounts.table.version` the columns here were made for."""
        self.ticks = 0
        self.changed_total = 0
        self.changed_today = 0
        self.today = ""
        self.last_reason: str | None = None

    async def tick(self, now: Instant) -> str | None:
        """Decide all campaigns once. Returns why no decision changed."""
        self.accounts.roll(now)
        table = self.accounts.table
        if self.version != table.version:
            self._rearrange()
        self.ticks += 1
        if not len(table):
            self.last_reason = "no campaign is known yet"
            return self.last_reason
        revoiced = self._value_platforms()
        self._wish(now)
        failure: Exception | None = None
        try:
            answer = await self._shield.permit_levels(now, self._request(now))
        except Exception as error:  # fail closed, whatever broke
            failure = error
        if self.version != table.version:
            self.last_reason = "the set of campaigns changed in this tick"
            return self.last_reason
        if failure is None:
            bids, reasons = settle(
                now,
                self.pace.hold,
                self.accounts.day_start,
                table,
                self._wanted,
                self._own,
                answer.bid_micros,
                answer.reason,
                self.standing,
            )
        else:
            bids = np.zeros(len(table), dtype=np.int64)
            reasons = np.full(len(table), CHECK_FAILED, dtype=np.uint8)
        self._decide(now, bids, reasons, revoiced)
        if failure is not None:
            raise failure
        return self.last_reason

    # -- one tick ------------------------------------------------------------------------------------------------

    def _wish(self, now: Instant) -> None:
        """Fill the wanted bids and the rule's own reasons."""
        table, standing = self.accounts.table, self.standing
        np.bitwise_or(table.active, table.held, out=self._eligible)
        decide_bids(
            now,
            self._policy,
            self._grid,
            self._platforms,
            self._curves,
            table.connector_index,
            self._eligible,
            table.pace_budget_micros,
            table.bid_micros,
            table.min_bid_micros,
            table.bid_step_micros,
            table.spend_today_micros,
            table.spend_as_of,
            table.mean_rate_per_ks,
            table.clicks,
            table.conversions,
            standing.bids,
            standing.reasons,
            standing.at,
            self._wanted,
            self._own,
        )
        if not table.steers_bid.all():
            left_alone = (table.steers_bid == 0) & (self._wanted > 0)
            self._wanted[left_alone] = np.maximum(table.bid_micros[left_alone], 1)
            self._own[left_alone] = PLATFORM_BIDS
        if (self._holds.version, table.version) != self._held_seen:
            self._find_held()
        for row, bid in self._held_bids:
            if self._wanted[row] > 0:
                self._wanted[row], self._own[row] = max(bid, 1), LEFT_ALONE
        for row in self._held_running:
            if self._wanted[row] == 0 and self._eligible[row]:
                self._wanted[row], self._own[row] = max(int(table.bid_micros[row]), 1), LEFT_ALONE

    def _find_held(self) -> None:
        """The rows whose bid somebody else set, and those that somebody else let run."""
        table = self.accounts.table
        self._held_seen = (self._holds.version, table.version)
        self._held_bids, self._held_running = [], []
        for hold in self._holds.all():
            row = table.index.get((hold.connector, hold.campaign_id))
            if row is not None and hold.lever is Lever.BID:
                self._held_bids.append((row, hold.value))
            elif row is not None and hold.lever is Lever.STATUS and hold.value:
                self._held_running.append(row)

    def _request(self, now: Instant) -> LevelRequest:
        """All levels as the shield is asked; what a platform has not stated yet asks for what stands there."""
        table = self.accounts.table
        wanted = self._wanted
        if not self._all_known():
            wanted = np.where(self._known, wanted, table.bid_micros)
        return LevelRequest(
            connector=self._shield_index,
            wanted_bid=wanted,
            min_bid=table.min_bid_micros,
            daily_budget=table.daily_budget_micros,
            spend_today=table.spend_today_micros,
            spend_rate=table.spend_rate_micros_per_s,
            data_age=now - table.spend_as_of,
            active=self._eligible,
        )

    def _decide(self, now: Instant, bids: Ints, reasons: Flags, revoiced: Ints | None) -> None:
        """Let new decisions stand, record them, and tell."""
        rows = self.standing.changed(bids, reasons)
        if revoiced is not None:
            rows = np.union1d(rows, revoiced)
        if not self._all_known():
            rows = rows[self._known[rows]]
        day = local_day(now, self._timezone)
        if day != self.today:
            self.today, self.changed_today = day, 0
        if len(rows):
            self.standing.take(rows, bids, reasons, now)
            changed = self._rows_as_decisions(rows)
            self._decisions.record(now, changed)
            self._tell(now, changed)
            self.changed_total += len(changed)
            self.changed_today += len(changed)
            self.last_reason = None
        else:
            self.last_reason = self._idle
        self._decisions.tick(now)

    def _rows_as_decisions(self, rows: Ints) -> list[Decision]:
        table, standing, worth = self.accounts.table, self.standing, self._worth
        made = []
        for row in rows.tolist():
            connector, campaign_id = self._keys[row]
            number = int(table.connector_index[row])
            bid, code = int(standing.bids[row]), int(standing.reasons[row])
            ltv, source, version = worth[number]
            made.append(
                Decision(
                    connector,
                    campaign_id,
                    self._names[number],
                    bid,
                    outcome_of(bid, code),
                    reason_name(code),
                    source,
                    version,
                    ltv,
                )
            )
        return made

    def _tell(self, now: Instant, changed: list[Decision]) -> None:
        self._signals.publish("decision", {"at": now, "decisions": changed})
        count, refused = self._metrics.bid_executions, self._metrics.bid_rejections
        lines = _log.enabled_for("info")
        for each in changed:
            count(each.platform, each.outcome.value, each.source.value).inc()
            if each.source is DecisionSource.FALLBACK:
                self._metrics.fallbacks(each.platform).inc()
                if self._rescue is not None:
                    self._rescue.decided(each.connector)
            if each.outcome.value != "ACCEPTED":
                refused(each.platform, each.reason).inc()
            if lines:
                _log.info(
                    "decision",
                    f"{each.campaign_id} bids {each.bid_micros / 1e6:.2f}: {SENTENCES.get(each.reason, each.reason)}",
                    at=now,
                    connector=each.connector,
                    campaign_id=each.campaign_id,
                    bid_micros=each.bid_micros,
                    outcome=each.outcome.value,
                    reason=each.reason,
                    source=each.source.value,
                    model_version=each.model_version,
                    ltv_micros=each.ltv_micros,
                )

    # -- columns of its own --------------------------------------------------------------------------------------

    def _allocate(self, n: int) -> None:
        self._wanted: Ints = np.zeros(n, dtype=np.int64)
        self._own: Flags = np.zeros(n, dtype=np.uint8)
        self._eligible: Flags = np.zeros(n, dtype=np.uint8)
        self._shield_index: Ints = np.zeros(n, dtype=np.int64)
        self._known = np.zeros(n, dtype=np.bool_)
        self._everything_known = False
        self._idle = f"all {n} decisions stand"

    def _rearrange(self) -> None:
        """The table has other rows: keep what stands for those that stayed."""
        table = self.accounts.table
        keys = [(each.connector, each.campaign_id) for each in table.rows]
        old = {key: row for row, key in enumerate(self._keys)}
        origin = np.array([old.get(key, -1) for key in keys], dtype=np.int64)
        self.standing = self.standing.rearranged(origin)
        self._keys = keys
        self._allocate(len(keys))
        order = {connector: number for number, connector in enumerate(self._shield.connectors)}
        numbers = np.array([order.get(connector, -1) for connector in self.accounts.connectors], dtype=np.int64)
        self._shield_index = numbers[table.connector_index]
        self.version = table.version

    def _all_known(self) -> bool:
        """Whether every connector stated campaigns and spend since the start; until then its rows are not decided."""
        if not self._everything_known:
            heard = [self.accounts.heard(connector) for connector in self.accounts.connectors]
            self._known = np.array(heard, dtype=np.bool_)[self.accounts.table.connector_index]
            self._everything_known = bool(self._known.all())
        return self._everything_known

    def _rescued(self, connector: str, platform: str) -> tuple[int, DecisionSource, str]:
        """Worth of a customer: predicted, or the fallback while the connector cannot be reached (RES-03)."""
        saved = self._rescue.fallback(connector, platform) if self._rescue is not None else None
        return self._value.ltv_micros(platform) if saved is None else saved

    def _value_platforms(self) -> Ints | None:
        """Refresh what is known per connector; returns the rows whose value has another source or model now."""
        worth = [
            self._rescued(connector, platform)
            for connector, platform in zip(self.accounts.connectors, self._names, strict=True)
        ]
        table, accounts = self.accounts.table, self.accounts
        seen = (table.facts, int(accounts.day_start.sum()))
        if worth == self._worth and seen == self._seen:
            return None
        spoken = [(source, version) for _, source, version in self._worth]
        anew = [number for number, (_, *voice) in enumerate(worth) if spoken and tuple(voice) != spoken[number]]
        self._worth, self._seen = worth, seen
        size = len(self._names)
        self._platforms[:, 0] = [each[0] for each in worth]
        self._platforms[:, 1] = np.bincount(table.connector_index, table.clicks, size)
        self._platforms[:, 2] = np.bincount(table.connector_index, table.conversions, size)
        self._platforms[:, 3] = accounts.day_start
        self._platforms[:, 4] = accounts.day_end
        return np.flatnonzero(np.isin(table.connector_index, anew)) if anew else None
