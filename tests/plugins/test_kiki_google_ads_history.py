"""What became of changes whose answer was lost: read from the value in force, else from the account's own history."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some
from kiki_google_ads.history import LATE, TOO_OLD, instant, local_time
from kiki_google_ads.sandbox_account import Event

from kiki_agent.errors import Temporary, UnknownOutcome
from kiki_agent.model import DAY, MINUTE, SECOND, Instant, Intent, IntentKind
from kiki_agent.sandbox import Fault
from tests.contracts.google_rig import EVERYTHING, NOW, Rig, google

BUDGET, STATUS, ADJUST, PLACE = (
    IntentKind.SET_BUDGET,
    IntentKind.SET_STATUS,
    IntentKind.ADJUST_BID,
    IntentKind.PLACE_BID,
)
PATHS = {BUDGET: "campaignBudgets:mutate", STATUS: "campaigns:mutate", ADJUST: ":mutate", PLACE: ":mutate"}


async def settled(rig: Rig, *intents: Intent) -> list[tuple[str, str]]:
    return [(each.outcome.value, each.reason) for each in await rig.to("reconcile", intents)]


async def lose(rig: Rig, intent: Intent, fault: Fault = Fault.LOST) -> None:
    """Send a change whose answer never comes; only a lost answer belongs to a change that was made."""
    rig.faults.order(fault, path=PATHS[intent.kind])
    with pytest.raises(UnknownOutcome) as caught:
        await rig.to(intent.kind.value, [intent])
    assert caught.value.keys == (intent.key,)


def by_hand(rig: Rig, place: int, kind: str, after: int, event: Event) -> None:
    """Somebody changes the value in Google's own screens."""
    rig.by_somebody(place, kind, after, replace(event, client="GOOGLE_ADS_WEB_CLIENT", by="a@b.example"))


def later(rig: Rig, span: int) -> None:
    rig.clock.instant = Instant(rig.clock.instant + span)


LEVERS = [(BUDGET, 0, 33_000_000), (BUDGET, 2, 44_000_000), (STATUS, 0, 0), (ADJUST, 12, 1_500_000),
          (ADJUST, 6, 1_500_000), (ADJUST, 8, 1_500_000)]  # fmt: skip
IN_HISTORY = {(BUDGET, 0), (BUDGET, 2), (ADJUST, 6), (ADJUST, 8)}
"""Levers with a third value besides before and after, and a place in the history."""


@pytest.mark.parametrize(("kind", "place", "after"), LEVERS)
async def test_the_value_in_force_tells(kind: IntentKind, place: int, after: int) -> None:
    async with google() as rig:
        found = (await rig.campaigns())[place]
        before = {BUDGET: found.daily_budget_micros, STATUS: 1, ADJUST: found.bid_micros}[kind]
        for fault, outcome in ((Fault.ERROR, ("rejected", "NOT_APPLIED")), (Fault.LOST, ("accepted", "IN_FORCE"))):
            wanted = rig.intent(place, after, kind, before=before, cause=fault.value)
            await lose(rig, wanted, fault)
            assert await settled(rig, wanted) == [outcome]
        assert rig.effects.count == 1
        assert not any("change_event" in body["query"] for body in rig.asked(":search")), "no history was needed"


