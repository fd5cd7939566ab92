"""What the HTTP side needs of the other parts, and nothing more: narrow protocols the concrete classes fulfil."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kiki_agent.hooks.capabilities import Capabilities
from kiki_agent.ledger import DecisionRun, IntentRow, ReallocationRow, Verification
from kiki_agent.model import Campaign, Instant, Intent, IntentKind, PlatformValue, Receipt
from kiki_agent.shield import AllocationView, Bound, CheckAnswer, Permit, WindowStats


class Store(Protocol):
    """What is shown of the database."""

    @property
    def epoch(self) -> int: ...

    @property
    def queue_depth(self) -> int: ...

    @property
    def failure(self) -> str | None: ...

    def sizes(self) -> Mapping[str, int]: ...


class Ledger(Protocol):
    """The hash-chained journal."""

    @property
    def head(self) -> tuple[int, str]: ...

    @property
    def hold_reason(self) -> str | None: ...

    async def verify(self, *, whole: bool = True) -> Verification: ...


class Decisions(Protocol):
    """The runs of decisions."""

    async def decisions(
        self,
        *,
        campaign_id: str | None = None,
        platform: str | None = None,
        source: str | None = None,
        since: Instant | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[DecisionRun], int]: ...


class Outbox(Protocol):
    """Journal, call, confirm."""

    async def send(
        self, now: Instant, connector: str, verb: IntentKind, intents: Sequence[Intent]
    ) -> Sequence[Receipt]: ...


class Records(Protocol):
    """What was done, read back."""

    async def reallocations(
        self, *, client_id: str | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[Sequence[ReallocationRow], int]: ...

    async def intents(
        self, *, since: Instant, kinds: Sequence[IntentKind] = (), limit: int = 50
    ) -> Sequence[IntentRow]: ...

    async def receipt(self, key: str) -> Receipt | None: ...

    async def counts(self, *, since: Instant) -> Mapping[IntentKind, int]: ...

    async def vetoes(self, since: Instant) -> tuple[int, dict[str, int]]: ...

    async def audit(
        self, kinds: Sequence[str], since: Instant | None, limit: int, offset: int
    ) -> tuple[list[tuple[int, Instant, str, dict[str, object]]], int]: ...


class Shield(Protocol):
    """May this money move?"""

    @property
    def killed(self) -> bool: ...

    @property
    def hold_reason(self) -> str | None: ...

    @property
    def kill_reason(self) -> str: ...

    @property
    def kill_at(self) -> Instant | None: ...

    @property
    def kill_by(self) -> str: ...

    def status(self, connector: str, now: Instant) -> WindowStats: ...

    def tightest(self, connector: str, campaign_id: str, now: Instant) -> Bound: ...

    async def kill(self, on: bool, reason: str, now: Instant, by: str = "") -> None: ...

    async def place(
        self, connector: str, campaign_id: str, amount_micros: int, now: Instant, *, basis: str = "not_personal"
    ) -> Permit: ...

    async def commit(self, permit: Permit, now: Instant) -> None: ...

    async def release(self, permit: Permit, now: Instant) -> None: ...

    async def allocate(
        self,
        campaign_id: str,
        budget_micros: int,
        currency: str,
        now: Instant,
        *,
        pacing: str = "even",
        start_at: Instant | None = None,
        end_at: Instant | None = None,
    ) -> AllocationView: ...

    async def budget(self, campaign_id: str, now: Instant | None = None) -> AllocationView | None: ...

    def check_worth(self, ltv_micros: int | None) -> None: ...

    async def check(
        self,
        campaign_id: str,
        amount_micros: int,
        platform: str,
        reserve: bool,
        now: Instant,
        *,
        basis: str = "not_personal",
        ltv_micros: int | None = None,
    ) -> CheckAnswer: ...

    async def spend(
        self, campaign_id: str, amount_micros: int | None, reservation_id: str | None, platform: str, now: Instant
    ) -> AllocationView: ...

    async def release_reservation(self, reservation_id: str, now: Instant) -> object: ...


class CampaignTable(Protocol):
    """Columns of all campaigns."""

    @property
    def rows(self) -> Sequence[Campaign]: ...

    @property
    def index(self) -> Mapping[tuple[str, str], int]: ...

    @property
    def bounds(self) -> Mapping[str, tuple[int, int]]: ...

    @property
    def active(self) -> npt.NDArray[np.uint8]: ...

    @property
    def spend_today_micros(self) -> npt.NDArray[np.int64]: ...


class Accounts(Protocol):
    """What the platforms state."""

    @property
    def connectors(self) -> Sequence[str]: ...

    @property
    def table(self) -> CampaignTable: ...

    @property
    def stated(self) -> Mapping[str, Capabilities]: ...

    @property
    def lost(self) -> Mapping[str, str]: ...

    def campaigns(self, connector: str | None = None) -> Sequence[Campaign]: ...

    def budget_micros(self, connector: str) -> int: ...

    def spend_age(self, connector: str, now: Instant) -> int | None: ...

    def silence(self, connector: str, now: Instant) -> int: ...


class Value(Protocol):
    """What customers are worth."""

    async def platform_ltv(self, platform: str, lookback_days: int, now: Instant) -> PlatformValue: ...


class EfficiencyDetail(Protocol):
    """One platform in the last cycle."""

    @property
    def connector(self) -> str: ...

    @property
    def platform(self) -> str: ...

    @property
    def ltv_micros(self) -> int | None: ...

    @property
    def cac_micros(self) -> int | None: ...

    @property
    def efficiency(self) -> float | None: ...

    @property
    def daily_budget_micros(self) -> int: ...

    @property
    def as_of(self) -> Instant | None: ...

    @property
    def note(self) -> str: ...


class EfficiencySnapshot(Protocol):
    """Answer of one optimizer cycle."""

    @property
    def timestamp(self) -> Instant: ...

    @property
    def average_efficiency(self) -> float | None: ...

    @property
    def best_platform(self) -> str | None: ...

    @property
    def best_efficiency(self) -> float | None: ...

    @property
    def details(self) -> Sequence[EfficiencyDetail]: ...


class Shift(Protocol):
    """A move of daily budget between two platforms."""

    @property
    def shift_id(self) -> str: ...

    @property
    def at(self) -> Instant: ...

    @property
    def from_connector(self) -> str: ...

    @property
    def to_connector(self) -> str: ...

    @property
    def from_platform(self) -> str: ...

    @property
    def to_platform(self) -> str: ...

    @property
    def wanted_micros(self) -> int: ...

    @property
    def moved_micros(self) -> int: ...

    @property
    def currency(self) -> str: ...

    @property
    def from_efficiency(self) -> str: ...

    @property
    def to_efficiency(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def state(self) -> str: ...


class Optimizer(Protocol):
    """The five-minute loop."""

    @property
    def snapshot(self) -> EfficiencySnapshot | None: ...

    @property
    def next_run(self) -> Instant | None: ...

    @property
    def runs(self) -> int: ...

    @property
    def last_run(self) -> Instant | None: ...

    @property
    def last_result(self) -> str: ...

    @property
    def recent_shifts(self) -> Sequence[Shift]: ...


class StoredAlert(Protocol):
    """An alert as people read it back."""

    @property
    def notification_id(self) -> str: ...

    @property
    def severity(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def message(self) -> str: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def created_at(self) -> Instant: ...

    @property
    def read_at(self) -> Instant | None: ...


class Alerts(Protocol):
    """What people were told."""

    async def latest(self, limit: int = 50, offset: int = 0) -> Sequence[StoredAlert]: ...


class Instance(Protocol):
    """One configured instance of a plugin's class."""

    @property
    def id(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def plugin(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def platform(self) -> str | None: ...

    @property
    def state(self) -> str: ...

    @property
    def error(self) -> str: ...


class Plugins(Protocol):
    """The plugins and their instances."""

    @property
    def instances(self) -> Mapping[str, Instance]: ...

    def describe(self) -> Sequence[Mapping[str, object]]: ...
