"""One bid by hand: reserve at the shield, journal and send through the outbox, then commit or release."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from kiki_agent.errors import Denied, Rejected, StoreError
from kiki_agent.governor import Level
from kiki_agent.model import Instant, Intent, IntentKind, Outcome, Platform, Receipt, intent_key
from kiki_agent.runtime.clock import Stopwatch
from kiki_agent.runtime.log import get_logger
from kiki_agent.shield import Bound, Exceeded, Permit
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.handlers.connectors import circuit_state
from kiki_agent.web.handlers.money import bound_answer
from kiki_agent.web.once import HEADER
from kiki_agent.web.problem import FieldProblem, Problem, require_decimals
from kiki_agent.web.services import Services, basis_of, need, note_refusal
from kiki_agent.web.shapes.base import number_or_none
from kiki_agent.web.shapes.money import BidAnswer, BidBody

Status = Literal["ACCEPTED", "REJECTED", "PENDING"]
OWN_REASONS = {
    "RATE_LIMITED": "the platform takes no more calls for now",
    "WATCH": "the platform is only watched; nothing was sent",
    "DRY_RUN": "this is a dry run: nothing is sent, and the amount is free again",
}
"""Reasons of a receipt that are the agent's own, and what they mean; any other is the platform's."""

_log = get_logger("web")


async def place(call: Call, body: BidBody) -> web.Response:
    """Place one bid; a veto of the shield is an answer with REJECTED and the reason."""
    watch = Stopwatch()
    services = call.services
    shield, outbox = need(services.shield, "syncshield"), need(services.outbox, "syncledger")
    require_decimals("bid_amount", body.bid_amount, services.settings.currency)
    require_decimals("predicted_ltv", body.predicted_ltv, services.settings.currency)
    connector = _connector(services, body)
    now = services.clock.now()
    key = _key(call, body, connector, now)
    said = _Said(services, connector, body.campaign_id, key, watch)
    recorded = await need(services.records, "syncledger").receipt(key)
    if recorded is not None:
        return said.receipt(recorded)
    platform = body.platform.value
    basis = await basis_of(services, body.customer_id, platform, now)
    try:
        _check(services, connector, body)
        permit = await shield.place(connector, body.campaign_id, body.bid_amount, now, basis=basis)
    except Denied as denied:
        await note_refusal(services, body.customer_id, platform, body.campaign_id, denied.reason, now)
        return said.denied(denied)
    if await basis_of(services, body.customer_id, platform, services.clock.now()) != basis:
        await _end(shield.release(permit, services.clock.now()), key)  # taken back while the amount was set aside
        taken_back = Denied("CONSENT", "the consent was taken back meanwhile")
        await note_refusal(services, body.customer_id, platform, body.campaign_id, taken_back.reason, now)
        return said.denied(taken_back)
    held = _held_back(services, connector)
    if held is not None:  # nothing is sent, and nothing is journaled: the amount is free again
        await _end(shield.release(permit, services.clock.now()), key)
        return said.held_back(held)
    intent = _intent(key, body, connector, services.settings.currency, now, permit)
    try:
        receipt = (await outbox.send(now, connector, IntentKind.PLACE_BID, [intent]))[0]
    except StoreError:  # the only error that says nothing was sent; after any other the amount stays reserved
        await _end(shield.release(permit, services.clock.now()), key)
        raise
    if receipt.outcome is Outcome.ACCEPTED:
        await _end(shield.commit(permit, services.clock.now()), key)
    elif receipt.outcome is Outcome.REJECTED:
        await _end(shield.release(permit, services.clock.now()), key)
    return said.receipt(receipt)


async def _end(ending: Awaitable[None], key: str) -> None:
    """End a reservation; when that cannot be written it stays, which is the safe side, and the bid is what it is."""
    try:
        await ending
    except (StoreError, Denied) as error:
        _log.error("reservation_not_ended", f"The reservation of bid {key} stays: {error}", error=error, bid=key)


def _check(services: Services, connector: str, body: BidBody) -> None:
    """What needs no money set aside to be refused. Raises Denied."""
    need(services.shield, "syncshield").check_worth(body.predicted_ltv)
    if services.governor is not None and services.governor.standing(connector).level is Level.WATCH:
        raise Denied("WATCH", f"{connector} is only watched: nothing is sent there until its level is raised")


def _held_back(services: Services, connector: str) -> Rejected | None:
    """Why a bid would not leave the agent now; None when it would."""
    guard = None if services.resilience is None else services.resilience.guards.get(connector)
    error = None if guard is None else guard.hold_back(IntentKind.PLACE_BID.value, services.clock.now())
    if error is None or isinstance(error, Rejected):
        return error
    return Rejected(str(error), "RATE_LIMITED")


def _key(call: Call, body: BidBody, connector: str, now: Instant) -> str:
    """The intent's key: of this request alone, or the same for every request with this `Idempotency-Key`."""
    given = call.request.headers.get(HEADER)
    if given is not None:
        return intent_key(connector, body.campaign_id, IntentKind.PLACE_BID, body.bid_amount, f"http {given}")
    return intent_key(connector, body.campaign_id, IntentKind.PLACE_BID, now, "http", next(call.house.bid_numbers))


