"""The SQL of what the platforms stated: rows a restarted agent reads back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kiki_agent.model import Campaign, CampaignStatus, Intent, IntentKind, Outcome, Receipt

_CAMPAIGN = """
INSERT INTO account_campaigns
    (connector, campaign_id, platform, name, status, daily_budget_micros, bid_micros, currency, bid_step_micros,
     min_bid_micros, min_budget_micros, budget_step_micros, budget_id, steers_bid, steers_budget, learning)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (connector, campaign_id) DO UPDATE SET
    platform = excluded.platform, name = excluded.name, status = excluded.status,
    daily_budget_micros = excluded.daily_budget_micros, bid_micros = excluded.bid_micros,
    currency = excluded.currency, bid_step_micros = excluded.bid_step_micros,
    min_bid_micros = excluded.min_bid_micros, min_budget_micros = excluded.min_budget_micros,
    budget_step_micros = excluded.budget_step_micros, budget_id = excluded.budget_id,
    steers_bid = excluded.steers_bid, steers_budget = excluded.steers_budget, learning = excluded.learning,
    paused_by_us = CASE WHEN excluded.status = 'paused' THEN paused_by_us ELSE 0 END
"""
_PERFORMANCE = """
INSERT INTO account_performance
    (connector, campaign_id, metric_date, impressions, clicks, conversions, spend_micros, revenue_micros)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (connector, metric_date, campaign_id) DO UPDATE SET
    impressions = excluded.impressions, clicks = excluded.clicks, conversions = excluded.conversions,
    spend_micros = excluded.spend_micros, revenue_micros = excluded.revenue_micros
"""
_REPORT = """
INSERT INTO account_reports
    (connector, campaigns_as_of, performance_as_of, evidence_as_of, final_before, spend_as_of, spend_date, spend)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (connector) DO UPDATE SET
    campaigns_as_of = excluded.campaigns_as_of, performance_as_of = excluded.performance_as_of,
    evidence_as_of = excluded.evidence_as_of, final_before = excluded.final_before,
    spend_as_of = excluded.spend_as_of, spend_date = excluded.spend_date, spend = excluded.spend
