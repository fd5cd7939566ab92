"""Reading one platform again and again: spend every minute, campaigns and performance every five."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import date, timedelta
from typing import Protocol

from kiki_agent.accounts import screening
from kiki_agent.accounts.accounts import MATURED_DAYS, RIPE_DAYS, Accounts
from kiki_agent.errors import AuthExpired, Bug, Outdated, PluginError, RateLimited, Rejected, Temporary, Unsupported
from kiki_agent.hooks.capabilities import Capabilities
from kiki_agent.model import (
    DAY,
    HOUR,
    Campaign,
    DayWindow,
    Instant,
    PerformanceReport,
    SpendReport,
    day_bounds,
    parse_iso,
)
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.loop import Loop

MOST_PAGES = 1_000
"""More pages than this in one report is a plugin that pages for ever."""
RECENT_EVERY = HOUR
"""How often the days of the look-back are read again; today and yesterday are read every time."""
RESTATED_EVERY = DAY
"""How often everything that may still restate is read again."""
LATE_SPEND = 2 * HOUR
"""For so long after midnight the day before is asked for too: vendors book late."""
TOLERATED = 2
"""Failures in a row that are weather; one more, and the loop fails visibly."""

SUNSET_DAYS = 30
"""From so many days before an API version ends people are told."""
ACCOUNT_EVERY = DAY
"""How often currency, time zone and limits of the account are read again."""

_log = get_logger("accounts")

Book = Callable[[str, SpendReport, Instant], Awaitable[None]]
"""Books reported spend: connector, report, now. The shield's `book`."""


