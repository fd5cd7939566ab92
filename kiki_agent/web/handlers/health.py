"""Liveness, readiness, status and metrics."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from kiki_agent.model import iso
from kiki_agent.runtime.metrics import CONTENT_TYPE
from kiki_agent.runtime.supervisor import LoopHealth, LoopState
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.problem import Problem
from kiki_agent.web.services import Services
from kiki_agent.web.shapes.base import Nothing
from kiki_agent.web.shapes.health import (
    BiddingStatus,
    Component,
    ComponentStatus,
    ConnectorBrief,
    DatabaseStatus,
    HealthAnswer,
    HealthzAnswer,
    LedgerHead,
    OptimizerStatus,
    ReadyAnswer,
    StatusAnswer,
    TaskStatus,
)

_PAGE_SIZE = 4096
_PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "syncvalue": ("value", ("syncvalue_",)),
    "syncshield": ("shield", ("syncshield_",)),
    "syncflow": ("bidding", ("syncflow_",)),
    "optimizer": ("optimizer", ("syncflow_budget_shifts_total", "syncflow_platform_")),
    "syncledger": ("ledger", ()),
    "syncnotify": ("alerts", ("syncnotify_",)),
    "store": ("store", ("kiki_db_",)),
}
"""Name in answers -> part of the services, prefixes of its metrics."""
_ENDPOINTS = {
    "syncvalue": "value",
    "syncshield": "money",
    "syncflow": "bidding",
    "optimizer": "optimizer",
    "syncledger": "ledger",
}
"""Name in answers -> tag of its endpoints."""
_LATER = ("syncengage", "synccreate", "billing", "channels")
"""Parts of the whole that this version does not contain; shown as off."""


async def health(call: Call, _: Nothing) -> web.Response:
    """200 as long as the event loop turns; `OK` for those who ask for text."""
    if _prefers_text(call.request):
        return web.Response(text="OK")
    services = call.services
    components = {name: component(services, name) for name in _PARTS}
    components |= {name: Component(status="off", reason="not part of this version") for name in _LATER}
    degraded = services.not_ready() is not None or any(each.status == "down" for each in components.values())
    return answer(
        HealthAnswer(
            status="degraded" if degraded else "healthy",
            version=services.version,
            uptime_s=services.uptime.seconds(),
            components=components,
        )
    )


async def healthz(_: Call, __: Nothing) -> web.Response:
    """The event loop turns."""
    return answer(HealthzAnswer())


async def ready(call: Call, _: Nothing) -> web.Response:
    """200 when the agent does its work, 503 with the reason when it does not."""
    reason = call.services.not_ready()
    status = 200 if reason is None else 503
    return answer(ReadyAnswer(ready=reason is None, reason=reason), status)


async def metrics(call: Call, _: Nothing) -> web.Response:
    """All metrics in Prometheus text."""
    return web.Response(body=call.services.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


async def status(call: Call, _: Nothing) -> web.Response:
    """Everything an operator asks first."""
    services = call.services
    reason = services.not_ready()
    store, ledger, shield = services.store, services.ledger, services.shield
    return answer(
        StatusAnswer(
            client_id=services.settings.client_id,
            mode=services.settings.mode.value,
            version=services.version,
            now=iso(services.clock.now()),
            speed=services.clock.speed,
            started_at=iso(services.started_at),
            uptime_s=services.uptime.seconds(),
            ready=reason is None,
            reason=reason,
            kill_switch=shield is not None and shield.killed,
            bidding=_bidding(services),
            optimizer=_optimizer(services),
            tasks=[_task(each) for each in _healths(services)],
            connectors=_connectors(services),
            components=_components(call),
            queue_depths={} if store is None else {"store": store.queue_depth},
            rss_mb=resident_megabytes(),
            database=None
            if store is None
            else DatabaseStatus(
                ok=store.failure is None,
                failure=store.failure,
                size=store.sizes().get("db", 0),
                wal=store.sizes().get("wal", 0),
                epoch=store.epoch,
            ),
            ledger=None if ledger is None else LedgerHead(entries=ledger.head[0], hash=ledger.head[1]),
        )
    )


def component(services: Services, name: str) -> Component:
    """The state of one part: off, down with the reason, or up."""
    part, _ = _PARTS[name]
    loop = None if services.supervisor is None else services.supervisor.health.get(part)
    if part == "optimizer" and not services.settings.optimizer.enabled:
        return Component(status="off", reason="optimizer.enabled is false")
    if loop is not None and loop.state is LoopState.FAULTED:
        return Component(status="down", reason=loop.last_error or "no successful tick for three periods")
    if part == "store" and services.store is not None and services.store.failure:
        return Component(status="down", reason=services.store.failure)
    if part == "ledger" and services.ledger is not None and services.ledger.hold_reason:
        return Component(status="down", reason=services.ledger.hold_reason)
    if part == "shield" and services.shield is not None and services.shield.hold_reason:
        return Component(status="down", reason=services.shield.hold_reason)
    there = loop is not None if part == "bidding" else getattr(services, part) is not None
    if not there:
        return Component(status="down", reason=services.starting or "not running")
    return Component(status="up")


def resident_megabytes() -> float | None:
    """Resident memory of this process; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * _PAGE_SIZE / 1e6, 1)


