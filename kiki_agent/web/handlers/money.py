"""Allocations by hand: give, look, check, spend, release. The shield decides, this only translates."""

from __future__ import annotations

from aiohttp import web

from kiki_agent.model import Instant, decimal_text, iso
from kiki_agent.shield import AllocationView, Bound
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.problem import Problem, require_decimals
from kiki_agent.web.services import basis_of, need, note_refusal
from kiki_agent.web.shapes.base import Nothing, number, number_or_none
from kiki_agent.web.shapes.money import (
    AllocateBody,
    AllocationAnswer,
    BoundAnswer,
    BudgetAnswer,
    CheckAnswer,
    CheckBody,
    PacingState,
    PendingAllocation,
    ReleaseAnswer,
    ReleaseBody,
    SpendBody,
)


async def allocate(call: Call, body: AllocateBody) -> web.Response:
    """Give a campaign a budget (201), or change what it has (200); above the approval limit it waits (202)."""
    services = call.services
    shield = need(services.shield, "syncshield")
    known = await shield.budget(body.campaign_id)
    currency = body.currency or (known.currency if known else services.settings.currency)
    require_decimals("budget", body.budget, currency)
    pacing = body.pacing or (known.pacing if known else "even")
    start, end = _span(body, known, services.clock.now())
    before = 0 if known is None else known.budget_micros
    wish: dict[str, str | int | None] = {
        "campaign_id": body.campaign_id,
        "budget_micros": body.budget,
        "before_micros": before,
        "currency": currency,
        "pacing": pacing,
        "start_at": start,
        "end_at": end,
    }
    desk = None if services.governor is None else services.governor.desk
    if desk is None:
        changed = await shield.allocate(
            body.campaign_id, body.budget, currency, services.clock.now(), pacing=pacing, start_at=start, end_at=end
        )
    elif desk.allocations.needs_approval(body.campaign_id, before, body.budget):
        amounts = f"{decimal_text(before, currency)} to {decimal_text(body.budget, currency)} {currency}"
        why = f"A person wants to raise the allocation of {body.campaign_id} from {amounts}"
        made = await desk.suggest_allocation(wish, why, services.clock.now())
        return answer(_pending(body.campaign_id, currency, known, made.suggestion_id), 202)
    else:
        changed = await desk.allocations.give(wish, services.clock.now())
    return answer(_allocation(changed), 201 if known is None else 200)


async def budget(call: Call, _: Nothing) -> web.Response:
    """A campaign's allocation and its use."""
    campaign_id = call.part("campaign_id")
    found = await need(call.services.shield, "syncshield").budget(campaign_id, call.services.clock.now())
    if found is None:
        raise Problem(404, f"campaign {campaign_id!r} has no allocation", "NOT_FOUND")
    return answer(
        BudgetAnswer(
            campaign_id=found.campaign_id,
            budget=number(found.budget_micros, found.currency),
            currency=found.currency,
            spent=number(found.spent_micros, found.currency),
            reserved=number(found.reserved_micros, found.currency),
            remaining=number(found.remaining_micros, found.currency),
            utilization=round(found.utilization, 4),
            status=found.status,
            start=None if found.start_at is None else iso(found.start_at),
            end=None if found.end_at is None else iso(found.end_at),
            pacing=PacingState(
                kind=found.pacing,
                expected=number_or_none(found.expected_micros, found.currency),
                actual=number(found.spent_micros, found.currency),
            ),
        )
    )


async def check(call: Call, body: CheckBody) -> web.Response:
    """Whether a bid would be allowed; `reserve` sets the amount aside in the same step."""
    services = call.services
    shield = need(services.shield, "syncshield")
    now = services.clock.now()
    require_decimals("bid_amount", body.bid_amount, services.settings.currency)
    require_decimals("ltv", body.ltv, services.settings.currency)
    basis = await basis_of(services, body.customer_id, body.platform.value, now)
    found = await shield.check(
        body.campaign_id,
        body.bid_amount,
        body.platform.value,
        body.reserve,
        now,
        basis=basis,
        ltv_micros=body.ltv,
    )
    await note_refusal(services, body.customer_id, body.platform.value, body.campaign_id, found.reason, now)
    return answer(
        CheckAnswer(
            allowed=found.allowed,
            reason=found.reason,
            remaining=number(found.remaining_micros, services.settings.currency),
            reservation_id=found.reservation_id,
            detail=found.detail,
            bound=bound_answer(found.bound),
        )
    )


async def spend(call: Call, body: SpendBody) -> web.Response:
    """Spend an amount, or what a reservation holds."""
    services = call.services
    shield = need(services.shield, "syncshield")
    require_decimals("amount", body.amount, services.settings.currency)
    changed = await shield.spend(
        body.campaign_id, body.amount, body.reservation_id, body.platform.value, services.clock.now()
    )
    return answer(_allocation(changed))


async def release(call: Call, body: ReleaseBody) -> web.Response:
    """Free a reservation."""
    services = call.services
    await need(services.shield, "syncshield").release_reservation(body.reservation_id, services.clock.now())
    return answer(ReleaseAnswer(released=True, reservation_id=body.reservation_id))


def _span(body: AllocateBody, known: AllocationView | None, now: Instant) -> tuple[Instant | None, Instant | None]:
    """Begin and end as wished: what is left out stays; null begins now and has no end."""
    start, end = body.span
    if "start" not in body.model_fields_set:
        start = None if known is None else known.start_at
    elif start is None:
        start = now
    if "end" not in body.model_fields_set:
        end = None if known is None else known.end_at
    return start, end


def bound_answer(bound: Bound | None) -> BoundAnswer | None:
    """A bound as answers show it."""
    if bound is None:
        return None
    return BoundAnswer(
        name=bound.name,
        cap=number(bound.cap_micros, bound.currency),
        spent=number(bound.spent_micros, bound.currency),
        held=number(bound.held_micros, bound.currency),
        remaining=number(max(0, bound.remaining_micros), bound.currency),
        frees_at=None if bound.frees_at is None else iso(bound.frees_at),
    )


def _pending(campaign_id: str, currency: str, known: AllocationView | None, name: str) -> PendingAllocation:
    """What stands until a person approved."""
    return PendingAllocation(
        campaign_id=campaign_id,
        budget=number(0 if known is None else known.budget_micros, currency),
        currency=currency,
        spent=number(0 if known is None else known.spent_micros, currency),
        remaining=number(0 if known is None else known.remaining_micros, currency),
        status="pending_approval",
        suggestion_id=name,
    )


def _allocation(found: AllocationView) -> AllocationAnswer:
    return AllocationAnswer(
        campaign_id=found.campaign_id,
        budget=number(found.budget_micros, found.currency),
        currency=found.currency,
        spent=number(found.spent_micros, found.currency),
        remaining=number(found.remaining_micros, found.currency),
        status=found.status,
    )
