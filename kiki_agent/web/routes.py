"""Every path of the interface, in one table."""

from __future__ import annotations

from kiki_agent.web import sign_in
from kiki_agent.web.endpoint import Endpoint, Permission, get, post, put
from kiki_agent.web.handlers import (
    admin,
    bids,
    connectors,
    consent,
    conversions,
    efficiency,
    governor,
    health,
    money,
    pages,
    records,
    recovery,
)
from kiki_agent.web.shapes import connectors as connector_shapes
from kiki_agent.web.shapes import consent as consent_shapes
from kiki_agent.web.shapes import conversions as conversion_shapes
from kiki_agent.web.shapes import governor as governor_shapes
from kiki_agent.web.shapes import health as health_shapes
from kiki_agent.web.shapes import money as money_shapes
from kiki_agent.web.shapes import optimizer as optimizer_shapes
from kiki_agent.web.shapes import records as record_shapes
from kiki_agent.web.shapes import recovery as recovery_shapes
from kiki_agent.web.shapes.base import Nothing
from kiki_agent.web.shapes.events import EventsQuery
from kiki_agent.web.shapes.overview import OverviewAnswer

OPEN, VIEW, OPERATE, ADMIN = Permission.OPEN, Permission.VIEW, Permission.OPERATE, Permission.ADMIN
HTML, TEXT, STREAM = "text/html", "text/plain", "text/event-stream"

