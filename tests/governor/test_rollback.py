"""Putting back one change, a shift, a day: lowering first, only what still stands, through the same checks."""

from __future__ import annotations

import pytest

from kiki_agent.model import local_day
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.faults import Fault

from .conftest import Start
from .rig import House


async def shifted(start: Start) -> House:
    """An agent that has moved budget once."""
    house = await start()
    await house.run(12)
    assert house.rows("SELECT state FROM shifts") == [("done",)]
    return house


def stands(house: House) -> list[tuple[str, int]]:
    """Every daily budget, as the agent knows it and the market states it: shared ones once."""
    market = house.market.control[at.BUDGET]
    known = [
        (each.budget_id or each.campaign_id, each.daily_budget_micros) for each in house.agent.accounts.campaigns()
    ]
    assert sum(dict(known).values()) == int(market.sum())
    return sorted(set(known))


def at_first(house: House) -> list[tuple[str, int]]:
    """The same before the first change."""
    now = dict(stands(house))
    changed = house.rows("SELECT coalesce(nullif(budget_id, ''), campaign_id), before FROM intents"
                         " WHERE kind = 'set_budget' ORDER BY sent_at DESC, settled_at DESC")  # fmt: skip
    first = now | dict(changed)
    assert sum(first.values()) == int(house.budgets.sum())
    return sorted(first.items())


async def test_a_shift_is_put_back_as_a_batch_lowering_first(start: Start) -> None:
    house = await shifted(start)
    ((shift,),) = house.rows("SELECT shift_id FROM shifts")
    moved = stands(house)
    preview = await house.post("/api/v1/rollback", batch=shift, preview=True)
    assert (preview["order"], preview["refused"]) == (None, [])
    assert stands(house) == moved
    done = await house.post("/api/v1/rollback", batch=shift)
    assert done["order"]["state"] == "done"
    assert done["changes"] == preview["changes"]
    assert stands(house) == at_first(house)
    order = done["order"]["order_id"]
    rows = house.rows("SELECT key FROM intents WHERE cause = ?", order)
    assert len(rows) == len(done["changes"])
    kinds = [effect.after < effect.before for effect in house.effects.all if effect.kind == "set_budget"][-len(rows) :]
    assert kinds == sorted(kinds, reverse=True)  # every lowering before every raise
    # again: nothing to do; and the agent leaves the levers alone
    await house.post("/api/v1/rollback", 409, batch=shift)
    await house.run(30)
    assert stands(house) == at_first(house)
    assert {each["source"] for each in (await house.get("/api/v1/levers"))["items"]} == {"rollback"}
    # the roll back itself can be put back too
    assert (await house.post("/api/v1/rollback", batch=order))["order"]["state"] == "done"
    assert stands(house) == moved


async def test_one_change_by_its_key_and_a_day(start: Start) -> None:
    house = await start()
    await house.run(30)
    key, connector, name, before, after = house.rows(
        "SELECT key, connector, campaign_id, before, after FROM intents WHERE kind = 'adjust_bid'"
        " AND state = 'accepted' ORDER BY sent_at DESC LIMIT 1"
    )[0]
    done = await house.post("/api/v1/rollback", change=key)
    assert done["order"]["state"] == "done"
    assert [(each["campaign_id"], each["lever"]) for each in done["changes"]] == [(name, "bid")]
    row = house.agent.accounts.table.index[connector, name]
    assert int(house.agent.accounts.table.bid_micros[row]) == before != after
    day = local_day(house.clock.now(), "UTC")
    whole = await house.post("/api/v1/rollback", day=day)
    assert whole["order"]["state"] == "done"
    assert stands(house) == at_first(house)
    await house.post("/api/v1/rollback", 404, day="2020-01-01")
    await house.post("/api/v1/rollback", 404, change="nothing")


def edit(house: House, connector: str, name: str, by: int) -> tuple[int, int]:
    """Somebody moves a budget; its index in the market and what it is now."""
    campaign = house.agent.accounts.table.rows[house.agent.accounts.table.index[connector, name]]
    (index,) = (house.market.control[at.BUDGET] == campaign.daily_budget_micros).nonzero()[0].tolist()
    house.edit(index, at.BUDGET, campaign.daily_budget_micros + by)
    return index, campaign.daily_budget_micros + by


HALF = "SELECT key, connector, campaign_id FROM intents WHERE cause = ? AND state = 'accepted' AND "


async def test_what_somebody_moved_since_is_left_as_it_is(start: Start) -> None:
    house = await shifted(start)
    ((shift,),) = house.rows("SELECT shift_id FROM shifts")
    _, connector, name = house.rows(HALF + "after < before LIMIT 1", shift)[0]
    index, theirs = edit(house, connector, name, 3_000_000)
    await house.run(6)
    done = await house.post("/api/v1/rollback", batch=shift)
    assert [(each["change"]["campaign_id"], each["reason"]) for each in done["refused"]] == [(name, "MOVED")]
    assert int(house.market.control[at.BUDGET, index]) == theirs


