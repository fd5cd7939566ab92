"""Customers as a CRM states them, and what they are predicted to be worth."""

from __future__ import annotations

from dataclasses import dataclass

from kiki_agent.model.time import Instant


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer as the CRM knows them now."""

    customer_id: str
    platform: str
    """Canonical platform id that brought the customer; empty when unknown."""
    acquired_at: Instant
    purchases: int
    revenue_micros: int
    """Margin-free revenue of all purchases so far."""
    last_purchase_at: Instant
    updated_at: Instant


@dataclass(frozen=True, slots=True)
class CustomerPage:
    """One page of an incremental read."""

    customers: tuple[Customer, ...]
    cursor: str
    """Pass it back to continue, also in a later run."""
    more: bool


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one customer will be worth over their life."""

    customer_id: str
    platform: str
    predicted_ltv_micros: int
    lower_micros: int
    upper_micros: int
    model_version: str
    predicted_at: Instant


@dataclass(frozen=True, slots=True)
class PlatformValue:
    """Distribution of predicted lifetime value over the customers a platform brought within a look-back."""

    platform: str
    average_ltv_micros: int | None
    p25_ltv_micros: int | None
    p75_ltv_micros: int | None
    sample_size: int
    model_version: str
