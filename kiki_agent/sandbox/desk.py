"""A vendor's side of the market: one platform's campaigns, what they did, and the levers a customer may move.

A plugin's `sandbox.py` puts its vendor's own API in front of a `Desk`: a class made with the desk, and a method
`handle` that answers requests as the vendor would, with the vendor's words, units, refusals and throttling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kiki_agent.model import DAY, Instant
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.effects import Effect, EffectsLog, apply
from kiki_agent.sandbox.faults import Fault, Faults
from kiki_agent.sandbox.market import Market, platform_index
from kiki_agent.sandbox.tokens import Tokens
from kiki_agent.sandbox.wire import day_number, day_text

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers, body."""

THEMES = ("Prospecting", "Brand", "Catalog", "Retargeting", "Lookalike", "Seasonal", "Video", "Search", "New arrivals")


class VendorApi(Protocol):
    """One vendor's API over a desk."""

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: Instant) -> Answer:
        """Answer one request; the market is at `now` already.

        `path` includes the query and lacks the prefix the vendor is mounted under, `headers` have lower-case names.
        Raises AnswerLost when the request was done but its answer must never arrive.
        """
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """One lever of one campaign, moved to an absolute value."""

    campaign: int
    """Index on the desk, 0 to `size` - 1."""
    kind: str
    """`adjust_bid`, `set_budget` (micros), `set_status` (1 or 0) or `place_bid` (micros spent at once)."""
    after: int
    key: str = ""
    """The customer's own reference, where the vendor's API has a field for one."""
    members: tuple[int, ...] = ()
    """For a budget that several campaigns share: all of them, `campaign` being the first; `after` is the whole."""


@dataclass(frozen=True, slots=True)
class CampaignDay:
    """What one campaign did on one UTC day."""

    campaign: int
    """Index on the desk."""
    day: str
    impressions: int
    clicks: int
    conversions: int
    """By day of the click; they come in late, see `Desk.days`."""
    spend_micros: int
    revenue_micros: int


class Desk:
    """One platform of a market."""

    def __init__(
        self, market: Market, effects: EffectsLog, faults: Faults, platform: str, client_id: str, client_secret: str
    ) -> None:
        """Raises KeyError for a platform the market does not have."""
        self.platform = platform
        self.place = platform_index(platform)
        self.seed = market.seed
        self.client_id, self.client_secret = client_id, client_secret
        """What the vendor's own kinds of credentials are made of."""
        self.tokens = Tokens(client_id, client_secret)
        """Signed access tokens that expire after an hour of the market's time."""
        self._market, self._effects, self._faults = market, effects, faults
        self._first, self._last = market.span(self.place)

    @property
    def size(self) -> int:
        """Number of campaigns."""
        return self._last - self._first

    @property
    def now(self) -> Instant:
        """The market's state covers everything before this instant."""
        return self._market.now

    def name(self, campaign: int) -> str:
        """What its owner called a campaign."""
        return f"{THEMES[(campaign + self.place * 2) % len(THEMES)]} {campaign // len(THEMES) + 1}"

    def bid_micros(self, campaign: int) -> int:
        """Highest price per click."""
        return int(self._market.control[at.BID, self._first + campaign])

    def budget_micros(self, campaign: int) -> int:
        """Daily budget."""
        return int(self._market.control[at.BUDGET, self._first + campaign])

    def active(self, campaign: int) -> bool:
        """Whether it may spend."""
        return bool(self._market.control[at.ACTIVE, self._first + campaign])

    def spent_today_micros(self, campaign: int) -> int:
        """Spend of the running UTC day, to the minute."""
        today = self._market.now // DAY
        return int(self._market.days[at.SPEND, today % at.RING_DAYS, self._first + campaign])

    def change(self, changes: Sequence[Change], now: Instant) -> list[str]:
        """Move levers in one step and log each move, also one to where it stood; the vendor's ids of the effects."""
        effects = []
        for number, each in enumerate(changes, self._effects.count + 1):
            row = self._first + each.campaign
            if not 0 <= each.campaign < self.size:
                raise IndexError(f"no campaign {each.campaign} on the desk of {self.platform}")
            members = tuple(self._first + member for member in each.members)
            before = apply(self._market, each.kind, row, each.after, members)
            effects.append(Effect(number, each.key, self.platform, row, each.kind, before, each.after, now, members))
        self._effects.append(effects)
        return [effect.effect_id for effect in effects]

    def days(self, first_day: str, last_day: str, now: Instant) -> Iterator[CampaignDay]:
        """Campaign days with any traffic, oldest first, both days included; days no longer kept are left out.

        Impressions, clicks and spend are fresh to the minute; conversions and revenue are as the platform last
        refreshed them, hours behind, and days are restated for weeks. Raises ValueError when a day is none.
        """
        published, as_of = self._market.report(self.place, now)
        fresh = self._market.days[:, :, self._first : self._last]
        today, covered = self._market.now // DAY, as_of // DAY
        begin = int(self._market.counters[at.BEGIN]) * at.STEP // DAY
        oldest = max(day_number(first_day), begin, today - at.RING_DAYS + 1)
        for day in range(oldest, min(day_number(last_day), today) + 1):
            ring, text = day % at.RING_DAYS, day_text(day)
            late = published[:, ring, :].T.tolist() if day <= covered else None
            for campaign, cells in enumerate(fresh[:, ring, :].T.tolist()):
                if not (cells[at.IMPRESSIONS] or cells[at.SPEND]):
                    continue
                known = late[campaign] if late is not None else (0,) * at.METRICS
                yield CampaignDay(
                    campaign,
                    text,
                    cells[at.IMPRESSIONS],
                    cells[at.CLICKS],
                    known[at.CONVERSIONS],
                    cells[at.SPEND],
                    known[at.REVENUE],
                )

    def fault(self, path: str) -> Fault | None:
        """The bad luck of the next request, to be told in the vendor's own words; ask once per request."""
        return self._faults.next(f"/{self.platform}{path}")
