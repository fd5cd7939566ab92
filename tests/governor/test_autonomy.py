"""The ladder: a fresh live agent writes nothing; people raise it; breaches lower it; suggestions and signed links."""

from __future__ import annotations

import html
import json
import re

import pytest

from kiki_agent.config import Mode
from kiki_agent.governor import links
from kiki_agent.model import HOUR, SECOND, Instant
from kiki_agent.sandbox import layout as at
from kiki_agent.shield import Caps

from .conftest import Start
from .rig import KEY, House, only


async def set_all(house: House, level: str, **more: object) -> None:
    for connector in house.agent.governor.connectors:
        await house.post(f"/api/v1/autonomy/{connector}", level=level, reason="test", **more)


async def test_a_fresh_live_agent_writes_nothing_until_a_person_raises_it(start: Start) -> None:
    house = await start(mode=Mode.LIVE, **only("tiktok", "linkedin", "meta"))
    levels = await house.get("/api/v1/autonomy")
    assert {each["level"] for each in levels["items"]} == {"watch"}
    before = house.market.control[: at.SPENT].copy()
    await house.run(20)
    assert house.effects.all == []
    assert (house.market.control[: at.SPENT] == before).all()
    assert house.rows("SELECT count(*) FROM intents") == [(0,)]
    kinds = dict(house.rows("SELECT kind, count(*) FROM ledger_entries GROUP BY 1"))
    assert kinds["would_have"] > 0
    # neither by hand nor by the kill switch
    bid = await house.post(
        "/api/v1/bids", campaign_id=house.campaign("tiktok").campaign_id, platform="tiktok", bid_amount=0.5
    )
    assert bid["status"] == "REJECTED"
    await house.post("/admin/kill-switch", on=True, reason="test")
    await house.run(2)
    assert house.effects.all == []
    await house.post("/admin/kill-switch", on=False, reason="test")
    # a person raises one platform, and only that one is written to, also after a restart
    await house.post("/api/v1/autonomy/tiktok", level="act", reason="it watched well")
    house = await house.again()
    await house.run(20)
    assert {each.platform for each in house.effects.all} == {"tiktok"}
    (row,) = house.rows(
        "SELECT body FROM ledger_entries WHERE kind = 'control' AND json_extract(body, '$.control') = 'autonomy'"
    )
    said = json.loads(row[0])
    assert (said["before"], said["level"], said["by"], said["reason"]) == ("watch", "act", "http", "it watched well")


async def test_simulations_run_at_the_top(start: Start) -> None:
    for mode in (Mode.BACKTEST, Mode.DEMO, Mode.DRY_RUN):
        house = await start(mode=mode, **only("tiktok"))
        assert {each["level"] for each in (await house.get("/api/v1/autonomy"))["items"]} == {"act"}


async def test_what_is_suggested_is_done_when_a_person_approves(start: Start) -> None:
    house = await start(**only("tiktok", "linkedin"))
    await set_all(house, "suggest")
    await house.run(25)
    assert house.effects.all == []
    found = await house.get("/api/v1/suggestions?state=open&limit=500")
    assert found["total"] == len(found["items"]) > 3
    one, other, third = [each for each in found["items"] if each["kind"] == "change"][:3]
    assert one["held_by"] == "SUGGEST"
    done = await house.post(f"/api/v1/suggestions/{one['suggestion_id']}/approve", comment="fine")
    assert (done["suggestion"]["state"], done["order"]["state"]) == ("approved", "done")
    assert len(house.effects.all) == 1
    change = one["changes"][0]
    assert house.rows("SELECT campaign_id, state FROM intents") == [(change["campaign_id"], "accepted")]
    await house.post(f"/api/v1/suggestions/{one['suggestion_id']}/approve", 409)
    await house.post(f"/api/v1/suggestions/{other['suggestion_id']}/decline", comment="no")
    await house.post(f"/api/v1/suggestions/{other['suggestion_id']}/approve", 409)
    await house.post("/api/v1/suggestions/nothing/approve", 404)
    # what was declined is not suggested again at once
    await house.run(25)
    again = await house.get("/api/v1/suggestions?state=open&limit=500")
    declined = other["changes"][0]
    same = [
        each["changes"][0] for each in again["items"] if each["changes"][0]["campaign_id"] == declined["campaign_id"]
    ]
    for each in same:  # another wish for the same lever is another matter
        assert abs(float(each["after"]) - float(declined["after"])) >= 0.24 * float(declined["after"])
    # a suggestion whose account has moved is stale, and cannot be approved
    still = {each["suggestion_id"] for each in again["items"]}
    if third["suggestion_id"] in still:
        campaign = next(
            each
            for each in house.agent.accounts.campaigns(third["connector"])
            if each.campaign_id == third["changes"][0]["campaign_id"]
        )
        house.edit(house.index(campaign), at.BID, campaign.bid_micros + 50_000)
        await house.run(6)
        await house.post(f"/api/v1/suggestions/{third['suggestion_id']}/approve", 409)
        assert house.rows("SELECT state FROM suggestions WHERE suggestion_id = ?", third["suggestion_id"]) == [
            ("stale",)
        ]