def _prefers_text(request: web.Request) -> bool:
    accept = request.headers.get("Accept", "")
    return "text/plain" in accept and "json" not in accept.partition("text/plain")[0]


def _healths(services: Services) -> list[LoopHealth]:
    return [] if services.supervisor is None else list(services.supervisor.health.values())


def _task(each: LoopHealth) -> TaskStatus:
    return TaskStatus(
        name=each.name,
        essential=each.essential,
        state=each.state.value,
        ticks=each.ticks,
        late_ticks=each.late,
        skipped=each.skipped,
        restarts=each.restarts,
        failures_in_a_row=each.failures_in_a_row,
        last_success=None if each.last_success is None else iso(each.last_success),
        last_reason=each.last_reason,
        last_error=each.last_error or None,
        last_tick_ms=round(each.last_tick_seconds * 1_000, 3),
        next_due=iso(each.next_due) if each.next_due else None,
    )


def _bidding(services: Services) -> BiddingStatus:
    loop = None if services.supervisor is None else services.supervisor.health.get("bidding")
    return BiddingStatus(
        interval_s=services.settings.bidding.interval_s,
        ticks=0 if loop is None else loop.ticks,
        late_ticks=0 if loop is None else loop.late,
        skipped=0 if loop is None else loop.skipped,
        last_tick_ms=None if loop is None else round(loop.last_tick_seconds * 1_000, 3),
    )


def _optimizer(services: Services) -> OptimizerStatus:
    optimizer = services.optimizer
    next_run = None if optimizer is None else next_cycle(services)
    return OptimizerStatus(
        enabled=services.settings.optimizer.enabled,
        interval_s=services.settings.optimizer.interval_s,
        runs=0 if optimizer is None else optimizer.runs,
        last_run=None if optimizer is None or optimizer.last_run is None else iso(optimizer.last_run),
        last_result=None if optimizer is None else optimizer.last_result or None,
        next_run=None if next_run is None else iso(next_run),
    )


def next_cycle(services: Services) -> int | None:
    """Due time of the optimizer's next cycle: what the supervisor plans, else what the optimizer knows."""
    loop = None if services.supervisor is None else services.supervisor.health.get("optimizer")
    if loop is not None and loop.next_due:
        return loop.next_due
    if services.optimizer is None:
        return None
    if services.optimizer.next_run is not None:
        return services.optimizer.next_run
    return services.started_at + round(services.settings.optimizer.interval_s * 1_000_000)


def _connectors(services: Services) -> list[ConnectorBrief]:
    if services.plugins is None:
        return []
    return [
        ConnectorBrief(id=each.id, platform=each.platform or "", state=each.state, error=each.error or None)
        for each in services.plugins.instances.values()
        if each.kind == "connector"
    ]


def _components(call: Call) -> dict[str, ComponentStatus]:
    services = call.services
    names = sorted(family.name for family in services.metrics.registry.collect())
    database_ok = services.store is not None and services.store.failure is None
    found = {}
    for name, (_, prefixes) in _PARTS.items():
        state = component(services, name)
        tag = _ENDPOINTS.get(name)
        found[name] = ComponentStatus(
            enabled=state.status != "off",
            ready=state.status == "up" and services.starting is None,
            database_ok=database_ok,
            reason=state.reason,
            endpoints=[f"{each.method} {each.path}" for each in call.house.endpoints if each.tag == tag],
            metrics=[each for each in names if prefixes and each.startswith(prefixes)],
        )
    for name in _LATER:
        found[name] = ComponentStatus(
            enabled=False,
            ready=False,
            database_ok=database_ok,
            reason="not part of this version",
            endpoints=[],
            metrics=[],
        )
    return found


def unavailable(reason: str) -> Problem:
    """503 while the agent starts."""
    return Problem(503, f"the agent is not up yet: {reason}", "STARTING", headers={"Retry-After": "1"})
