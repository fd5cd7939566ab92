"""The book of one connector: its day, its window, what is reserved, exposed and spent. Arithmetic only, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from heapq import merge

from kiki_agent.model import Instant, SpendReport, day_bounds, local_day
from kiki_agent.shield.bounds import Bound, freed_by
from kiki_agent.shield.reasons import LevelReason
from kiki_agent.shield.window import SlidingWindow

LEASE_SLICES = 16
"""A lease grows by this part of the daily cap at a time, so a connector renews some 17 times a day at most."""

OUTLIVES_DAY = 0b111_000_111_000
"""Bits of `Book.warned` that are about windows; a new account day forgets the others."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What a connector may spend at most. Without a daily cap it may spend nothing."""

    daily_micros: int | None
    """Per account day."""
    window_micros: int | None
    """Per sliding window; None: the daily cap is the only bound."""
    timezone: str = "UTC"
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name, value in (("daily", self.daily_micros), ("window", self.window_micros)):
            if value is not None and value < 0:
                raise ValueError(f"a {name} cap is not negative, was {value}")


@dataclass(frozen=True, slots=True)
class WindowStats:
    """A connector's window and day as they stand.

    Both add up, unless more is spent and held than the cap, and then nothing remains:
    max_budget = current_spend + reserved + window_exposure + remaining, and
    daily_cap = spent_today + reserved + exposure + daily_remaining, where spent_today = reported + placed + presumed.
    """

    connector: str
    currency: str
    current_spend_micros: int
    """Spent within the window, with what the window counts of `presumed`."""
    max_budget_micros: int
    remaining_micros: int
    """What a permit may still take from the window: not spent, not reserved, not exposed; never negative."""
    utilization: float
    """Spent part of the window's maximum; 0 when nothing is allowed."""
    record_count: int
    oldest_record: Instant | None
    window_s: float
    day: str
    spent_today_micros: int
    reserved_micros: int
    """Placed permits that have neither been spent nor released."""
    exposure_micros: int
    """What levels may spend until the next report."""
    window_exposure_micros: int
    """The part of it that may fall into one window."""
    daily_cap_micros: int | None
    daily_remaining_micros: int
    overshoot_micros: int
    """What the platform spent above the daily cap, or above the window if that is more."""
    lease_micros: int
    presumed_micros: int
    """Taken as spent since the last start, until a report tells."""
    placed_micros: int
    """Spent today through placed bids."""


@dataclass(frozen=True, slots=True)
class Booked:
    """What a report changed."""

    day_micros: int
    """Change of the spend of the stored day; negative when the platform took spend back."""
    window_records: tuple[tuple[int, int], ...]
    """(instant, micros) put into the window."""
    rows: tuple[tuple[str, str, int], ...]
    """(day, campaign, micros so far) that are new."""
    bad_rows: int
    """Rows whose number made no sense."""


