"""Efficiency of the platforms from the last cycle's snapshot, and the distribution of customer value."""

from __future__ import annotations

import msgspec
from aiohttp import web

from kiki_agent.model import SECOND, Platform
from kiki_agent.web.endpoint import JSON, Call, answer
from kiki_agent.web.handlers.health import next_cycle
from kiki_agent.web.problem import FieldProblem, Problem
from kiki_agent.web.protocols import EfficiencySnapshot
from kiki_agent.web.services import Services, need
from kiki_agent.web.shapes.base import number, number_or_none
from kiki_agent.web.shapes.optimizer import (
    EfficiencyQuery,
    PlatformLtvAnswer,
    PlatformLtvBody,
    PlatformLtvQuery,
)


class EfficiencyBodies:
    """The answers of the last cycle, encoded once; only the time to the next cycle is added per request."""

    def __init__(self) -> None:
        self._snapshot: EfficiencySnapshot | None = None
        self._encoded: dict[bool, bytes] = {}

    def body(self, snapshot: EfficiencySnapshot, precise: bool, currency: str) -> bytes:
        """The answer without its closing brace and last member."""
        if snapshot is not self._snapshot:
            self._encoded.clear()
            self._snapshot = snapshot
        if precise not in self._encoded:
            self._encoded[precise] = _encode(snapshot, precise, currency)
        return self._encoded[precise]


def _encode(snapshot: EfficiencySnapshot, precise: bool, currency: str) -> bytes:
    def ratio(value: float | None) -> float | None:
        return value if precise or value is None else round(value, 2)

    def amount(micros: int | None) -> float | None:
        return (None if micros is None else micros / 1e6) if precise else number_or_none(micros, currency)

    whole = msgspec.json.encode(
        {
            "timestamp": snapshot.timestamp // SECOND,
            "average_efficiency": ratio(snapshot.average_efficiency),
            "best_platform": snapshot.best_platform,
            "best_efficiency": ratio(snapshot.best_efficiency),
            "platform_details": [
                {
                    "platform": each.platform,
                    "ltv": amount(each.ltv_micros),
                    "cac": amount(each.cac_micros),
                    "efficiency": ratio(each.efficiency),
                    "daily_budget": amount(each.daily_budget_micros),
                }
                for each in snapshot.details
            ],
        }
    )
    return whole[:-1] + b',"next_run_in_s":'


def seconds_to_next_cycle(services: Services) -> float | None:
    """Seconds of the agent's time until the next cycle; 0 while it is due."""
    due = next_cycle(services)
    return None if due is None else round(max(0, due - services.clock.now()) / SECOND, 1)


async def budget_efficiency(call: Call, query: EfficiencyQuery) -> web.Response:
    """The last cycle, as every screen shows it."""
    services = call.services
    if not services.settings.optimizer.enabled:
        raise Problem(503, "the optimizer is switched off (optimizer.enabled)", "COMPONENT_OFF")
    snapshot = None if services.optimizer is None else services.optimizer.snapshot
    wait = seconds_to_next_cycle(services)
    if wait is None:
        wait = services.settings.optimizer.interval_s
    if snapshot is None:
        empty: dict[str, object] = {
            "timestamp": services.clock.now() // SECOND,
            "average_efficiency": None,
            "best_platform": None,
            "best_efficiency": None,
            "platform_details": [],
            "next_run_in_s": max(wait, 0.1),
        }
        return web.Response(body=msgspec.json.encode(empty), content_type=JSON)
    body = call.house.efficiency.body(snapshot, query.precise, services.settings.currency)
    return web.Response(body=b"%s%s}" % (body, str(wait).encode()), content_type=JSON)


async def platform_ltv(call: Call, body: PlatformLtvBody) -> web.Response:
    """Average, quartiles and count of predicted lifetime value over a platform's customers."""
    return await _platform_ltv(call, body.client_id, body.platform, body.lookback_days)


async def platform_ltv_of(call: Call, query: PlatformLtvQuery) -> web.Response:
    """The same for a platform in the path."""
    try:
        platform = Platform.parse(call.part("platform"))
    except ValueError as error:
        raise Problem(422, f"platform: {error}", fields=[FieldProblem("platform", str(error))]) from None
    client_id = query.client_id or call.services.settings.client_id
    return await _platform_ltv(call, client_id, platform, query.lookback_days)


async def _platform_ltv(call: Call, client_id: str, platform: Platform, lookback_days: int) -> web.Response:
    services = call.services
    if client_id != services.settings.client_id:
        raise Problem(404, f"unknown client {client_id[:64]!r}", "UNKNOWN_CLIENT")
    value = await need(services.value, "syncvalue").platform_ltv(platform.value, lookback_days, services.clock.now())
    currency = services.settings.currency

    def amount(micros: int | None) -> float | None:
        return None if micros is None else number(micros, currency)

    return answer(
        PlatformLtvAnswer(
            platform=platform.rpc_name,
            average_ltv=amount(value.average_ltv_micros),
            p25_ltv=amount(value.p25_ltv_micros),
            p75_ltv=amount(value.p75_ltv_micros),
            sample_size=value.sample_size,
        )
    )
