"""Efficiency of the platforms and what their customers are worth."""

from __future__ import annotations

from pydantic import Field

from kiki_agent.web.shapes.base import Answer, Given, Ident, PlatformName


class EfficiencyQuery(Given):
    """How exact the numbers shall be."""

    precise: bool = Field(default=False, description="true: unrounded; otherwise two decimals.")


class PlatformEfficiency(Answer):
    """One platform in the last cycle; null where it cannot be said."""

    platform: str
    ltv: float | None
    cac: float | None
    efficiency: float | None
    daily_budget: float


class EfficiencyAnswer(Answer):
    """The last cycle of the optimizer."""

    timestamp: int = Field(description="Unix seconds of the cycle; of the answer before the first cycle.")
    average_efficiency: float | None
    best_platform: str | None
    best_efficiency: float | None
    platform_details: list[PlatformEfficiency]
    next_run_in_s: float | None


class PlatformLtvBody(Given):
    """Which platform's customers, and how far back."""

    client_id: Ident
    platform: PlatformName
    lookback_days: int = Field(default=90, ge=1, le=730, strict=True)


class PlatformLtvQuery(Given):
    """How far back."""

    client_id: Ident | None = None
    lookback_days: int = Field(default=90, ge=1, le=730)


class PlatformLtvAnswer(Answer):
    """Distribution of predicted lifetime value over a platform's customers; null without any."""

    platform: str
    average_ltv: float | None
    p25_ltv: float | None
    p75_ltv: float | None
    sample_size: int
