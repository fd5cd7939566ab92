"""What a platform answered to a change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Three ways a write can end; `unknown` is settled by reading back, never by trying again blindly."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to one intent."""

    key: str
    """Key of the intent."""
    outcome: Outcome
    reason: str = ""
    """The vendor's reason code when it was not accepted."""
    vendor_ref: str = ""
    """The vendor's own id for the effect, where it gives one."""
