"""Consents and requests of people about their data. The consent room decides, this only translates."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from kiki_agent.consent import DENIED, Consent, ConsentType, PrivacyRequest, RequestType, Why
from kiki_agent.model import DAY, Instant, iso
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.problem import FieldProblem, Problem
from kiki_agent.web.services import Services, need
from kiki_agent.web.shapes import consent as shapes
from kiki_agent.web.shapes.base import Nothing

_NO_STRING = {
    Why.MALFORMED: "is not a consent string",
    Why.POLICY: "is of a policy version that is not accepted",
    Why.GLOBAL_SCOPE: "has global scope, which the framework has given up",
    Why.FUTURE: "is from the future",
    Why.EXPIRED: "is older than 13 months",
    Why.NOT_DISCLOSED: "does not say which vendors were disclosed",
    Why.NO_SECTION: "has no section that is a basis here",
    Why.NOT_ASKED: "cannot be read for anybody: no vendor_id is configured",
}


async def grant(call: Call, body: shapes.GrantBody) -> web.Response:
    """A person allows something, from now on."""
    services = call.services
    done = await need(services.consents, "syncshield").grant(
        body.customer_id,
        body.consent_type,
        services.clock.now(),
        expires_at=body.expires,
        version=body.version,
        legal_basis=body.legal_basis,
        evidence=body.evidence,
    )
    return _said(call, "granted", done)


async def revoke(call: Call, body: shapes.RevokeBody) -> web.Response:
    """A person takes something back, from this moment on."""
    services = call.services
    done = await need(services.consents, "syncshield").revoke(
        body.customer_id, body.consent_type, services.clock.now(), evidence=body.evidence
    )
    return _said(call, "revoked", done)


async def take_string(call: Call, body: shapes.StringBody) -> web.Response:
    """What a consent string says; 422 when it says nothing, and then nothing changes."""
    services = call.services
    now = services.clock.now()
    why, changed = await need(services.consents, "syncshield").take_string(body.customer_id, body.consent_string, now)
    services.metrics.consent_strings(why.value).inc()
    if why is not Why.YES:
        message = _NO_STRING.get(why, "is no legal basis")
        raise Problem(422, f"consent_string: {message}", why.value, fields=[FieldProblem("consent_string", message)])
    for each in changed:
        services.metrics.consents(each.consent_type.value, each.status.value, each.source.value).inc()
    return answer(shapes.StringAnswer(changed=_states(changed, now), unchanged=3 - len(changed)))


async def status(call: Call, query: shapes.StatusQuery) -> web.Response:
    """What a customer said, by purpose; on record as a reading."""
    services = call.services
    now = services.clock.now()
    await need(services.privacy, "syncshield").accessed(query.customer_id, "consent status", now)
    found = await need(services.consents, "syncshield").status(query.customer_id)
    return answer(_states(found.values(), now))


async def check(call: Call, query: shapes.BasisQuery) -> web.Response:
    """The basis a decision made now would have."""
    consents = need(call.services.consents, "syncshield")
    now = call.services.clock.now()
    basis = await consents.look(query.customer_id, query.consent_type, query.platform.value, now)
    return answer(shapes.BasisAnswer(allowed=basis != DENIED, basis=basis))


async def request(call: Call, body: shapes.RequestBody) -> web.Response:
    """Take a request of a person and do what it asks for."""
    services = call.services
    privacy = need(services.privacy, "syncshield")
    made = await privacy.request(body.customer_id, body.request_type, body.requested_by, services.clock.now())
    services.metrics.privacy_requests(made.request_type.value).inc()
    return answer(shapes.RequestAnswer.model_validate(_request(made)), 202)


async def find_request(call: Call, _: Nothing) -> web.Response:
    """A request by its id, with the export where one was asked for."""
    services = call.services
    privacy = need(services.privacy, "syncshield")
    found = await privacy.find(call.part("id"))
    if found is None:
        raise Problem(404, "there is no request with this id")
    export = None
    if found.request_type in (RequestType.ACCESS, RequestType.PORTABILITY):
        export = await privacy.export(found.subject, services.clock.now(), f"request {found.request_id}")
    return answer(shapes.RequestWithExport.model_validate(_request(found) | {"export": export}))


async def settle_request(call: Call, body: shapes.SettleBody) -> web.Response:
    """End a request that waits for a person."""
    services = call.services
    privacy = need(services.privacy, "syncshield")
    settled = await privacy.settle(call.part("id"), body.status == "COMPLETED", services.clock.now())
    return answer(shapes.RequestAnswer.model_validate(_request(settled)))


async def report(call: Call, query: shapes.ReportQuery) -> web.Response:
    """Counts of decisions, vetoes, consents and requests."""
    services = call.services
    now = services.clock.now()
    since = Instant(max(0, now - shapes.DAYS[query.period] * DAY))
    decisions, vetoes = await need(services.records, "syncledger").vetoes(since)
    privacy = need(services.privacy, "syncshield")
    entries, oldest, erased = await privacy.kept()
    refused = await privacy.refusals(since, now)
    if refused:
        vetoes = {**vetoes, "CONSENT": vetoes.get("CONSENT", 0) + refused}
    return answer(
        shapes.ComplianceAnswer(
            period=query.period,
            since=iso(since),
            until=iso(now),
            decisions=decisions,
            vetoes=vetoes,
            consents=await need(services.consents, "syncshield").counts(now),
            requests=await privacy.counts(since, now),
            retention=shapes.RetentionAnswer(
                ledger_entries=entries, oldest_entry_at=None if oldest is None else iso(oldest), erased=erased
            ),
        )
    )


async def audit(call: Call, query: shapes.AuditQuery) -> web.Response:
    """Entries about people and orders, newest first."""
    services = call.services
    if query.user_id is not None:
        privacy = need(services.privacy, "syncshield")
        await privacy.accessed(query.user_id, "audit", services.clock.now())
        found = await privacy.history(query.user_id)
        kept = [
            each
            for each in reversed(found)
            if query.event_type in (None, each[2]) and each[1] >= (query.since_instant or 0)
        ]
        rows, total = kept[query.offset : query.offset + query.limit], len(kept)
    else:
        kinds = [] if query.event_type is None else [query.event_type]
        records = need(services.records, "syncledger")
        rows, total = await records.audit(kinds, query.since_instant, query.limit, query.offset)
    items = [
        shapes.AuditItem(
            seq=seq, at=iso(Instant(at)), event_type=kind, event_data=body, retention_days=_retention(services, kind)
        )
        for seq, at, kind, body in rows
    ]
    return answer(shapes.AuditAnswer(items=items, total=total))


def _retention(services: Services, kind: str) -> float:
    """Days an entry of a kind that auditors ask for is kept."""
    ledger = services.settings.ledger
    return ledger.money_days if kind == "control" else ledger.personal_days


def _said(call: Call, word: str, done: Consent) -> web.Response:
    call.services.metrics.consents(done.consent_type.value, done.status.value, done.source.value).inc()
    return answer(shapes.SaidAnswer.model_validate({"status": word, "consent_id": done.consent_id}))


def _states(found: Iterable[Consent], now: Instant) -> shapes.StatusAnswer:
    states: dict[ConsentType, shapes.ConsentState] = {}
    for each in found:
        states[each.consent_type] = shapes.ConsentState(
            status=each.status.value,
            in_force=each.in_force(now),
            source=each.source.value,
            consent_id=each.consent_id,
            granted_at=_iso(each.granted_at),
            revoked_at=_iso(each.revoked_at),
            expires_at=_iso(each.expires_at),
            version=each.version,
            legal_basis=each.legal_basis,
            vendors=None if each.vendors is None else list(each.vendors),
        )
    return shapes.StatusAnswer.model_validate({kind.value: state for kind, state in states.items()})


def _request(made: PrivacyRequest) -> dict[str, object]:
    return {
        "request_id": made.request_id,
        "request_type": made.request_type.value,
        "status": made.status,
        "requested_at": iso(made.requested_at),
        "due_at": iso(made.due_at),
        "completed_at": _iso(made.completed_at),
        "notes": made.notes,
    }


def _iso(instant: Instant | None) -> str | None:
    return None if instant is None else iso(instant)
