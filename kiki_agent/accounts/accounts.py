"""The facts about all accounts: in columns for the fast loops, in tables for the next start."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import partial

import numpy as np
import numpy.typing as npt

from kiki_agent.accounts import records, screening, spend
from kiki_agent.accounts.facts import Account, PlatformTotals, mismatch
from kiki_agent.accounts.grid import CLICKS, CONVERSIONS, IMPRESSIONS, REVENUE, SPEND, DayGrid, day_number
from kiki_agent.accounts.levers import Levers, OutsideEdit
from kiki_agent.accounts.records import ReportState
from kiki_agent.accounts.table import CampaignTable
from kiki_agent.hooks.capabilities import Capabilities
from kiki_agent.model import (
    DAY,
    Campaign,
    Instant,
    Intent,
    IntentKind,
    Outcome,
    PerformanceReport,
    Receipt,
    SpendReport,
    SpendRow,
    day_bounds,
    local_day,
)
from kiki_agent.runtime.log import get_logger
from kiki_agent.store import Store

Ints = npt.NDArray[np.int64]

MATURED_DAYS = 14
"""Conversion rates are counted over at most this many days whose conversions are in."""
RIPE_DAYS = 3
"""A day this old counts as such even where the platform restates it for weeks: what is still to come is little, and
leaving it out only makes bids cautious."""
LONGEST_LAG = 2 * DAY
"""No platform's figures are behind by more than this as a rule."""
KEPT_DAYS = 35
"""Days of performance held in memory, at least."""

_log = get_logger("accounts")


