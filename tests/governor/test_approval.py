"""Raises above an amount need a person, in one step or in many; what a person declined stays declined."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.accounts import Lever
from kiki_agent.errors import Denied, StoreError
from kiki_agent.governor.approval import check_small_steps
from kiki_agent.governor.edits import Edits
from kiki_agent.governor.noise import check_noise
from kiki_agent.model import HOUR, Instant, Intent, IntentKind
from tests.agent.world import START

from .conftest import Start
from .rig import House, only
from .test_checks import says

UNIT = 1_000_000
DAY_HOURS = 24


def raised(number: int, campaign: str, before: int, delta: int, at: int, cause: str = "") -> Intent:
    return Intent(
        key=f"k{number}",
        kind=IntentKind.SET_BUDGET,
        connector="tiktok",
        campaign_id=campaign,
        before=before,
        after=before + delta,
        currency="USD",
        reason="test",
        at=Instant(at),
        cause=cause,
    )


Step = tuple[str, int, int, bool]
STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(-60, 100), st.integers(0, 9 * HOUR), st.booleans()), max_size=30
)


@given(STEPS)
def test_no_row_of_small_steps_raises_more_than_needs_no_approval(steps: Sequence[Step]) -> None:
    edits, asked, now, stands = Edits(), {"person"}, int(START), {"a": 10_000, "b": 10_000}
    made: list[tuple[int, str, int, bool]] = []
    for number, (campaign, delta, pause, by_person) in enumerate(steps):
        now += pause
        each = raised(number, campaign, stands[campaign], delta, now, "person" if by_person else "agent")
        if not by_person and says(check_small_steps, [each], edits, asked, 100, Instant(now)) == "APPROVAL":
            assert delta > 0
            continue
        edits.sent(each, campaign, Instant(now))
        stands[campaign] += delta
        made.append((now, campaign, delta, by_person))
        if delta > 0 and not by_person:
            for whose in (campaign, "ab"):
                recent = [
                    change
                    for at, owner, change, asked_for in made
                    if at > now - DAY_HOURS * HOUR and owner in whose and not asked_for
                ]
                assert sum(recent) <= 100


def send(house: House, delta_units: int, cause: str) -> None:
    """A raise of the first budget, as the optimizer would ask for it; recorded as sent when it may go out."""
    each = house.campaign("tiktok")
    governor, now = house.agent.governor, house.clock.now()
    edits = governor.edits.of("tiktok", each.campaign_id, Lever.BUDGET, 0)
    stands = edits[-1].after if edits else each.daily_budget_micros
    intent = Intent(
        f"k-{cause}", IntentKind.SET_BUDGET, "tiktok", each.campaign_id, stands, stands + delta_units * UNIT,
        "USD", "test", now, cause=cause,
    )  # fmt: skip
    governor._check_together([intent], now)
    governor.edits.sent(intent, each.campaign_id, now)


@pytest.mark.parametrize(
    ("delta", "conversions", "z", "expected"),
    [
        (100, 400, 2, "NOISE"),  # 10 % of 400 are 40, and so are two standard deviations
        (101, 400, 2, "yes"),
        (-101, 400, 2, "yes"),
        (-99, 400, 2, "NOISE"),
        (1_000, 0, 2, "NOISE"),  # without a conversion nothing is known
        (1, 0, 0, "yes"),
        (0, 0, 2, "yes"),
    ],
)
def test_a_change_has_to_move_more_than_chance_does(delta: int, conversions: int, z: float, expected: str) -> None:
    assert says(check_noise, "x", delta, 1_000, conversions, z) == expected


async def test_the_setting_holds_back_shifts_that_drown_in_noise(start: Start) -> None:
    bold = await start()
    await bold.run(12)
    assert bold.rows("SELECT count(*) FROM shifts") == [(1,)]
    careful = await start(governor__noise_z="10")
    await careful.run(12)
    assert careful.rows("SELECT count(*) FROM shifts") == [(0,)]
    snapshot = careful.agent.optimizer.snapshot
    assert snapshot is not None
    assert "NOISE" in {each.note for each in snapshot.details}
    page = json.dumps(await careful.get("/api/v1/overview"))
    assert "the move would not be told from chance" in page


async def test_small_raises_of_a_budget_add_up_to_one_that_needs_a_person(start: Start) -> None:
    house = await start(governor__approval_above="10", optimizer__enabled="false", **only("tiktok"))
    await house.run(1)
    for number in range(2):
        send(house, 5, f"s{number}")
    with pytest.raises(Denied, match=r"raised by 11\.00 a day within 24 hours") as refused:
        send(house, 1, "s2")
    assert refused.value.reason == "APPROVAL"
    send(house, -1, "s3")
    send(house, 1, "s4")
    house.agent.governor.desk.asked_causes.add("a person")
    send(house, 50, "a person")  # what a person asked for passes, and does not count
    with pytest.raises(Denied):
        send(house, 1, "s5")


async def test_what_a_person_approved_is_not_counted_after_a_restart_either(start: Start) -> None:
    house = await start(governor__approval_above="2", optimizer__enabled="false", **only("tiktok"))
    await house.run(1)
    each, now = house.campaign("tiktok"), house.clock.now()
    stands = each.daily_budget_micros
    raised_by_5 = Intent(
        "k", IntentKind.SET_BUDGET, "tiktok", each.campaign_id, stands, stands + 5 * UNIT, "USD", "test", now,
        budget_id=each.budget_id,
    )  # fmt: skip
    made = house.agent.governor.desk.suggest([raised_by_5], "APPROVAL", "test", now)
    assert made is not None
    done = await house.post(f"/api/v1/suggestions/{made.suggestion_id}/approve")
    assert (done["order"]["state"], done["order"]["note"]) == ("done", "")
    house = await house.again()
    governor = house.agent.governor
    assert governor.edits.net("tiktok", Lever.BUDGET, 0) == 5 * UNIT
    assert governor.edits.net("tiktok", Lever.BUDGET, 0, without=governor.desk.asked_causes) == 0
    send(house, 2, "s0")  # all that needs no approval is still free
    with pytest.raises(Denied):
        send(house, 1, "s1")


async def test_small_raises_of_an_allocation_add_up_to_one_that_needs_a_person(start: Start) -> None:
    house = await start(governor__approval_above="100", **only("tiktok"))

    async def ask(budget: int, status: int) -> Any:
        return await house.post("/api/v1/allocate", status, campaign_id="c1", budget=budget)

    await ask(60, 201)
    await ask(100, 200)
    asked = await ask(101, 202)
    house = await house.again()
    await ask(101, 202)  # the restart knows what was approved
    (asked,) = (await house.get("/api/v1/suggestions?state=open"))["items"]
    await house.post(f"/api/v1/suggestions/{asked['suggestion_id']}/approve")
    house = await house.again()
    await ask(201, 200)  # counted from what was approved
    await ask(202, 202)
    await ask(90, 200)  # lowered: counted from there
    await ask(190, 200)
    house = await house.again()
    await ask(191, 202)
    assert (await house.get("/api/v1/budget/c1"))["budget"] == 190


async def test_without_a_threshold_everything_a_person_gives_is_the_base(start: Start, tmp_path: Any) -> None:
    house = await start(**only("tiktok"))
    await house.post("/api/v1/allocate", 201, campaign_id="c1", budget=500)
    governor = house.settings.governor.model_copy(update={"approval_above": "100"})
    house.settings = house.settings.model_copy(update={"governor": governor})
    house = await house.again()
    await house.post("/api/v1/allocate", 200, campaign_id="c1", budget=600)
    await house.post("/api/v1/allocate", 202, campaign_id="c1", budget=601)


async def test_what_was_declined_stays_declined_after_a_restart_and_after_another_no(start: Start) -> None:
    house = await start(**only("tiktok"))
    await house.post("/api/v1/autonomy/tiktok", level="suggest", reason="test")
    await house.run(3)
    found = (await house.get("/api/v1/suggestions?state=open&limit=500"))["items"]
    one = next(each for each in found if each["changes"] and each["changes"][0]["lever"] == "bid")
    await house.post(f"/api/v1/suggestions/{one['suggestion_id']}/decline")
    desk, now = house.agent.governor.desk, house.clock.now()
    said = (await desk.find(one["suggestion_id"])).changes[0]
    far = Intent("far", IntentKind.ADJUST_BID, "tiktok", said.campaign_id, said.before, said.after * 3, "USD", "t", now)
    other = desk.suggest([far], "SUGGEST", "test", now)
    assert other is not None
    await desk.decline(other.suggestion_id, "test", "", now)
    house = await house.again()
    desk = house.agent.governor.desk
    for value in (said.after, said.after * 3):
        again = Intent("k", IntentKind.ADJUST_BID, "tiktok", said.campaign_id, said.before, value, "USD", "t", now)
        assert desk.suggest([again], "SUGGEST", "test", now) is None
        later = Instant(now + 2 * 24 * HOUR)
        assert desk.suggest([again], "SUGGEST", "test", later) is not None


async def test_what_ended_long_ago_is_forgotten_and_what_is_still_to_be_done_is_not(start: Start) -> None:
    house = await start(**only("tiktok"))
    await house.post("/api/v1/autonomy/tiktok", level="suggest", reason="test")
    await house.run(3)
    desk, now = house.agent.governor.desk, house.clock.now()
    one, other = list(desk.open.values())[:2]
    await desk.decline(one.suggestion_id, "test", "", now)
    facts = '{"shift_id": "not begun"}'
    columns = "kind, subject, connector, why, held_by, changes, made_at, expires_at"

    def approved_shift(connection: sqlite3.Connection) -> None:
        connection.execute(
            f"INSERT INTO suggestions (suggestion_id, {columns}, state, decided_at, facts)"
            " SELECT 'shift', 'shift', 's', connector, why, held_by, changes, made_at, expires_at, 'approved', ?, ?"
            " FROM suggestions WHERE suggestion_id = ?",
            (now, facts, other.suggestion_id),
        )

    await house.agent.store.write(approved_shift)
    ended_so_far = "SELECT count(*) FROM suggestions WHERE state <> 'open' AND kind = 'change'"
    assert house.rows(ended_so_far)[0][0] > 0
    desk.tidy(Instant(now + 89 * DAY_HOURS * HOUR))
    await house.agent.store.drain()
    assert desk._declined == {}
    assert house.rows(ended_so_far)[0][0] > 0
    desk.tidy(Instant(now + 91 * DAY_HOURS * HOUR))
    await house.agent.store.drain()
    assert house.rows("SELECT suggestion_id FROM suggestions WHERE decided_at = ?", now) == [("shift",)]
    assert house.rows("SELECT count(*) FROM ledger_entries WHERE kind = 'suggestion'")[0][0] > 0


async def test_a_new_wish_that_comes_while_one_is_approved_is_another_suggestion(start: Start) -> None:
    house = await start(**only("tiktok"))
    await house.post("/api/v1/autonomy/tiktok", level="suggest", reason="test")
    await house.run(3)
    desk, now = house.agent.governor.desk, house.clock.now()
    one = next(each for each in desk.open.values() if each.changes[0].kind == "adjust_bid")
    (change,) = one.changes
    asked = asyncio.create_task(desk.approve(one.suggestion_id, "test", "", now))
    await asyncio.sleep(0)
    assert one.subject not in desk.open
    assert not asked.done()
    far = Intent(
        "far", IntentKind.ADJUST_BID, "tiktok", change.campaign_id, change.before, change.after * 3, "USD", "t", now
    )
    other = desk.suggest([far], "SUGGEST", "test", now)
    assert other is not None
    assert (await asked)[0].state == "approved"
    assert desk.open[one.subject] is other
    states = house.rows("SELECT state FROM suggestions WHERE subject = ?", one.subject)
    assert sorted(state for (state,) in states if state != "replaced") == ["approved", "open"]


async def test_an_approval_that_cannot_be_written_leaves_the_suggestion_open(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start(**only("tiktok"))
    await house.post("/api/v1/autonomy/tiktok", level="suggest", reason="test")
    await house.run(3)
    desk = house.agent.governor.desk
    one = next(iter(desk.open.values()))

    async def full(*given: object) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(desk.orders, "make", full)
        await house.post(f"/api/v1/suggestions/{one.suggestion_id}/approve", 503)
    assert desk.open[one.subject] is one
    assert house.effects.all == []
    await house.post(f"/api/v1/suggestions/{one.suggestion_id}/approve")
    assert len(house.effects.all) == 1


async def test_a_declined_pause_is_not_suggested_again(start: Start) -> None:
    house = await start(**only("tiktok"))
    await house.run(1)
    each, now, desk = house.campaign("tiktok"), house.clock.now(), house.agent.governor.desk
    pause = Intent("k", IntentKind.SET_STATUS, "tiktok", each.campaign_id, 1, 0, "USD", "test", now)
    made = desk.suggest([pause], "SUGGEST", "test", now)
    assert made is not None
    await desk.decline(made.suggestion_id, "test", "", now)
    assert desk.suggest([pause], "SUGGEST", "test", now) is None
