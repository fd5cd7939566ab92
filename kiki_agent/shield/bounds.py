"""What one more bid has to fit under: each cap with what is left of it and when there will be more. Arithmetic only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kiki_agent.errors import Denied
from kiki_agent.model import Instant, iso
from kiki_agent.model.money import decimal_text


@dataclass(frozen=True, slots=True)
class Bound:
    """One cap as it stands: cap = spent + held + remaining, where remaining is negative after an overshoot."""

    name: str
    """`window`, `day`, `client_window`, `client_day`, `allocation` or `pacing`."""
    subject: str
    """Whose cap it is, as a phrase: the window of meta, the allocation of c1."""
    cap_micros: int
    spent_micros: int
    held_micros: int
    """Reserved by placed bids, or exposed by levels that a platform may spend until its next report."""
    currency: str
    frees_at: Instant | None = None
    """The earliest instant at which time alone makes room for the amount that was asked for; None: time does not."""

    @property
    def remaining_micros(self) -> int:
        """What one more bid could take."""
        return self.cap_micros - self.spent_micros - self.held_micros

    def __str__(self) -> str:
        left, spent, held, cap = (
            decimal_text(micros, self.currency)
            for micros in (max(0, self.remaining_micros), self.spent_micros, self.held_micros, self.cap_micros)
        )
        if self.spent_micros == self.held_micros == 0:
            return f"{self.subject} is at most {cap}"
        when = "" if self.frees_at is None else f"; there is room for it from {iso(self.frees_at)} at the earliest"
        return f"{self.subject} has {left} left: {spent} spent and {held} held of {cap}{when}"


class Exceeded(Denied):
    """An amount does not fit under a bound."""

    def __init__(self, reason: str, amount_micros: int, bound: Bound) -> None:
        super().__init__(reason, f"{decimal_text(amount_micros, bound.currency)} {bound.currency} wanted, {bound}")
        self.bound = bound


def tightest(bounds: Iterable[Bound]) -> Bound:
    """The bound with the least left, the first of equals."""
    return min(bounds, key=lambda bound: bound.remaining_micros)


def freed_by(gains: Iterable[tuple[int, int]], needed: int) -> Instant | None:
    """The first instant at which gains (instant, micros), in order of time, add up to what is needed; None when they
    never do, or nothing is needed."""
    if needed <= 0:
        return None
    for at, micros in gains:
        needed -= micros
        if needed <= 0:
            return Instant(at)
    return None
