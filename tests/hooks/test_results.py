"""Answers are checked before they are believed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from kiki_agent.hooks.capabilities import Capabilities
from kiki_agent.hooks.results import check_for
from kiki_agent.hooks.specs import VERBS
from kiki_agent.model import (
    Campaign,
    CampaignStatus,
    Customer,
    CustomerPage,
    DayWindow,
    Instant,
    Intent,
    Outcome,
    PerformanceReport,
    PerformanceRow,
    Platform,
    Receipt,
    SpendReport,
    SpendRow,
)


def replace(value: Any, **fields: object) -> Any:
    """A copy with fields of any type, right or wrong."""
    return dataclasses.replace(value, **fields)


CAMPAIGN = Campaign("meta", "c1", Platform.META, "One", CampaignStatus.ACTIVE, 50_000_000, 500_000)
ROW = PerformanceRow("c1", "2026-01-01", 1000, 10, 1, 5_000_000, 9_000_000)
SPEND = SpendRow("c1", "2026-01-01", 5_000_000)
NOW = Instant(1_790_000_000_000_000)
CUSTOMER = Customer("k1", "meta", NOW, 1, 1_000_000, NOW, NOW)
WINDOW = DayWindow("2026-01-01", "2026-01-02")


def problem(verb: str, answer: object, *args: object) -> str:
    return check_for(verb)(answer, args, "meta")


def test_good_answers_pass() -> None:
    assert problem("check", None) == ""
    assert problem("capabilities", Capabilities(writes_per_hour=4)) == ""
    assert problem("fetch_campaigns", [CAMPAIGN, replace(CAMPAIGN, campaign_id="c2", platform="meta")]) == ""
    assert problem("fetch_performance", PerformanceReport((ROW,), NOW, "2026-01-01", "next"), WINDOW, None) == ""
    assert problem("fetch_spend", SpendReport((SPEND,), NOW), NOW) == ""
    assert problem("fetch_customers", CustomerPage((CUSTOMER,), "k1", False), "") == ""


@pytest.mark.parametrize(
    ("verb", "answer", "args", "expected"),
    [
        ("check", True, (), "bool where nothing belongs"),
        ("notify", "sent", (None,), "str where nothing belongs"),
        ("capabilities", {"currency": "USD"}, (), "dict where Capabilities belongs"),
        ("capabilities", Capabilities(batch_size=True), (), "Capabilities.batch_size is bool, not int"),
        ("fetch_campaigns", None, (), "NoneType where a list of Campaign belongs"),
        ("fetch_campaigns", iter([]), (), "list_iterator where a list of Campaign belongs"),
        ("fetch_campaigns", [CAMPAIGN, ROW], (), "row 1: PerformanceRow where Campaign belongs"),
        ("fetch_campaigns", [replace(CAMPAIGN, daily_budget_micros=5e7)], (), "daily_budget_micros is float, not int"),
        ("fetch_campaigns", [replace(CAMPAIGN, status="active")], (), "status is str, not CampaignStatus"),
        ("fetch_campaigns", [replace(CAMPAIGN, connector="tiktok")], (), "claims connector 'tiktok'"),
        ("fetch_campaigns", [CAMPAIGN, CAMPAIGN], (), "campaign 'c1' twice"),
        ("fetch_performance", [ROW], (WINDOW, None), "list where PerformanceReport belongs"),
        ("fetch_performance", PerformanceReport([ROW], NOW, "d"), (WINDOW, None), "rows is list, not tuple"),  # type: ignore[arg-type]
        ("fetch_performance", PerformanceReport((), NOW, "d", "a"), (WINDOW, "a"), "page for ever"),
        (
            "fetch_performance",
            PerformanceReport((replace(ROW, clicks=1.0),), NOW, "d"),
            (WINDOW, None),
            "clicks is float",
        ),
        ("fetch_spend", SpendReport((SPEND,), 1.5), (NOW,), "as_of is float, not int"),  # type: ignore[arg-type]
        ("fetch_spend", SpendReport((replace(SPEND, spend_micros="5"),), NOW), (NOW,), "spend_micros is str"),
        ("fetch_customers", CustomerPage((), "", True), ("",), "page for ever"),
        ("fetch_customers", CustomerPage((None,), "a", True), ("",), "row 0: NoneType where Customer belongs"),  # type: ignore[arg-type]
    ],
)
def test_wrong_answers_are_named(verb: str, answer: object, args: tuple[object, ...], expected: str) -> None:
    assert expected in problem(verb, answer, *args)


def test_receipts_match_their_intents(intents: list[Intent]) -> None:
    good = [Receipt(intent.key, Outcome.ACCEPTED) for intent in intents]
    assert problem("adjust_bid", good, intents) == ""
    assert problem("adjust_bid", tuple(good), intents) == ""
    assert problem("adjust_bid", good[:1], intents) == "1 receipts for 2 items"
    assert problem("adjust_bid", good[::-1], intents).startswith("row 0: a receipt for key")
    assert "outcome is str, not Outcome" in problem(
        "adjust_bid", [replace(good[0], outcome="accepted"), good[1]], intents
    )
    assert problem("adjust_bid", None, intents) == "NoneType where a list of Receipt belongs"


def test_every_verb_that_answers_something_is_checked() -> None:
    for verbs in VERBS.values():
        for verb in verbs.values():
            silent = verb.signature.endswith("-> None")
            assert (check_for(verb.name)(object(), ((),), "meta") == "object where nothing belongs") is silent, (
                verb.name
            )
