"""Decisions, reallocations, the verified chain, connectors and plugins, read back."""

from __future__ import annotations

from aiohttp import web

from kiki_agent.config import Mode
from kiki_agent.model import CampaignStatus, Platform, iso
from kiki_agent.shield import WindowStats
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.problem import Problem
from kiki_agent.web.services import need
from kiki_agent.web.shapes.base import Nothing, number, number_or_none
from kiki_agent.web.shapes.records import (
    ConnectorAnswer,
    ConnectorsAnswer,
    DecisionItem,
    DecisionsAnswer,
    DecisionsQuery,
    Paging,
    PluginItem,
    PluginsAnswer,
    ReallocationItem,
    ReallocationsAnswer,
    ReallocationsQuery,
    VerifyAnswer,
    WindowAnswer,
)

_MODES = {Mode.DEMO: "sandbox", Mode.DRY_RUN: "sandbox", Mode.LIVE: "live", Mode.BACKTEST: "mock"}


async def decisions(call: Call, query: DecisionsQuery) -> web.Response:
    """Decisions of the two-second loop, newest first; equal ones in a row are one item."""
    services = call.services
    runs, total = await need(services.decisions, "syncledger").decisions(
        campaign_id=query.campaign_id,
        platform=None if query.platform is None else query.platform.value,
        source=None if query.source is None else query.source.value,
        since=query.since_instant,
        limit=query.limit,
        offset=query.offset,
    )
    currency = services.settings.currency
    items = [
        DecisionItem(
            connector=run.decision.connector,
            campaign_id=run.decision.campaign_id,
            platform=run.decision.platform,
            bid=number(run.decision.bid_micros, currency),
            currency=currency,
            outcome=run.decision.outcome.value,
            reason=run.decision.reason,
            source=run.decision.source.value,
            model_version=run.decision.model_version,
            predicted_ltv=number(run.decision.ltv_micros, currency),
            basis=run.decision.basis,
            first_at=iso(run.first_at),
            last_at=iso(run.last_at),
            ticks=run.ticks,
        )
        for run in runs
    ]
    return answer(DecisionsAnswer(items=items, total=total))


async def reallocations(call: Call, query: ReallocationsQuery) -> web.Response:
    """Moves of daily budget between platforms, newest first."""
    rows, total = await need(call.services.records, "syncledger").reallocations(
        client_id=query.client_id, limit=query.limit, offset=query.offset
    )
    items = [
        ReallocationItem(
            ledger_entry_id=row.id,
            client_id=row.client_id,
            from_platform=row.from_platform,
            to_platform=row.to_platform,
            amount_shifted=number(row.amount_shifted_micros, row.currency),
            currency=row.currency,
            reason=row.reason,
            from_efficiency=row.from_efficiency,
            to_efficiency=row.to_efficiency,
            timestamp=row.timestamp,
            run_id=row.run_id,
            notification_id=row.notification_id,
        )
        for row in rows
    ]
    return answer(ReallocationsAnswer(items=items, total=total))


async def verify(call: Call, _: Nothing) -> web.Response:
    """Walk the whole hash chain and compare its end with the head kept outside the file."""
    result = await need(call.services.ledger, "syncledger").verify(whole=True)
    return answer(
        VerifyAnswer(
            ok=result.ok,
            entries=result.entries,
            head_hash=result.head_hash,
            first_bad=result.first_bad,
            problem=result.problem or None,
        )
    )


async def connectors(call: Call, query: Paging) -> web.Response:
    """All connectors."""
    names = list(call.services.settings.connector)
    items = [_connector(call, name) for name in names[query.offset : query.offset + query.limit]]
    return answer(ConnectorsAnswer(items=items, total=len(names)))


async def connector(call: Call, _: Nothing) -> web.Response:
    """One connector."""
    name = call.part("id")
    if name not in call.services.settings.connector:
        raise Problem(404, f"there is no connector {name!r}", "UNKNOWN_CONNECTOR")
    return answer(_connector(call, name))


async def plugins(call: Call, query: Paging) -> web.Response:
    """All plugin instances, with what they offer and how they fare."""
    described = list(need(call.services.plugins, "the plugins").describe())
    items = []
    for each in described[query.offset : query.offset + query.limit]:
        hooks = each.get("hooks")
        items.append(
            PluginItem(
                name=str(each.get("name", "")),
                plugin=str(each.get("plugin", "")),
                version=str(each.get("version", "")),
                kind=str(each.get("kind", "")),
                platform=str(each.get("platform") or "") or None,
                hooks=[str(hook) for hook in hooks] if isinstance(hooks, list | tuple) else [],
                state=str(each.get("state", "")),
                error=str(each.get("error") or "") or None,
            )
        )
    return answer(PluginsAnswer(items=items, total=len(described)))


def _connector(call: Call, name: str) -> ConnectorAnswer:
    services = call.services
    settings = services.settings
    now = services.clock.now()
    instance = None if services.plugins is None else services.plugins.instances.get(name)
    accounts = services.accounts
    known = accounts is not None and name in accounts.connectors
    campaigns = list(accounts.campaigns(name)) if accounts is not None and known else []
    age = accounts.spend_age(name, now) if accounts is not None and known else None
    spent = None
    if accounts is not None and age is not None:
        low, high = accounts.table.bounds[name]
        spent = int(accounts.table.spend_today_micros[low:high].sum())
    stats = services.shield.status(name, now) if services.shield is not None and known else None
    state = "starting" if instance is None else instance.state
    currency = settings.currency
    return ConnectorAnswer(
        id=name,
        platform=Platform.parse(settings.connector[name].platform).value,
        kind="basic",
        mode=_MODES[settings.mode],
        connected=state == "ok" and age is not None,
        status_text=_status_text(state, "" if instance is None else instance.error, age is not None),
        campaigns=len(campaigns),
        active_campaigns=sum(1 for each in campaigns if each.status is CampaignStatus.ACTIVE),
        daily_budget=number(accounts.budget_micros(name) if accounts is not None and known else 0, currency),
        spent_today=number_or_none(spent, currency),
        daily_cap=number_or_none(None if stats is None else stats.daily_cap_micros, currency),
        reserved=number_or_none(None if stats is None else stats.reserved_micros, currency),
        overshoot=number_or_none(None if stats is None else stats.overshoot_micros, currency),
        currency=currency,
        data_as_of=None if age is None else iso(now - age),
        window=None if stats is None else _window(stats, currency),
    )


def _status_text(state: str, error: str, reported: bool) -> str:
    match state:
        case "quarantined":
            return f"put aside: {error or 'no reason known'}"
        case "off":
            return "switched off in the configuration"
        case "starting":
            return "not up yet"
    return "connected" if reported else "waiting for its first report"


def _window(stats: WindowStats, currency: str) -> WindowAnswer:
    limit = stats.max_budget_micros
    return WindowAnswer(
        current_spend=number(stats.current_spend_micros, currency),
        max_budget=number(limit, currency),
        remaining_budget=number(stats.remaining_micros, currency),
        utilization=round(stats.current_spend_micros / limit, 4) if limit > 0 else None,
        record_count=stats.record_count,
        oldest_record=None if stats.oldest_record is None else iso(stats.oldest_record),
        window_s=stats.window_s,
    )