async def test_a_target_ratio_is_read_back_as_a_ratio() -> None:
    async with google(strategies=EVERYTHING) as rig:
        await rig.campaigns()
        for place in (0, 1):
            wanted = rig.intent(place, 150_000_000, ltv=1_200_000_000)
            await lose(rig, wanted)
            assert await settled(rig, wanted) == [("accepted", "IN_FORCE")]
            other = rig.intent(place, 100_000_000, ltv=1_200_000_000)
            assert await settled(rig, other) == [("unknown", "HISTORY_IS_LATE")]
            assert await settled(rig, rig.intent(place, 100_000_000)) == [("rejected", "NO_SUCH_LEVER")]
            later(rig, LATE + SECOND)
            assert await settled(rig, other) == [("rejected", "NOT_APPLIED")]


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize(("kind", "place", "after"), [each for each in LEVERS if each[:2] in IN_HISTORY])
async def test_the_history_tells_where_others_changed_the_value_since(
    kind: IntentKind, place: int, after: int, made: bool
) -> None:
    async with google() as rig:
        found = (await rig.campaigns())[place]
        before = found.daily_budget_micros if kind is BUDGET else found.bid_micros
        wanted = rig.intent(place, after, kind, before=before)
        await lose(rig, wanted, Fault.LOST if made else Fault.ERROR)
        later(rig, MINUTE)
        account = rig.sandbox.account
        if kind is BUDGET:
            event = account.budget_event(place, 99_000_000)
            by_hand(rig, place, "set_budget", 99_000_000, event)
        elif place == 8:
            name = f"customers/1234567890/adGroups/{90_000_001 + 16}"
            by_hand(rig, place, "adjust_bid", 9_900_000, account.group_event(place, name, 9_900_000))
            account.group_bids.clear()
        else:
            event = account.bid_event(place, "targetSpend.cpcBidCeilingMicros", 9_900_000)
            by_hand(rig, place, "adjust_bid", 9_900_000, event)
        assert await settled(rig, wanted) == [("unknown", "HISTORY_IS_LATE")]
        later(rig, LATE)
        assert await settled(rig, wanted) == [("accepted", "IN_HISTORY") if made else ("rejected", "NOT_APPLIED")]


async def test_a_portfolio_is_not_in_the_history_and_stays_unknown_for_a_day() -> None:
    async with google() as rig:
        bid = (await rig.campaigns())[12].bid_micros
        wanted = rig.intent(12, 1_500_000, before=bid)
        await lose(rig, wanted)
        rig.by_somebody(12, "adjust_bid", 9_900_000)
        later(rig, LATE + SECOND)
        assert await settled(rig, wanted) == [("unknown", "CHANGED_BY_OTHERS")]
        later(rig, TOO_OLD)
        assert await settled(rig, wanted) == [("rejected", "SUPERSEDED")]


async def test_a_history_that_cannot_be_read_leaves_one_outcome_open_and_settles_the_others() -> None:
    async with google() as rig:
        found = await rig.campaigns()
        lost = rig.intent(0, 33_000_000, BUDGET, before=found[0].daily_budget_micros)
        clear = rig.intent(1, 34_000_000, BUDGET, before=found[1].daily_budget_micros)
        await lose(rig, lost)
        await rig.to("set_budget", [clear])
        rig.by_somebody(0, "set_budget", 99_000_000)
        later(rig, LATE + SECOND)
        note = rig.sandbox.account.budget_event(0, 99_000_000)
        rig.sandbox.account.note(note, NOW)
        rig.alter[:] = [lambda path, said: (500, {}, b"") if b'"changeEvent"' in said[2] else said]
        assert await settled(rig, lost, clear) == [("unknown", "CHANGED_BY_OTHERS"), ("accepted", "IN_FORCE")]


async def test_a_placed_bid_is_told_from_one_that_was_not_made_also_after_a_restart() -> None:
    async with google(strategies=EVERYTHING) as rig:
        await rig.campaigns()
        for place in (12, 6, 8, 0):
            for fault, outcome in ((Fault.ERROR, ("rejected", "NOT_APPLIED")), (Fault.LOST, ("accepted", "IN_FORCE"))):
                wanted = rig.intent(place, 150_000_000, PLACE, ltv=1_200_000_000, cause=fault.value)
                await lose(rig, wanted, fault)
                assert await settled(rig, wanted) == [outcome]
        nobody_knows = rig.intent(12, 70_000_000, PLACE, ltv=1_200_000_000, cause="of another life")
        assert await settled(rig, nobody_knows) == [("unknown", "CHANGED_BY_OTHERS")]


async def test_a_placed_bid_is_told_from_the_level_the_agent_itself_set_last() -> None:
    async with google(strategies=EVERYTHING) as rig:
        await rig.campaigns()
        for place in (12, 8, 0):
            await rig.to("adjust_bid", [rig.intent(place, 2_000_000, ltv=10_000_000)])
            wanted = rig.intent(place, 150_000_000, PLACE, ltv=1_200_000_000)
            await lose(rig, wanted, Fault.ERROR)
            assert await settled(rig, wanted) == [("rejected", "NOT_APPLIED")]