class Accounts:
    """Everything the platforms stated. Written by the pollers and by confirmed receipts, read by all others."""

    def __init__(
        self,
        store: Store,
        accounts: Sequence[Account],
        lookback_days: int,
        now: Instant,
        day_cap: Callable[[str], int | None] = lambda connector: None,
    ) -> None:
        """`day_cap(connector)` is what the connector may spend a day at present."""
        self._store = store
        self._loop = asyncio.get_running_loop()
        self.accounts = {each.connector: each for each in sorted(accounts, key=lambda each: each.connector)}
        self.connectors: list[str] = list(self.accounts)
        self.lookback_days = lookback_days
        self.table = CampaignTable(self.connectors)
        self.day_start: Ints = np.zeros(len(self.connectors), dtype=np.int64)
        """First instant of the running account day of each connector."""
        self.day_end: Ints = np.zeros(len(self.connectors), dtype=np.int64)
        """First instant of the next one."""
        self.skipped: Counter[tuple[str, str]] = Counter()
        """Statements that were not believed, by (connector, fault)."""
        self.lost_writes = 0
        """Facts that could not be written down; they are known in memory and read again after a restart."""
        self.receipts = 0
        """Grows with each confirmed change."""
        self.stated: dict[str, Capabilities] = {}
        """What each platform says of its account, since this process started."""
        self.lost: dict[str, str] = {}
        """Why a platform cannot be read at present, by connector; kept by the pollers."""
        self.levers = Levers()
        self.on_outside: Callable[[Sequence[OutsideEdit], Instant], None] = lambda edits, now: None
        """Hears of changes at the platforms that were not the agent's."""
        self._day_cap = day_cap
        self._now = now
        self._confirmed_at: dict[tuple[str, str], int] = {}
        self._grid = DayGrid(max(KEPT_DAYS, lookback_days + 7))
        self._state: dict[str, ReportState] = {connector: ReportState() for connector in self.connectors}
        self._days = dict.fromkeys(self.connectors, "")
        self._next_day = 0
        self._heard: set[str] = set()
        self._moved_at: dict[str, Instant] = {}
        self._spoke_at: dict[str, Instant] = dict.fromkeys(self.connectors, now)

    @classmethod
    async def open(
        cls,
        store: Store,
        accounts: Sequence[Account],
        *,
        lookback_days: int,
        now: Instant,
        day_cap: Callable[[str], int | None] = lambda connector: None,
    ) -> Accounts:
        """Know again what the last agent on this database knew."""
        self = cls(store, accounts, lookback_days, now, day_cap)
        self._mind_caps()
        first_day = (date.fromisoformat(local_day(now, "UTC")) - timedelta(days=self._grid.width)).isoformat()
        known = await store.read(partial(records.read_all, first_day=first_day))
        mine = [each for each in known.campaigns if each.connector in self.accounts]
        self._replace_rows(mine, known.paused_by_us)
        self.levers.baseline(mine)
        for key, at in known.bid_set_at.items():
            row = self.table.index.get(key)
            if row is not None:
                self.table.bid_set_at[row] = at
        for connector, campaign_id, day, *values in known.performance:
            row = self.table.index.get((connector, campaign_id))
            if row is not None:
                self._grid.put(row, day_number(day), (values[0], values[1], values[2], values[3], values[4]))
        for connector in self.connectors:
            state = known.reports.get(connector)
            if state is not None:
                self._state[connector] = state
                self._restore_spend(connector, state)
        self.roll(now)
        for connector in self.connectors:
            self._sum_lookback(connector)
        return self

    # -- what is known -------------------------------------------------------------------------------------------

    def campaigns(self, connector: str | None = None) -> list[Campaign]:
        """The campaigns as last read or confirmed, in the order of the table."""
        if connector is None:
            return list(self.table.rows)
        low, high = self.table.bounds[connector]
        return self.table.rows[low:high]

    def budget_micros(self, connector: str) -> int:
        """Sum of the daily budgets of the connector's campaigns that run or are only held by the agent."""
        low, high = self.table.bounds[connector]
        table = self.table
        runs = ((table.active | table.held) & table.owns_budget)[low:high].astype(bool)
        return int(self.table.daily_budget_micros[low:high][runs].sum())

    def totals(self, connector: str, first_day: str, last_day: str) -> PlatformTotals:
        """Sums over the account days first..last, both included, as far as they are held (see `KEPT_DAYS`)."""
        low, high = self.table.bounds[connector]
        sums = self._grid.sums(low, high, day_number(first_day), day_number(last_day)).sum(axis=0).tolist()
        state = self._state[connector]
        return PlatformTotals(
            spend_micros=sums[SPEND],
            conversions=sums[CONVERSIONS],
            revenue_micros=sums[REVENUE],
            clicks=sums[CLICKS],
            impressions=sums[IMPRESSIONS],
            as_of=Instant(state.performance_as_of) if state.performance_as_of else None,
            newest_row_as_of=Instant(state.evidence_as_of) if state.evidence_as_of else None,
        )

    def spend_age(self, connector: str, now: Instant) -> int | None:
        """Microseconds since the instant the reported spend covers; None when it was never reported."""
        as_of = self._state[connector].spend_as_of
        return now - as_of if as_of else None

    def standstill(self, connector: str, now: Instant) -> int | None:
        """Microseconds since the instant the reported spend covers last moved; None when it was never reported.

        A platform whose figures are always some hours behind does not stand still, one that answers the same again
        does. What is behind by more than `LONGEST_LAG` counts with its age, and so does what a start still knows before
        the first report.
        """
        age = self.spend_age(connector, now)
        moved = self._moved_at.get(connector)
        return age if age is None or moved is None or age > LONGEST_LAG else now - moved

    def silence(self, connector: str, now: Instant) -> int:
        """Microseconds since the platform last answered with a spend report, or since the start when it never did.

        Unlike `spend_age` this does not count how far a platform's figures are behind as a rule.
        """
        return now - self._spoke_at[connector]

    def heard(self, connector: str) -> bool:
        """Whether the platform stated its campaigns and spend since this process started."""
        return connector in self._heard

    def batch_size(self, connector: str) -> int:
        """Most changes the connector takes in one call."""
        return self.stated[connector].batch_size if connector in self.stated else Capabilities().batch_size

    def take_account(self, connector: str, stated: Capabilities) -> str:
        """Take over what the platform says of the account; returns why it cannot be worked with, or nothing."""
        self.stated[connector] = stated
        return mismatch(self.accounts[connector], stated.currency, stated.timezone)

    def day(self, connector: str) -> str:
        """The account day that is running."""
        return self._days[connector]

    def final_before(self, connector: str) -> str:
        """Days before this one no longer restate; empty when the platform never said."""
        return self._state[connector].final_before

    def roll(self, now: Instant) -> None:
        """Begin new account days that are due; a day never begins twice, whatever the clock does."""
        self._now = now
        self._mind_caps()
        if now < self._next_day:
            return
        for number, connector in enumerate(self.connectors):
            zone = self.accounts[connector].timezone
            day = local_day(now, zone)
            if day <= self._days[connector]:
                continue
            self._days[connector] = day
            self.day_start[number], self.day_end[number] = day_bounds(day, zone)
            if self._state[connector].spend_date != day:
                low, high = self.table.bounds[connector]
                self.table.spend_today_micros[low:high] = 0
        self._next_day = int(self.day_end.min(initial=2**62))

    # -- what platforms state ------------------------------------------------------------------------------------

    def take_campaigns(self, connector: str, campaigns: Sequence[Campaign], now: Instant, receipts: int) -> None:
        """Take over a platform's complete list of campaigns; those missing in it are gone.

        `receipts` is the value of `self.receipts` when the list was asked for: what was confirmed since is newer.
        """
        account = self.accounts[connector]
        known = {each.campaign_id: each for each in self.campaigns(connector)}
        believed: dict[str, Campaign] = {}
        outside: list[OutsideEdit] = []
        for each in campaigns:
            before = known.get(each.campaign_id)
            fault = None if each == before else screening.campaign_fault(each, connector, account.currency)
            if fault is None and each.campaign_id in believed:
                fault = "duplicate"
            if fault is not None:
                self._skip(connector, fault)
                continue
            newer = self._confirmed_at.get((connector, each.campaign_id), 0) > receipts
            if newer and before is not None:
                believed[each.campaign_id] = before
            elif each == before and (connector, each.campaign_id) not in self.levers.unjudged:
                believed[each.campaign_id] = each
                self.levers.doubted.discard((connector, each.campaign_id))
            else:
                believed[each.campaign_id], edits = self.levers.judge(each, now)
                outside += edits
        changed = [each for name, each in believed.items() if known.get(name) != each]
        gone = [(connector, name) for name in known if name not in believed]
        if gone or believed.keys() - known.keys():
            others = [each for each in self.table.rows if each.connector != connector]
            self._replace_rows([*others, *believed.values()], self._held_keys())
            self._sum_lookback(connector)
        else:
            for each in changed:
                self.table.set_row(self.table.index[connector, each.campaign_id], each)
        state = self._state[connector]
        state.campaigns_as_of = now
        self._heard_of(connector)
        if changed or gone:
            self._write(partial(records.change_campaigns, changed=tuple(changed), gone=tuple(gone)))
        for _, name in gone:
            self.levers.forget(known[name])
        if outside:
            self.on_outside(outside, now)

    def take_performance(self, connector: str, report: PerformanceReport, now: Instant) -> int:
        """Take over one page of performance rows; returns how many said something new."""
        changed: list[records.PerformanceTuple] = []
        index, put = self.table.index, self._grid.put
        latest = self._days[connector] or local_day(now, self.accounts[connector].timezone)
        for row in report.rows:
            position = index.get((connector, row.campaign_id))
            fault = "unknown" if position is None else screening.performance_fault(row)
            try:
                day = day_number(row.day)
                if fault is None and row.day > latest:
                    fault = "future"
            except (ValueError, TypeError):
                fault, day = "day", 0
            if fault is not None or position is None:
                self._skip(connector, fault or "unknown")
                continue
            values = (row.impressions, row.clicks, row.conversions, row.spend_micros, row.revenue_micros)
            if put(position, day, values):
                changed.append((connector, row.campaign_id, row.day, *values))
        state = self._state[connector]
        as_of = min(report.as_of, now)
        state.performance_as_of = max(state.performance_as_of, as_of)
        state.final_before = max(state.final_before, _day_or_empty(report.final_before, latest))
        if changed:
            state.evidence_as_of = max(state.evidence_as_of, as_of)
            self._write(partial(records.write_performance, rows=changed))
        return len(changed)

    def close_report(self, connector: str) -> None:
        """All pages of a report are in: sum the look-back anew and write down how old the facts are."""
        self._sum_lookback(connector)
        self._write(partial(records.write_report, connector=connector, state=self._snapshot(connector)))

    def take_spend(self, connector: str, report: SpendReport, now: Instant) -> SpendReport:
        """Take over reported spend; returns the report without what cannot be believed, for booking."""
        self.roll(now)
        self._spoke_at[connector] = now
        table, today = self.table, self._days[connector]
        low, high = table.bounds[connector]
        spent = table.spend_today_micros[low:high].copy()
        believed: list[SpendRow] = []
        for row in report.rows:
            position = table.index.get((connector, row.campaign_id))
            if position is None:
                self._skip(connector, "unknown")
                continue
            fault = screening.spend_fault(row, table.rows[position].daily_budget_micros)
            if fault is None and row.day > today:
                fault = "future"
            if fault is not None:
                self._skip(connector, fault)
                continue
            believed.append(row)
            if row.day == today:
                spent[position - low] = row.spend_micros
        as_of = min(report.as_of, now)
        state = self._state[connector]
        if as_of > state.spend_as_of:
            self._advance_spend(connector, spent, as_of)
            self._moved_at[connector] = now
            self._heard_of(connector)
        return SpendReport(tuple(believed), Instant(as_of))

    # -- what platforms confirm ----------------------------------------------------------------------------------

    def confirm(self, connection: sqlite3.Connection, intent: Intent, receipt: Receipt) -> None:
        """Confirm handler of the outbox: writes on the database thread, then tells the columns on the loop's."""
        records.confirm(connection, intent, receipt)
        self._loop.call_soon_threadsafe(self.apply_receipt, intent, receipt)

    def apply_receipt(self, intent: Intent, receipt: Receipt) -> None:
        """A confirmed bid, budget or status becomes the known value."""
        row = self.table.index.get((intent.connector, intent.campaign_id))
        if receipt.outcome is not Outcome.ACCEPTED or row is None:
            return
        self.receipts += 1
        self.levers.confirmed(intent, self.table.rows[row], self._now)
        self._confirmed_at[intent.connector, intent.campaign_id] = self.receipts
        match intent.kind:
            case IntentKind.ADJUST_BID:
                self._expect(row, int(self.table.bid_micros[row]), intent.after)
                self.table.set_bid(row, intent.after)
                self.table.bid_set_at[row] = max(int(self.table.bid_set_at[row]), intent.at)
            case IntentKind.SET_BUDGET:
                self.table.set_budget(row, intent.after)
            case IntentKind.SET_STATUS:
                self.table.set_active(row, bool(intent.after), by_us=True)
            case IntentKind.PLACE_BID:
                pass

    # -- inside --------------------------------------------------------------------------------------------------

    def _mind_caps(self) -> None:
        known, ask = self.table.day_caps, self._day_cap
        for connector in self.connectors:
            cap = ask(connector)
            if known.get(connector) != cap:
                self.table.plan_within(connector, cap)

    def _expect(self, row: int, before: int, after: int) -> None:
        """Let the rates follow a new bid until reports tell."""
        table = self.table
        mean, upper = spend.rates_after_bid(
            int(table.mean_rate_per_ks[row]), int(table.spend_rate_micros_per_s[row]), before, after
        )
        table.mean_rate_per_ks[row], table.spend_rate_micros_per_s[row] = mean, upper

    def _held_keys(self) -> frozenset[tuple[str, str]]:
        return frozenset(key for key, row in self.table.index.items() if self.table.held[row])

    def _replace_rows(self, rows: Sequence[Campaign], held: frozenset[tuple[str, str]]) -> None:
        origin = self.table.replace_rows(rows, held)
        self._grid = self._grid.rearranged(origin)
        for connector in self.connectors:
            low, high = self.table.bounds[connector]
            self.table.spend_as_of[low:high] = self._state[connector].spend_as_of
            fresh = np.flatnonzero(origin[low:high] < 0) + low
            even = self.table.most_a_day(connector)[fresh - low]
            self.table.mean_rate_per_ks[fresh] = even * 1_000 // 86_400
            self.table.spend_rate_micros_per_s[fresh] = even // 86_400 + 1

    def _advance_spend(self, connector: str, spent: Ints, as_of: int) -> None:
        """Move a connector's spend to a newer report."""
        table, state, today = self.table, self._state[connector], self._days[connector]
        low, high = table.bounds[connector]
        same_day = state.spend_date == today
        start = int(self.day_start[self.connectors.index(connector)])
        since = state.spend_as_of if same_day else start
        span = as_of - since
        delta = spent - (table.spend_today_micros[low:high] if same_day else 0)
        mean = table.mean_rate_per_ks[low:high]
        if span >= spend.SHORTEST and since > 0:
            mean[:] = spend.smoothed_rates(mean, delta, span)
            table.spend_rate_micros_per_s[low:high] = spend.upper_rates(mean, delta, span, table.most_a_day(connector))
        if as_of >= start:
            table.spend_today_micros[low:high] = spent
            state.spend_date = today
        table.spend_as_of[low:high] = as_of
        state.spend_as_of = as_of

    def _restore_spend(self, connector: str, state: ReportState) -> None:
        low, high = self.table.bounds[connector]
        self.table.spend_as_of[low:high] = state.spend_as_of
        self._days[connector] = state.spend_date
        zone = self.accounts[connector].timezone
        if state.spend_date:
            number = self.connectors.index(connector)
            self.day_start[number], self.day_end[number] = day_bounds(state.spend_date, zone)
        for row in range(low, high):
            spent, rate = state.spend.get(self.table.rows[row].campaign_id, (0, 0))
            self.table.spend_today_micros[row] = spent
            self.table.mean_rate_per_ks[row] = rate
        self.table.spend_rate_micros_per_s[low:high] = spend.upper_rates(
            self.table.mean_rate_per_ks[low:high],
            np.zeros(high - low, dtype=np.int64),
            spend.SHORTEST,
            self.table.most_a_day(connector),
        )

    def _snapshot(self, connector: str) -> ReportState:
        state, table = self._state[connector], self.table
        low, high = table.bounds[connector]
        pairs = zip(
            table.rows[low:high],
            table.spend_today_micros[low:high].tolist(),
            table.mean_rate_per_ks[low:high].tolist(),
            strict=True,
        )
        return ReportState(
            state.campaigns_as_of,
            state.performance_as_of,
            state.evidence_as_of,
            state.final_before,
            state.spend_as_of,
            state.spend_date,
            {each.campaign_id: (spent, rate) for each, spent, rate in pairs},
        )

    def _sum_lookback(self, connector: str) -> None:
        """Spend and revenue over the look-back; clicks and conversions over days whose conversions are in."""
        table, state = self.table, self._state[connector]
        low, high = table.bounds[connector]
        today = day_number(self._days[connector]) if self._days[connector] else 0
        recent = self._grid.sums(low, high, today - self.lookback_days + 1, today)
        final = day_number(state.final_before) if state.final_before else 0
        before = max(final, today - RIPE_DAYS + 1)
        matured = self._grid.sums(low, high, before - MATURED_DAYS, before - 1)
        if not matured[:, CLICKS].any():
            matured = recent
        table.spend_micros[low:high] = recent[:, SPEND]
        table.revenue_micros[low:high] = recent[:, REVENUE]
        table.clicks[low:high] = matured[:, CLICKS]
        table.conversions[low:high] = matured[:, CONVERSIONS]
        table.facts += 1

    def _heard_of(self, connector: str) -> None:
        state = self._state[connector]
        if state.campaigns_as_of and state.spend_as_of:
            self._heard.add(connector)

    def _skip(self, connector: str, fault: str) -> None:
        if not self.skipped[connector, fault]:
            text = f"{connector} stated something that is not believed ({fault}); further ones are only counted"
            _log.warning("statement_skipped", text, connector=connector, fault=fault)
        self.skipped[connector, fault] += 1

    def _write(self, fn: Callable[[sqlite3.Connection], None]) -> None:
        self._store.submit(fn).add_done_callback(self._written)

    def _written(self, future: asyncio.Future[None]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self.lost_writes += 1


def _day_or_empty(day: str, latest: str) -> str:
    try:
        day_number(day)
    except (ValueError, TypeError):
        return ""
    return min(day, latest)