def _intent(key: str, body: BidBody, connector: str, currency: str, now: Instant, permit: Permit) -> Intent:
    return Intent(
        key=key,
        kind=IntentKind.PLACE_BID,
        connector=connector,
        campaign_id=body.campaign_id,
        before=0,
        after=body.bid_amount,
        currency=currency,
        reason="MANUAL",
        at=now,
        cause=permit.reservation_id,
        basis=permit.basis,
        ltv_micros=body.predicted_ltv or 0,
        confidence_permille=round(1_000 * (body.confidence or 0)),
        note=body.explanation,
    )


def _connector(services: Services, body: BidBody) -> str:
    """The account a platform's bid goes to; 422 when there is none, or several and none was named."""
    configured = services.settings.connector
    fitting = [
        name for name, each in configured.items() if each.enabled and Platform.parse(each.platform) is body.platform
    ]
    if body.connector is not None:
        if body.connector not in fitting:
            raise _invalid("connector", f"there is no connector {body.connector!r} for {body.platform.value}")
        return body.connector
    if not fitting:
        raise _invalid("platform", f"no connector is configured for {body.platform.value}")
    if len(fitting) > 1:
        raise _invalid("connector", f"{body.platform.value} has several accounts, name one of {', '.join(fitting)}")
    return fitting[0]


def _invalid(field: str, message: str) -> Problem:
    return Problem(422, f"{field}: {message}", fields=[FieldProblem(field, message)])


@dataclass(frozen=True, slots=True)
class _Said:
    """Answers about one bid."""

    services: Services
    connector: str
    campaign_id: str
    key: str
    watch: Stopwatch

    def denied(self, denied: Denied) -> web.Response:
        """The agent did not permit it."""
        return self._answer(
            "REJECTED",
            denied.reason,
            detail=str(denied),
            bound=denied.bound if isinstance(denied, Exceeded) else None,
        )

    def held_back(self, held: Rejected) -> web.Response:
        """It would not have left the agent."""
        own = "PLATFORM_ERROR" if held.reason == "CIRCUIT_OPEN" else held.reason
        return self._answer("REJECTED", own, platform_reason=held.reason, detail=str(held))

    def receipt(self, receipt: Receipt) -> web.Response:
        """What became of it at the platform."""
        word = receipt.reason or None
        match receipt.outcome:
            case Outcome.ACCEPTED:
                return self._answer("ACCEPTED", None, platform_reason=word)
            case Outcome.REJECTED:
                reason = receipt.reason if receipt.reason in OWN_REASONS else "PLATFORM_ERROR"
                said = OWN_REASONS.get(receipt.reason) or f"the platform refused it: {word or 'no reason given'}"
                return self._answer("REJECTED", reason, platform_reason=word, detail=said)
            case Outcome.UNKNOWN:
                said = "the platform's answer is unknown; the amount stays reserved until it is read back"
                return self._answer("PENDING", "UNKNOWN_OUTCOME", platform_reason=word, detail=said)

    def _answer(
        self,
        status: Status,
        reason: str | None,
        *,
        platform_reason: str | None = None,
        detail: str | None = None,
        bound: Bound | None = None,
    ) -> web.Response:
        services, binding = self.services, None
        if services.shield is not None:
            binding = services.shield.tightest(self.connector, self.campaign_id, services.clock.now())
        left = None if binding is None else max(0, binding.remaining_micros)
        return answer(
            BidAnswer(
                bid_id=self.key,
                status=status,
                reason=reason,
                detail=detail,
                platform_reason=platform_reason,
                remaining_budget=number_or_none(left, services.settings.currency),
                bound=bound_answer(bound or binding),
                circuit_state=circuit_state(services, self.connector),
                latency_ms=round(self.watch.seconds() * 1_000, 3),
                decision_id=self.key,
            )
        )