async def test_an_approved_shift_is_carried_out_and_recorded_as_any_other(start: Start) -> None:
    house = await start()
    await set_all(house, "suggest")
    await house.run(15)
    found = await house.get("/api/v1/suggestions?state=open&limit=500")
    (shift,) = [each for each in found["items"] if each["kind"] == "shift"][:1]
    before = house.market.control[at.BUDGET].sum()
    path = (await house.post(f"/api/v1/suggestions/{shift['suggestion_id']}/link", verb="approve"))["path"]
    seen = html.unescape(await (await house.client.get(path)).text())
    assert re.search(r"Move [\d.]+ USD a day from \w+.* to \w+", seen)
    assert seen.count(" USD a day</li>") == len(shift["changes"])
    done = await house.post(f"/api/v1/suggestions/{shift['suggestion_id']}/approve")
    assert done["sentence"] == "Approved; the optimizer begins the shift with its next cycle, lowering first."
    await house.run(11)
    moved = await house.get("/api/v1/ledger/reallocations")
    assert moved["total"] == 1
    assert house.rows("SELECT state FROM shifts") == [("done",)]
    assert house.market.control[at.BUDGET].sum() == before
    assert {each.kind for each in house.effects.all} == {"set_budget"}


async def test_a_signed_link_decides_one_suggestion_once(start: Start) -> None:
    house = await start(**only("tiktok", "linkedin"))
    await set_all(house, "suggest")
    await house.run(20)
    found = await house.get("/api/v1/suggestions?state=open&limit=500")
    one = next(each for each in found["items"] if each["kind"] == "change")
    path = (await house.post(f"/api/v1/suggestions/{one['suggestion_id']}/link", verb="approve"))["path"]
    seen = await house.client.get(path)
    text = await seen.text()
    assert seen.status == 200
    assert "<form" in text
    (change,) = one["changes"]
    label = {"tiktok": "TikTok", "linkedin": "LinkedIn"}[change["connector"]]
    named = next(each for each in house.agent.accounts.campaigns() if each.campaign_id == change["campaign_id"]).name
    words = html.unescape(text)
    assert f"“{named}” at {label} ({change['campaign_id']}): {change['before']} → {change['after']} USD" in words
    assert f"It can be decided until {one['expires_at']}" in words
    assert "Why: " in words
    assert house.effects.all == []  # looking decides nothing
    used = await house.client.post(path, data={"confirm": "yes"})
    assert (used.status, used.content_type) == (200, "text/html")
    assert "Approved; the change is done." in await used.text()
    assert len(house.effects.all) == 1
    used = await house.client.post(path, data={"confirm": "yes"})
    assert (used.status, used.content_type) == (409, "text/html")
    assert re.search("approved already", await used.text())
    assert len(house.effects.all) == 1
    for wrong in (path[:-1] + ("0" if path[-1] != "0" else "1"), path.replace("approve.", "decline."), "/approvals/x"):
        for answer in (await house.client.get(wrong), await house.client.post(wrong, data={"confirm": "yes"})):
            assert (answer.status, answer.content_type) == (403, "text/html")
            assert "<form" not in await answer.text()
    house.clock.instant = Instant(house.clock.now() + 25 * HOUR)
    assert (await house.client.get(path)).status == 403


def test_a_token_says_what_it_allows_and_nothing_else() -> None:
    expires = Instant(1_000 * SECOND)
    token = links.sign(KEY, "abc", "decline", expires)
    allowed = links.read(KEY, token, Instant(0))
    assert allowed is not None
    assert (allowed.suggestion_id, allowed.verb, allowed.expires_at) == ("abc", "decline", expires)
    assert links.read(KEY, token, expires) is None
    assert links.read(bytes(32), token, Instant(0)) is None
    for position in range(len(token)):
        broken = token[:position] + chr(ord(token[position]) ^ 1) + token[position + 1 :]
        assert links.read(KEY, broken, Instant(0)) is None


async def test_at_act_limited_the_net_change_of_a_day_has_a_cap(start: Start) -> None:
    house = await start(**only("tiktok", "linkedin", "amazon"))
    await set_all(house, "act_limited", limit=0.05)
    budgets = {name: house.agent.accounts.budget_micros(name) for name in house.agent.governor.connectors}
    bids = {each.campaign_id: each.bid_micros for each in house.agent.accounts.campaigns("tiktok")}
    await house.run(60)
    assert house.effects.all
    for name, start_budget in budgets.items():
        assert abs(house.agent.accounts.budget_micros(name) - start_budget) <= 0.05 * start_budget
    for each in house.agent.accounts.campaigns("tiktok"):
        assert abs(each.bid_micros - bids[each.campaign_id]) <= 0.05 * bids[each.campaign_id]


