"""Connectors as they stand, and tuning them while the agent runs."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from kiki_agent.config import Mode
from kiki_agent.hooks.guard import READ, WRITE, Guard
from kiki_agent.model import CampaignStatus, Instant, Platform, decimal_text, iso
from kiki_agent.resilience import ConnectorChange, Resilience, RulesChange, Unusable
from kiki_agent.shield import WindowStats
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.problem import FieldProblem, Problem, require_decimals
from kiki_agent.web.services import Services, need, spent_today
from kiki_agent.web.shapes.base import Nothing, number, number_or_none
from kiki_agent.web.shapes.connectors import (
    CallsAnswer,
    CircuitAnswer,
    ConnectorAnswer,
    ConnectorBody,
    ConnectorCircuit,
    ConnectorsAnswer,
    DayAnswer,
    LatencyAnswer,
    RateLimitAnswer,
    ResilienceAnswer,
    ResilienceBody,
    WindowAnswer,
)
from kiki_agent.web.shapes.records import Paging

_MODES: Final = {Mode.DEMO: "sandbox", Mode.DRY_RUN: "sandbox", Mode.LIVE: "live", Mode.BACKTEST: "mock"}
_RULES: Final = (
    "failure_threshold",
    "slow_call_ms",
    "slow_batch_ms",
    "reset_timeout_s",
    "half_open_successes",
    "read_retries",
)


async def connectors(call: Call, query: Paging) -> web.Response:
    """All connectors."""
    names = list(call.services.settings.connector)
    items = [_connector(call.services, name) for name in names[query.offset : query.offset + query.limit]]
    return answer(ConnectorsAnswer(items=items, total=len(names)))


async def connector(call: Call, _: Nothing) -> web.Response:
    """One connector."""
    return answer(_connector(call.services, _known(call)))


async def change(call: Call, body: ConnectorBody) -> web.Response:
    """Tune one connector. It holds at once, outlives a restart and is on record; wrong values change nothing."""
    name = _known(call)
    services = call.services
    resilience = need(services.resilience, "the connectors")
    if name not in resilience.guards:
        text = f"{name} is switched off in the configuration; switch it on there and start again"
        raise Problem(409, text, "CONFLICT")
    require_decimals("max_budget", body.max_budget, services.settings.currency)
    _require_likely(services, name, body.max_budget)
    given = body.model_fields_set
    circuit = None if body.circuit is None else body.circuit.model_dump(exclude_unset=True)
    close = circuit is not None and circuit.pop("state", None) == "closed"
    limit = None if body.rate_limit is None else body.rate_limit.model_dump(exclude_unset=True)
    wanted = ConnectorChange(
        max_budget_micros={"max_budget_micros": body.max_budget} if "max_budget" in given else {},
        enabled={"enabled": body.enabled} if "enabled" in given else {},
        rate_limit={"rate_limit": limit} if "rate_limit" in given else {},
        circuit={"circuit": circuit} if "circuit" in given and (circuit or not close) else {},
        close_circuit=close,
    )
    try:
        await resilience.change_connector(name, wanted, services.clock.now())
    except Unusable as error:
        raise _invalid(error) from None
    call.house.overview.forget()
    return answer(_connector(services, name))


async def resilience(call: Call, _: Nothing) -> web.Response:
    """What holds for connectors that say nothing else, and how each stands."""
    return answer(_resilience(call.services, need(call.services.resilience, "the connectors")))


async def change_resilience(call: Call, body: ResilienceBody) -> web.Response:
    """Tune what holds for all connectors; the same promises as for one."""
    services = call.services
    found = need(services.resilience, "the connectors")
    given = body.model_dump(exclude_unset=True)
    taken_back = "multipliers" in given and body.multipliers is None
    try:
        multipliers = {Platform.parse(name).value: factor for name, factor in (body.multipliers or {}).items()}
    except ValueError as error:
        raise _invalid(Unusable("multipliers", str(error))) from None
    wanted = RulesChange(
        rules={name: given[name] for name in _RULES if name in given},
        multipliers=None if taken_back else multipliers,
        counts={name: given[name] for name in ("max_history", "min_samples") if name in given},
    )
    try:
        await found.change_rules(wanted, services.clock.now())
    except Unusable as error:
        raise _invalid(error) from None
    return answer(_resilience(services, found))


def circuit_state(services: Services, name: str) -> str | None:
    """The word for a connector's circuit; None without one."""
    guard = None if services.resilience is None else services.resilience.guards.get(name)
    return None if guard is None or not guard.breakers else guard.circuit.word


