"""The first sentence, what needs a person, what was done, and the one snapshot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kiki_agent.model import HOUR, MINUTE, SECOND, Instant
from kiki_agent.runtime.supervisor import LoopHealth
from kiki_agent.web import Services
from kiki_agent.web.overview import ACTIONS
from kiki_agent.web.sentence import AlertFact, Facts, PlatformFact, Unstopped, needs, status_line

from .conftest import Client
from .fakes import NOON, FakeAccounts, FakeAlert, FakeAlerts, FakeOptimizer, FakePlugins, FakeRecords, FakeShield

WELL = Facts(
    now=NOON, starting=None, hold=None, frozen=(), troubled=(), killed=False, kill_reason=None, killed_at=None,
    platforms=(PlatformFact("meta", "Meta", None, None, True, None, Instant(NOON - 3 * HOUR), 30 * SECOND),),
    alerts=(), unknown=(), spend_period=60 * SECOND,
)  # fmt: skip


def said(facts: Facts) -> tuple[str, str, list[str]]:
    waiting = needs(facts)
    line = status_line(facts, waiting)
    return line.tone, line.sentence, [item.title for item in waiting]


def test_all_is_well() -> None:
    assert said(WELL) == ("good", "On plan. Nothing needs you.", [])


def test_starting_says_what_it_waits_for() -> None:
    tone, sentence, _ = said(replace(WELL, starting="the record is being opened"))
    assert (tone, sentence) == ("starting", "Starting: the record is being opened.")


def test_stopped_comes_before_everything() -> None:
    tone, sentence, titles = said(replace(WELL, killed=True, kill_reason="holiday", hold="disk full"))
    assert (tone, sentence.split(".")[0]) == ("stopped", "Stopped")
    assert titles == ["Spending is stopped", "The agent holds still to be safe"]


def test_a_stop_that_does_not_reach_everything_says_so_first() -> None:
    missed = Unstopped("meta", "Meta", 3, "it is only watched", "pause them by hand")
    tone, sentence, titles = said(replace(WELL, killed=True, unstopped=(missed,)))
    assert (tone, sentence) == ("bad", "Stopped, but not Meta: campaigns run on there. 2 things need you.")
    assert titles == ["Spending is stopped", "Meta is not stopped"]
    one = needs(replace(WELL, killed=True, unstopped=(replace(missed, running=1),)))[1].text
    assert one == "1 campaign runs on there: it is only watched. To stop it: pause them by hand."


def test_hold_and_freeze_are_told() -> None:
    assert said(replace(WELL, hold="disk full"))[:2] == ("bad", "On hold. Spending is not raised until this is cured.")
    assert "Disk full" in needs(replace(WELL, hold="disk full"))[0].text
    assert said(replace(WELL, frozen=("bidding",)))[2] == ["“bidding” does not run"]


def test_things_are_counted() -> None:
    one = replace(WELL, troubled=(("value", "no CRM"),))
    assert said(one)[1] == "Running. 1 thing needs you."
    two = replace(one, unknown=(("Meta", 3),))
    assert said(two)[1] == "Running. 2 things need you."


def test_a_fault_is_called_one() -> None:
    alert = AlertFact("a1", True, "Token expired", "Sign in again", NOON)
    tone, sentence, titles = said(replace(WELL, alerts=(alert,), troubled=(("value", "no CRM"),)))
    assert (tone, sentence) == ("bad", "Running, with a fault. 2 things need you.")
    assert titles[0] == "Token expired"


def test_platforms_that_need_a_person() -> None:
    meta = WELL.platforms[0]
    cases = {
        "Meta was put aside": replace(meta, quarantined="sys.exit"),
        "Meta has no daily cap": replace(meta, has_cap=False),
        "Meta cannot be read": replace(meta, lost="meta: the account is in EUR, the agent counts in USD (currency)"),
        "Meta has not reported for a while": replace(meta, silent_for=6 * MINUTE),
        "Meta spent 5.00 USD more than its cap": replace(meta, overshoot="5.00 USD"),
    }
    for title, platform in cases.items():
        assert said(replace(WELL, platforms=(platform,)))[2] == [title]


def test_a_platform_is_silent_only_after_a_while_however_far_behind_its_figures_are() -> None:
    meta = replace(WELL.platforms[0], spend_as_of=Instant(NOON - 12 * HOUR), silent_for=5 * MINUTE)
    assert said(replace(WELL, platforms=(meta,)))[:2] == ("good", "On plan. Nothing needs you.")


def test_a_wrong_account_needs_a_person_before_the_first_report() -> None:
    error = "meta: the account is in USD, the agent counts in EUR (currency)"
    wrong = replace(WELL, platforms=(replace(WELL.platforms[0], spend_as_of=None, lost=error),))
    assert said(wrong)[:2] == ("bad", "Running, with a fault. 1 thing needs you.")
    assert needs(wrong)[0].text.startswith(f"{error}. ")
    starting = said(replace(wrong, starting="the platforms are being read"))
    assert starting[:2] == ("bad", "Starting: the platforms are being read. 1 thing needs you.")


def test_before_the_first_report_nothing_is_claimed() -> None:
    meta = replace(WELL.platforms[0], spend_as_of=None)
    assert said(replace(WELL, platforms=(meta,)))[:2] == ("starting", "Reading your accounts. Nothing needs you.")


async def overview(client: Client) -> dict[str, object]:
    body: dict[str, object] = await (await client.get("/api/v1/overview")).json()
    return body


async def test_amounts_are_decimal_texts_and_add_up(client: Client) -> None:
    body = await overview(client)
    platforms = body["platforms"]
    totals = body["totals"]
    assert isinstance(platforms, list)
    assert isinstance(totals, dict)
    cents = sum(round(float(each["spent_today"]) * 100) for each in platforms)
    assert totals["spent_today"] == f"{cents / 100:.2f}"
    assert totals["budget_today"] == "2600.00"
    assert totals["cannot_say"] is None


async def test_one_number_has_one_value_everywhere(client: Client) -> None:
    body = await overview(client)
    efficiency = await (await client.get("/budget-efficiency")).json()
    connectors = await (await client.get("/api/v1/connectors")).json()
    status = await (await client.get("/status")).json()
    assert body["optimizer"]["average_efficiency"] == efficiency["average_efficiency"]  # type: ignore[index]
    assert body["optimizer"]["next_run"] == status["optimizer"]["next_run"]  # type: ignore[index]
    by_id = {each["id"]: each for each in connectors["items"]}
    details = {each["platform"]: each for each in efficiency["platform_details"]}
    for each in body["platforms"]:  # type: ignore[attr-defined]
        there = by_id[each["connector"]]
        assert float(each["spent_today"]) == there["spent_today"]
        assert float(each["budget"]) == there["daily_budget"]
        assert float(each["window"]["spent"]) == there["window"]["current_spend"]
        name = "PLATFORM_GOOGLE" if each["platform"] == "google_ads" else f"PLATFORM_{each['platform'].upper()}"
        assert each["efficiency"] == details[name]["efficiency"]


async def test_what_cannot_be_said_is_null_with_a_reason(client: Client, services: Services) -> None:
    assert isinstance(services.accounts, FakeAccounts)
    assert isinstance(services.optimizer, FakeOptimizer)
    services.accounts.as_of["meta"] = None
    services.optimizer.snapshot = None
    body = await overview(client)
    assert body["totals"]["spent_today"] is None  # type: ignore[index]
    assert body["totals"]["cannot_say"] == "Meta has not reported spend yet"  # type: ignore[index]
    meta = next(each for each in body["platforms"] if each["connector"] == "meta")  # type: ignore[attr-defined]
    assert meta["spent_today"] is None
    assert meta["spend_cannot_say"]
    assert meta["efficiency"] is None
    assert meta["efficiency_cannot_say"] == "the first comparison is still to come"


async def test_a_shift_is_told_once_with_both_budgets(client: Client) -> None:
    body = await overview(client)
    actions = body["actions"]
    assert isinstance(actions, list)
    (shift,) = [each for each in actions if each["kind"] == "shift"]
    assert shift["what"] == "Moved 60.00 USD a day from LinkedIn to TikTok"
    assert shift["changes"] == [
        {"name": "LinkedIn (3 campaigns)", "before": "360.00", "after": "300.00"},
        {"name": "TikTok (3 campaigns)", "before": "360.00", "after": "420.00"},
    ]
    assert "-22.4 %" in shift["why"]
    assert not [each for each in actions if each["kind"] == "budget"]
    times = [each["at"] for each in actions]
    assert times == sorted(times, reverse=True)


async def test_many_bids_hide_no_budget_move(client: Client, services: Services) -> None:
    assert isinstance(services.records, FakeRecords)
    bid = services.records.rows[0]
    services.records.rows = [
        replace(bid, intent=replace(bid.intent, key=f"k{number}", at=NOON), sent_at=NOON) for number in range(500)
    ] + services.records.rows[-6:]
    body = await overview(client)
    kinds = [each["kind"] for each in body["actions"]]  # type: ignore[attr-defined]
    assert kinds.count("bid") == ACTIONS
    assert kinds.count("shift") == 1
    assert body["bidding"]["bids_changed_today"] == 500  # type: ignore[index]


async def test_yesterday_is_not_today(client: Client, services: Services) -> None:
    assert isinstance(services.optimizer, FakeOptimizer)
    old = services.optimizer.recent_shifts[0]
    services.optimizer.recent_shifts = [replace(old, at=Instant(NOON - 20 * HOUR))]
    body = await overview(client)
    assert body["optimizer"]["shifts_today"] == 0  # type: ignore[index]


async def test_needs_come_from_everywhere(client: Client, services: Services) -> None:
    assert isinstance(services.plugins, FakePlugins)
    assert isinstance(services.shield, FakeShield)
    assert isinstance(services.alerts, FakeAlerts)
    services.plugins.instances["tiktok"].state = "quarantined"
    services.plugins.instances["tiktok"].error = "called sys.exit"
    services.shield.overshoot = 12_400_000
    services.alerts.items = [
        FakeAlert("n1", "WARNING", "LTV drifts", "Look at it", Instant(NOON - MINUTE)),
        FakeAlert("n2", "INFO", "Budget moved", "As planned", Instant(NOON - MINUTE)),
        FakeAlert("n3", "WARNING", "Read already", "Done", Instant(NOON - MINUTE), read_at=NOON),
        FakeAlert("n4", "WARNING", "Of last week", "Old", Instant(NOON - 100 * HOUR)),
    ]
    body = await overview(client)
    titles = [each["title"] for each in body["needs"]]  # type: ignore[attr-defined]
    assert titles == ["TikTok was put aside", "Meta spent 12.40 USD more than its cap", "LTV drifts"]


async def test_what_cannot_be_read_is_not_called_connected_anywhere(client: Client, services: Services) -> None:
    assert isinstance(services.accounts, FakeAccounts)
    assert (await (await client.get("/api/v1/connectors/meta")).json())["connected"] is True
    error = "meta: the account is in USD, the agent counts in EUR (currency)"
    services.accounts.lost["meta"] = error
    there = await (await client.get("/api/v1/connectors/meta")).json()
    assert (there["connected"], there["status_text"]) == (False, f"cannot be read: {error}")
    body = await overview(client)
    card = next(each for each in body["platforms"] if each["connector"] == "meta")  # type: ignore[attr-defined]
    assert (card["state"], card["note"]) == ("lost", error)
    (told,) = body["needs"]  # type: ignore[misc]
    assert (told["title"], error in told["text"]) == ("Meta cannot be read", True)


async def test_a_lost_platform_is_told_once(client: Client, services: Services) -> None:
    assert isinstance(services.accounts, FakeAccounts)
    assert services.supervisor is not None
    for name in ("poll:meta", "value"):
        loop = LoopHealth(name, essential=False, period=60 * SECOND, faulted=True, last_error="AuthExpired: sign in")
        services.supervisor.health[name] = loop
    services.accounts.lost["meta"] = "sign in"
    faulted = {"subject": "poll:meta"}
    services.alerts = FakeAlerts([FakeAlert("n1", "CRITICAL", "Reading meta does not work", "", NOON, None, faulted)])
    titles = [each["title"] for each in (await overview(client))["needs"]]  # type: ignore[attr-defined]
    assert titles == ["Meta cannot be read", "“value” keeps failing"]


@pytest.mark.parametrize("subject", ["hold", "frozen", "kill_switch", "kill_switch:meta"])
async def test_what_the_page_says_itself_is_not_said_of_it_once_it_is_over(
    client: Client, services: Services, subject: str
) -> None:
    told = FakeAlert("n1", "CRITICAL", "Safe hold: nothing is spent", "disk full", NOON, None, {"subject": subject})
    services.alerts = FakeAlerts([told])
    body = await overview(client)
    assert (body["needs"], body["status"]["tone"]) == ([], "good")  # type: ignore[index]


async def test_a_silent_platform_is_told_but_not_one_whose_figures_are_hours_behind(
    client: Client, services: Services
) -> None:
    assert isinstance(services.accounts, FakeAccounts)
    services.accounts.as_of["google_ads"] = Instant(NOON - 3 * HOUR)
    services.accounts.silent["tiktok"] = 6 * MINUTE
    titles = [each["title"] for each in (await overview(client))["needs"]]  # type: ignore[attr-defined]
    assert titles == ["TikTok has not reported for a while"]


async def test_stop_and_allow_again(client: Client, services: Services) -> None:
    assert isinstance(services.shield, FakeShield)
    await overview(client)
    stopped = await client.post("/admin/kill-switch", json={"on": True, "reason": "holiday"})
    assert (await stopped.json())["on"] is True
    body = await overview(client)
    assert body["status"]["tone"] == "stopped"  # type: ignore[index]
    assert body["stop"]["reason"] == "holiday"  # type: ignore[index]
    again = await (await client.post("/admin/kill-switch", json={"on": True, "reason": "other"})).json()
    assert again["reason"] == "holiday"
    await client.post("/admin/kill-switch", json={"on": False})
    assert (await overview(client))["status"]["tone"] == "good"  # type: ignore[index]
    assert services.shield.calls == ["kill True holiday", "kill False allowed by a person"]
    assert (await client.post("/admin/kill-switch", json={"on": "yes"})).status == 422


async def test_a_stop_holds_when_it_cannot_be_written(client: Client, services: Services) -> None:
    from kiki_agent.errors import StoreError

    shield = services.shield
    assert isinstance(shield, FakeShield)

    async def unwritable(on: bool, reason: str, now: Instant, by: str = "") -> None:
        shield.killed = shield.killed or on
        raise StoreError("disk full")

    shield.kill = unwritable  # type: ignore[method-assign]
    stopped = await client.post("/admin/kill-switch", json={"on": True})
    assert (stopped.status, (await stopped.json())["recorded"]) == (200, False)
    allowed = await client.post("/admin/kill-switch", json={"on": False})
    assert allowed.status == 503
    assert shield.killed


async def test_orders_to_tasks(client: Client, services: Services) -> None:
    assert services.supervisor is not None
    assert (await client.post("/admin/tasks/bidding/pause")).status == 202
    assert services.supervisor.health["bidding"].paused
    assert (await client.post("/admin/tasks/bidding/resume")).status == 202
    assert not services.supervisor.health["bidding"].paused
    assert (await client.post("/admin/tasks/bidding/restart")).status == 202
    assert services.supervisor.health["bidding"].restarts == 1
    answer = await client.post("/admin/tasks/nope/pause")
    assert (answer.status, (await answer.json())["code"]) == (404, "UNKNOWN_TASK")
    assert (await client.post("/admin/optimizer/run")).status == 409
    services.supervisor.waker = lambda name: name == "optimizer"
    assert (await client.post("/admin/optimizer/run")).status == 202
