"""Why a sound change is not made now: stable codes, the same in answers, rows, metrics and log lines."""

from __future__ import annotations

from enum import StrEnum

from kiki_agent.model import Intent, IntentKind
from kiki_agent.shield import LevelReason


class Held(StrEnum):
    """Reason codes of `Denied` beyond those of the shield."""

    WATCH = "WATCH"
    """The platform is only watched; what would have been done is on record."""
    SUGGEST = "SUGGEST"
    """Changes are suggested to people there."""
    APPROVAL = "APPROVAL"
    """The change is above the amount that needs a person's approval."""
    OUTSIDE_EDIT = "OUTSIDE_EDIT"
    """Somebody else changed this lever; it is left alone for a while."""
    PINNED = "PINNED"
    """A person pinned this lever."""
    STEP = "STEP"
    """The change is larger than one step may be."""
    QUOTA = "QUOTA"
    """The platform takes no further edit of this budget for now."""
    REST = "REST"
    """The budget was changed a short while ago."""
    LEARNING = "LEARNING"
    """The platform is learning how to deliver; an edit this large would make it begin again."""
    NOISE = "NOISE"
    """The expected effect is not larger than the noise."""
    NET_LIMIT = "NET_LIMIT"
    """The net change of the last 24 hours has reached its limit."""
    ANOMALY = "ANOMALY"
    """The platform is frozen because its figures are far outside their own history."""
    STALE = "STALE"
    """The figures are too old to raise anything on."""
    SUM = "SUM"
    """The raise is not covered by budget that was taken elsewhere."""
    MOVED = "MOVED"
    """The account has moved since the change was planned."""
    CHECK_FAILED = "CHECK_FAILED"
    """A check broke; then the answer is no."""


TO_PEOPLE = frozenset({Held.SUGGEST, Held.APPROVAL})
"""Held back only until a person agrees."""

_SAFETY = frozenset(
    reason.name
    for reason in (
        LevelReason.DAILY_BUDGET,
        LevelReason.DAILY_CAP,
        LevelReason.WINDOW_CAP,
        LevelReason.OVERSHOOT,
        LevelReason.NO_CAP,
        LevelReason.KILL_SWITCH,
        LevelReason.SAFE_HOLD,
        LevelReason.ANOMALY,
        LevelReason.NO_LEASE,
        LevelReason.BAD_INPUT,
        LevelReason.CHECK_FAILED,
    )
)


def is_safety_cut(intent: Intent) -> bool:
    """Whether a change only lowers spend, and does so because the shield allows no more."""
    return intent.kind is not IntentKind.PLACE_BID and intent.after < intent.before and intent.reason in _SAFETY
