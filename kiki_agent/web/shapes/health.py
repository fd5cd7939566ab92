"""Answers about the state of the process."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kiki_agent.web.shapes.base import Answer, Given, Ident, Seconds, Text


class Component(Answer):
    """One part of the agent."""

    status: Literal["up", "down", "off"]
    reason: str | None = None


class HealthAnswer(Answer):
    """Liveness, with the state of each part."""

    status: Literal["healthy", "degraded"]
    version: str
    uptime_s: Seconds
    components: dict[str, Component]


class HealthzAnswer(Answer):
    """The event loop turns."""

    status: Literal["ok"] = "ok"


class ReadyAnswer(Answer):
    """Whether the agent does its work."""

    ready: bool
    reason: str | None = Field(description="What is missing, in one sentence; null when ready.")


class TaskStatus(Answer):
    """One loop under supervision."""

    name: str
    essential: bool
    state: str
    ticks: int
    late_ticks: int
    skipped: int
    restarts: int
    failures_in_a_row: int
    last_success: str | None
    last_reason: str | None = Field(description="Why the last tick did nothing; null when it acted.")
    last_error: str | None
    last_tick_ms: float | None
    next_due: str | None


class BiddingStatus(Answer):
    """The two-second loop."""

    interval_s: float
    ticks: int
    late_ticks: int
    skipped: int
    last_tick_ms: float | None


class OptimizerStatus(Answer):
    """The five-minute loop."""

    enabled: bool
    interval_s: float
    runs: int
    last_run: str | None
    last_result: str | None
    next_run: str | None


class DatabaseStatus(Answer):
    """The database file."""

    ok: bool
    failure: str | None
    size: int
    wal: int
    epoch: int


class ComponentStatus(Answer):
    """One part as operators see it."""

    enabled: bool
    ready: bool
    database_ok: bool
    reason: str | None
    endpoints: list[str]
    metrics: list[str]


class ConnectorBrief(Answer):
    """One connector in a line."""

    id: str
    platform: str
    state: str
    error: str | None


class LedgerHead(Answer):
    """Where the hash chain ends."""

    entries: int
    hash: str


class StatusAnswer(Answer):
    """Everything an operator asks first."""

    client_id: str
    mode: str
    version: str
    now: str
    speed: float
    started_at: str
    uptime_s: Seconds
    ready: bool
    reason: str | None
    kill_switch: bool
    bidding: BiddingStatus
    optimizer: OptimizerStatus
    tasks: list[TaskStatus]
    connectors: list[ConnectorBrief]
    components: dict[str, ComponentStatus]
    queue_depths: dict[str, int]
    rss_mb: float | None
    database: DatabaseStatus | None
    ledger: LedgerHead | None


class KillSwitchBody(Given):
    """Stop all spending, or allow it again."""

    on: bool = Field(strict=True, description="true stops all spending at once; false allows it again.")
    reason: Text = ""


class StopReach(Answer):
    """What a stop does at one platform."""

    connector: str
    platform: str
    reached: bool = Field(description="Whether campaigns are paused there while the switch is on.")
    running: int = Field(description="Campaigns that run there, as last read or confirmed.")
    why_not: str | None = Field(description="Why it is not reached.")
    what_to_do: str | None = Field(description="What a person does about it.")


class KillSwitchAnswer(Answer):
    """The state of the kill switch."""

    on: bool
    sentence: str = Field(description="What is stopped, what is not, and what to do.")
    reason: str | None = Field(description="Why it is on; null while it is off.")
    at: str | None = Field(description="When it was turned last; null when it never was.")
    by: str | None = Field(description="Who turned it last: http, file, signal, restore; null when not known.")
    platforms: list[StopReach]
    recorded: bool = Field(default=True, description="false: it holds, but could not be written down.")


class TaskAnswer(Answer):
    """What a task was asked to do."""

    task: Ident
    requested: Literal["restart", "pause", "resume", "run"]
