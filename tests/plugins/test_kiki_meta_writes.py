"""What Meta is asked to change, what it does, what it says, and what the agent may believe of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as some
from kiki_meta.connector import _batch
from kiki_meta.history import LAG, SKEW, TOO_OLD, Edit, edits_of, settled
from kiki_meta.history import Activity as Listed

from kiki_agent.errors import AuthExpired, RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.hooks.conversion import Conversion
from kiki_agent.hooks.http import NoAnswer
from kiki_agent.model import DAY, HOUR, MINUTE, SECOND, Instant, IntentKind, Outcome, Receipt
from kiki_agent.sandbox import Change, Fault
from tests.contracts.meta_rig import NOW, PIXEL, Answer, Asked, Rig, intent, running

UNIT = 1_000_000
BID, BUDGET, STATUS, PLACE = (
    IntentKind.ADJUST_BID,
    IntentKind.SET_BUDGET,
    IntentKind.SET_STATUS,
    IntentKind.PLACE_BID,
)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """Twenty ad sets; what the account holds was read once."""
    async with running(history_days=1) as made:
        await made.campaigns()
        yield made


def told(receipts: Sequence[Receipt]) -> list[tuple[str, str]]:
    return [(each.outcome.value, each.reason) for each in receipts]


def effects(rig: Rig) -> list[tuple[str, int, int]]:
    return [(each.kind, each.campaign, each.after) for each in rig.effects.recent()]


# -- one by one, and in batches


async def test_each_lever_of_each_kind_of_ad_set_goes_where_it_is(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    own, shared, capped, alone, lifetime = (campaigns[place] for place in (0, 3, 5, 6, 14))
    await rig.to("set_budget", [intent(BUDGET, own, 50 * UNIT)])
    await rig.to("set_budget", [intent(BUDGET, shared, 61 * UNIT)])
    await rig.to("adjust_bid", [intent(BID, capped, 1_230_000)])
    await rig.to("place_bid", [intent(PLACE, own, 150 * UNIT, ltv_micros=1_200 * UNIT)])
    await rig.to("place_bid", [intent(PLACE, shared, 2 * UNIT)])
    await rig.to("set_status", [intent(STATUS, own, 0)])
    sent = [(each.path.removeprefix("/v26.0/"), each.fields) for each in rig.wire.asked if each.method == "POST"]
    assert sent == [
        (own.campaign_id, {"daily_budget": "5000"}),
        ("120100000000004", {"daily_budget": "6100"}),
        (capped.campaign_id, {"bid_amount": "123"}),
        (
            own.campaign_id,
            {"optimization_goal": "VALUE", "bid_amount": "15000", "bid_strategy": "LOWEST_COST_WITH_BID_CAP"},
        ),
        (shared.campaign_id, {"optimization_goal": "VALUE", "bid_amount": "200"}),
        (own.campaign_id, {"status": "PAUSED"}),
    ]
    assert effects(rig) == [
        ("set_budget", 0, 50 * UNIT),
        ("set_budget", 3, 61 * UNIT),
        ("adjust_bid", 5, 1_230_000),
        ("adjust_bid", 0, 150 * UNIT),
        ("adjust_bid", 3, 2 * UNIT),
        ("set_status", 0, 0),
    ]
    for verb, wanted in (("adjust_bid", intent(BID, alone, UNIT)), ("place_bid", intent(PLACE, alone, UNIT))):
        with pytest.raises(Rejected) as caught:
            await rig.to(verb, [wanted])
        assert caught.value.reason == "NO_SUCH_LEVER"
    assert not lifetime.steers_budget
    with pytest.raises(Rejected) as caught:
        await rig.to("set_budget", [intent(BUDGET, lifetime, 5 * UNIT)])
    assert caught.value.reason == "META_100_1885650"
    now = await rig.campaigns()
    assert [now[place].daily_budget_micros for place in (0, 3, 4)] == [50 * UNIT, 61 * UNIT, 61 * UNIT]
    assert [now[place].bid_micros for place in (0, 3, 5)] == [150 * UNIT, 2 * UNIT, 1_230_000]


async def test_several_changes_are_one_request_and_each_has_an_answer_of_its_own(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    asked = len(rig.wire.asked)
    wanted = [
        intent(BID, campaigns[0], 2 * UNIT),
        intent(BID, campaigns[6], 2 * UNIT),
        intent(BID, "404", 2 * UNIT),
        intent(BID, campaigns[1], 2_000_001),
        intent(BID, campaigns[2], 3 * UNIT),
        intent(BID, campaigns[5], 200_000_000_000 * UNIT // 100),
    ]
    receipts = await rig.to("adjust_bid", wanted)
    assert [each.key for each in receipts] == [each.key for each in wanted]
    assert told(receipts) == [
        ("accepted", ""),
        ("rejected", "NO_SUCH_LEVER"),
        ("rejected", "UNKNOWN_CAMPAIGN"),
        ("rejected", "NOT_A_MINOR_UNIT"),
        ("accepted", ""),
        ("rejected", "META_100"),
    ]
    assert [(each.method, each.path) for each in rig.wire.asked[asked:]] == [("POST", "/v26.0/")]
    assert effects(rig) == [("adjust_bid", 0, 2 * UNIT), ("adjust_bid", 2, 3 * UNIT)]


async def test_a_batch_holds_fifty_and_no_node_twice(rig: Rig) -> None:
    campaigns = [each for each in await rig.campaigns() if each.steers_bid][:18]
    asked = len(rig.wire.asked)
    wanted = [intent(BID, each, (level + 1) * UNIT, cause=str(level)) for level in range(3) for each in campaigns]
    receipts = await rig.to("adjust_bid", wanted)
    assert set(told(receipts)) == {("accepted", "")}
    sizes = [len(json.loads(each.fields["batch"])) for each in rig.wire.asked[asked:]]
    assert sizes == [18, 18, 18]
    chosen = {each.campaign_id for each in campaigns}
    assert {each.bid_micros for each in await rig.campaigns() if each.campaign_id in chosen} == {3 * UNIT}
    async with running(campaigns=360, history_days=1) as large:
        every = [intent(STATUS, each, 0) for each in await large.campaigns()]
        assert set(told(await large.to("set_status", every))) == {("accepted", "")}
        sizes = [len(json.loads(each.fields["batch"])) for each in large.wire.asked if each.method == "POST"]
        assert sizes == [50, 10]
        assert len(effects(large)) == 60


@given(some.lists(some.integers(0, 60), max_size=130))
def test_batches_keep_all_changes_in_order_with_no_node_twice(nodes: list[int]) -> None:
    waiting = [(intent(BID, str(node), UNIT, cause=str(place)), (str(node), {})) for place, node in enumerate(nodes)]
    left, sent = list(waiting), []
    while left:
        batch, left = _batch(left)
        assert 0 < len(batch) <= 50
        assert len({node for _, (node, _) in batch}) == len(batch)
        sent += batch
    assert sent == waiting


async def test_200_but_failed_inside_a_batch(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    wanted = [intent(BID, each, 2 * UNIT) for each in campaigns[:3] + campaigns[7:12]]
    bodies: list[Any] = [
        {"code": 200, "body": '{"success":true}'},
        {"code": 200, "body": '{"success":false}'},
        {"code": 400, "body": '{"error":{"message":"no","type":"x","code":100,"error_subcode":7,"fbtrace_id":"1"}}'},
        None,
        {"code": 500, "body": '{"error":{"message":"oh","type":"x","code":1,"fbtrace_id":"1"}}'},
        {"code": 200, "body": '{"error":{"message":"t","type":"x","code":190,"fbtrace_id":"1"}}'},
        {"code": 200, "body": "<html>"},
        {"code": 400, "body": '{"error":{"message":"t","type":"x","code":613,"error_subcode":1487632}}'},
    ]
    rig.answer("/v26.0/", json.dumps(bodies).encode(), method="POST")
    assert told(await rig.to("adjust_bid", wanted)) == [
        ("accepted", ""),
        ("rejected", "NO_SUCCESS"),
        ("rejected", "META_100_7"),
        ("unknown", "NO_ANSWER"),
        ("unknown", "NO_ANSWER"),
        ("rejected", "AUTH_EXPIRED"),
        ("unknown", "NO_ANSWER"),
        ("rejected", "BUDGET_EDITED_TOO_OFTEN"),
    ]
    for body in (b"[]", b"{}", json.dumps(bodies[:3]).encode(), b'[{"code":"x"}]', b"[1,2,3,4,5,6,7,8]"):
        rig.answer("/v26.0/", body, method="POST")
        assert {each.outcome for each in await rig.to("adjust_bid", wanted)} == {Outcome.UNKNOWN}


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("fault", list(Fault))
async def test_every_bad_day_of_a_change_is_believed_for_what_it_is(rig: Rig, fault: Fault, count: int) -> None:
    campaigns = await rig.campaigns()
    places = (0, 1, 2, 7)[:count]
    wanted = [intent(BID, campaigns[place], 2 * UNIT) for place in places]
    rig.faults.order(fault)
    outcomes: set[str]
    try:
        outcomes = {each.outcome.value for each in await rig.to("adjust_bid", wanted)}
    except UnknownOutcome:
        outcomes = {"unknown"}
    except (Rejected, RateLimited):
        outcomes = {"rejected"}
    done = len(effects(rig))
    assert done == (count if fault is Fault.LOST else 0)
    expected = {Fault.FAILED: "rejected", Fault.THROTTLED: "rejected"}.get(fault, "unknown")
    assert outcomes == {expected}
    rig.clock.instant = Instant(NOW + 2 * HOUR)
    settled_now = await rig.to("reconcile", wanted)
    assert {each.outcome for each in settled_now} == {Outcome.ACCEPTED if done else Outcome.REJECTED}


async def test_when_the_quota_ends_within_a_batch_the_rest_is_not_done_and_not_sent() -> None:
    async with running(history_days=1, score_per_hour=20) as rig:
        campaigns = await rig.campaigns()  # three reads; five changes of three points fit
        usable = [each for each in campaigns if each.steers_bid]
        wanted = [intent(BID, each, (turn + 2) * UNIT, cause=str(turn)) for turn in (0, 1) for each in usable[:8]]
        receipts = await rig.to("adjust_bid", wanted)
        assert told(receipts)[:5] == [("accepted", "")] * 5
        assert told(receipts)[5:] == [("rejected", "RATE_LIMITED")] * 11
        assert len(effects(rig)) == 5
        assert sum(each.method == "POST" for each in rig.wire.asked) == 1
        with pytest.raises(RateLimited):
            await rig.to("adjust_bid", wanted[:3])


async def test_what_certainly_never_left_is_rejected_as_not_sent(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    wanted = [intent(BID, each, 2 * UNIT) for each in campaigns[:2]]

    def refuse(asked: Asked) -> None:
        raise NoAnswer("POST graph.test/: cannot connect", sent=False)

    rig.wire.before = refuse
    with pytest.raises(Rejected) as caught:
        await rig.to("adjust_bid", wanted[:1])
    assert caught.value.reason == "NOT_SENT"
    assert told(await rig.to("adjust_bid", wanted)) == [("rejected", "NOT_SENT")] * 2

    def break_off(asked: Asked) -> None:
        raise NoAnswer("POST graph.test/: timed out", sent=True)

    rig.wire.before = break_off
    with pytest.raises(UnknownOutcome):
        await rig.to("adjust_bid", wanted[:1])
    assert told(await rig.to("adjust_bid", wanted)) == [("unknown", "NO_ANSWER")] * 2
    with pytest.raises(UnknownOutcome) as unknown:
        await rig.to("upload_conversions", [conversion("k1")])
    assert unknown.value.keys == ("k1",)


async def test_right_after_a_start_a_change_reads_where_the_levers_are_first() -> None:
    async with running(history_days=1) as rig:
        wanted = [intent(BUDGET, "120200000000004", 61 * UNIT)]
        rig.faults.order(Fault.ERROR, path="/adsets")
        with pytest.raises(Rejected) as caught:
            await rig.to("set_budget", wanted)
        assert caught.value.reason == "NOT_SENT"
        assert told(await rig.to("set_budget", wanted)) == [("accepted", "")]
        assert effects(rig) == [("set_budget", 3, 61 * UNIT)]
        rig.sandbox.token_expires_at = NOW
        with pytest.raises(AuthExpired):
            await rig.to("set_budget", wanted)


# -- limits


async def test_a_budget_is_changed_four_times_an_hour_and_then_not_for_an_hour(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    own, other = campaigns[0], campaigns[1]
    for number in range(4):
        await rig.to("set_budget", [intent(BUDGET, own, (20 + number) * UNIT)])
    rig.clock.instant = Instant(NOW + 30 * MINUTE)
    with pytest.raises(Rejected) as caught:
        await rig.to("set_budget", [intent(BUDGET, own, 30 * UNIT)])
    assert caught.value.reason == "BUDGET_EDITED_TOO_OFTEN"
    context = rig.plugins.instances["m"].context
    assert context is not None
    assert context.hints.retry_at == 0  # one ad set is closed, not the account
    await rig.to("set_budget", [intent(BUDGET, other, 30 * UNIT)])
    await rig.to("adjust_bid", [intent(BID, own, 2 * UNIT)])
    rig.clock.instant = Instant(NOW + 61 * MINUTE)
    with pytest.raises(Rejected):
        await rig.to("set_budget", [intent(BUDGET, own, 30 * UNIT)])
    rig.clock.instant = Instant(NOW + 91 * MINUTE)
    await rig.to("set_budget", [intent(BUDGET, own, 30 * UNIT)])
    assert [each for each in effects(rig) if each[1] == 0 and each[0] == "set_budget"][-1][2] == 30 * UNIT


async def test_a_budget_below_the_minimum_is_refused_and_the_minimum_is_known(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    assert {each.min_budget_micros for each in campaigns} == {UNIT}
    with pytest.raises(Rejected) as caught:
        await rig.to("set_budget", [intent(BUDGET, campaigns[0], UNIT - 10_000)])
    assert caught.value.reason == "META_100_1885272"
    await rig.to("set_budget", [intent(BUDGET, campaigns[0], UNIT)])


async def test_a_dry_run_asks_meta_to_check_and_changes_nothing() -> None:
    async with running(history_days=1, dry_run=True) as rig:
        campaigns = await rig.campaigns()
        assert (await rig.to("capabilities")).validates
        before = campaigns[:]
        for number in range(6):  # six checks use up no quota of changes
            await rig.to("set_budget", [intent(BUDGET, campaigns[0], (20 + number) * UNIT)])
        wanted = [intent(BID, each, 2 * UNIT) for each in campaigns[:4]]
        assert set(told(await rig.to("adjust_bid", wanted))) == {("accepted", "")}
        with pytest.raises(Rejected) as caught:
            await rig.to("set_budget", [intent(BUDGET, campaigns[0], 0)])
        assert caught.value.reason == "META_100_1885272"
        assert effects(rig) == []
        assert await rig.campaigns() == before
        for asked in (each for each in rig.wire.asked if each.method == "POST"):
            assert b"validate_only" in asked.body


async def test_a_big_change_of_a_budget_makes_an_ad_set_learn(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    await rig.to("set_budget", [intent(BUDGET, campaigns[0], campaigns[0].daily_budget_micros * 2)])
    assert [each.learning for each in await rig.campaigns()][:2] == [True, False]
    rig.clock.instant = Instant(NOW + 7 * HOUR)
    assert not (await rig.campaigns())[0].learning


OWN, SHARED, HIGHEST, LIFETIME = "120200000000001", "120200000000004", "120200000000007", "120200000000015"
FLOOR = '{"roas_average_floor":15000}'


@pytest.mark.parametrize(
    ("node", "fields"),
    [
        (SHARED, {"daily_budget": "5000"}),
        (LIFETIME, {"daily_budget": "5000"}),
        ("120100000000001", {"daily_budget": "5000"}),
        (SHARED, {"bid_strategy": "COST_CAP"}),
        ("120100000000001", {"bid_strategy": "COST_CAP"}),
        (HIGHEST, {"bid_amount": "150"}),
        (HIGHEST, {"bid_strategy": "COST_CAP"}),
        (OWN, {"bid_strategy": "LOWEST_COST_WITH_MIN_ROAS"}),
        (OWN, {"bid_strategy": "LOWEST_COST_WITH_MIN_ROAS", "bid_constraints": FLOOR}),
        (OWN, {"bid_constraints": FLOOR, "optimization_goal": "VALUE"}),
        (OWN, {"bid_amount": "0"}),
        (OWN, {"daily_budget": "100000000001"}),
        ("120100000000005", {"status": "PAUSED"}),
    ],
)
async def test_the_stand_in_refuses_what_is_set_at_the_wrong_level_or_does_not_go_together(
    rig: Rig, node: str, fields: dict[str, str]
) -> None:
    await rig.to("set_status", [intent(STATUS, OWN, 1)])
    right = rig.wire.asked[-1]
    proof = right.params["appsecret_proof"]
    path = f"/v26.0/{node}?appsecret_proof={proof}"
    done = len(effects(rig))
    status, _, body = rig.sandbox.handle("POST", path, right.headers, urlencode(fields).encode(), NOW)
    assert status == 400
    assert json.loads(body)["error"]["code"] == 100
    assert len(effects(rig)) == done
    allowed = {"bid_strategy": "LOWEST_COST_WITH_MIN_ROAS", "bid_constraints": FLOOR, "optimization_goal": "VALUE"}
    path = f"/v26.0/{OWN}?appsecret_proof={proof}"
    status, _, _ = rig.sandbox.handle("POST", path, right.headers, urlencode(allowed).encode(), NOW)
    assert status == 200


# -- value bidding


async def test_a_floor_on_the_return_is_the_worth_of_a_customer_against_what_is_paid() -> None:
    async with running(history_days=1, strategies={2: "LOWEST_COST_WITH_MIN_ROAS"}) as rig:
        floor = (await rig.campaigns())[2]
        assert not floor.steers_bid
        wanted = intent(PLACE, floor, 150 * UNIT, ltv_micros=1_200 * UNIT)
        assert told(await rig.to("place_bid", [wanted])) == [("accepted", "")]
        assert rig.wire.asked[-1].fields["bid_constraints"] == '{"roas_average_floor":80000}'
        assert told(await rig.to("reconcile", [wanted])) == [("accepted", "IN_FORCE")]
        rig.clock.instant = Instant(NOW + HOUR)
        never = intent(PLACE, floor, 100 * UNIT, ltv_micros=1_200 * UNIT)
        assert told(await rig.to("reconcile", [never])) == [("rejected", "NOT_APPLIED")]
        for unusable in (intent(PLACE, floor, 150 * UNIT), intent(BID, floor, 150 * UNIT)):
            with pytest.raises(Rejected) as caught:
                await rig.to(unusable.kind.value, [unusable])
            assert caught.value.reason == "NO_SUCH_LEVER"


# -- reading back


def meddle(rig: Rig, index: int, kind: str, after: int, event: str, units: int, at: Instant) -> None:
    """Somebody changes something by hand."""
    rig.sandbox.desk.change([Change(index, kind, after)], at)
    rig.sandbox.account.note(event, 120_200_000_000_001 + index, 0, units, at)


async def test_a_value_that_others_changed_since_is_settled_by_the_history(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    ours = intent(BUDGET, campaigns[0], 50 * UNIT)
    never = intent(BUDGET, campaigns[1], 50 * UNIT)
    paused = intent(STATUS, campaigns[2], 0)
    placed = intent(PLACE, campaigns[7], 9 * UNIT)
    for verb, wanted in (("set_budget", ours), ("set_status", paused), ("place_bid", placed)):
        await rig.to(verb, [wanted])
    later = Instant(NOW + MINUTE)
    meddle(rig, 0, "set_budget", 70 * UNIT, "update_ad_set_budget", 7_000, later)
    meddle(rig, 1, "set_budget", 70 * UNIT, "update_ad_set_budget", 7_000, later)
    meddle(rig, 7, "adjust_bid", 8 * UNIT, "update_ad_set_bidding", 800, later)
    rig.clock.instant = Instant(NOW + HOUR)
    wanted = [ours, never, paused, placed]
    assert told(await rig.to("reconcile", wanted)) == [
        ("accepted", "WAS_IN_FORCE"),
        ("rejected", "NOT_APPLIED"),
        ("accepted", "IN_FORCE"),
        ("accepted", "WAS_IN_FORCE"),
    ]
    assert [each.key for each in await rig.to("reconcile", wanted)] == [each.key for each in wanted]
    rig.answer("/activities", b"{}")
    assert told(await rig.to("reconcile", [ours, never])) == [("unknown", "CHANGED_BY_OTHERS")] * 2
    rig.clock.instant = Instant(NOW + TOO_OLD + SECOND)
    assert told(await rig.to("reconcile", [ours, never])) == [("rejected", "SUPERSEDED")] * 2


async def test_nothing_is_concluded_from_an_absence_before_meta_had_time_to_list_it(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    never = intent(PLACE, campaigns[1], 50 * UNIT)
    assert told(await rig.to("reconcile", [never])) == [("unknown", "CHANGED_BY_OTHERS")]
    rig.clock.instant = Instant(NOW + LAG + SECOND)
    assert told(await rig.to("reconcile", [never])) == [("rejected", "NOT_APPLIED")]


async def test_reading_back_what_is_in_force_and_what_is_not_needs_no_history(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    done, undone = intent(BID, campaigns[0], 2 * UNIT), intent(BID, campaigns[1], 2 * UNIT)
    await rig.to("adjust_bid", [done])
    gone = intent(BID, "120200000009999", UNIT)
    assert told(await rig.to("reconcile", [done, undone, gone])) == [
        ("accepted", "IN_FORCE"),
        ("rejected", "NOT_APPLIED"),
        ("rejected", "UNKNOWN_CAMPAIGN"),
    ]
    assert await rig.to("reconcile", []) == []
    assert not [each for each in rig.wire.asked if "activities" in each.path]


async def test_a_switch_is_read_back_by_itself_whatever_its_campaign_says(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    wanted = [intent(STATUS, campaigns[0], 0), intent(STATUS, campaigns[1], 1, before=0)]
    await rig.to("set_status", wanted[:1])

    def paused_above(asked: Asked, answer: Answer) -> Answer:
        shown = answer[2].replace(b'"effective_status":"ACTIVE"', b'"effective_status":"CAMPAIGN_PAUSED"')
        return answer[0], answer[1], shown if "adsets" in asked.path else answer[2]

    rig.wire.alter = paused_above
    assert {each.status.value for each in await rig.campaigns()} == {"paused"}
    assert told(await rig.to("reconcile", wanted)) == [("accepted", "IN_FORCE")] * 2


def edit(after: int | None, at: int, node: str = "1") -> Edit:
    return Edit(node, BUDGET, Instant(at), 0, after, "7", "")


@pytest.mark.parametrize(
    ("edits", "age", "answer"),
    [
        ([edit(5, NOW)], 0, ("accepted", "WAS_IN_FORCE")),
        ([edit(5, NOW - SKEW)], 0, ("accepted", "WAS_IN_FORCE")),
        ([edit(5, NOW - SKEW - 1)], HOUR, ("rejected", "NOT_APPLIED")),
        ([edit(5, NOW, "2")], HOUR, ("rejected", "NOT_APPLIED")),
        ([edit(4, NOW), edit(None, NOW)], HOUR, ("unknown", "CHANGED_BY_OTHERS")),
        ([edit(None, NOW)], 2 * DAY, ("rejected", "SUPERSEDED")),
        ([], LAG, ("unknown", "CHANGED_BY_OTHERS")),
        ([], LAG + 1, ("rejected", "NOT_APPLIED")),
        (None, LAG + 1, ("unknown", "CHANGED_BY_OTHERS")),
    ],
)
def test_what_the_history_settles(edits: list[Edit] | None, age: int, answer: tuple[str, str]) -> None:
    wanted = intent(BUDGET, "1", 5)
    assert told([settled(wanted, 5, ("1", "9"), edits, Instant(NOW + age))]) == [answer]


# -- edits of others


async def test_edits_are_told_with_who_made_them_newest_first(rig: Rig) -> None:
    campaigns = await rig.campaigns()
    await rig.to("set_budget", [intent(BUDGET, campaigns[3], 61 * UNIT)])
    rig.clock.instant = Instant(NOW + MINUTE)
    await rig.to("set_status", [intent(STATUS, campaigns[0], 0)])
    await rig.to("adjust_bid", [intent(BID, campaigns[0], 2 * UNIT)])
    edits = await rig.edits(Instant(NOW - HOUR))
    assert [(each.node, each.kind, each.before, each.after, each.at) for each in edits] == [
        (campaigns[0].campaign_id, BID, campaigns[0].bid_micros, 2 * UNIT, NOW + MINUTE),
        (campaigns[0].campaign_id, STATUS, 1, 0, NOW + MINUTE),
        ("120100000000004", BUDGET, campaigns[3].daily_budget_micros, 61 * UNIT, NOW),
    ]
    assert {(each.actor, each.application) for each in edits} == {("100000000000001", "200000000000002")}
    assert len(await rig.edits(Instant(NOW + SECOND))) == 2


@pytest.mark.parametrize(
    ("extra", "before", "after"),
    [
        ('{"old_value":4000,"new_value":6000}', 40 * UNIT, 60 * UNIT),
        ('{"old_value":"4000","new_value":"6000","currency":"USD"}', 40 * UNIT, 60 * UNIT),
        ('{"budget":{"old_value":4000,"new_value":6000}}', 40 * UNIT, 60 * UNIT),
        ('{"new_value":6000}', None, 60 * UNIT),
        ('{"old_value":"$40.00","new_value":"$60.00"}', None, None),
        ('{"old_value":true,"new_value":-5}', None, None),
        ('{"old_value":{"x":1},"new_value":[6000]}', None, None),
        ("", None, None),
        ("null", None, None),
        ("{", None, None),
    ],
)
def test_what_an_activity_says_is_read_or_left_open(extra: str, before: int | None, after: int | None) -> None:
    listed = Listed("2026-06-01T12:00:00+0000", "update_ad_set_budget", "5", "7", "Ann", "", extra)
    assert edits_of([listed], "USD") == [Edit("5", BUDGET, NOW, before, after, "7", "")]


def test_activities_without_a_time_or_of_another_kind_are_left_out() -> None:
    times = ("", "2026-06-01", "2026-06-01T12:00:00", "soon")
    listed = [Listed(time, "update_ad_set_budget", "5") for time in times]
    assert edits_of([*listed, Listed("2026-06-01T12:00:00+0000", "update_ad_creative", "5")], "USD") == []


# -- conversions


def conversion(key: str, at: int = NOW - HOUR, **more: Any) -> Conversion:
    return Conversion(key, "IwAR0abc", "Purchase", Instant(at), 120_500_000, "USD", "consent:1", **more)


async def test_a_conversion_carries_worth_confidence_and_time_and_nothing_about_a_person(rig: Rig) -> None:
    given = [
        conversion("k1", order_id="order-7", confidence_permille=820, ltv_micros=1_200 * UNIT),
        conversion("k2", at=NOW - DAY),
    ]
    receipts = await rig.to("upload_conversions", given)
    assert told(receipts) == [("accepted", "")] * 2
    assert all(each.vendor_ref for each in receipts)
    asked = rig.wire.asked[-1]
    assert asked.path == f"/v26.0/{PIXEL}/events"
    first, second = asked.fields["data"]
    assert first == {
        "event_name": "Purchase",
        "event_time": (NOW - HOUR) // SECOND,
        "event_id": "order-7",
        "action_source": "system_generated",
        "user_data": {"fbc": f"fb.1.{(NOW - HOUR) // 1000}.IwAR0abc"},
        "custom_data": {
            "value": 120.5,
            "currency": "USD",
            "ltv": 1200.0,
            "confidence": 0.82,
            "timestamp": "2026-06-01T12:00:00.000000Z",
            "order_id": "order-7",
        },
    }
    assert (second["event_id"], second["custom_data"]["ltv"]) == ("k2", 120.5)
    await rig.to("upload_conversions", given)
    assert set(rig.sandbox.events) == {"order-7", "k2"}  # a second one with the same id is dropped


async def test_events_meta_would_refuse_do_not_take_the_others_along(rig: Rig) -> None:
    given = [
        conversion("old", at=NOW - 7 * DAY),
        conversion("good"),
        conversion("ahead", at=NOW + MINUTE),
        conversion("future", at=NOW + HOUR),
    ]
    assert told(await rig.to("upload_conversions", given)) == [
        ("rejected", "TOO_OLD"),
        ("accepted", ""),
        ("accepted", ""),
        ("rejected", "IN_THE_FUTURE"),
    ]
    assert [each["event_time"] for each in rig.wire.asked[-1].fields["data"]] == [(NOW - HOUR) // SECOND, NOW // SECOND]
    asked = len(rig.wire.asked)
    assert told(await rig.to("upload_conversions", given[:1])) == [("rejected", "TOO_OLD")]
    assert len(rig.wire.asked) == asked


async def test_part_of_an_upload_is_no_success_and_without_a_data_set_there_is_none(rig: Rig) -> None:
    rig.answer("/events", b'{"events_received":1,"messages":[],"fbtrace_id":"A"}')
    receipts = await rig.to("upload_conversions", [conversion("k1"), conversion("k2")])
    assert told(receipts) == [("unknown", "PARTLY_RECEIVED")] * 2
    async with running(campaigns=36, history_days=1, pixel_id="") as bare:
        with pytest.raises(Rejected) as caught:
            await bare.to("upload_conversions", [conversion("k1")])
        assert caught.value.reason == "NO_PIXEL"


async def test_a_clock_that_runs_ahead_books_nothing_for_days_meta_does_not_know(rig: Rig) -> None:
    def tomorrow(asked: Asked, answer: Answer) -> Answer:
        return answer[0], answer[1], answer[2].replace(b"2026-06-01", b"2026-06-02")

    rig.wire.alter = tomorrow
    with pytest.raises(Temporary, match="2026-06-02"):
        await rig.to("fetch_spend", Instant(NOW - DAY))
