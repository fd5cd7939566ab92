"""Why a campaign bids what it bids: one small number per campaign and tick, one stable word in rows and answers."""

from __future__ import annotations

from kiki_agent.kernels import bids
from kiki_agent.model import DecisionOutcome
from kiki_agent.shield.reasons import LevelReason

PLATFORM_BIDS = 32
"""Reason number where a platform sets the bid by itself."""
LEFT_ALONE = 33
"""Reason number where somebody else set the lever."""
SHIELD = 64
"""Reason numbers from here on are the shield's, shifted by this."""

_OWN = {
    bids.ON_PLAN: "ON_PLAN",
    bids.AHEAD_OF_PLAN: "AHEAD_OF_PLAN",
    bids.BEHIND_PLAN: "BEHIND_PLAN",
    bids.VALUE_LIMIT: "VALUE_LIMIT",
    bids.BUDGET_SPENT: "BUDGET_SPENT",
    bids.NO_BUDGET: "NO_BUDGET",
    bids.PAUSED: "PAUSED",
    bids.BELOW_MINIMUM: "BELOW_MINIMUM",
}
_OTHERS = {PLATFORM_BIDS: "PLATFORM_BIDS", LEFT_ALONE: "LEFT_ALONE"}
_NAMES = _OWN | _OTHERS | {SHIELD + member.value: member.name for member in LevelReason}

SENTENCES = {
    "ON_PLAN": "spend is on its plan",
    "AHEAD_OF_PLAN": "spend is ahead of its plan",
    "BEHIND_PLAN": "spend is behind its plan",
    "VALUE_LIMIT": "the bid is as high as a customer is worth",
    "BUDGET_SPENT": "the budget of the day is spent",
    "NO_BUDGET": "the campaign has no daily budget, so it is left alone",
    "PAUSED": "the campaign is paused at its platform",
    "BELOW_MINIMUM": "a customer is worth less than the smallest bid",
    "PLATFORM_BIDS": "the platform sets its bids by itself",
    "LEFT_ALONE": "somebody else set this, so it is left alone",
    "DAILY_BUDGET": "the budget of the day is spent",
    "DAILY_CAP": "the cap of the day leaves no more",
    "WINDOW_CAP": "the sliding window leaves no more",
    "OVERSHOOT": "the platform spent more than its cap",
    "NO_CAP": "no daily cap is configured",
    "KILL_SWITCH": "the kill switch is on",
    "SAFE_HOLD": "the agent is in safe hold",
    "ANOMALY": "the platform is frozen, its figures are far outside their history",
    "CHECK_FAILED": "the shield could not be asked",
}
"""What a person reads in place of the code."""

CAPPED = frozenset(
    {
        bids.BUDGET_SPENT,
        *(SHIELD + code for code in (LevelReason.DAILY_BUDGET, LevelReason.DAILY_CAP, LevelReason.WINDOW_CAP)),
    }
)
"""Reasons that come and go with every report; leaving them waits as long as any other change."""
NO_BUDGET = bids.NO_BUDGET
CHECK_FAILED = SHIELD + LevelReason.CHECK_FAILED


def reason_name(code: int) -> str:
    """The stable word of a reason number."""
    return _NAMES[code]


def outcome_of(bid_micros: int, code: int) -> DecisionOutcome:
    """What became of the wish to bid."""
    if bid_micros == 0:
        return DecisionOutcome.REJECTED
    return DecisionOutcome.REDUCED if code >= SHIELD else DecisionOutcome.ACCEPTED