def _known(call: Call) -> str:
    name = call.part("id")
    if name not in call.services.settings.connector:
        raise Problem(404, f"there is no connector {name!r}", "UNKNOWN_CONNECTOR")
    return name


def _require_likely(services: Services, name: str, wanted: int | None) -> None:
    """Refuse a window's cap so far above the present one that a digit may have slipped. Raises Problem 409."""
    if wanted is None or services.shield is None:
        return
    stats = services.shield.status(name, services.clock.now())
    ratio, before = services.settings.shield.max_budget_ratio, stats.max_budget_micros
    if 0 < before * ratio < wanted <= (stats.daily_cap_micros or 0):
        now = decimal_text(before, stats.currency)
        text = f"max_budget: more than {ratio:g} times the {now} it is now; did a digit slip? Raise it in steps"
        raise Problem(409, text, "SLIPPED_DIGIT", fields=[FieldProblem("max_budget", text)])


def _invalid(error: Unusable) -> Problem:
    return Problem(422, str(error), fields=[FieldProblem(error.field, error.message)])


def _connector(services: Services, name: str) -> ConnectorAnswer:
    settings = services.settings
    now = services.clock.now()
    table = settings.connector[name]
    instance = None if services.plugins is None else services.plugins.instances.get(name)
    accounts = services.accounts
    known = accounts is not None and name in accounts.connectors
    campaigns = list(accounts.campaigns(name)) if accounts is not None and known else []
    age = accounts.spend_age(name, now) if accounts is not None and known else None
    lost = None if accounts is None else accounts.lost.get(name)
    stated = accounts.stated.get(name) if accounts is not None else None
    spent = spent_today(services, name, now) if known else None
    stats = services.shield.status(name, now) if services.shield is not None and known else None
    guard = None if services.resilience is None else services.resilience.guards.get(name)
    state = "starting" if instance is None else instance.state
    currency = settings.currency
    return ConnectorAnswer(
        id=name,
        platform=Platform.parse(table.platform).value,
        kind=table.kind,
        mode=_MODES[settings.mode],
        enabled=table.enabled and (guard is None or guard.enabled),
        connected=state == "ok" and age is not None and lost is None and (guard is None or guard.enabled),
        status_text=_status_text(state, "" if instance is None else instance.error, lost, age is not None, guard, now),
        api_version=None if stated is None else stated.api_version or None,
        sunset=None if stated is None else stated.sunset or None,
        campaigns=len(campaigns),
        active_campaigns=sum(1 for each in campaigns if each.status is CampaignStatus.ACTIVE),
        daily_budget=number(accounts.budget_micros(name) if accounts is not None and known else 0, currency),
        spent_today=number_or_none(spent, currency),
        daily_cap=number_or_none(None if stats is None else stats.daily_cap_micros, currency),
        reserved=number_or_none(None if stats is None else stats.reserved_micros, currency),
        overshoot=number_or_none(None if stats is None else stats.overshoot_micros, currency),
        currency=currency,
        data_as_of=None if age is None else iso(now - age),
        day=None if stats is None else _day(stats, currency),
        window=None if stats is None or table.kind == "basic" else _window(stats, currency),
        rate_limit=None if guard is None else _rate_limit(guard, now),
        circuit=None if guard is None else _circuit(guard),
        latency_ms=None if guard is None else _latency(guard),
        calls=None if guard is None else _calls(guard),
    )


