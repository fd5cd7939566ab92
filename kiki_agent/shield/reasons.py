"""Why money may not move: stable codes, the same in answers, rows and log lines."""

from __future__ import annotations

from enum import IntEnum, StrEnum

from kiki_agent.kernels import permits


class LevelReason(IntEnum):
    """What became of one level; the name is the reason code of a decision, the number stands in kernel columns."""

    PERMITTED = permits.PERMITTED
    INACTIVE = permits.INACTIVE
    """Not active at its platform."""
    NOT_WANTED = permits.NOT_WANTED
    """No bid was asked for."""
    BELOW_MINIMUM = permits.BELOW_MINIMUM
    """The wanted bid is below the platform's minimum."""
    DAILY_BUDGET = permits.DAILY_BUDGET
    """The campaign's own budget of the day is spent."""
    DAILY_CAP = permits.DAILY_CAP
    """Lowered, or paused when the bid is 0: the connector's day has not enough left."""
    WINDOW_CAP = permits.WINDOW_CAP
    """Lowered, or paused when the bid is 0: the connector's sliding window has not enough left."""
    OVERSHOOT = permits.OVERSHOOT
    """The platform spent more than a cap; nothing is permitted until that has passed."""
    NO_CAP = permits.NO_CAP
    """The connector has no daily cap, so it may spend nothing."""
    KILL_SWITCH = permits.KILL_SWITCH
    SAFE_HOLD = permits.SAFE_HOLD
    NO_LEASE = permits.NO_LEASE
    """The right to spend could not be made durable."""
    BAD_INPUT = permits.BAD_INPUT
    """A number that makes no sense: negative, too large, or of no known connector."""
    CHECK_FAILED = permits.CHECK_FAILED
    """The check itself broke; then the answer is no."""
    ANOMALY = permits.ANOMALY
    """The connector is frozen: its figures are far outside their own history."""


class Refusal(StrEnum):
    """Reason codes of `Denied`."""

    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    """An allocation, a day or a window has not enough left; the message says which."""
    OVERSHOOT = "OVERSHOOT"
    NO_CAP = "NO_CAP"
    KILL_SWITCH = "KILL_SWITCH"
    SAFE_HOLD = "SAFE_HOLD"
    CONSENT = "CONSENT"
    """No legal basis for the bid."""
    COMPLIANCE = "COMPLIANCE"
    """A guard rule says no: the predicted value of the customer is outside its bounds."""
    UNKNOWN_CONNECTOR = "UNKNOWN_CONNECTOR"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    """The wish contradicts what has already happened."""
    CURRENCY = "CURRENCY"
    NOT_ACTIVE = "NOT_ACTIVE"
    """The allocation is paused, not begun or over."""
    BAD_INPUT = "BAD_INPUT"
    SLIPPED_DIGIT = "SLIPPED_DIGIT"
    """A raise so large that a digit may have slipped."""
    ABOVE_MAXIMUM = "ABOVE_MAXIMUM"
    ANOMALY = "ANOMALY"
    """The connector is frozen until a person thaws it."""
    PACING = "PACING"
    """An evenly paced allocation would run ahead of its pace."""
    CHECK_FAILED = "CHECK_FAILED"
    """The check itself broke; then the answer is no."""