"""
_CONFIRMED = {
    IntentKind.ADJUST_BID: "bid_micros = :after, bid_set_at = max(bid_set_at, :at)",
    IntentKind.SET_BUDGET: "daily_budget_micros = :after",
    IntentKind.SET_STATUS: "status = CASE :after WHEN 0 THEN 'paused' ELSE 'active' END, paused_by_us = 1 - :after",
}

PerformanceTuple = tuple[str, str, str, int, int, int, int, int]
"""connector, campaign id, day, impressions, clicks, conversions, spend, revenue."""


@dataclass(slots=True)
class ReportState:
    """How old the facts of one connector are, and the spend of its running day."""

    campaigns_as_of: int = 0
    performance_as_of: int = 0
    evidence_as_of: int = 0
    """`as_of` of the last performance report that said anything new."""
    final_before: str = ""
    spend_as_of: int = 0
    spend_date: str = ""
    spend: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Campaign -> (micros spent that day, mean rate per 1,000 s)."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """Everything the tables know."""

    campaigns: tuple[Campaign, ...]
    paused_by_us: frozenset[tuple[str, str]]
    bid_set_at: dict[tuple[str, str], int]
    performance: tuple[PerformanceTuple, ...]
    reports: dict[str, ReportState]


def read_all(connection: sqlite3.Connection, first_day: str) -> Remembered:
    """What was known when the last agent ended; performance from `first_day` on."""
    campaigns, held, set_at = [], set(), {}
    for row in connection.execute(
        "SELECT connector, campaign_id, platform, name, status, daily_budget_micros, bid_micros, currency,"
        " bid_step_micros, min_bid_micros, min_budget_micros, budget_step_micros, budget_id, steers_bid, steers_budget,"
        " learning, paused_by_us, bid_set_at FROM account_campaigns WHERE status <> 'gone'"
    ):
        campaigns.append(_campaign(row))
        if row[16]:
            held.add((row[0], row[1]))
        set_at[row[0], row[1]] = row[17]
    performance = connection.execute(
        "SELECT connector, campaign_id, metric_date, impressions, clicks, conversions, spend_micros, revenue_micros"
        " FROM account_performance WHERE metric_date >= ? ORDER BY metric_date",
        (first_day,),
    ).fetchall()
    reports = {}
    for row in connection.execute(
        "SELECT connector, campaigns_as_of, performance_as_of, evidence_as_of, final_before, spend_as_of, spend_date,"
        " spend FROM account_reports"
    ):
        spend = {name: (int(pair[0]), int(pair[1])) for name, pair in json.loads(row[7]).items()}
        reports[row[0]] = ReportState(row[1], row[2], row[3], row[4], row[5], row[6], spend)
    return Remembered(tuple(campaigns), frozenset(held), set_at, tuple(map(tuple, performance)), reports)


def _campaign(row: tuple[Any, ...]) -> Campaign:
    return Campaign(
        connector=row[0],
        campaign_id=row[1],
        platform=row[2],
        name=row[3],
        status=CampaignStatus(row[4]),
        daily_budget_micros=row[5],
        bid_micros=row[6],
        currency=row[7],
        bid_step_micros=row[8],
        min_bid_micros=row[9],
        min_budget_micros=row[10],
        budget_step_micros=row[11],
        budget_id=row[12],
        steers_bid=bool(row[13]),
        steers_budget=bool(row[14]),
        learning=bool(row[15]),
    )


def change_campaigns(
    connection: sqlite3.Connection, changed: Sequence[Campaign], gone: Sequence[tuple[str, str]]
) -> None:
    """Insert or update campaigns, and mark those that are no longer in their platform's list; their days stay."""
    if changed:
        _write_campaigns(connection, changed)
    if gone:
        connection.executemany(
            "UPDATE account_campaigns SET status = 'gone', paused_by_us = 0 WHERE connector = ? AND campaign_id = ?",
            gone,
        )


def _write_campaigns(connection: sqlite3.Connection, campaigns: Sequence[Campaign]) -> None:
    connection.executemany(
        _CAMPAIGN,
        [
            (
                each.connector,
                each.campaign_id,
                each.platform,
                each.name,
                each.status.value,
                each.daily_budget_micros,
                each.bid_micros,
                each.currency,
                each.bid_step_micros,
                each.min_bid_micros,
                each.min_budget_micros,
                each.budget_step_micros,
                each.budget_id,
                each.steers_bid,
                each.steers_budget,
                each.learning,
            )
            for each in campaigns
        ],
    )


def write_performance(connection: sqlite3.Connection, rows: Sequence[PerformanceTuple]) -> None:
    """Insert or restate days of campaigns."""
    connection.executemany(_PERFORMANCE, rows)


def write_report(connection: sqlite3.Connection, connector: str, state: ReportState) -> None:
    """Note how old the facts of a connector are, and its spend of the day."""
    connection.execute(
        _REPORT,
        (
            connector,
            state.campaigns_as_of,
            state.performance_as_of,
            state.evidence_as_of,
            state.final_before,
            state.spend_as_of,
            state.spend_date,
            json.dumps(state.spend, separators=(",", ":")),
        ),
    )


def confirm(connection: sqlite3.Connection, intent: Intent, receipt: Receipt) -> None:
    """A confirmed change becomes the known value; belongs to the transaction that confirms it. Idempotent."""
    change = _CONFIRMED.get(intent.kind)
    if receipt.outcome is Outcome.ACCEPTED and change is not None:
        place = "campaign_id = :campaign"
        if intent.kind is IntentKind.SET_BUDGET and intent.budget_id:
            place = "budget_id = :budget"
        connection.execute(
            f"UPDATE account_campaigns SET {change} WHERE connector = :connector AND {place}",
            {
                "after": intent.after,
                "at": intent.at,
                "connector": intent.connector,
                "campaign": intent.campaign_id,
                "budget": intent.budget_id,
            },
        )
