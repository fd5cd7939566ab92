"""The one snapshot the page shows. Money as decimal texts; null, with a reason, where it cannot be said."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kiki_agent.web.shapes.base import Answer, MoneyText


class StatusLine(Answer):
    """The first sentence of the page."""

    tone: Literal["good", "attention", "bad", "stopped", "starting"]
    sentence: str


class NeedItem(Answer):
    """Something a person should look at."""

    id: str
    severity: Literal["attention", "bad", "stopped"]
    title: str
    text: str
    since: str | None = None


class StopState(Answer):
    """The stop button."""

    on: bool
    available: bool
    reason: str | None
    since: str | None


class DayState(Answer):
    """The account day that is running."""

    date: str
    timezone: str
    elapsed: float = Field(description="Share of the day that has passed, 0 to 1.")


class Totals(Answer):
    """All platforms together."""

    spent_today: MoneyText | None
    budget_today: MoneyText | None
    share: float | None
    as_of: str | None = Field(description="Age of the oldest spend report among the platforms.")
    cannot_say: str | None


class WindowUse(Answer):
    """The sliding window of a platform."""

    spent: MoneyText
    limit: MoneyText | None
    share: float | None
    window_s: float
    records: int


class PlatformState(Answer):
    """One connector."""

    connector: str
    platform: str
    label: str
    state: Literal["ok", "lost", "quarantined", "off"] = Field(description="lost: it cannot be read at present.")
    note: str | None = Field(description="The error behind a state that is not ok.")
    campaigns: int
    active_campaigns: int
    spent_today: MoneyText | None
    spend_as_of: str | None
    spend_cannot_say: str | None
    budget: MoneyText
    share: float | None
    cap: MoneyText | None
    overshoot: MoneyText | None
    window: WindowUse | None
    efficiency: float | None
    efficiency_cannot_say: str | None
    against_average: float | None = Field(description="(efficiency - average) / average.")
    best: bool
    held_by: str | None = Field(description="Why a platform below the threshold keeps its budget, in words.")
    ltv: MoneyText | None
    cac: MoneyText | None
    efficiency_as_of: str | None
    efficiency_history: list[float | None] = Field(description="Of the last cycles of this process, oldest first.")


class OptimizerState(Answer):
    """The five-minute loop."""

    enabled: bool
    interval_s: float
    threshold: float
    step_share: float
    last_run: str | None
    last_result: str | None
    last_words: str = Field(description="The last result as people read it.")
    next_run: str | None
    average_efficiency: float | None
    best_platform: str | None
    shifts_today: int
    average_history: list[float | None]


class BiddingState(Answer):
    """The two-second loop."""

    interval_s: float
    ticks: int
    last_success: str | None
    last_reason: str | None
    state: str
    bids_changed_today: int


class Change(Answer):
    """One value, before and after."""

    name: str
    before: MoneyText | str
    after: MoneyText | str


class ActionItem(Answer):
    """Something the agent did."""

    id: str
    at: str
    kind: Literal["shift", "bid", "budget", "status", "placed"]
    what: str
    changes: list[Change]
    unit: Literal["per day", "per click", ""]
    why: str
    outcome: Literal["done", "waiting", "refused", "unknown"]


class LedgerState(Answer):
    """The record."""

    entries: int
    head: str
    hold: str | None


class LevelItem(Answer):
    """How far the agent may go at one connector."""

    connector: str
    label: str
    level: Literal["watch", "suggest", "act_limited", "act"]
    words: str
    frozen: str | None


class SuggestionNote(Answer):
    """Something that waits for a person."""

    id: str
    what: str
    why: str
    changes: list[Change]
    unit: Literal["per day", "per click", ""]
    raises: bool = Field(description="Whether more money may flow; the page then asks twice.")
    made_at: str
    expires_at: str


class ExternalNote(Answer):
    """Something somebody else changed."""

    at: str
    what: str
    before: str
    after: str


class GovernorState(Answer):
    """What the agent may do by itself, what waits for a person, what it leaves alone."""

    levels: list[LevelItem]
    suggestions: list[SuggestionNote]
    suggestions_open: int
    external: list[ExternalNote]
    external_total: int
    left_alone: int


class OverviewAnswer(Answer):
    """Everything the page shows, at one moment."""

    at: str = Field(description="The agent's time, simulated in demo and backtest when speed is not 1.")
    client_id: str
    currency: str
    decimals: int
    mode: str
    mode_label: str
    speed: float
    version: str
    signed_in: bool = Field(description="Whether a token is needed here, so that signing out makes sense.")
    status: StatusLine
    needs: list[NeedItem]
    stop: StopState
    day: DayState
    totals: Totals
    platforms: list[PlatformState]
    optimizer: OptimizerState
    bidding: BiddingState
    actions: list[ActionItem]
    actions_today: int
    ledger: LedgerState | None
    governor: GovernorState | None
