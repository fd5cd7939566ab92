"""Who made an edit that was not ours: by the platform's own history, asked once for all, and left open where it is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kiki_agent.accounts import Lever, OutsideEdit
from kiki_agent.errors import RateLimited, Temporary, Unsupported
from kiki_agent.governor.authors import TRIES, Authors, author_of
from kiki_agent.hooks.edit import AccountEdit
from kiki_agent.hooks.results import check_for
from kiki_agent.model import MINUTE, Instant
from kiki_agent.sandbox import layout as at

from .conftest import Start
from .rig import House, only

UNIT = 1_000_000
NOON = Instant(1_800_000_000_000_000)
MAIL = "jane.doe@example.com"


async def edited(house: House, connector: str) -> tuple[int, str]:
    """Somebody raises a budget that no other campaign shares; returns its place on the desk and its id."""
    await house.run(1)
    campaign = next(each for each in house.agent.accounts.campaigns(connector) if not each.budget_id)
    index = house.index(campaign)
    house.edit(index, at.BUDGET, campaign.daily_budget_micros + 3 * UNIT)
    desk: Any = house.service.vendors[connector].account.desk  # type: ignore[attr-defined]
    return index - desk._first, campaign.campaign_id


@pytest.mark.parametrize(
    ("client", "source"),
    [
        ("GOOGLE_ADS_WEB_CLIENT", "person"),
        ("GOOGLE_ADS_RECOMMENDATIONS_SUBSCRIPTION", "vendor"),
        ("GOOGLE_ADS_SCRIPTS", "tool"),
        ("OTHER", "unknown"),
    ],
)
async def test_googles_history_says_who(start: Start, client: str, source: str) -> None:
    house = await start(**only("google_ads"))
    index, name = await edited(house, "google_ads")
    account: Any = house.service.vendors["google_ads"].account  # type: ignore[attr-defined]
    stands = account.budget_micros(index)
    event = replace(account.budget_event(index, stands), before=str(stands - 3 * UNIT), client=client, by=MAIL)
    account.note(event, house.clock.now())
    await house.run(12)
    (edit,) = (await house.get("/api/v1/external-edits"))["items"]
    assert (edit["campaign_id"], edit["source"], edit["through"]) == (name, source, client)
    assert edit["made_at"] <= edit["at"]
    seen, said = [json.loads(row[0]) for row in house.rows("SELECT body FROM ledger_entries WHERE kind = 'external'")]
    assert (seen["source"], said["source"], said["through"]) == ("outside", source, client)
    assert said["seen_at"] == house.rows("SELECT at FROM external_edits")[0][0]
    everything = house.database.read_bytes() + house.database.with_name("agent.db-wal").read_bytes()
    assert MAIL.encode() not in everything, "no address of a person is kept"


@pytest.mark.parametrize(
    ("actor", "application", "source", "through"),
    [
        ("100000000000777", "", "person", ""),
        ("0", "", "vendor", ""),
        ("100000000000777", "55", "tool", "app 55"),
    ],
)
async def test_metas_history_says_who(start: Start, actor: str, application: str, source: str, through: str) -> None:
    house = await start(**only("meta"))
    index, name = await edited(house, "meta")
    account: Any = house.service.vendors["meta"].account  # type: ignore[attr-defined]
    after = account.budget_micros(index) // account.minor
    account.note("update_ad_set_budget", int(name), after - 300, after, house.clock.now(), actor=actor,
                 application=application)  # fmt: skip
    await house.run(8)
    (edit,) = (await house.get("/api/v1/external-edits"))["items"]
    assert (edit["source"], edit["through"]) == (source, through)


async def test_a_history_that_lists_nothing_leaves_it_unknown_and_one_that_fails_leaves_it_outside(
    start: Start,
) -> None:
    house = await start(**only("google_ads"))
    await edited(house, "google_ads")
    await house.run(40)
    assert [each["source"] for each in (await house.get("/api/v1/external-edits"))["items"]] == ["unknown"]
    caller = house.agent.plugins.caller.to

    async def broken(instance: str, verb: str, *args: object) -> object:
        if verb == "fetch_edits":
            raise Temporary("the history cannot be read")
        return await caller(instance, verb, *args)

    house.agent.governor.authors.ask = broken
    await edited(house, "google_ads")
    await house.run(40)
    found = (await house.get("/api/v1/external-edits"))["items"]
    assert [each["source"] for each in found] == ["outside", "unknown"]


async def test_a_restarted_agent_still_asks(start: Start) -> None:
    house = await start(**only("google_ads"))
    index, _ = await edited(house, "google_ads")
    await house.reread("google_ads")
    account: Any = house.service.vendors["google_ads"].account  # type: ignore[attr-defined]
    event = account.budget_event(index, account.budget_micros(index))
    account.note(replace(event, client="GOOGLE_ADS_EDITOR", by=MAIL), house.clock.now())
    house = await house.again()
    await house.run(8)
    assert [each["source"] for each in (await house.get("/api/v1/external-edits"))["items"]] == ["person"]


def outside(name: str = "a", after: int = 7, seen: int = NOON, connector: str = "meta") -> OutsideEdit:
    return OutsideEdit(connector, name, name, Lever.BUDGET, 5, after, Instant(seen))


def line(ago: int, after: int | None = 7, by: str = "person", **changes: Any) -> AccountEdit:
    return replace(AccountEdit(("a", "b"), "budget", after, Instant(NOON - ago), by), **changes)


def test_the_newest_line_that_made_it_is_taken() -> None:
    lines = [
        line(5 * MINUTE, by="tool"),
        line(MINUTE),
        line(0, after=8, by="vendor"),
        line(0, lever="bid", by="vendor"),
    ]
    assert author_of(outside(), lines) == line(MINUTE)
    assert author_of(outside(), [line(0, None, "vendor"), line(MINUTE)]) == line(MINUTE), "one that says the value"
    assert author_of(outside("c"), lines) is None
    assert author_of(outside(after=9), [line(0, None, "vendor")]) == line(0, None, "vendor")
    assert author_of(outside(), [line(-11 * MINUTE), line(25 * 60 * MINUTE)]) is None, "not in time"


async def test_one_call_asks_for_all_that_wait_and_it_is_asked_three_times_at_most(start: Start) -> None:
    house = await start(**only("tiktok"))
    calls: list[tuple[str, str, int]] = []
    answer: Any = []

    async def ask(connector: str, verb: str, *args: object) -> object:
        calls.append((connector, verb, args[0]))  # type: ignore[arg-type]
        if isinstance(answer, Exception):
            raise answer
        return answer

    authors = Authors(house.agent.store, house.agent.ledger)
    authors.ask = ask
    authors.add([outside(), outside("b"), outside("x", connector="google_ads")])
    for minutes in range(60):
        await authors.look(Instant(NOON + minutes * MINUTE))
    assert [each[0] for each in calls] == ["google_ads", "meta"] * len(TRIES)
    for answer in (Unsupported("no history"), RateLimited("later", Instant(NOON + MINUTE)), "nonsense"):
        calls.clear()
        authors.add([outside()])
        for minutes in range(60):
            assert await authors.look(Instant(NOON + minutes * MINUTE)) == 0
        assert len(calls) == (1 if isinstance(answer, Unsupported) else len(TRIES))


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ([line(0)], ""),
        ((), ""),
        ("x", "a list of AccountEdit"),
        ([line(0, after=1.5)], "after is float"),  # type: ignore[arg-type]
        ([line(0, by="jane")], "not what the hook knows"),
        ([line(0, lever="colour")], "not what the hook knows"),
        ([line(0, through=MAIL)], "no address"),
        ([line(0, through="x" * 81)], "no address"),
    ],
)
def test_answers_of_plugins_are_checked(answer: object, wrong: str) -> None:
    found = check_for("fetch_edits")(answer, (NOON,), "meta")
    assert wrong in found
    assert bool(wrong) == bool(found)
