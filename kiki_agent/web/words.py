"""Reason codes in words people read. A code without words here is shown as it is, never hidden."""

from __future__ import annotations

from collections.abc import Sequence

from kiki_agent.config import Mode
from kiki_agent.flow.reasons import SENTENCES

MODES = {
    Mode.DEMO: "DEMO · simulated market",
    Mode.DRY_RUN: "DRY RUN · nothing is changed",
    Mode.LIVE: "LIVE",
    Mode.BACKTEST: "BACKTEST",
}
"""Badge of each mode."""

CANNOT_SAY = {
    "NO_REPORT": "this platform has not reported yet",
    "NO_VALUE": "no customer value is known for this platform yet",
    "TOO_FEW_CONVERSIONS": "too few conversions to judge by",
    "NO_SPEND": "nothing was spent in the look-back",
    "NO_DATA": "there is no data yet",
}
"""Why an efficiency cannot be said."""

HELD_BY = {
    "COOLDOWN": "below the threshold; it gave budget within the last cool-down, so it rests",
    "EVIDENCE": "below the threshold; waiting for data newer than its last shift used",
    "FLOOR": "below the threshold; already at the floor of its start budget",
    "NO_TARGET": "below the threshold; no better platform to give to",
    "IN_FLIGHT": "below the threshold; a shift is still on its way",
    "MINIMUM": "below the threshold; its campaigns are at the platform's smallest budgets",
    "NO_CAMPAIGN": "below the threshold; the best platform has no campaign that could take more",
    "UNSETTLED": "below the threshold; waiting for an answer about an earlier change",
    "KILL_SWITCH": "below the threshold; spending was stopped by a person",
    "SAFE_HOLD": "below the threshold; the agent holds still to be safe",
    "BUDGET_EXCEEDED": "below the threshold; the best platform's cap leaves no room",
    "OVERSHOOT": "below the threshold; the best platform has spent more than its cap",
    "NO_CAP": "below the threshold; the best platform has no daily cap",
    "WATCH": "below the threshold; a platform is only watched",
    "SUGGEST": "below the threshold; the move is suggested to you",
    "APPROVAL": "below the threshold; the move needs your approval",
    "LEFT_ALONE": "below the threshold; its budgets were set by somebody else",
    "OUTSIDE_EDIT": "below the threshold; a budget was set by somebody else",
    "REST": "below the threshold; a budget was changed a short while ago and rests",
    "QUOTA": "below the threshold; a platform takes no further edit for now",
    "STEP": "below the threshold; the step would be too large",
    "LEARNING": "below the threshold; a campaign is learning",
    "NOISE": "below the threshold; the move would not be told from chance",
    "PINNED": "below the threshold; a budget is pinned",
    "NET_LIMIT": "below the threshold; the limit of the day is reached",
    "STALE": "below the threshold; the best platform's figures are too old",
    "MOVED": "below the threshold; the account has moved",
    "ANOMALY": "below the threshold; a platform is frozen",
}
"""Why a platform below the threshold keeps its budget."""

RESTS = {
    "COOLDOWN": "rests after giving",
    "EVIDENCE": "waits for newer data",
    "FLOOR": "is at its floor",
    "NO_TARGET": "has nobody to give to",
    "IN_FLIGHT": "has a move on its way",
    "MINIMUM": "is at its smallest budgets",
    "NO_CAMPAIGN": "finds no taker",
    "UNSETTLED": "waits for an answer",
    "KILL_SWITCH": "is stopped",
    "SAFE_HOLD": "is on hold",
    "BUDGET_EXCEEDED": "finds no room under the cap",
    "OVERSHOOT": "finds no room under the cap",
    "NO_CAP": "finds no cap to stay under",
    "WATCH": "is only watched",
    "SUGGEST": "waits for you",
    "APPROVAL": "waits for you",
    "LEFT_ALONE": "was set by somebody else",
    "OUTSIDE_EDIT": "was set by somebody else",
    "REST": "rests after a change",
    "QUOTA": "takes no edit for now",
    "STEP": "would need too large a step",
    "LEARNING": "is learning",
    "NOISE": "has too few conversions for the move",
    "PINNED": "is pinned",
    "NET_LIMIT": "reached its limit of the day",
    "STALE": "finds figures too old",
    "MOVED": "has moved",
    "ANOMALY": "is frozen",
}
"""The same in two or three words."""

WHY = SENTENCES | {
    "APPROVAL": "it is above the amount that needs your approval",
    "KILL_SWITCH": "spending was stopped by a person",
    "MANUAL": "asked for by a person",
}
"""Why something was done."""


def cannot_say(code: str) -> str:
    """Words for why an efficiency cannot be said."""
    return CANNOT_SAY.get(code, code or "there is no data yet")


def last_cycle(moved: bool, comparable: bool, held: Sequence[tuple[str, str]]) -> str:
    """What the last cycle of the optimizer came to; `held` names platforms below the threshold and their guard."""
    if moved:
        return "budget was moved"
    if not comparable:
        return "no platform could be compared"
    known = [
        f"{label} {RESTS.get(code, f'is held ({code})')}" for label, code in held if code and code not in CANNOT_SAY
    ]
    return f"nothing moved; {', '.join(known)}" if known else "nothing moved; no platform is far below the average"


def why(code: str) -> str:
    """Words for the reason of an action."""
    return WHY.get(code, code)
