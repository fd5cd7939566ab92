"""Connectors as they stand, and what a person may tune about them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kiki_agent.web.shapes.base import Amount, Answer, Given, PlainNumber, Text

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Few = Annotated[int, Field(ge=1, le=100, strict=True)]
Milliseconds = Annotated[int, Field(ge=1, le=600_000, strict=True)]
Wait = Annotated[float, PlainNumber, Field(gt=0, le=31_622_400, allow_inf_nan=False)]
Factor = Annotated[float, PlainNumber, Field(ge=0.001, le=100, allow_inf_nan=False)]


class WindowAnswer(Answer):
    """The sliding window of a connector.

    max_budget = current_spend + reserved + exposed + remaining_budget, unless more is spent and held; then 0 remains.
    """

    current_spend: float
    max_budget: float
    reserved: float = Field(description="Set aside for placed bids that are not settled yet.")
    exposed: float = Field(description="What the platform may spend at the levels set there until its next report.")
    remaining_budget: float = Field(description="What one more bid may take from the window.")
    utilization: float | None
    record_count: int
    oldest_record: str | None
    window_s: float


class DayAnswer(Answer):
    """The account day of a connector.

    cap = spent + reserved + exposed + remaining, unless more is spent and held; then 0 remains.
    """

    date: str
    spent: float = Field(description="reported + placed + presumed.")
    reported: float = Field(description="As the platform reports it.")
    placed: float = Field(description="Spent by bids placed one by one.")
    presumed: float = Field(description="Taken as spent since the last start, until the platform reports.")
    reserved: float
    exposed: float
    remaining: float
    cap: float | None = Field(description="null: no cap is set, so nothing may be spent.")


class RateLimitAnswer(Answer):
    """How many calls the vendor gets, and how many it got."""

    calls: int
    window_s: float
    used: int
    burst: int | None = Field(description="Most calls within any one second; null: no guard of its own.")
    reads: int = Field(description="Calls of the window that reads may use up; the rest is for changes.")
    usage: float | None = Field(description="What the vendor itself said is used, as a share; null: it said nothing.")
    wait_until: str | None = Field(description="Before this instant the vendor wants no call.")


class CircuitAnswer(Answer):
    """Whether calls are given up for a while; the worse of reads and changes."""

    state: Literal["closed", "half_open", "open"]
    failures: int = Field(description="Failures in a row.")
    opened_at: str | None
    fallbacks: int = Field(description="Decisions made with the fallback value while it was not closed.")
    read: Literal["closed", "half_open", "open"]
    write: Literal["closed", "half_open", "open"]


class CallsAnswer(Answer):
    """What was counted since the start."""

    requests: int
    rate_limited: int
    circuit_open: int
    retries: int


class LatencyAnswer(Answer):
    """Duration of the newest calls in milliseconds."""

    p50: float
    p95: float
    p99: float


class ConnectorAnswer(Answer):
    """One connector."""

    id: str
    platform: str
    kind: Literal["smart", "basic"]
    mode: str
    enabled: bool
    connected: bool
    status_text: str
    api_version: str | None
    sunset: str | None = Field(description="Day on which the vendor ends this version of its API, if it said so.")
    campaigns: int
    active_campaigns: int
    daily_budget: float
    spent_today: float | None = Field(description="Reported and placed; null before the first report.")
    daily_cap: float | None
    reserved: float | None
    overshoot: float | None
    currency: str
    data_as_of: str | None
    day: DayAnswer | None = Field(description="null: not up yet.")
    window: WindowAnswer | None = Field(description="null: a basic connector, or not up yet.")
    rate_limit: RateLimitAnswer | None = Field(description="null: the vendor states none, and none is configured.")
    circuit: CircuitAnswer | None = Field(description="null: a basic connector, or not up yet.")
    latency_ms: LatencyAnswer | None = Field(description="null: no call was made yet.")
    calls: CallsAnswer | None


class ConnectorsAnswer(Answer):
    """All connectors."""

    items: list[ConnectorAnswer]
    total: int


class RateLimitBody(Given):
    """What is to change; the rest stays, null takes an earlier change back."""

    calls: Count | None = None
    window_s: Wait | None = None
    burst: Count | None = None


class CircuitBody(Given):
    """What is to change; the rest stays, null takes an earlier change back."""

    failure_threshold: Few | None = None
    slow_call_ms: Milliseconds | None = None
    slow_batch_ms: Milliseconds | None = None
    reset_timeout_s: Wait | None = None
    half_open_successes: Few | None = None
    state: Literal["closed"] | None = Field(default=None, description="Closes the circuit now; not remembered.")


class ConnectorBody(Given):
    """What to change about a connector. A key that is absent stays; null takes an earlier change back."""

    max_budget: Amount | None = Field(default=None, description="Most that may be spent within the window.")
    rate_limit: RateLimitBody | None = None
    enabled: bool | None = Field(default=None, strict=True)
    circuit: CircuitBody | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("nothing to change was given")
        return self


class ResilienceBody(Given):
    """What to change for all connectors. A key that is absent stays; null takes an earlier change back."""

    failure_threshold: Few | None = None
    slow_call_ms: Milliseconds | None = None
    slow_batch_ms: Milliseconds | None = None
    reset_timeout_s: Wait | None = None
    half_open_successes: Few | None = None
    read_retries: Annotated[int, Field(ge=0, le=5, strict=True)] | None = None
    multipliers: dict[Text, Factor | None] | None = Field(
        default=None, description="By platform, in any accepted spelling; null for one of them takes that one back."
    )
    max_history: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = None
    min_samples: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("nothing to change was given")
        return self


class ConnectorCircuit(Answer):
    """The circuit of one connector."""

    id: str
    platform: str
    multiplier: float
    circuit: CircuitAnswer | None


class ResilienceAnswer(Answer):
    """What is in force, and how every connector stands."""

    failure_threshold: int
    slow_call_ms: int
    slow_batch_ms: int
    reset_timeout_s: float
    half_open_successes: int
    read_retries: int
    multipliers: dict[str, float]
    max_history: int
    min_samples: int
    connectors: list[ConnectorCircuit]
