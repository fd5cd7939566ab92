"""The market as an object: what was drawn, what the kernel moves, and the few ways to look at it and to act on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiki_agent.model import DAY, Instant, Platform
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.draw import PLATFORMS, populate
from kiki_agent.sandbox.kernel import advance

Ints = NDArray[np.int64]

PEOPLE_DAYS = 100
"""Days of new customers there is always room for."""


@dataclass(frozen=True, slots=True)
class CustomerFacts:
    """One customer as the CRM knows them."""

    customer_id: str
    platform: int
    """Index of the platform."""
    acquired_at: Instant
    purchases: int
    revenue_micros: int
    last_purchase_at: Instant
    updated_at: Instant


class Market:
    """Six platforms, their campaigns, their people. A function of seed, epoch, size and the actions taken on it.

    Steps are one minute; the state covers everything before `now`. Memory does not grow with time: account days,
    customers, pending events and the journal of changed customers are rings.
    """

    def __init__(
        self,
        seed: int,
        start: Instant,
        campaigns: int = 120,
        history_days: int = 30,
        platforms: int = len(PLATFORMS),
        *,
        compiled: bool = True,
    ) -> None:
        """Draw the market and live through its history, which ends at the last full step before `start`.

        `compiled=False` leaves the kernel as it is, in plain Python unless someone compiled it.
        """
        if platforms != len(PLATFORMS):
            raise ValueError(f"this market has {len(PLATFORMS)} platforms")
        if not 0 <= history_days <= at.RING_DAYS - at.WINDOW_DAYS:
            raise ValueError(f"history_days must be between 0 and {at.RING_DAYS - at.WINDOW_DAYS}")
        if compiled:
            advance.compile()
        self.seed = seed
        self.start = start
        drawn = populate(seed, campaigns)
        self.control = drawn.control
        self.start_budgets = drawn.control[at.BUDGET].copy()
        self.keys, self.homes, self.place_keys = drawn.keys, drawn.homes, drawn.place_keys
        self.traits, self.moods, self.places, self.reports = drawn.traits, drawn.moods, drawn.places, drawn.reports
        self.traffic, self.shapes = drawn.traffic, drawn.shapes
        self.days = np.zeros((at.METRICS, at.RING_DAYS, campaigns), dtype=np.int64)
        self.published = np.zeros((2, at.METRICS, at.RING_DAYS, campaigns), dtype=np.int64)
        busiest = float((self.traits[at.DEMAND] * self.traits[at.CONVERT]).sum()) * at.STEPS_PER_DAY
        room = 1_024 + int(busiest * 1.3 * PEOPLE_DAYS)
        self.people = np.zeros((at.PEOPLE_ROWS, room), dtype=np.int64)
        self.notes = np.zeros(room * 3, dtype=np.int64)
        self.wheel = np.full(at.WHEEL, -1, dtype=np.int64)
        self.counters = np.zeros(at.COUNTERS, dtype=np.int64)
        begin = (start - history_days * DAY) // at.STEP
        self.counters[at.STEP_NOW] = self.counters[at.BEGIN] = begin
        self.reports[at.REFRESHED] = self.reports[at.REFRESHED_BEFORE] = begin
        self._next_at = (begin + 1) * at.STEP
        self.advance_to(start)

    @property
    def now(self) -> Instant:
        """The state covers everything before this instant."""
        return Instant(int(self.counters[at.STEP_NOW]) * at.STEP)

    @property
    def size(self) -> int:
        """Number of campaigns."""
        return int(self.control.shape[1])

    def advance_to(self, now: Instant) -> None:
        """Run every step that is over at `now`; does nothing when there is none."""
        if now < self._next_at:
            return
        advance(
            now // at.STEP,
            self.control,
            self.keys,
            self.homes,
            self.place_keys,
            self.traits,
            self.moods,
            self.places,
            self.days,
            self.published,
            self.reports,
            self.people,
            self.wheel,
            self.notes,
            self.counters,
            self.traffic,
            self.shapes,
        )
        self._next_at = (now // at.STEP + 1) * at.STEP

    def span(self, place: int) -> tuple[int, int]:
        """First campaign of a platform and the first after it."""
        return int(self.reports[at.FIRST, place]), int(self.reports[at.LAST, place])

    def set_level(self, row: int, campaign: int, value: int) -> int:
        """Set one cell of `control` (bid, daily budget or activity) from the next step on; returns what it was."""
        before = int(self.control[row, campaign])
        self.control[row, campaign] = value
        return before

    def report(self, place: int, now: Instant) -> tuple[Ints, Instant]:
        """A platform's last readable report at `now`: metrics x ring days x its campaigns, and the instant it covers.

        Each platform refreshes its report every so many minutes, and shows it with a lag.
        """
        rows = self.reports[:, place]
        side, refreshed = int(rows[at.SIDE]), int(rows[at.REFRESHED])
        if (refreshed + int(rows[at.LAG])) * at.STEP > now:
            side, refreshed = 1 - side, int(rows[at.REFRESHED_BEFORE])
        first, last = self.span(place)
        return self.published[side, :, :, first:last], Instant(refreshed * at.STEP)

    def customers(self, position: int, limit: int) -> tuple[list[CustomerFacts], int, bool]:
        """Customers changed since a journal position, in order of their last change; the next position, and if more.

        A customer who changed several times appears once, at the last change. Positions older than the journal start
        at its oldest entry.
        """
        end = int(self.counters[at.NOTES])
        ring = len(self.notes)
        position = min(max(position, end - ring, 0), end)
        found: list[CustomerFacts] = []
        room = self.people.shape[1]
        while position < end and len(found) < limit:
            upto = min(end, position + 2 * (limit - len(found)))
            places = np.arange(position, upto)
            serials = self.notes[places % ring]
            slots = serials % room
            current = (self.people[at.NOTED, slots] == places) & (self.people[at.SERIAL, slots] == serials)
            hits = np.flatnonzero(current)[: limit - len(found)]
            if len(hits) == limit - len(found):
                position += int(hits[-1]) + 1
            else:
                position = upto
            found.extend(self._customer(column) for column in self.people[:, slots[hits]].T.tolist())
        return found, position, position < end

    def _customer(self, person: list[int]) -> CustomerFacts:
        home = person[at.HOME]
        return CustomerFacts(
            f"c{home}-{person[at.CLICK_STEP]:x}-{person[at.CLICK_ORDER]}",
            int(self.homes[home]),
            Instant(person[at.ACQUIRED] * at.STEP),
            person[at.PURCHASES],
            person[at.EARNED],
            Instant(person[at.LAST_PURCHASE] * at.STEP),
            Instant(person[at.UPDATED] * at.STEP),
        )

    def state_hash(self) -> str:
        """SHA-256 over the whole state; equal markets have equal hashes."""
        digest = hashlib.sha256()
        for part in (
            self.control,
            self.traits,
            self.moods,
            self.places,
            self.days,
            self.published,
            self.reports,
            self.people,
            self.wheel,
            self.notes,
            self.counters,
        ):
            digest.update(part.tobytes())
        return digest.hexdigest()


def platform_index(name: str) -> int:
    """Index of a platform by its canonical id. Raises KeyError."""
    return _INDEX[name]


_INDEX = {place.name: index for index, place in enumerate(PLATFORMS)}
assert all(Platform.parse(name) == name for name in _INDEX)