class Book:
    """The account of one connector."""

    def __init__(self, connector: str, caps: Caps, window_span: int, now: Instant) -> None:
        self.connector = connector
        self.caps = caps
        self.window = SlidingWindow(window_span)
        self.day = local_day(now, caps.timezone)
        self.day_end = day_bounds(self.day, caps.timezone)[1]
        self.reported: dict[str, dict[str, int]] = {self.day: {}}
        """Account day -> campaign -> micros so far, as platforms cumulate them."""
        self.reported_micros = 0
        self.placed_micros = 0
        """Spent through placed permits. A connector that places bids and reports the same spend is counted twice: an
        error to the safe side."""
        self.reserved_micros = 0
        self.exposure_micros = 0
        self.window_exposure_micros = 0
        self.lease_micros = 0
        """Durable bound of reported spend and exposure of the day."""
        self.presumed_micros = 0
        self.presumed_in_window = 0
        """The same for the window, which a new day does not empty."""
        self.presumed_until = 0
        """When presumed spend has left the window."""
        self.as_of = 0
        """Newest instant a report covers; 0 before the first."""
        self.warned = 0
        """Bits of the thresholds already told, by scope; see `watch.SHIFTS`."""
        self.frozen: str | None = None
        """Why nothing may be spent here until a person looked; None in order."""

    @property
    def spent_micros(self) -> int:
        """Spend of the stored day, presumed spend included."""
        return self.reported_micros + self.placed_micros + self.presumed_micros

    def roll(self, now: int) -> bool:
        """Begin the account day of `now` if it comes after the stored one; a day never begins twice or early."""
        if now < self.day_end:
            return False
        day = local_day(now, self.caps.timezone)
        if day <= self.day:
            return False
        self.day = day
        self.day_end = day_bounds(day, self.caps.timezone)[1]
        oldest = self.day_before(day)
        for old in [each for each in self.reported if each < oldest]:
            del self.reported[old]
        self.reported_micros = sum(self.reported.setdefault(day, {}).values())
        self.placed_micros = 0
        self.lease_micros = 0
        self.presumed_micros = 0
        self.warned &= OUTLIVES_DAY
        return True

    def day_room(self) -> int:
        """What levels and bids may take from the day; negative after an overshoot."""
        if self.caps.daily_micros is None:
            return 0
        return self.caps.daily_micros - self.spent_micros - self.reserved_micros

    def window_room(self, now: int) -> int:
        """What levels and bids may take from the window; negative after an overshoot."""
        return self.window_cap() - self.window.advance(now) - self.window_presumed(now) - self.reserved_micros

    def window_cap(self) -> int:
        """The window's maximum; the daily cap where none is set."""
        if self.caps.daily_micros is None:
            return 0
        return self.caps.daily_micros if self.caps.window_micros is None else self.caps.window_micros

    def window_presumed(self, now: int) -> int:
        """Presumed spend that the window still counts."""
        return self.presumed_in_window if now < self.presumed_until else 0

    def overshoot(self, now: int) -> int:
        """What is spent above a cap; while it is positive nothing is permitted."""
        above_day = self.reported_micros + self.placed_micros - (self.caps.daily_micros or 0)
        above_window = self.window.advance(now) - self.window_cap()
        return max(0, above_day, above_window)

    def level_rooms(self, now: int) -> tuple[int, int, int]:
        """For all levels together: room of the day, room of the window, and a `LevelReason` why nothing may stand."""
        daily = self.caps.daily_micros
        if self.frozen is not None:
            return 0, 0, LevelReason.ANOMALY
        if daily is None:
            return 0, 0, LevelReason.NO_CAP
        window = self.caps.window_micros
        if window is None:
            window = daily
        left_today = daily - self.reported_micros - self.placed_micros
        left_in_window = window - self.window.advance(now)
        if left_today < 0 or left_in_window < 0:
            return 0, 0, LevelReason.OVERSHOOT
        left_today -= self.presumed_micros + self.reserved_micros
        left_in_window -= self.window_presumed(now) + self.reserved_micros
        return max(0, left_today), max(0, left_in_window), LevelReason.PERMITTED

    def shortage(self, amount: int, now: int) -> str | None:
        """Which cap has not enough left for one more amount, as a phrase; None when it fits (also exactly)."""
        if self.overshoot(now) > 0:
            return "overshoot"
        if self.exposure_micros + amount > self.day_room():
            return "day"
        if self.window_exposure_micros + amount > self.window_room(now):
            return "window"
        return None

    def bounds(self, now: int, wanted: int | None = None) -> tuple[Bound, Bound]:
        """Day and window as they bind one more bid; with the amount `wanted`, also when each has room for it."""
        day = Bound(
            "day",
            f"the day of {self.connector}",
            self.caps.daily_micros or 0,
            self.spent_micros,
            self.reserved_micros + self.exposure_micros,
            self.caps.currency,
        )
        window = Bound(
            "window",
            f"the window of {self.connector}",
            self.window_cap(),
            self.window.advance(now) + self.window_presumed(now),
            self.reserved_micros + self.window_exposure_micros,
            self.caps.currency,
        )
        if wanted is None:
            return day, window
        return (
            replace(day, frees_at=freed_by(self.day_gain(), wanted - day.remaining_micros)),
            replace(window, frees_at=freed_by(self.window_gains(now), wanted - window.remaining_micros)),
        )

    def day_gain(self) -> list[tuple[int, int]]:
        """(instant, micros) of the spend that the next account day is free of."""
        return [(self.day_end, self.spent_micros)]

    def window_gains(self, now: int) -> Iterator[tuple[int, int]]:
        """(instant, micros) of what leaves the window as time passes, the earliest first."""
        records = ((since + self.window.span, micros) for since, micros in self.window.records())
        return merge(records, [(self.presumed_until, self.window_presumed(now))])

    def expose(self, day_micros: int, window_micros: int) -> None:
        """Put the exposures of all levels in place of what they were."""
        self.exposure_micros = day_micros
        self.window_exposure_micros = window_micros

    def reserve(self, amount: int) -> None:
        """Set an amount aside; the caller has asked `shortage` without waiting in between."""
        self.reserved_micros += amount

    def release(self, amount: int) -> None:
        """Give a reserved amount back."""
        self.reserved_micros -= amount
        if self.reserved_micros < 0:
            raise AssertionError(f"{self.connector}: more released than was reserved")

    def spend(self, amount: int, now: int) -> None:
        """Book a placed spend."""
        self.placed_micros += amount
        self.window.record(now, amount)

    def presume(self, now: int) -> None:
        """After a start: the unspent rest of the lease counts as spent, until a report tells or the day ends."""
        self.presumed_micros = max(0, self.lease_micros - self.reported_micros)
        self.presumed_until = now + self.window.span
        if self.day_end > now - self.window.span:
            self.presumed_in_window = self.presumed_micros

    def wanted_lease(self) -> int | None:
        """The lease to make durable before today's exposures may stand; None while the present one covers them."""
        if self.exposure_micros == 0:
            return None
        needed = self.reported_micros + self.presumed_micros + self.exposure_micros
        if needed <= self.lease_micros:
            return None
        cap = self.caps.daily_micros or 0
        return max(needed, min(cap, needed + cap // LEASE_SLICES))

    def book(self, report: SpendReport, now: int) -> Booked:
        """Book what the platform says was spent, whatever the caps say. `roll` comes first.

        Rows are cumulative, so booking one twice changes nothing. A report older than one already booked can only
        raise. Spend of yesterday still counts in the window, older spend nowhere; spend of the platform's present day
        counts for the stored day, even where the two differ because a clock was wrong.
        """
        self.as_of = min(self.as_of, now)
        present = local_day(now, self.caps.timezone)
        stale = report.as_of < self.as_of
        oldest = self.day_before(present)
        day_change = 0
        bad = 0
        rows: list[tuple[str, str, int]] = []
        risen: dict[str, int] = {}
        for row in report.rows:
            if row.spend_micros < 0 or not _is_day(row.day):
                bad += 1
                continue
            if row.day < oldest:
                continue
            known = self.reported.setdefault(row.day, {})
            change = row.spend_micros - known.get(row.campaign_id, 0)
            if change == 0 or (change < 0 and stale):
                continue
            known[row.campaign_id] = row.spend_micros
            rows.append((row.day, row.campaign_id, row.spend_micros))
            if row.day >= present or row.day == self.day:
                day_change += change
            if change > 0:
                risen[row.day] = risen.get(row.day, 0) + change
        self.reported_micros = max(0, self.reported_micros + day_change)
        if day_change > 0:
            self.exposure_micros = max(0, self.exposure_micros - day_change)
            self.window_exposure_micros = max(0, self.window_exposure_micros - day_change)
        records = self._into_window(risen, report.as_of, now)
        if not stale:
            self.as_of = min(report.as_of, now)
            self.presumed_micros = 0
            self.presumed_in_window = 0
        return Booked(day_change, records, tuple(rows), bad)

    def _into_window(self, risen: Mapping[str, int], as_of: int, now: int) -> tuple[tuple[int, int], ...]:
        """Spend between two reports happened at an unknown time. It counts from the end of that time; where that time
        is longer than the window, it is taken as evenly spent, and only the window's part of it counts."""
        records = []
        self.window.advance(now)
        for day in sorted(risen):
            first, last = self._span(day, as_of, now)
            begin = now - self.window.span
            if last <= begin:
                continue
            amount = risen[day]
            if first < begin:
                amount = -(-amount * (last - begin) // (last - first))
            records.append((self.window.insert(last, amount), amount))
        return tuple(records)

    def _span(self, day: str, as_of: int, now: int) -> tuple[int, int]:
        start, end = day_bounds(day, self.caps.timezone)
        last = min(as_of, now)
        if start < last:
            last = min(last, end)
        return max(self.as_of, start), last

    def day_before(self, day: str) -> str:
        """The account day before another."""
        return local_day(day_bounds(day, self.caps.timezone)[0] - 1, self.caps.timezone)

    def stats(self, now: Instant) -> WindowStats:
        """Everything at a glance."""
        spent = self.window.advance(now) + self.window_presumed(now)
        cap = self.window_cap()
        left = self.window_room(now) - self.window_exposure_micros
        oldest = self.window.oldest
        return WindowStats(
            connector=self.connector,
            currency=self.caps.currency,
            current_spend_micros=spent,
            max_budget_micros=cap,
            remaining_micros=max(0, left),
            utilization=spent / cap if cap > 0 else 0.0,
            record_count=self.window.count,
            oldest_record=None if oldest is None else Instant(oldest),
            window_s=self.window.span / 1_000_000,
            day=self.day,
            spent_today_micros=self.spent_micros,
            reserved_micros=self.reserved_micros,
            exposure_micros=self.exposure_micros,
            window_exposure_micros=self.window_exposure_micros,
            daily_cap_micros=self.caps.daily_micros,
            daily_remaining_micros=max(0, self.day_room() - self.exposure_micros),
            overshoot_micros=self.overshoot(now),
            lease_micros=self.lease_micros,
            presumed_micros=self.presumed_micros,
            placed_micros=self.placed_micros,
        )

    def change_caps(self, caps: Caps) -> None:
        """Put other caps in force. The account's time zone and currency stay: a day has begun in them."""
        self.caps = replace(caps, timezone=self.caps.timezone, currency=self.caps.currency)


@lru_cache(maxsize=64)
def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
