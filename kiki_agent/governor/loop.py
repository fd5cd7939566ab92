"""The governor's own rhythm: ends what is over, moves orders on, asks who made edits, looks for anomalies."""

from __future__ import annotations

import sqlite3
from collections import deque
from dataclasses import dataclass
from datetime import date, timedelta

from kiki_agent.accounts import Accounts
from kiki_agent.governor import anomaly
from kiki_agent.governor.governor import Governor
from kiki_agent.model import HOUR, SECOND, Instant
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.loop import Loop
from kiki_agent.shield import Shield
from kiki_agent.store import Store

HISTORY_HOURS = 14 * 24
RIPE_DAYS = 3
"""A day this old has most of its conversions."""
PAST_DAYS = 14
BREACH_SHARE = 0.10
"""Overshoot of a day's cap beyond this share of it is a breach; less is late reporting."""

_log = get_logger("governor")


@dataclass(slots=True)
class _Meter:
    """What was last read of a connector's spend."""

    as_of: int = 0
    day: str = ""
    spent: int = 0
    judged_day: str = ""


class GovernorLoop(Loop):
    """Every half minute; touches the database only when something is over."""

    name = "governor"
    period = 30 * SECOND

    def __init__(
        self, governor: Governor, accounts: Accounts, shield: Shield, store: Store, *, anomaly_stop: bool
    ) -> None:
        self._governor = governor
        self._accounts = accounts
        self._shield = shield
        self._store = store
        self._anomaly_stop = anomaly_stop
        self._meters = {connector: _Meter() for connector in governor.connectors}
        self._hours: dict[str, deque[tuple[int, float]]] | None = None
        self._hour = -1

    async def tick(self, now: Instant) -> str | None:
        """Do what is due. Returns why nothing was done."""
        done = self._governor.end_holds(now) + self._governor.desk.tidy(now)
        done += await self._governor.desk.carry_on(now)
        done += await self._governor.authors.look(now)
        for connector in self._governor.connectors:
            stats = self._shield.status(connector, now)
            cap = stats.daily_cap_micros
            if cap is not None and stats.spent_today_micros - cap > BREACH_SHARE * cap:
                text = f"{connector} spent {stats.spent_today_micros / cap:.0%} of its cap of the day"
                await self._governor.breach(connector, text, now)
        if now // HOUR != self._hour:
            self._hour = now // HOUR
            for connector in self._governor.connectors:
                await self._look(connector, now)
        return None if done else "nothing is over"

    # -- anomalies -----------------------------------------------------------------------------------------------

    async def _look(self, connector: str, now: Instant) -> None:
        if self._hours is None:
            self._hours = await self._restore()
        found = self._spend_of_hour(connector, now) or self._price_of_day(connector)
        if found and self._anomaly_stop and self._shield.frozen(connector) is None:
            _log.error("anomaly", f"{connector} is frozen: {found}", connector=connector, reason=found)
            await self._shield.freeze(connector, found, now)
            self._governor.tell(
                "CRITICAL", f"{connector} is frozen", f"{found}. Thaw it when it is explained.", connector
            )
            await self._governor.breach(connector, found, now)

    def _spend_of_hour(self, connector: str, now: Instant) -> str:
        """Read the meter; why the hour cannot be believed, or nothing."""
        assert self._hours is not None
        age = self._accounts.spend_age(connector, now)
        if age is None:
            return ""
        low, high = self._accounts.table.bounds[connector]
        spent = int(self._accounts.table.spend_today_micros[low:high].sum())
        meter, as_of, day = self._meters[connector], now - age, self._accounts.day(connector)
        span, delta = as_of - meter.as_of, spent - (meter.spent if meter.day == day else 0)
        known = meter.as_of > 0
        meter.as_of, meter.day, meter.spent = as_of, day, spent
        budget = self._accounts.budget_micros(connector)
        if not known or budget <= 0 or delta < 0 or not HOUR // 2 <= span <= HOUR * 3 // 2:
            return ""
        hour, share = now // HOUR, delta * HOUR / span / budget
        history = self._hours.setdefault(connector, deque(maxlen=HISTORY_HOURS + 1))
        history.append((hour, share))
        row = (connector, hour, round(delta * HOUR / span), budget)
        self._store.submit(lambda connection: _write_hour(connection, row, hour - HISTORY_HOURS))
        found = anomaly.unbelievable(list(history))
        if found is None:
            return ""
        hours, share, limit = found
        time = "the last hour" if hours == 1 else f"the last {hours} hours"
        return f"{time} cost {share:.0%} of the daily budgets; like hours let expect at most {limit:.0%}"

    def _price_of_day(self, connector: str) -> str:
        """Judge each account day once, when its conversions are in; why it cannot be believed, or nothing."""
        today, meter = self._accounts.day(connector), self._meters[connector]
        if not today or meter.judged_day == today:
            return ""
        meter.judged_day = today
        ripe = date.fromisoformat(today) - timedelta(days=RIPE_DAYS)
        first, last = ripe - timedelta(days=PAST_DAYS), ripe - timedelta(days=1)
        judged = self._accounts.totals(connector, ripe.isoformat(), ripe.isoformat())
        past = self._accounts.totals(connector, first.isoformat(), last.isoformat())
        if not anomaly.too_dear(judged.spend_micros, judged.conversions, past.spend_micros, past.conversions):
            return ""
        dear = judged.spend_micros / max(1, judged.conversions) / (past.spend_micros / past.conversions)
        return f"a conversion of {ripe.isoformat()} cost {dear:.1f} times what it cost in the two weeks before"

    async def _restore(self) -> dict[str, deque[tuple[int, float]]]:
        rows = await self._store.read(
            lambda connection: connection.execute(
                "SELECT connector, hour, spend_micros, budget_micros FROM spend_hours ORDER BY hour"
            ).fetchall()
        )
        found: dict[str, deque[tuple[int, float]]] = {}
        for connector, hour, spend, budget in rows:
            found.setdefault(connector, deque(maxlen=HISTORY_HOURS + 1)).append(
                (hour, spend / budget if budget else 0.0)
            )
        return found


def _write_hour(connection: sqlite3.Connection, row: tuple[str, int, int, int], oldest: int) -> None:
    connection.execute("INSERT INTO spend_hours VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
    connection.execute("DELETE FROM spend_hours WHERE connector = ? AND hour < ?", (row[0], oldest))
