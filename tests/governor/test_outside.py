"""Edits of others at the platforms: told apart from our own, on record, respected, never overwritten."""

from __future__ import annotations

import json
from dataclasses import replace

from kiki_agent.errors import Denied
from kiki_agent.model import HOUR, Campaign, Instant, Intent, IntentKind, Outcome, intent_key
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.faults import Fault
from tests.agent.world import weather

from .conftest import Start
from .rig import House, only

UNIT = 1_000_000


async def test_a_budget_somebody_else_set_is_on_record_and_left_alone(start: Start) -> None:
    house = await start(**only("tiktok"))
    campaign = house.campaign("tiktok")
    index = house.index(campaign)
    theirs = campaign.daily_budget_micros + 7 * UNIT
    house.edit(index, at.BUDGET, theirs)
    await house.run(6)
    edits = await house.get("/api/v1/external-edits")
    assert [(each["connector"], each["campaign_id"], each["lever"]) for each in edits["items"]] == [
        ("tiktok", campaign.campaign_id, "budget")
    ]
    (body,) = house.rows("SELECT body FROM ledger_entries WHERE kind = 'external'")
    facts = json.loads(body[0])
    assert (facts["before"], facts["after"], facts["source"]) == (campaign.daily_budget_micros, theirs, "outside")
    holds = await house.get("/api/v1/levers")
    assert [each["source"] for each in holds["items"]] == ["outside"]
    governor, now = house.agent.governor, house.clock.now()
    for after in (theirs - UNIT, theirs + UNIT):
        assert reason(house, budget(campaign, theirs, after, now)) == "OUTSIDE_EDIT"
    assert int(house.market.control[at.BUDGET, index]) == theirs
    # and a day later the lever is the agent's again
    house.clock.instant = Instant(now + 24 * HOUR)
    assert governor.end_holds(house.clock.now()) == 1
    assert (await house.get("/api/v1/levers"))["total"] == 0


def budget(campaign: Campaign, before: int, after: int, now: Instant, cause: str = "") -> Intent:
    connector, name = campaign.connector, campaign.campaign_id
    key = intent_key(connector, name, IntentKind.SET_BUDGET, now, cause)
    return Intent(key, IntentKind.SET_BUDGET, connector, name, before, after, "USD", "test", now, cause)


def reason(house: House, intent: Intent) -> str:
    try:
        house.agent.governor.may_change(intent, house.clock.now())
    except Denied as denied:
        return str(denied.reason)
    return "yes"


async def test_a_bid_somebody_else_set_stands_while_the_agent_bids_for_the_others(start: Start) -> None:
    house = await start(**only("linkedin"))
    await house.run(3)
    campaign = house.campaign("linkedin")
    index = house.index(campaign)
    theirs = campaign.bid_micros + 40_000
    house.edit(index, at.BID, theirs)
    await house.run(40)
    assert [each["lever"] for each in (await house.get("/api/v1/external-edits"))["items"]] == ["bid"]
    assert int(house.market.control[at.BID, index]) == theirs
    mine = house.rows(
        "SELECT count(*) FROM intents WHERE connector = 'linkedin' AND campaign_id = ? AND kind = 'adjust_bid'"
        " AND sent_at > (SELECT at FROM external_edits)",
        campaign.campaign_id,
    )
    assert mine == [(0,)]
    assert house.rows("SELECT count(*) > 0 FROM intents WHERE connector = 'linkedin' AND kind = 'adjust_bid'") == [(1,)]
    decided = await house.get(f"/api/v1/decisions?campaign_id={campaign.campaign_id}")
    assert decided["items"][0]["reason"] == "LEFT_ALONE"
    # a safety cut still goes below, and what was cut comes back to what the other one wanted
    await house.post("/admin/kill-switch", on=True, reason="test")
    await house.run(2)
    assert int(house.market.control[at.ACTIVE, index]) == 0
    await house.post("/admin/kill-switch", on=False, reason="over")
    await house.run(4)
    assert (int(house.market.control[at.ACTIVE, index]), int(house.market.control[at.BID, index])) == (1, theirs)


async def test_a_campaign_somebody_paused_stays_paused_and_one_they_resumed_runs(start: Start) -> None:
    house = await start(**only("amazon"))
    await house.run(3)
    campaign = house.campaign("amazon")
    index = house.index(campaign)
    house.edit(index, at.ACTIVE, 0)
    await house.run(30)
    assert int(house.market.control[at.ACTIVE, index]) == 0
    house.edit(index, at.ACTIVE, 1)
    await house.run(30)
    assert int(house.market.control[at.ACTIVE, index]) == 1
    edits = (await house.get("/api/v1/external-edits"))["items"]
    assert [(each["lever"], each["after"]) for each in edits] == [("status", "active"), ("status", "paused")]


