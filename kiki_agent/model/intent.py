"""What the agent means to change at a platform, written down before it is done."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from kiki_agent.model.time import Instant


class IntentKind(StrEnum):
    """Verb of a change."""

    SET_BUDGET = "set_budget"
    ADJUST_BID = "adjust_bid"
    SET_STATUS = "set_status"
    PLACE_BID = "place_bid"


@dataclass(frozen=True, slots=True)
class Intent:
    """One wanted change at one platform; absolute, never relative."""

    key: str
    """Unique and derived from the fact, see `intent_key`; travels in a client-visible field if the vendor has one."""
    kind: IntentKind
    connector: str
    campaign_id: str
    before: int
    """Value in force when decided: micros, or 1/0 for active/paused."""
    after: int
    """Value wanted: micros, or 1/0 for active/paused."""
    currency: str
    reason: str
    at: Instant
    """Nominal time of the tick that decided."""
    cause: str = ""
    """Id of what this belongs to, for example a shift id; empty for plain bids."""
    budget_id: str = ""
    """For a budget: `Campaign.budget_id` of the budget that is set."""
    ltv_micros: int = 0
    """Predicted lifetime value of a customer behind a bid; 0 = not said."""
    confidence_permille: int = 0
    """How sure that prediction is, 0 to 1000; 0 = not said."""
    note: str = ""
    """Why, as text that may be shown to the platform; never anything about a person."""
    basis: str = "not_personal"
    """Legal basis (M12): `not_personal`, or `consent:<id>` for a bid about a person; never `denied`."""

    @property
    def raises_spend(self) -> bool:
        """True when the change can make more money flow."""
        return self.kind is IntentKind.PLACE_BID or self.after > self.before


def intent_key(connector: str, campaign_id: str, kind: IntentKind, at: int, cause: str = "", attempt: int = 0) -> str:
    """A key derived from the fact alone: 32 hexadecimal characters, the same for the same decision on every run."""
    fact = "\x1f".join((connector, campaign_id, kind.value, str(at), cause, str(attempt)))
    return hashlib.sha256(fact.encode()).hexdigest()[:32]