class Reader(Protocol):
    """The part of the plugin caller that is needed here."""

    async def to(self, instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
        """Call one verb of one instance; raises nothing but PluginError."""
        ...


class SpendFell(Temporary):
    """Most of what a platform said was spent today is gone from its report; nothing of the report is booked."""


class AccountMismatch(Rejected):
    """The account is not the one that was configured; nothing of it is read."""


ONLY_PEOPLE_CURE = (AuthExpired, Outdated, AccountMismatch)
"""Errors that no waiting cures; one of them is enough to call a platform lost."""


class Poller(Loop):
    """Keeps what is known about one connector fresh. A platform that does not answer leaves its facts to age."""

    def __init__(
        self,
        accounts: Accounts,
        connector: str,
        caller: Reader,
        book: Book,
        *,
        poll_interval: int,
        report_interval: int,
        history_days: int,
        tell: Callable[[str, Mapping[str, object]], None] = lambda topic, data: None,
    ) -> None:
        """`history_days` is the longest look-back anyone judges by; the first read goes back further if need be.

        `tell(topic, data)` publishes what people should know.
        """
        self._tell = tell
        self.name = f"poll:{connector}"
        self.period = poll_interval
        self.connector = connector
        self._accounts = accounts
        self._caller = caller
        self._book = book
        self._report_interval = report_interval
        self._history_days = history_days
        self._first_days = max(history_days, MATURED_DAYS + RIPE_DAYS)
        self._retry_at = 0
        self._cut_short = ""
        self._account_at: int | None = None
        self._campaigns_at: int | None = None
        self._performance_at: int | None = None
        self._recent_at = 0
        self._restated_at: int | None = None
        self._restated_from = ""
        self._failures = 0
        self.calls = 0
        self.last_error = ""
        self.waits_for = ""
        """What has to come before the platform is asked at all; empty: nothing."""

    async def tick(self, now: Instant) -> str | None:
        """Read what is due. Returns why nothing could be read; raises what the plugin raised when it persists."""
        if self.waits_for:
            return f"waiting for {self.waits_for}"
        if now < self._retry_at:
            return f"{self.connector} asked for patience for another {(self._retry_at - now) / 1e6:.0f} s"
        self._accounts.roll(now)
        problem: PluginError | None = None
        for name, read in self._due(now):
            try:
                await read(now)
            except RateLimited as limit:
                self._retry_at = limit.retry_at
                self._cut_short = name
                problem = limit
                break
            except AccountMismatch as error:
                problem = error
                break
            except PluginError as error:
                problem = problem or error
        return self._judge(problem)

    def _due(self, now: Instant) -> list[tuple[str, Callable[[Instant], Awaitable[None]]]]:
        """What is to be read now; what the last round had no calls left for comes before what it read."""
        reads: tuple[tuple[str, bool, Callable[[Instant], Awaitable[None]]], ...] = (
            ("account", self._account_at is None or now >= self._account_at + ACCOUNT_EVERY, self._read_account),
            ("campaigns", self._is_due(self._campaigns_at, now), self._read_campaigns),
            ("spend", True, self._read_spend),
            ("performance", self._is_due(self._performance_at, now), self._read_performance),
        )
        due = [(name, read) for name, is_due, read in reads if is_due]
        first, self._cut_short = self._cut_short, ""
        known = self._account_at is not None and self._campaigns_at is not None
        return sorted(due, key=lambda each: each[0] != first) if known else due

    def _is_due(self, last: int | None, now: Instant) -> bool:
        return last is None or now >= last + self._report_interval

    def _judge(self, problem: PluginError | None) -> str | None:
        if problem is None:
            if self._failures:
                _log.info("platform_back", f"{self.connector} answers again", connector=self.connector)
            self._failures = 0
            self._accounts.lost.pop(self.connector, None)
            return None
        self._failures += 1
        self.last_error = f"{type(problem).__name__}: {problem}"
        if self._failures == 1:
            text = f"{self.connector} could not be read: {problem}"
            _log.warning("platform_silent", text, connector=self.connector, error=type(problem).__name__)
        if isinstance(problem, RateLimited):  # it answers, so it is not lost by this
            return f"{self.connector} asked for patience: {problem}"
        if isinstance(problem, ONLY_PEOPLE_CURE) or self._failures > TOLERATED:
            self._accounts.lost[self.connector] = str(problem)
        if isinstance(problem, Temporary) and self._failures <= TOLERATED:
            return f"{self.connector} could not be read: {problem}"
        raise problem

    async def _ask(self, verb: str, *args: object) -> object:
        self.calls += 1
        return await self._caller.to(self.connector, verb, *args)

    async def _read_account(self, now: Instant) -> None:
        try:
            answer = await self._ask("capabilities")
        except Unsupported:
            answer = None
        if isinstance(answer, Capabilities):
            problem = self._accounts.take_account(self.connector, answer)
            if problem:
                raise AccountMismatch(f"{self.connector}: {problem}", "ACCOUNT_MISMATCH")
            self._mind_sunset(answer, now)
        self._account_at = now

    def _mind_sunset(self, stated: Capabilities, now: Instant) -> None:
        """Tell, once a day, that the version of the platform's API is about to end."""
        try:
            left = (parse_iso(stated.sunset) - now) // DAY if stated.sunset else SUNSET_DAYS + 1
        except ValueError:
            return
        if left <= SUNSET_DAYS:
            ends = f"ends on {stated.sunset}" if left >= 0 else f"ended on {stated.sunset}"
            self._tell(
                "news",
                {
                    "severity": "WARNING" if left >= 0 else "CRITICAL",
                    "title": f"{self.connector}: API version {stated.api_version} {ends}",
                    "message": f"Set connector.{self.connector}.api_version to one the platform still speaks.",
                    "subject": self.connector,
                },
            )

    async def _read_campaigns(self, now: Instant) -> None:
        receipts = self._accounts.receipts
        answer = await self._ask("fetch_campaigns")
        if not isinstance(answer, list | tuple) or not all(isinstance(each, Campaign) for each in answer):
            raise Bug(f"{self.connector}: fetch_campaigns answered something that is not a list of campaigns")
        self._accounts.take_campaigns(self.connector, answer, now, receipts)
        self._campaigns_at = now

    async def _read_spend(self, now: Instant) -> None:
        answer = await self._ask("fetch_spend", self._spend_since(now))
        if not isinstance(answer, SpendReport):
            raise Bug(f"{self.connector}: fetch_spend answered {type(answer).__name__} instead of a spend report")
        age = self._accounts.spend_age(self.connector, now)
        late = age is not None and answer.as_of < now - age  # an older answer than one that is known may say less
        believed = answer if late else self._not_fallen(answer)
        await self._book(self.connector, self._accounts.take_spend(self.connector, believed, now), now)

    def _not_fallen(self, report: SpendReport) -> SpendReport:
        """The report without figures of today that went down too far to be believed; people are told of those.

        Raises SpendFell where that is most of the account's spend: then its age grows, and bids become cautious.
        """
        table, today = self._accounts.table, self._accounts.day(self.connector)
        fallen: dict[str, tuple[int, int]] = {}
        for row in report.rows:
            at = table.index.get((self.connector, row.campaign_id))
            if at is None or row.day != today or type(row.spend_micros) is not int:
                continue
            known = int(table.spend_today_micros[at])
            if screening.has_fallen(known, row.spend_micros):
                fallen[row.campaign_id] = known, row.spend_micros
        if not fallen:
            return report
        low, high = table.bounds[self.connector]
        before, after = (sum(pair[number] for pair in fallen.values()) for number in (0, 1))
        self._accounts.skipped[self.connector, "fallen"] += len(fallen)
        text = f"{self.connector} said that {_units(before)} were spent today in {len(fallen)} campaigns and now says "
        text += f"{_units(after)}"
        total = int(table.spend_today_micros[low:high].sum())
        if screening.has_fallen(total, total - before + after):
            raise SpendFell(f"{text}; this is not believed, and what was known stands")
        self._tell(
            "news",
            {
                "severity": "WARNING",
                "title": f"{self.connector}: spend of today went down",
                "message": f"{text}. The higher figures stand; look there whether costs were taken back.",
                "subject": self.connector,
            },
        )
        rows = tuple(row for row in report.rows if row.campaign_id not in fallen or row.day != today)
        return SpendReport(rows, report.as_of)

    def _spend_since(self, now: Instant) -> Instant:
        """The start of today, or of yesterday while yesterday may still get late bookings or was not seen to end."""
        account = self._accounts.accounts[self.connector]
        today = self._accounts.day(self.connector)
        start, _ = day_bounds(today, account.timezone)
        age = self._accounts.spend_age(self.connector, now)
        if age is not None and now - age >= start + LATE_SPEND:
            return start
        return day_bounds(_days_before(today, 1), account.timezone)[0]

    async def _read_performance(self, now: Instant) -> None:
        reach = self._reach(now)
        first_day = self._first_day(reach)
        window = DayWindow(first_day, self._accounts.day(self.connector))
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            answer = await self._ask("fetch_performance", window, cursor)
            if not isinstance(answer, PerformanceReport):
                raise Bug(f"{self.connector}: fetch_performance answered {type(answer).__name__} instead of a report")
            self._accounts.take_performance(self.connector, answer, now)
            if answer.cursor is None or answer.cursor == cursor:
                break
            cursor = answer.cursor
        else:
            raise Bug(f"{self.connector}: fetch_performance gave more than {MOST_PAGES} pages")
        self._accounts.close_report(self.connector)
        self._performance_at = now
        if reach >= RECENT_EVERY:
            self._recent_at = now
        if reach >= RESTATED_EVERY:
            self._restated_at = now
            self._restated_from = self._accounts.final_before(self.connector)

    def _reach(self, now: Instant) -> int:
        """Which round this read belongs to: `RESTATED_EVERY`, `RECENT_EVERY` or 0."""
        if self._restated_at is None or now >= self._restated_at + RESTATED_EVERY:
            return RESTATED_EVERY
        return RECENT_EVERY if now >= self._recent_at + RECENT_EVERY else 0

    def _first_day(self, reach: int) -> str:
        """First day to ask for: everything known once a day, the look-back once an hour, else yesterday."""
        today = self._accounts.day(self.connector)
        yesterday = _days_before(today, 1)
        if reach == 0:
            return yesterday
        if reach == RECENT_EVERY:
            return min(_days_before(today, self._history_days - 1), yesterday)
        begin = _days_before(today, self._first_days - 1)
        if self._restated_at is None:
            return begin
        return min(self._restated_from or begin, yesterday)


def _units(micros: int) -> str:
    return f"{micros / 1_000_000:.2f}"


def _days_before(day: str, days: int) -> str:
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()
