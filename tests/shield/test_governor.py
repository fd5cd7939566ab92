"""The gate before changes at platforms: raises need everything in order, cuts only to make sense."""

from __future__ import annotations

from typing import Any

import pytest

from kiki_agent.errors import Denied
from kiki_agent.model import Instant, Intent, IntentKind, SpendReport, SpendRow, intent_key
from tests.shield.conftest import NOON, UNIT, House, Opens, caps, settings


def intent(
    kind: IntentKind = IntentKind.SET_BUDGET, before: Any = 100 * UNIT, after: Any = 120 * UNIT, **facts: Any
) -> Intent:
    connector = facts.pop("connector", "meta")
    return Intent(
        key=intent_key(connector, "c1", kind, NOON),
        kind=kind,
        connector=connector,
        campaign_id="c1",
        before=before,
        after=after,
        currency=facts.pop("currency", "USD"),
        reason="test",
        at=NOON,
    )


def answer(house: House, wish: Intent) -> str:
    try:
        house.shield.may_change(wish, NOON)
    except Denied as denied:
        return denied.reason
    return "yes"


BUDGET, BID, STATUS = IntentKind.SET_BUDGET, IntentKind.ADJUST_BID, IntentKind.SET_STATUS


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (intent(), "yes"),
        (intent(before=100 * UNIT, after=1_000 * UNIT), "yes"),
        (intent(before=100 * UNIT, after=1_000 * UNIT + 1), "SLIPPED_DIGIT"),
        (intent(before=0, after=1), "SLIPPED_DIGIT"),
        (intent(before=1_000 * UNIT, after=5_000 * UNIT + 1), "ABOVE_MAXIMUM"),
        (intent(before=3_000 * UNIT, after=4_000 * UNIT + 1), "BUDGET_EXCEEDED"),
        (intent(before=3_000 * UNIT, after=4_000 * UNIT), "yes"),
        (intent(currency="EUR"), "CURRENCY"),
        (intent(connector="nobody"), "UNKNOWN_CONNECTOR"),
        (intent(connector="bare"), "NO_CAP"),
        (intent(after=0), "BAD_INPUT"),
        (intent(after=-1), "BAD_INPUT"),
        (intent(before=-1), "BAD_INPUT"),
        (intent(after=10**15 + 1), "BAD_INPUT"),
        (intent(after=float("inf")), "BAD_INPUT"),
        (intent(after=float("nan")), "BAD_INPUT"),
        (intent(after=120.0), "BAD_INPUT"),
        (intent(after=True), "BAD_INPUT"),
        (intent(BID, before=UNIT, after=50 * UNIT), "yes"),
        (intent(BID, before=0, after=UNIT), "yes"),
        (intent(BID, before=UNIT, after=50 * UNIT + 1), "ABOVE_MAXIMUM"),
        (intent(BID, before=UNIT, after=0), "BAD_INPUT"),
        (intent(STATUS, before=0, after=1), "yes"),
        (intent(STATUS, before=1, after=0), "yes"),
        (intent(STATUS, before=0, after=2), "BAD_INPUT"),
        (intent(IntentKind.PLACE_BID, before=0, after=UNIT), "yes"),
    ],
)
async def test_one_change(opens: Opens, wish: Intent, expected: str) -> None:
    config = settings(shield={"max_budget": "5000", "max_budget_ratio": 10}, bidding={"max_bid": "50"})
    connectors = {"meta": caps(daily=4_000), "bare": caps(daily=None)}
    async with opens(connectors, config=config) as house:
        assert answer(house, wish) == expected


RAISES = [
    intent(),
    intent(BID, before=UNIT, after=2 * UNIT),
    intent(STATUS, before=0, after=1),
    intent(IntentKind.PLACE_BID, before=0, after=UNIT),
]
CUTS = [
    intent(after=50 * UNIT),
    intent(before=10**15, after=1),
    intent(BID, before=60 * UNIT, after=55 * UNIT),
    intent(STATUS, before=1, after=0),
]


@pytest.mark.parametrize("trouble", ["KILL_SWITCH", "SAFE_HOLD", "OVERSHOOT", "NO_CAP", "CHECK_FAILED"])
async def test_in_trouble_cuts_pass_and_raises_do_not(
    opens: Opens, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opens() as house:
        assert [answer(house, wish) for wish in RAISES + CUTS] == ["yes"] * 8
        match trouble:
            case "KILL_SWITCH":
                await house.shield.kill(True, "test", NOON)
            case "SAFE_HOLD":
                house.shield.hold("test")
            case "OVERSHOOT":
                row = SpendRow("c1", "2026-03-10", 10_001 * UNIT)
                await house.shield.book("meta", SpendReport((row,), Instant(NOON)), NOON)
            case "NO_CAP":
                await house.shield.set_caps("meta", caps(daily=None), NOON)
            case _:
                monkeypatch.setattr("kiki_agent.shield.book.Book.overshoot", lambda *args: 1 // 0)
        assert [answer(house, wish) for wish in RAISES] == [trouble] * 4
        assert [answer(house, wish) for wish in CUTS] == ["yes"] * 4
