"""A conversion on its way back to the platform that brought the click."""

from __future__ import annotations

from dataclasses import dataclass

from kiki_agent.model.time import Instant


@dataclass(frozen=True, slots=True)
class Conversion:
    """One conversion to upload, worth what the customer is predicted to bring."""

    key: str
    """Unique and derived from the fact; the receipt repeats it, and the vendor drops a second one where it can."""
    click_id: str
    """The vendor's own id of the click."""
    name: str
    """The vendor's name of the conversion action."""
    at: Instant
    value_micros: int
    currency: str
    basis: str
    """Legal basis: `not_personal` or `consent:<id>`; nothing without one is ever handed to a plugin."""
    order_id: str = ""
    """The shop's own number of the order, by which vendors drop a second report of it."""
    confidence_permille: int = 0
    """How sure the predicted value is, 0 to 1000; 0 = not said."""
    ltv_micros: int = 0
    """Predicted lifetime value of the customer, where `value_micros` is not it; 0 = not said."""