async def test_above_a_threshold_a_shift_needs_approval_also_at_the_top(start: Start) -> None:
    house = await start(governor__approval_above="1")
    await house.run(15)
    assert house.rows("SELECT count(*) FROM intents WHERE kind = 'set_budget'") == [(0,)]
    found = await house.get("/api/v1/suggestions?state=open")
    assert {(each["kind"], each["held_by"]) for each in found["items"]} == {("shift", "APPROVAL")}
    await house.post(f"/api/v1/suggestions/{found['items'][0]['suggestion_id']}/approve")
    await house.run(11)
    assert (await house.get("/api/v1/ledger/reallocations"))["total"] == 1


@pytest.mark.parametrize(
    "wrong",
    [{"level": "boss"}, {}, {"level": "act", "limit": 0}, {"level": "act", "limit": 2}, {"level": "act", "x": 1}],
)
async def test_wrong_levels_are_refused_and_nothing_changes(start: Start, wrong: dict[str, object]) -> None:
    house = await start(**only("tiktok"))
    await house.post("/api/v1/autonomy/tiktok", 422, **wrong)
    await house.post("/api/v1/autonomy/nobody", 404, level="act")
    assert house.rows("SELECT count(*) FROM autonomy") == [(0,)]


async def test_a_breach_lowers_the_level_by_itself_and_tells(start: Start) -> None:
    house = await start(**only("meta", "google_ads"))
    await house.run(20)
    shield, now = house.agent.shield, house.clock.now()
    name = max(house.agent.governor.connectors, key=lambda each: shield.status(each, now).spent_today_micros)
    spent = shield.status(name, now).spent_today_micros
    assert spent > 100
    await shield.set_caps(name, Caps(spent // 2, spent), now)
    await house.run(2)
    levels = {each["connector"]: each for each in (await house.get("/api/v1/autonomy"))["items"]}
    assert (levels[name]["level"], levels[name]["set_by"]) == ("suggest", "agent")
    assert {each["level"] for each in levels.values() if each["connector"] != name} == {"act"}
    told = "SELECT count(*) FROM notifications WHERE title = ?"
    assert house.rows(told, f"{name}: the agent only suggests from now on") == [(1,)]
    # cuts for safety still go out there: nothing runs above its cap
    assert not house.agent.accounts.table.active[slice(*house.agent.accounts.table.bounds[name])].any()


async def test_a_raise_of_an_allocation_above_the_threshold_waits_for_a_person(start: Start) -> None:
    house = await start(governor__approval_above="100", **only("tiktok"))
    given = await house.post("/api/v1/allocate", 201, campaign_id="c1", budget=90)
    assert given["status"] == "active"
    asked = await house.post("/api/v1/allocate", 202, campaign_id="c1", budget=200, pacing="accelerated")
    assert (asked["status"], asked["budget"]) == ("pending_approval", 90)
    assert (await house.get("/api/v1/budget/c1"))["budget"] == 90
    again = await house.post("/api/v1/allocate", 202, campaign_id="c1", budget=300)
    await house.post(f"/api/v1/suggestions/{asked['suggestion_id']}/approve", 409)  # replaced
    waiting = await house.get("/api/v1/overview")
    assert [each["id"] for each in waiting["governor"]["suggestions"]] == [again["suggestion_id"]]
    (wish,) = (await house.get("/api/v1/suggestions?state=open"))["items"]
    assert wish["allocation"] == {"campaign_id": "c1", "before": "90.00", "after": "300.00", "currency": "USD"}
    path = (await house.post(f"/api/v1/suggestions/{again['suggestion_id']}/link", verb="approve"))["path"]
    assert "The allocation of c1: 90.00 → 300.00 USD" in await (await house.client.get(path)).text()
    done = await house.post(f"/api/v1/suggestions/{again['suggestion_id']}/approve")
    assert done["sentence"] == "Approved; the allocation of c1 is 300.00 USD now."
    assert (await house.get("/api/v1/budget/c1"))["budget"] == 300
    # one that the allocation has passed by is stale; lowering needs nobody; nonsense is refused before anybody is asked
    late = await house.post("/api/v1/allocate", 202, campaign_id="c1", budget=500)
    await house.post("/api/v1/allocate", 200, campaign_id="c1", budget=310)
    await house.post(f"/api/v1/suggestions/{late['suggestion_id']}/approve", 409)
    assert (await house.get("/api/v1/budget/c1"))["budget"] == 310
    await house.post("/api/v1/allocate", 200, campaign_id="c1", budget=50)
    await house.post("/api/v1/allocate", 422, campaign_id="c2", budget=500, currency="JPYX")
    slipped = await house.post("/api/v1/allocate", 409, campaign_id="c1", budget=501)
    assert slipped["code"] == "SLIPPED_DIGIT"
    above = await house.post("/api/v1/allocate", 409, campaign_id="c2", budget=1_000_001)
    assert above["code"] == "ABOVE_MAXIMUM"
    new = await house.post("/api/v1/allocate", 202, campaign_id="c2", budget=500)
    await house.post(f"/api/v1/suggestions/{new['suggestion_id']}/decline")
    assert (await house.client.get("/api/v1/budget/c2")).status == 404