async def test_pin_and_unpin(start: Start) -> None:
    house = await start(**only("tiktok"))
    campaign = house.campaign("tiktok")
    lever = {"connector": "tiktok", "campaign_id": campaign.campaign_id, "lever": "budget"}
    await house.post("/api/v1/levers/unpin", 404, **lever)
    pinned = await house.post("/api/v1/levers/pin", **lever)
    assert (pinned["source"], pinned["until"]) == ("pinned", None)
    stands = campaign.daily_budget_micros
    assert reason(house, budget(campaign, stands, stands - UNIT, house.clock.now())) == "PINNED"
    house = await house.again()
    assert reason(house, budget(campaign, stands, stands - UNIT, house.clock.now())) == "PINNED"
    await house.post("/api/v1/levers/unpin", **lever)
    assert reason(house, budget(campaign, stands, stands - UNIT, house.clock.now())) == "yes"
    for wrong in ({**lever, "lever": "colour"}, {**lever, "connector": ""}, {"lever": "bid"}):
        await house.post("/api/v1/levers/pin", 422, **wrong)
    await house.post("/api/v1/levers/pin", 404, **{**lever, "campaign_id": "nobody"})
    kinds = [json.loads(body)["on"] for (body,) in house.rows(
        "SELECT body FROM ledger_entries WHERE kind = 'control' AND json_extract(body, '$.control') = 'lever_hold'"
        " ORDER BY seq"
    )]  # fmt: skip
    assert kinds == [True, False]


async def test_our_own_changes_are_nobody_elses(start: Start) -> None:
    """Lost answers and late settlements are not edits of others."""
    house = await start()
    weather(house.faults)
    await house.run(60)
    outcomes = dict(house.rows("SELECT outcome_reason, count(*) FROM intents GROUP BY 1"))
    assert outcomes.get("IN_FORCE", 0) > 0
    assert outcomes.get("NOT_APPLIED", 0) > 0
    assert house.rows("SELECT count(*) FROM external_edits") == [(0,)]


async def test_an_unknown_change_of_a_shared_budget_is_nobody_elses(start: Start) -> None:
    """The others that spend from it state the new value before we know that it was ours."""
    house = await start(**only("meta"))
    shared = next(each for each in house.agent.accounts.campaigns("meta") if each.budget_id)
    others = [each for each in house.agent.accounts.campaigns("meta") if each.budget_id == shared.budget_id]
    assert len(others) > 1
    house.faults.order(Fault.GARBAGE, path="/meta/v", times=1)
    stands = shared.daily_budget_micros
    wish = replace(budget(shared, stands, stands - UNIT, house.clock.now(), "a person"), budget_id=shared.budget_id)
    (receipt,) = await house.agent.outbox.send(house.clock.now(), "meta", IntentKind.SET_BUDGET, [wish])
    assert receipt.outcome is Outcome.UNKNOWN
    assert house.agent.outbox.unsettled_budget("meta", shared.budget_id)
    stated = [replace(each, daily_budget_micros=stands - UNIT) for each in house.agent.accounts.campaigns("meta")
              if each.budget_id == shared.budget_id]  # fmt: skip
    for each in stated:
        assert house.agent.accounts.levers.judge(each, house.clock.now())[1] == []
    await house.run(8)
    assert house.agent.outbox.unsettled_count == 0
    assert house.rows("SELECT count(*) FROM external_edits") == [(0,)]


async def test_a_huge_budget_is_told_loudly_and_neither_starves_nor_thrashes_its_platform(start: Start) -> None:
    house = await start(**only("tiktok"))
    await house.run(12)
    news = house.agent.signals.subscribe(["news"], maxsize=1_000)
    campaign = house.campaign("tiktok")
    index, begun = house.index(campaign), house.clock.now()
    house.edit(index, at.BUDGET, 900_000 * UNIT)
    await house.run(75)
    assert int(house.market.control[at.BUDGET, index]) == 900_000 * UNIT, "it is not set back"
    told = [each.data for each in news.drain() if "somebody else" in str(each.data["title"])]
    assert [each["severity"] for each in told] == ["CRITICAL"]
    assert "above the platform's cap of a day, 3000.00" in str(told[0]["message"])
    sent = "SELECT count(*) FROM intents WHERE sent_at > ? AND (kind = 'set_status' OR reason LIKE '%CAP')"
    assert house.rows(sent, begun) == [(0,)]
    assert house.agent.accounts.table.active.all()
    planned, cap = house.agent.accounts.table.pace_budget_micros, 3_000 * UNIT
    assert int(planned.sum()) <= cap


async def test_a_raise_beyond_what_the_agent_would_do_is_a_warning(start: Start) -> None:
    house = await start(**only("tiktok"))
    await house.run(2)
    news = house.agent.signals.subscribe(["news"], maxsize=1_000)
    campaign = house.campaign("tiktok")
    for times, severity in ((5, "INFO"), (6, "WARNING")):
        stands = house.campaign("tiktok").daily_budget_micros
        house.edit(house.index(house.campaign("tiktok")), at.BUDGET, stands * times)
        await house.reread("tiktok")
        assert [each.data["severity"] for each in news.drain()] == [severity]
    assert house.campaign("tiktok").campaign_id == campaign.campaign_id


async def test_what_somebody_resumes_right_after_a_kill_is_stopped_again(start: Start) -> None:
    """The read may be late or the campaign may run: another pause does no harm, and waiting might."""
    house = await start(**only("tiktok"))
    await house.run(3)
    campaign = house.campaign("tiktok")
    index = house.index(campaign)
    await house.post("/admin/kill-switch", on=True, reason="test")
    await house.run(1)
    assert int(house.market.control[at.ACTIVE, index]) == 0
    house.edit(index, at.ACTIVE, 1)
    await house.run(6)
    assert int(house.market.control[at.ACTIVE, index]) == 0
    pauses = "SELECT reason, state FROM intents WHERE campaign_id = ? AND kind = 'set_status' ORDER BY at"
    assert house.rows(pauses, campaign.campaign_id) == [("KILL_SWITCH", "accepted")] * 2
    await house.run(30)
    assert len(house.rows(pauses, campaign.campaign_id)) == 2, "not again and again"
