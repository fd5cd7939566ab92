"""Decisions, reallocations, the verified chain and plugins, read back."""

from __future__ import annotations

from aiohttp import web

from kiki_agent.model import iso
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.services import need
from kiki_agent.web.shapes.base import Nothing, number
from kiki_agent.web.shapes.records import (
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
)


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