_HEALTH = (
    get("/health", OPEN, "health", "Liveness, with the state of each part", health.health, Nothing,
        health_shapes.HealthAnswer),
    get("/healthz", OPEN, "health", "The event loop turns", health.healthz, Nothing, health_shapes.HealthzAnswer),
    get("/ready", OPEN, "health", "Whether the agent does its work", health.ready, Nothing,
        health_shapes.ReadyAnswer, problems=(503,)),
    get("/status", VIEW, "health", "Everything an operator asks first", health.status, Nothing,
        health_shapes.StatusAnswer),
    get("/metrics", VIEW, "health", "Metrics in Prometheus text", health.metrics, Nothing, TEXT),
)  # fmt: skip
_OPTIMIZER = (
    get("/budget-efficiency", VIEW, "optimizer", "Efficiency of the platforms in the last cycle",
        efficiency.budget_efficiency, optimizer_shapes.EfficiencyQuery, optimizer_shapes.EfficiencyAnswer,
        problems=(503,)),
    post("/admin/optimizer/run", ADMIN, "optimizer", "Start a cycle now", admin.run_optimizer, Nothing,
         {202: health_shapes.TaskAnswer}, problems=(409, 503)),
)  # fmt: skip
_VALUE = (
    post("/platform-ltv", VIEW, "value", "Lifetime value of a platform's customers", efficiency.platform_ltv,
         optimizer_shapes.PlatformLtvBody, {200: optimizer_shapes.PlatformLtvAnswer}, problems=(404, 503)),
    get("/platform-ltv/{platform}", VIEW, "value", "The same for a platform in the path",
        efficiency.platform_ltv_of, optimizer_shapes.PlatformLtvQuery, optimizer_shapes.PlatformLtvAnswer,
        problems=(404, 503)),
)  # fmt: skip
_MONEY = (
    post("/api/v1/allocate", OPERATE, "money", "Give a campaign a budget, or change it", money.allocate,
         money_shapes.AllocateBody,
         {200: money_shapes.AllocationAnswer, 201: money_shapes.AllocationAnswer,
          202: money_shapes.PendingAllocation}, problems=(409, 503)),
    get("/api/v1/budget/{campaign_id}", VIEW, "money", "A campaign's allocation and its use", money.budget, Nothing,
        money_shapes.BudgetAnswer, problems=(404, 503)),
    post("/api/v1/check", OPERATE, "money", "Whether a bid would be allowed", money.check, money_shapes.CheckBody,
         {200: money_shapes.CheckAnswer}, problems=(404, 503)),
    post("/api/v1/spend", OPERATE, "money", "Spend an amount or a reservation", money.spend, money_shapes.SpendBody,
         {200: money_shapes.AllocationAnswer}, problems=(404, 409, 503)),
    post("/api/v1/release", OPERATE, "money", "Free a reservation", money.release, money_shapes.ReleaseBody,
         {200: money_shapes.ReleaseAnswer}, problems=(404, 409, 503)),
)  # fmt: skip
_BIDDING = (
    post("/api/v1/bids", OPERATE, "bidding", "Place one bid by hand", bids.place, money_shapes.BidBody,
         {200: money_shapes.BidAnswer}, problems=(409, 503)),
    get("/api/v1/decisions", VIEW, "bidding", "Decisions of the two-second loop", records.decisions,
        record_shapes.DecisionsQuery, record_shapes.DecisionsAnswer, problems=(503,)),
)  # fmt: skip
_CONVERSIONS = (
    post("/api/v1/conversions", OPERATE, "value", "A shop tells of a conversion", conversions.report,
         conversion_shapes.ConversionBody, {202: conversion_shapes.ConversionAnswer}, problems=(404, 409, 503)),
    get("/api/v1/conversions", VIEW, "value", "Conversions by state", conversions.counts, Nothing,
        conversion_shapes.ConversionsAnswer, problems=(503,)),
    get("/api/v1/conversions/{id}", VIEW, "value", "Where a conversion stands", conversions.find, Nothing,
        conversion_shapes.ConversionAnswer, problems=(404, 503)),
)  # fmt: skip
_PRIVACY = (
    post("/consent/grant", OPERATE, "privacy", "A person allows something", consent.grant, consent_shapes.GrantBody,
         {200: consent_shapes.SaidAnswer}, problems=(409, 503)),
    post("/consent/revoke", OPERATE, "privacy", "A person takes something back", consent.revoke,
         consent_shapes.RevokeBody, {200: consent_shapes.SaidAnswer}, problems=(404, 409, 503)),
    post("/consent/string", OPERATE, "privacy", "What a person's consent string says", consent.take_string,
         consent_shapes.StringBody, {200: consent_shapes.StringAnswer}, problems=(409, 503)),
    get("/consent/status", VIEW, "privacy", "What a person said, by purpose", consent.status,
        consent_shapes.StatusQuery, consent_shapes.StatusAnswer, problems=(503,)),
    get("/consent/check", VIEW, "privacy", "The legal basis a decision made now would have", consent.check,
        consent_shapes.BasisQuery, consent_shapes.BasisAnswer, problems=(503,)),
    post("/api/v1/privacy/requests", ADMIN, "privacy", "A person asks about their data", consent.request,
         consent_shapes.RequestBody, {202: consent_shapes.RequestAnswer}, problems=(404, 409, 503)),
    get("/api/v1/privacy/requests/{id}", ADMIN, "privacy", "What became of it, with the export",
        consent.find_request, Nothing, consent_shapes.RequestWithExport, problems=(404, 503)),
    put("/api/v1/privacy/requests/{id}", ADMIN, "privacy", "A request that waits for a person is done or refused",
        consent.settle_request, consent_shapes.SettleBody, {200: consent_shapes.RequestAnswer},
        problems=(404, 409, 503)),
    get("/api/v1/compliance/report", VIEW, "privacy", "Decisions, vetoes, consents, requests in numbers",
        consent.report, consent_shapes.ReportQuery, consent_shapes.ComplianceAnswer, problems=(503,)),
    get("/api/v1/audit", ADMIN, "privacy", "Entries about people and orders", consent.audit,
        consent_shapes.AuditQuery, consent_shapes.AuditAnswer, problems=(503,)),
)  # fmt: skip
_LEDGER = (
    get("/api/v1/ledger/reallocations", VIEW, "ledger", "Moves of budget between platforms", records.reallocations,
        record_shapes.ReallocationsQuery, record_shapes.ReallocationsAnswer, problems=(503,)),
    get("/api/v1/ledger/verify", VIEW, "ledger", "Walk the whole hash chain", records.verify, Nothing,
        record_shapes.VerifyAnswer, problems=(503,)),
    get("/api/v1/ledger/export", VIEW, "ledger", "Every entry, as JSON lines or CSV", recovery.export,
        recovery_shapes.ExportQuery, "application/x-ndjson", problems=(503,)),
)  # fmt: skip
_RECOVERY = (
    get("/admin/backups", VIEW, "recovery", "All backups, newest first", recovery.backups, Nothing,
        recovery_shapes.BackupsAnswer, problems=(503,)),
    post("/admin/backup", ADMIN, "recovery", "Begin a backup", recovery.begin, Nothing,
         {202: recovery_shapes.BackupBegun}, problems=(409, 503)),
    post("/admin/backups/{id}/verify", ADMIN, "recovery", "Prove a backup again", recovery.verify, Nothing,
         {200: recovery_shapes.BackupItem}, problems=(404, 503)),
    post("/admin/backups/{id}/restore", ADMIN, "recovery", "Put a backup in place of a database nobody can trust",
         recovery.restore, recovery_shapes.RestoreBody, {200: recovery_shapes.RestoreAnswer},
         problems=(404, 409, 503)),
)  # fmt: skip
_CONNECTORS = (
    get("/api/v1/connectors", VIEW, "connectors", "All connectors", connectors.connectors, record_shapes.Paging,
        connector_shapes.ConnectorsAnswer),
    get("/api/v1/connectors/{id}", VIEW, "connectors", "One connector", connectors.connector, Nothing,
        connector_shapes.ConnectorAnswer, problems=(404,)),
    put("/api/v1/connectors/{id}", ADMIN, "connectors", "Tune one connector", connectors.change,
        connector_shapes.ConnectorBody, {200: connector_shapes.ConnectorAnswer}, problems=(404, 409, 503)),
    get("/api/v1/resilience", VIEW, "connectors", "What holds for all connectors, and how each stands",
        connectors.resilience, Nothing, connector_shapes.ResilienceAnswer, problems=(503,)),
    put("/api/v1/resilience", ADMIN, "connectors", "Tune what holds for all connectors",
        connectors.change_resilience, connector_shapes.ResilienceBody, {200: connector_shapes.ResilienceAnswer},
        problems=(503,)),
    get("/api/v1/plugins", VIEW, "connectors", "All plugin instances", records.plugins, record_shapes.Paging,
        record_shapes.PluginsAnswer, problems=(503,)),
)  # fmt: skip
_ADMIN = (
    get("/admin/kill-switch", VIEW, "admin", "Whether spending is stopped", admin.kill_switch, Nothing,
        health_shapes.KillSwitchAnswer, problems=(503,)),
    post("/admin/kill-switch", OPERATE, "admin", "Stop all spending, or allow it again", admin.turn_kill_switch,
         health_shapes.KillSwitchBody, {200: health_shapes.KillSwitchAnswer}, problems=(409, 503)),
    post("/admin/tasks/{name}/restart", ADMIN, "admin", "Forget a loop's failures and tick again", admin.restart,
         Nothing, {202: health_shapes.TaskAnswer}, problems=(404, 503)),
    post("/admin/tasks/{name}/pause", ADMIN, "admin", "Let a loop's due times pass", admin.pause, Nothing,
         {202: health_shapes.TaskAnswer}, problems=(404, 503)),
    post("/admin/tasks/{name}/resume", ADMIN, "admin", "Let a paused loop tick again", admin.resume, Nothing,
         {202: health_shapes.TaskAnswer}, problems=(404, 503)),
)  # fmt: skip
_GOVERNOR = (
    get("/api/v1/autonomy", VIEW, "governor", "How far the agent may go at each platform", governor.levels, Nothing,
        governor_shapes.AutonomyAnswer, problems=(503,)),
    post("/api/v1/autonomy/{connector}", OPERATE, "governor", "Set how far it may go", governor.set_level,
         governor_shapes.AutonomyBody, {200: governor_shapes.AutonomyItem}, problems=(404, 503)),
    post("/api/v1/autonomy/{connector}/thaw", OPERATE, "governor", "Let a frozen platform spend again", governor.thaw,
         governor_shapes.ReasonBody, {200: governor_shapes.AutonomyItem}, problems=(404, 409, 503)),
    get("/api/v1/suggestions", VIEW, "governor", "What the agent would do where people decide", governor.suggestions,
        governor_shapes.SuggestionsQuery, governor_shapes.SuggestionsAnswer, problems=(503,)),
    post("/api/v1/suggestions/{id}/approve", OPERATE, "governor", "Do what was suggested", governor.approve,
         governor_shapes.CommentBody, {200: governor_shapes.DecidedAnswer}, problems=(404, 409, 503)),
    post("/api/v1/suggestions/{id}/decline", OPERATE, "governor", "Do not do it", governor.decline,
         governor_shapes.CommentBody, {200: governor_shapes.DecidedAnswer}, problems=(404, 409, 503)),
    post("/api/v1/suggestions/{id}/link", OPERATE, "governor", "A signed link that decides it once", governor.link,
         governor_shapes.LinkBody, {200: governor_shapes.LinkAnswer}, problems=(404, 409, 503)),
    get("/approvals/{token}", OPEN, "governor", "What a signed link is about", governor.open_link, Nothing, HTML,
        problems=(403, 404, 503)),
    post("/approvals/{token}", OPEN, "governor", "Decide by a signed link", governor.use_link, Nothing,
         {200: HTML}, problems=(403, 404, 409, 503), form=("confirm",)),
    get("/api/v1/external-edits", VIEW, "governor", "What others changed at the platforms", governor.external,
        record_shapes.Paging, governor_shapes.ExternalAnswer, problems=(503,)),
    get("/api/v1/levers", VIEW, "governor", "Levers the agent leaves alone", governor.holds, record_shapes.Paging,
        governor_shapes.HoldsAnswer, problems=(503,)),
    post("/api/v1/levers/pin", OPERATE, "governor", "Leave a lever as it stands", governor.pin,
         governor_shapes.LeverBody, {200: governor_shapes.HoldItem}, problems=(404, 503)),
    post("/api/v1/levers/unpin", OPERATE, "governor", "Let the agent set it again", governor.unpin,
         governor_shapes.LeverBody, {200: governor_shapes.HoldItem}, problems=(404, 503)),
    post("/api/v1/rollback", OPERATE, "governor", "Put a change, a batch or a day back", governor.roll_back,
         governor_shapes.RollbackBody, {200: governor_shapes.RollbackAnswer}, problems=(404, 409, 503)),
)  # fmt: skip
_PAGES = (
    get("/", VIEW, "page", "The page people watch", pages.page, Nothing, HTML),
    get("/dashboard", VIEW, "page", "The same page", pages.page, Nothing, HTML),
    get("/page/{name}", VIEW, "page", "A file of the page", pages.asset, Nothing, "*/*", problems=(404,)),
    get("/api/v1/overview", VIEW, "page", "The one snapshot the page shows", pages.overview, Nothing, OverviewAnswer),
    get("/events", VIEW, "page", "Live events (server-sent)", pages.events, EventsQuery, STREAM, problems=(503,)),
    get("/docs", VIEW, "page", "This interface, described for people", pages.docs, Nothing, HTML),
    get("/openapi.json", VIEW, "page", "This interface, described for programs", pages.openapi, Nothing,
        "application/json"),
    post("/sign-in", OPEN, "page", "Exchange the token for the page's cookie", sign_in.sign_in, Nothing,
         {303: HTML}, problems=(429,), form=("token",)),
    post("/sign-out", OPEN, "page", "Forget the page's cookie", sign_in.sign_out, Nothing, {303: HTML},
         form=("confirm",)),
)  # fmt: skip

ENDPOINTS: tuple[Endpoint, ...] = (
    *_HEALTH,
    *_OPTIMIZER,
    *_VALUE,
    *_MONEY,
    *_BIDDING,
    *_CONVERSIONS,
    *_PRIVACY,
    *_LEDGER,
    *_RECOVERY,
    *_CONNECTORS,
    *_ADMIN,
    *_GOVERNOR,
    *_PAGES,
)
