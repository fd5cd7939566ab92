"""Conversions over HTTP: told by a shop, sent by a loop. The conversions' room decides, this only translates."""

from __future__ import annotations

from aiohttp import web

from kiki_agent.model import iso
from kiki_agent.value import ConversionReport, ConversionState
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.problem import FieldProblem, Problem, require_decimals
from kiki_agent.web.services import need
from kiki_agent.web.shapes import conversions as shapes
from kiki_agent.web.shapes.base import Nothing, number


async def report(call: Call, body: shapes.ConversionBody) -> web.Response:
    """Take a conversion in; it is sent within half a minute, and again until the platform has taken it."""
    services = call.services
    now = services.clock.now()
    at = body.instant or now
    if at > now:
        raise Problem(422, "at: lies in the future", fields=[FieldProblem("at", "lies in the future")])
    currency = body.currency or services.settings.currency
    require_decimals("value", body.value, currency)
    told = ConversionReport(
        connector=body.connector,
        customer_id=body.customer_id,
        click_id=body.click_id,
        at=at,
        currency=currency,
        order_id=body.order_id or "",
        name=body.name or "",
        value_micros=body.value,
    )
    return answer(_answer(await need(services.conversions, "syncvalue").report(told, now)), 202)


async def find(call: Call, _: Nothing) -> web.Response:
    """One conversion."""
    found = await need(call.services.conversions, "syncvalue").find(call.part("id"))
    if found is None:
        raise Problem(404, "there is no such conversion, or it was settled long ago", "NOT_FOUND")
    return answer(_answer(found))


async def counts(call: Call, _: Nothing) -> web.Response:
    """All kept conversions, counted."""
    found = await need(call.services.conversions, "syncvalue").counts()
    return answer(
        shapes.ConversionsAnswer(
            queued=found.get("queued", 0), accepted=found.get("accepted", 0), rejected=found.get("rejected", 0)
        )
    )


def _answer(found: ConversionState) -> shapes.ConversionAnswer:
    return shapes.ConversionAnswer(
        conversion_id=found.conversion_id,
        connector=found.connector,
        at=iso(found.at),
        value=number(found.value_micros, found.currency),
        currency=found.currency,
        state=found.state,
        reason=found.reason,
        attempts=found.attempts,
        reported_at=iso(found.reported_at),
        settled_at=None if found.settled_at is None else iso(found.settled_at),
    )