async def test_a_campaign_that_is_gone_is_no_outcome_of_another() -> None:
    async with google() as rig:
        assert await settled(rig, rig.intent(99, 1_000_000)) == [("rejected", "UNKNOWN_CAMPAIGN")]
        assert await rig.to("reconcile", []) == []


async def test_half_of_the_ad_groups_is_neither_made_nor_not_made() -> None:
    async with google() as rig:
        bid = (await rig.campaigns())[8].bid_micros
        wanted = rig.intent(8, 1_500_000, before=bid)
        await rig.to("adjust_bid", [wanted])
        rig.sandbox.account.group_bids["customers/1234567890/adGroups/90000018"] = bid
        rig.sandbox.account.events.pop()
        later(rig, LATE + SECOND)
        assert await settled(rig, wanted) == [("unknown", "CHANGED_BY_OTHERS")]


# ---- who changed what


async def test_changes_name_who_moved_what() -> None:
    async with google(strategies=EVERYTHING, timezone="Pacific/Auckland") as rig:
        found = await rig.campaigns()
        await rig.to("set_budget", [rig.intent(0, 33_000_000, BUDGET)])
        await rig.to("set_status", [rig.intent(3, 0, STATUS)])
        await rig.to("adjust_bid", [rig.intent(place, 2_000_000, ltv=10_000_000) for place in (0, 6, 8, 12)])
        later(rig, MINUTE)
        by_hand(rig, 0, "set_budget", 55_000_000, rig.sandbox.account.budget_event(0, 55_000_000))
        assert await rig.connector.changes(Instant(NOW - DAY)) == []
        later(rig, 4 * MINUTE)
        made = await rig.connector.changes(Instant(NOW - DAY))
        assert [(each.kind, each.resource.rpartition("/")[2], each.before, each.after) for each in made] == [
            (BUDGET, "50000001", found[0].daily_budget_micros, 33_000_000),
            (STATUS, "20000004", 1, 0),
            (ADJUST, "20000001", Decimal(2), Decimal(5)),
            (ADJUST, "20000007", found[6].bid_micros, 2_000_000),
            (ADJUST, "90000017", found[8].bid_micros, 2_000_000),
            (ADJUST, "90000018", found[8].bid_micros, 2_000_000),
            (BUDGET, "50000001", 33_000_000, 55_000_000),
        ]
        assert [each.client for each in made] == ["GOOGLE_ADS_API"] * 6 + ["GOOGLE_ADS_WEB_CLIENT"]
        assert made[-1].by == "a@b.example"
        assert (made[0].at, made[-1].at) == (NOW, NOW + MINUTE)
        assert await rig.connector.changes(Instant(NOW + 30 * SECOND)) == made[-1:]
        assert len(await rig.connector.changes(Instant(0))) == len(made), "never asks for more than Google keeps"


async def test_lines_of_history_that_make_no_sense_are_counted_and_prove_nothing() -> None:
    async with google() as rig:
        found = await rig.campaigns()
        wanted = rig.intent(0, 33_000_000, BUDGET, before=found[0].daily_budget_micros)
        await lose(rig, wanted, Fault.ERROR)
        rig.by_somebody(0, "set_budget", 99_000_000)
        later(rig, LATE + SECOND)
        rig.change_answer(
            ":search",
            lambda said: (
                said | {"results": [{"changeEvent": {"changeDateTime": "yesterday"}}, {}]}
                if said["fieldMask"].startswith("changeEvent")
                else said
            ),
        )
        assert await settled(rig, wanted) == [("unknown", "CHANGED_BY_OTHERS")]
        context = rig.plugins.instances["google"].context
        assert context is not None
        assert context.metrics.values["rows_skipped"] == 2


@given(some.integers(0, 4 * 10**9), some.sampled_from(["UTC", "Asia/Kathmandu", "America/St_Johns"]))
def test_account_times_go_out_and_come_back(seconds: int, zone: str) -> None:
    at = Instant(seconds * SECOND)
    back = instant(local_time(at, zone) + ".000000", zone)
    assert back == at or abs(back - at) == 60 * MINUTE  # in the hour that comes twice, the first is meant


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01 00:00:00", "2026-06-01T", "1" * 500])
def test_a_time_that_is_none_is_garbled(text: str) -> None:
    with pytest.raises(Temporary):
        instant(text, "UTC")
