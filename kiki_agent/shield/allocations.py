"""Budgets given to single campaigns: what is allocated, reserved and spent. Arithmetic and rules, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kiki_agent.errors import Denied
from kiki_agent.model import Instant, iso
from kiki_agent.model.money import MAX_MICROS, decimal_text
from kiki_agent.shield.bounds import Bound, Exceeded
from kiki_agent.shield.governor import ChangeLimits
from kiki_agent.shield.reasons import Refusal

PACE_SLACK = 20
"""An evenly paced allocation may run ahead of the straight line by this part of its budget: one in so many."""
WARNING_SHARE = 0.80
CRITICAL_SHARE = 0.95
PACINGS = ("even", "accelerated", "custom")


@dataclass(frozen=True, slots=True)
class AllocationView:
    """One campaign's allocation as it stands."""

    campaign_id: str
    budget_micros: int
    currency: str
    spent_micros: int
    reserved_micros: int
    remaining_micros: int
    """What may still be reserved; never negative."""
    utilization: float
    """Spent part of the budget; above 1 after an overshoot."""
    overshoot_micros: int
    status: str
    """scheduled, active, warning, exhausted, paused, pending_approval or expired."""
    pacing: str
    start_at: Instant | None
    end_at: Instant | None
    expected_micros: int | None
    """What even spending would have spent by now; None without start and end."""
    updated_at: Instant


@dataclass(frozen=True, slots=True)
class CheckAnswer:
    """May this bid be placed?"""

    allowed: bool
    reason: str | None
    remaining_micros: int
    """The least of what allocation, day, window and the client's caps have left."""
    reservation_id: str | None = None
    detail: str | None = None
    """Why not, as a sentence."""
    bound: Bound | None = None
    """What refused it, else what binds first; None where no bound was reached."""


