"""What platforms state: believed or not, aged, summed, and known again after a restart."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from kiki_agent.accounts import Accounts
from kiki_agent.accounts.screening import performance_fault, spend_fault
from kiki_agent.model import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    CampaignStatus,
    Instant,
    Intent,
    IntentKind,
    Outcome,
    PerformanceReport,
    PerformanceRow,
    Receipt,
    SpendReport,
    SpendRow,
    parse_iso,
)
from kiki_agent.store import Store

from .conftest import ACCOUNTS, Desk
from .platform import NOON, TODAY, campaign, days_before, row


def intent(kind: IntentKind, after: int, name: str = "a", at: int = NOON) -> Intent:
    return Intent(f"{kind}{after}", kind, "meta", name, 1, after, "USD", "TEST", Instant(at))


def accepted(of: Intent) -> Receipt:
    return Receipt(of.key, Outcome.ACCEPTED)


async def test_columns_stand_in_stable_order_and_follow_what_is_read(desk: Desk) -> None:
    await desk.poll(NOON)
    table = desk.accounts.table
    assert [each.campaign_id for each in table.rows] == ["a", "b"]
    version = table.version
    desk.platform.campaigns.append(campaign("aa", daily_budget_micros=7_000_000))
    await desk.poll(NOON + 5 * MINUTE)
    assert [each.campaign_id for each in table.rows] == ["a", "aa", "b"]
    assert table.daily_budget_micros.tolist() == [100_000_000, 7_000_000, 100_000_000]
    assert table.version > version
    assert desk.accounts.budget_micros("meta") == 207_000_000
    assert desk.accounts.budget_micros("google") == 0


async def test_what_is_remembered_moves_with_its_campaign(desk: Desk) -> None:
    desk.platform.spend = {("b", TODAY): 9_000_000}
    desk.platform.pages = [[row("b", clicks=40)]]
    await desk.poll(NOON)
    desk.platform.campaigns = [campaign("b"), campaign("c"), campaign("0")]
    await desk.poll(NOON + 5 * MINUTE)
    table = desk.accounts.table
    at = table.index["meta", "b"]
    assert table.spend_today_micros[at] == 9_000_000
    assert desk.accounts.totals("meta", TODAY, TODAY).clicks == 40
    assert ("meta", "a") not in table.index


async def test_totals_sum_the_days_asked_for_and_say_how_old_they_are(desk: Desk) -> None:
    desk.platform.pages = [
        [row("a", days_before(day), clicks=10 + day, conversions=day) for day in range(6)],
        [row("b", days_before(2), conversions=5, spend=7_000_000)],
    ]
    await desk.poll(NOON)
    totals = desk.accounts.totals("meta", days_before(2), TODAY)
    assert totals.conversions == 0 + 1 + 2 + 5
    assert totals.spend_micros == 3 * 5_000_000 + 7_000_000
    assert totals.clicks == 10 + 11 + 12 + 10
    assert totals.as_of == NOON
    assert totals.newest_row_as_of == NOON
    await desk.poll(NOON + 5 * MINUTE)
    later = desk.accounts.totals("meta", days_before(2), TODAY)
    assert later.as_of == NOON + 5 * MINUTE
    assert later.newest_row_as_of == NOON, "nothing new was said"
    assert desk.accounts.totals("google", days_before(2), TODAY).as_of is None


@pytest.mark.parametrize(("final_before", "young"), [(2, 2), (10, 2), (1, 1), (0, 0)])
async def test_conversion_counts_leave_out_days_whose_conversions_are_not_in(
    desk: Desk, final_before: int, young: int
) -> None:
    desk.platform.final_before = days_before(final_before)
    days = [row("a", days_before(day), clicks=100, conversions=0 if day <= young else 10) for day in range(8)]
    desk.platform.pages = [days]
    await desk.poll(NOON)
    table, at = desk.accounts.table, desk.accounts.table.index["meta", "a"]
    assert table.conversions[at] == 10 * (7 - young)
    assert table.clicks[at] == 100 * (7 - young)
    assert table.spend_micros[at] == 7 * 5_000_000


async def test_a_restated_day_replaces_what_was_known(desk: Desk) -> None:
    desk.platform.pages = [[row("a", conversions=1)]]
    await desk.poll(NOON)
    desk.platform.pages = [[row("a", conversions=4)]]
    await desk.poll(NOON + 5 * MINUTE)
    assert desk.accounts.totals("meta", TODAY, TODAY).conversions == 4


@pytest.mark.parametrize(
    ("spent", "fault"),
    [(-1, "negative"), (10**16, "absurd"), (100_000_000_000_001, "absurd"), (1.5, "absurd"), (True, "absurd")],
)
async def test_spend_that_cannot_be_true_is_counted_and_never_booked(desk: Desk, spent: int, fault: str) -> None:
    desk.platform.spend = {("a", TODAY): spent, ("b", TODAY): 3_000_000, ("stranger", TODAY): 1}
    await desk.poll(NOON)
    assert [each.campaign_id for each in desk.booked[-1][1].rows] == ["b"]
    assert desk.accounts.skipped["meta", fault] == 1
    assert desk.accounts.skipped["meta", "unknown"] == 1
    assert desk.accounts.table.spend_today_micros.tolist() == [0, 3_000_000]


def test_a_vendor_overspending_its_budget_is_believed() -> None:
    assert spend_fault(SpendRow("a", TODAY, 175_000_000), 100_000_000) is None


@pytest.mark.parametrize("field", ["impressions", "clicks", "conversions", "spend_micros", "revenue_micros"])
def test_a_negative_number_spoils_a_performance_row(field: str) -> None:
    values = {"impressions": 5, "clicks": 1, "conversions": 0, "spend_micros": 1, "revenue_micros": 0}
    assert performance_fault(PerformanceRow("a", TODAY, **values)) is None
    assert performance_fault(PerformanceRow("a", TODAY, **(values | {field: -1}))) == "negative"
    assert performance_fault(PerformanceRow("a", TODAY, **(values | {field: 10**16}))) == "absurd"


async def test_rows_of_no_day_or_of_tomorrow_are_skipped(desk: Desk) -> None:
    await desk.poll(NOON)
    rows = (row("a", "yesterday"), row("a", "2026-03-11"), row("a", "2026-02-30"))
    report = PerformanceReport(rows, NOON, "2026-03-07")
    assert desk.accounts.take_performance("meta", report, NOON) == 0
    assert desk.accounts.skipped["meta", "day"] == 2
    assert desk.accounts.skipped["meta", "future"] == 1


async def test_spend_rates_follow_reports_and_the_upper_one_is_never_below_even_spending(desk: Desk) -> None:
    await desk.poll(NOON)
    for minute in range(1, 61):
        desk.platform.spend = {("a", TODAY): minute * 120_000}
        await desk.poll(NOON + minute * MINUTE)
    table = desk.accounts.table
    assert 1_900_000 <= table.mean_rate_per_ks[0] <= 2_000_000, "120,000 a minute are 2,000 a second"
    assert table.spend_rate_micros_per_s[0] >= 2 * 1_900
    assert table.mean_rate_per_ks[1] < 0.01 * 100_000_000 / 86.4, (
        "it began with the even speed and was never seen to spend"
    )
    assert table.spend_rate_micros_per_s[1] >= 100_000_000 // 86_400
    assert table.spend_as_of.tolist() == [NOON + HOUR] * 2


async def test_a_report_that_is_not_newer_changes_nothing(desk: Desk) -> None:
    desk.platform.spend = {("a", TODAY): 5_000_000}
    await desk.poll(NOON)
    older = SpendReport((SpendRow("a", TODAY, 1),), Instant(NOON - MINUTE))
    desk.accounts.take_spend("meta", older, NOON)
    assert desk.accounts.table.spend_today_micros[0] == 5_000_000


async def test_a_new_day_starts_at_nothing_and_no_day_starts_twice(desk: Desk) -> None:
    desk.platform.spend = {("a", TODAY): 60_000_000}
    await desk.poll(NOON)
    midnight = parse_iso("2026-03-11T00:00:00Z")
    desk.accounts.roll(Instant(midnight - 1))
    assert desk.accounts.table.spend_today_micros[0] == 60_000_000
    desk.accounts.roll(midnight)
    assert desk.accounts.table.spend_today_micros[0] == 0
    assert desk.accounts.day("meta") == "2026-03-11"
    desk.accounts.roll(Instant(midnight - HOUR))
    assert desk.accounts.day("meta") == "2026-03-11"
    late = SpendReport((SpendRow("a", TODAY, 61_000_000),), Instant(midnight - SECOND))
    booked = desk.accounts.take_spend("meta", late, Instant(midnight + SECOND))
    assert len(booked.rows) == 1, "late spend of yesterday is still booked"
    assert desk.accounts.table.spend_today_micros[0] == 0


async def test_confirmed_changes_become_known_values_and_survive(desk: Desk, tmp_path: Path) -> None:
    await desk.poll(NOON)
    bid = intent(IntentKind.ADJUST_BID, 1_500_000)
    budget = intent(IntentKind.SET_BUDGET, 80_000_000)
    pause = intent(IntentKind.SET_STATUS, 0, "b")
    for each in (bid, budget, pause):
        await desk.store.write(lambda connection, each=each: desk.accounts.confirm(connection, each, accepted(each)))
        await desk.store.write(lambda connection, each=each: desk.accounts.confirm(connection, each, accepted(each)))
    a, b = desk.accounts.campaigns("meta")
    assert (a.bid_micros, a.daily_budget_micros) == (1_500_000, 80_000_000)
    assert b.status is CampaignStatus.PAUSED
    assert desk.accounts.table.held.tolist() == [0, 1]
    assert desk.accounts.table.bid_set_at.tolist() == [NOON, 0]
    await desk.store.close()
    desk.store = await Store.open(tmp_path / "a.db", synchronous="OFF", now=NOON)
    again = await Accounts.open(desk.store, ACCOUNTS, lookback_days=7, now=NOON)
    assert again.campaigns("meta") == [a, b]
    assert again.table.held.tolist() == [0, 1]
    assert again.table.bid_set_at.tolist() == [NOON, 0]


async def test_a_rejected_change_changes_nothing(desk: Desk) -> None:
    await desk.poll(NOON)
    refused = intent(IntentKind.ADJUST_BID, 1_500_000)
    for outcome in (Outcome.REJECTED, Outcome.UNKNOWN):
        receipt = Receipt(refused.key, outcome, "NO")
        await desk.store.write(lambda connection, receipt=receipt: desk.accounts.confirm(connection, refused, receipt))
    assert desk.accounts.campaigns("meta")[0].bid_micros == 1_000_000


async def test_a_campaign_list_asked_for_before_a_confirmation_does_not_undo_it(desk: Desk) -> None:
    await desk.poll(NOON)
    before = desk.accounts.receipts
    bid = intent(IntentKind.ADJUST_BID, 2_000_000)
    desk.accounts.apply_receipt(bid, accepted(bid))
    desk.accounts.take_campaigns("meta", [campaign("a"), campaign("b")], NOON, before)
    assert desk.accounts.campaigns("meta")[0].bid_micros == 2_000_000
    desk.accounts.take_campaigns("meta", [campaign("a"), campaign("b")], NOON, desk.accounts.receipts)
    assert desk.accounts.campaigns("meta")[0].bid_micros == 2_000_000  # platforms answer late for a while
    later = Instant(NOON + 15 * MINUTE)
    desk.accounts.take_campaigns("meta", [campaign("a"), campaign("b")], later, desk.accounts.receipts)
    assert desk.accounts.campaigns("meta")[0].bid_micros == 1_000_000


async def test_foreign_and_impossible_campaigns_are_left_out(desk: Desk) -> None:
    odd = [
        campaign("x", "google"),
        campaign("y", currency="EUR"),
        campaign("z", daily_budget_micros=-1),
        campaign("a"),
        campaign("a", bid_micros=5),
    ]
    desk.accounts.take_campaigns("meta", odd, NOON, 0)
    assert [each.campaign_id for each in desk.accounts.campaigns()] == ["a"]
    assert {fault for (_, fault), count in desk.accounts.skipped.items() if count == 1} == {
        "foreign",
        "currency",
        "absurd",
        "duplicate",
    }


async def test_a_restarted_agent_knows_what_it_knew(desk: Desk, tmp_path: Path) -> None:
    desk.platform.spend = {("a", TODAY): 4_000_000}
    desk.platform.pages = [[row("a", days_before(day)) for day in range(10)]]
    await desk.poll(NOON - 10 * MINUTE)
    desk.platform.spend = {("a", TODAY): 5_000_000}
    await desk.poll(NOON)
    first = desk.accounts
    await desk.store.close()
    desk.store = await Store.open(tmp_path / "a.db", synchronous="OFF", now=NOON)
    again = await Accounts.open(desk.store, ACCOUNTS, lookback_days=7, now=Instant(NOON + HOUR))
    for name in ("spend_today_micros", "spend_as_of", "mean_rate_per_ks", "clicks", "conversions", "spend_micros"):
        assert getattr(again.table, name).tolist() == getattr(first.table, name).tolist(), name
    assert again.totals("meta", days_before(9), TODAY) == first.totals("meta", days_before(9), TODAY)
    assert again.spend_age("meta", Instant(NOON + HOUR)) == HOUR
    assert not again.heard("meta"), "nothing was stated since this start"
    later = await Accounts.open(desk.store, ACCOUNTS, lookback_days=7, now=Instant(NOON + DAY))
    assert later.table.spend_today_micros.tolist() == [0, 0]


async def test_a_shared_budget_counts_once_and_changes_for_all_who_spend_from_it(desk: Desk, tmp_path: Path) -> None:
    shared = {"budget_id": "b1", "daily_budget_micros": 90_000_000}
    desk.platform.campaigns = [
        campaign("a", **shared),
        campaign("b", **shared),
        campaign("c", status=CampaignStatus.PAUSED, **shared),
        campaign("d", budget_id="b2", daily_budget_micros=10_000_000),
    ]
    await desk.poll(NOON)
    table = desk.accounts.table
    assert desk.accounts.budget_micros("meta") == 100_000_000
    assert table.daily_budget_micros.tolist() == [90_000_000, 90_000_000, 90_000_000, 10_000_000]
    assert table.pace_budget_micros.tolist() == [45_000_000, 45_000_000, 90_000_000, 10_000_000]
    assert table.owns_budget.tolist() == [1, 0, 0, 1]

    less = replace(intent(IntentKind.SET_BUDGET, 60_000_000), budget_id="b1")
    await desk.store.write(lambda connection: desk.accounts.confirm(connection, less, accepted(less)))
    await asyncio.sleep(0)
    assert table.daily_budget_micros.tolist() == [60_000_000, 60_000_000, 60_000_000, 10_000_000]
    assert table.pace_budget_micros.tolist() == [30_000_000, 30_000_000, 60_000_000, 10_000_000]
    assert desk.accounts.budget_micros("meta") == 70_000_000

    pause = intent(IntentKind.SET_STATUS, 0)
    desk.accounts.apply_receipt(pause, accepted(pause))
    assert desk.accounts.budget_micros("meta") == 70_000_000, "held by the agent, it comes back and still counts"
    again = await Accounts.open(desk.store, ACCOUNTS, lookback_days=7, now=NOON)
    assert again.table.owns_budget.tolist() == [1, 0, 0, 1]
    assert again.budget_micros("meta") == 70_000_000