@pytest.mark.parametrize("by", [3_000_000, -1_000_000])
async def test_nothing_is_raised_when_what_should_be_lowered_has_moved(start: Start, by: int) -> None:
    house = await shifted(start)
    ((shift,),) = house.rows("SELECT shift_id FROM shifts")
    _, connector, name = house.rows(HALF + "after > before LIMIT 1", shift)[0]
    edit(house, connector, name, by)
    await house.run(6)
    before = house.market.control[at.BUDGET].copy()
    givers = sorted(each[2] for each in house.rows(HALF + "after < before", shift))
    preview = await house.post("/api/v1/rollback", batch=shift, preview=True)
    refused = sorted((each["reason"], each["change"]["campaign_id"]) for each in preview["refused"])
    assert refused == [("MOVED", name), *(("SUM", each) for each in givers)]
    if preview["changes"]:
        done = await house.post("/api/v1/rollback", batch=shift)
        assert done["order"]["state"] == "done"
    else:
        told = await house.post("/api/v1/rollback", 409, batch=shift)
        assert (told["code"], "no budget is raised" in told["detail"]) == ("SUM", True)
    assert bool((house.market.control[at.BUDGET] <= before).all())


async def test_one_half_of_a_shift_is_not_put_back_by_a_raise(start: Start) -> None:
    house = await shifted(start)
    ((shift,),) = house.rows("SELECT shift_id FROM shifts")
    moved = stands(house)
    key = house.rows(HALF + "after < before LIMIT 1", shift)[0][0]
    assert (await house.post("/api/v1/rollback", 409, change=key))["code"] == "SUM"
    assert stands(house) == moved
    key = house.rows(HALF + "after > before LIMIT 1", shift)[0][0]
    assert (await house.post("/api/v1/rollback", change=key))["order"]["state"] == "done"
    assert sum(dict(stands(house)).values()) < sum(dict(moved).values())


async def test_nothing_is_raised_when_the_lowering_fails(start: Start) -> None:
    house = await shifted(start)
    ((shift,),) = house.rows("SELECT shift_id FROM shifts")
    moved = stands(house)
    taker = house.rows("SELECT connector FROM intents WHERE cause = ? AND after > before LIMIT 1", shift)[0][0]
    house.faults.order(Fault.FAILED, path=f"/v1/{taker}/budgets", times=50)
    done = await house.post("/api/v1/rollback", batch=shift)
    assert done["order"]["state"] == "failed"
    assert "lowered first" in done["order"]["note"]
    assert stands(house) == moved


async def test_an_order_that_waits_for_an_answer_goes_on_after_a_restart(start: Start) -> None:
    house = await shifted(start)
    ((shift,),) = house.rows("SELECT shift_id FROM shifts")
    taker = house.rows("SELECT connector FROM intents WHERE cause = ? AND after > before LIMIT 1", shift)[0][0]
    house.faults.order(Fault.ERROR, path=f"/v1/{taker}/budgets", times=1)
    done = await house.post("/api/v1/rollback", batch=shift)
    total = int(house.market.control[at.BUDGET].sum())
    assert total <= int(house.budgets.sum())
    state = done["order"]["state"]
    house = await house.again()
    await house.run(5)
    rows = house.rows("SELECT state FROM orders")
    if state == "open":
        assert rows in ([("done",)], [("partial",)], [("failed",)])
    assert int(house.market.control[at.BUDGET].sum()) <= int(house.budgets.sum())


async def test_what_is_only_watched_stays_and_the_rest_goes_back(start: Start) -> None:
    house = await start()
    await house.run(30)
    day = local_day(house.clock.now(), "UTC")
    await house.post("/api/v1/autonomy/meta", level="watch")
    for wish in ({"preview": True}, {}):
        told = await house.post("/api/v1/rollback", day=day, **wish)
        left = [each for each in told["refused"] if each["change"]["connector"] == "meta"]
        assert left
        assert {each["reason"] for each in left} == {"WATCH"}
        assert told["changes"]
        assert "meta" not in {each["connector"] for each in told["changes"]}
    assert told["order"]["state"] == "done"
    ((written,),) = house.rows("SELECT count(*) FROM intents WHERE connector = 'meta' AND cause = ?",
                               told["order"]["order_id"])  # fmt: skip
    assert written == 0
    refused = await house.post("/api/v1/rollback", 409, day=day)
    assert (refused["code"], "meta is only watched" in refused["detail"]) == ("WATCH", True)


async def test_bad_wishes(start: Start) -> None:
    house = await start()
    wrong: tuple[dict[str, object], ...] = (
        {}, {"day": "yesterday"}, {"day": "2026-2-1"}, {"change": "a", "batch": "b"}, {"change": ""}, {"week": "1"},
    )  # fmt: skip
    for body in wrong:
        await house.post("/api/v1/rollback", 422, **body)
    await house.post("/api/v1/autonomy/tiktok", level="watch")
    assert house.rows("SELECT count(*) FROM orders") == [(0,)]