@dataclass(slots=True)
class Allocation:
    """A campaign's allocation in memory; the journal follows it."""

    campaign_id: str
    budget_micros: int
    currency: str
    created_at: int
    updated_at: int
    spent_micros: int = 0
    reserved_micros: int = 0
    pacing: str = "even"
    start_at: int | None = None
    end_at: int | None = None
    warned: int = 0

    def set(self, budget_micros: int, pacing: str, start_at: int | None, end_at: int | None) -> None:
        """Change what was allocated; what is spent and reserved stays."""
        self.budget_micros = budget_micros
        self.pacing = pacing
        self.start_at = start_at
        self.end_at = end_at

    @property
    def remaining_micros(self) -> int:
        """What may still be reserved; negative after an overshoot."""
        return self.budget_micros - self.spent_micros - self.reserved_micros

    @property
    def overshoot_micros(self) -> int:
        """What is spent and reserved above the budget."""
        return max(0, -self.remaining_micros)

    def status(self, now: int | None) -> str:
        """In the words of the API; without a present, whether it has begun or is over is not judged."""
        if now is not None and self.end_at is not None and now >= self.end_at:
            return "expired"
        if now is not None and self.start_at is not None and now < self.start_at:
            return "scheduled"
        if self.spent_micros >= self.budget_micros:
            return "exhausted"
        return "warning" if self.spent_micros >= WARNING_SHARE * self.budget_micros else "active"

    def refusal(self, amount: int, currency: str, now: int) -> Denied | None:
        """Why an amount may not be taken; None when it fits, also exactly."""
        if currency != self.currency:
            return Denied(
                Refusal.CURRENCY, f"{self.campaign_id} is allocated in {self.currency}, the account is in {currency}"
            )
        if self.start_at is not None and now < self.start_at:
            begins = iso(self.start_at)
            return Denied(Refusal.NOT_ACTIVE, f"the allocation of {self.campaign_id} begins at {begins}")
        if self.end_at is not None and now >= self.end_at:
            return Denied(Refusal.NOT_ACTIVE, f"the allocation of {self.campaign_id} was over at {iso(self.end_at)}")
        whole, *pace = self.bounds(now, amount)
        if amount > whole.remaining_micros:
            return Exceeded(Refusal.BUDGET_EXCEEDED, amount, whole)
        for bound in pace:
            if amount > bound.remaining_micros:
                return Exceeded(Refusal.PACING, amount, bound)
        return None

    def bounds(self, now: int, wanted: int | None = None) -> list[Bound]:
        """The allocation and, if evenly paced, its pace as they bind one more bid; with the amount `wanted`, also when
        the pace has room for it."""
        spent, held = self.spent_micros, self.reserved_micros
        whole = Bound(
            "allocation", f"the allocation of {self.campaign_id}", self.budget_micros, spent, held, self.currency
        )
        paced = self.paced_micros(now)
        if paced is None:
            return [whole]
        pace = replace(whole, name="pacing", subject=f"the even pace of {self.campaign_id} by now", cap_micros=paced)
        if wanted is not None and wanted > pace.remaining_micros:
            pace = replace(pace, frees_at=self._paced_at(spent + held + wanted))
        return [whole, pace]

    def _paced_at(self, total: int) -> Instant | None:
        """When the pace allows a total; None when it never does."""
        if self.start_at is None or self.end_at is None or total > self.budget_micros:
            return None
        gone = -((self.budget_micros // PACE_SLACK - total) * (self.end_at - self.start_at) // self.budget_micros)
        return Instant(self.start_at + gone)

    def paced_micros(self, now: int) -> int | None:
        """Most that may be spent and reserved by now; None unless evenly paced between a start and an end."""
        expected = self._expected(now) if self.pacing == "even" else None
        return None if expected is None else min(self.budget_micros, expected + self.budget_micros // PACE_SLACK)

    def view(self, now: Instant | None) -> AllocationView:
        """A frozen picture."""
        return AllocationView(
            campaign_id=self.campaign_id,
            budget_micros=self.budget_micros,
            currency=self.currency,
            spent_micros=self.spent_micros,
            reserved_micros=self.reserved_micros,
            remaining_micros=max(0, self.remaining_micros),
            utilization=self.spent_micros / self.budget_micros,
            overshoot_micros=self.overshoot_micros,
            status=self.status(now),
            pacing=self.pacing,
            start_at=None if self.start_at is None else Instant(self.start_at),
            end_at=None if self.end_at is None else Instant(self.end_at),
            expected_micros=None if now is None else self._expected(now),
            updated_at=Instant(self.updated_at),
        )

    def _expected(self, now: int) -> int | None:
        if self.start_at is None or self.end_at is None:
            return None
        gone = min(max(now - self.start_at, 0), self.end_at - self.start_at)
        return self.budget_micros * gone // (self.end_at - self.start_at)


def check_wish(budget_micros: int, currency: str, pacing: str, start_at: int | None, end_at: int | None) -> None:
    """Is an allocation sound in itself? Raises Denied."""
    if type(budget_micros) is not int or not 0 < budget_micros <= MAX_MICROS:
        raise Denied(Refusal.BAD_INPUT, f"a budget is above 0 and at most {MAX_MICROS} micros, was {budget_micros}")
    if len(currency) != 3 or not (currency.isascii() and currency.isalpha() and currency.isupper()):
        raise Denied(Refusal.CURRENCY, f"a currency is an ISO 4217 code such as USD, was {currency[:10]!r}")
    if pacing not in PACINGS:
        raise Denied(Refusal.BAD_INPUT, f"pacing is one of {', '.join(PACINGS)}, was {pacing[:20]!r}")
    if start_at is not None and end_at is not None and end_at <= start_at:
        raise Denied(Refusal.BAD_INPUT, "an allocation ends after it starts")


def check_raise(budget_micros: int, before_micros: int, currency: str, limits: ChangeLimits) -> None:
    """Is an allocation, new (before 0) or raised, of a likely size? Raises Denied ABOVE_MAXIMUM or SLIPPED_DIGIT."""
    if budget_micros <= before_micros:
        return
    given = f"an allocation of {decimal_text(budget_micros, currency)} {currency}"
    if budget_micros > limits.max_budget_micros:
        most = decimal_text(limits.max_budget_micros, currency)
        raise Denied(Refusal.ABOVE_MAXIMUM, f"{given} is above the maximum of {most} (shield.max_budget)")
    if before_micros and budget_micros > before_micros * limits.max_budget_ratio:
        before = decimal_text(before_micros, currency)
        raise Denied(
            Refusal.SLIPPED_DIGIT,
            f"{given} is more than {limits.max_budget_ratio:g} times the {before} it is now; did a digit slip?",
        )


def check_change(allocation: Allocation, budget_micros: int, currency: str) -> None:
    """May an allocation get this budget? Raises Denied CONFLICT."""
    if currency != allocation.currency:
        raise Denied(
            Refusal.CONFLICT, f"{allocation.campaign_id} is allocated in {allocation.currency}, not {currency}"
        )
    if budget_micros < allocation.spent_micros:
        spent = decimal_text(allocation.spent_micros, currency)
        raise Denied(Refusal.CONFLICT, f"{spent} {currency} of {allocation.campaign_id} are spent already")