def _status_text(state: str, error: str, lost: str | None, reported: bool, guard: Guard | None, now: Instant) -> str:
    match state:
        case "quarantined":
            return f"put aside: {error or 'no reason known'}"
        case "off":
            return "switched off in the configuration"
        case "starting":
            return "not up yet"
    if guard is not None and not guard.enabled:
        return "switched off by a person; its campaigns run on as they are"
    if lost is not None:
        return f"cannot be read: {lost}"
    if guard is not None:
        circuit = _circuit(guard)
        if circuit is not None and circuit.state != "closed":
            kinds = " and ".join(
                words for words, each in (("reads", circuit.read), ("changes", circuit.write)) if each != "closed"
            )
            how = "given up for now" if circuit.state == "open" else "being tried again"
            return f"{kinds} failed {circuit.failures} times in a row and are {how}"
        wait = guard.changes_from(now) - now
        if wait > 0:
            return f"its calls are used up; the next may go out in {wait / 1e6:.0f} s"
    return "connected" if reported else "waiting for its first report"


def _window(stats: WindowStats, currency: str) -> WindowAnswer:
    limit = stats.max_budget_micros
    return WindowAnswer(
        current_spend=number(stats.current_spend_micros, currency),
        max_budget=number(limit, currency),
        reserved=number(stats.reserved_micros, currency),
        exposed=number(stats.window_exposure_micros, currency),
        remaining_budget=number(stats.remaining_micros, currency),
        utilization=round(stats.current_spend_micros / limit, 4) if limit > 0 else None,
        record_count=stats.record_count,
        oldest_record=None if stats.oldest_record is None else iso(stats.oldest_record),
        window_s=stats.window_s,
    )


def _day(stats: WindowStats, currency: str) -> DayAnswer:
    reported = stats.spent_today_micros - stats.placed_micros - stats.presumed_micros
    return DayAnswer(
        date=stats.day,
        spent=number(stats.spent_today_micros, currency),
        reported=number(reported, currency),
        placed=number(stats.placed_micros, currency),
        presumed=number(stats.presumed_micros, currency),
        reserved=number(stats.reserved_micros, currency),
        exposed=number(stats.exposure_micros, currency),
        remaining=number(stats.daily_remaining_micros, currency),
        cap=number_or_none(stats.daily_cap_micros, currency),
    )


def _rate_limit(guard: Guard, now: Instant) -> RateLimitAnswer | None:
    limiter = guard.limiter
    if limiter is None:
        return None
    hints = guard.hints
    return RateLimitAnswer(
        calls=limiter.limit.calls,
        window_s=limiter.limit.window_s,
        used=limiter.used(now),
        burst=limiter.limit.burst,
        reads=limiter.room(0),
        usage=round(hints.usage, 4) if hints.usage_at else None,
        wait_until=iso(Instant(hints.retry_at)) if hints.retry_at > now else None,
    )


def _circuit(guard: Guard) -> CircuitAnswer | None:
    if not guard.breakers:
        return None
    read, write = guard.breakers[READ], guard.breakers[WRITE]
    opened = [each.opened_at for each in (read, write) if each.opened_at is not None]
    return CircuitAnswer(
        state=guard.circuit.word,
        failures=max(read.failures, write.failures),
        opened_at=iso(Instant(min(opened))) if opened else None,
        fallbacks=guard.counts.fallbacks,
        read=read.state.word,
        write=write.state.word,
    )


def _latency(guard: Guard) -> LatencyAnswer | None:
    found = guard.latency_ms()
    return None if found is None else LatencyAnswer(p50=found[0], p95=found[1], p99=found[2])


def _calls(guard: Guard) -> CallsAnswer:
    counts = guard.counts
    return CallsAnswer(
        requests=counts.requests,
        rate_limited=counts.rate_limited,
        circuit_open=counts.broken,
        retries=counts.retries,
    )


def _resilience(services: Services, found: Resilience) -> ResilienceAnswer:
    rules = found.rules
    multipliers = found.multipliers
    tables = services.settings.connector
    return ResilienceAnswer(
        failure_threshold=rules.failure_threshold,
        slow_call_ms=rules.slow_call_ms,
        slow_batch_ms=rules.slow_batch_ms,
        reset_timeout_s=rules.reset_timeout_s,
        half_open_successes=rules.half_open_successes,
        read_retries=rules.read_retries,
        multipliers=multipliers,
        max_history=found.max_history,
        min_samples=found.min_samples,
        connectors=[
            ConnectorCircuit(
                id=name,
                platform=(platform := Platform.parse(tables[name].platform).value),
                multiplier=multipliers.get(platform, 1.0),
                circuit=_circuit(guard),
            )
            for name, guard in found.guards.items()
        ],
    )
