"""The commands of people, against a running agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kiki_agent.cli.root import root

from .conftest import Start
from .rig import House, only


def ask(house: House) -> Callable[..., Any]:
    async def run(*arguments: str) -> Result:
        port = f"http.port={house.client.port}"
        return await asyncio.to_thread(CliRunner().invoke, root, [*arguments, "--set", port], standalone_mode=False)

    return run


async def test_levels_suggestions_and_links(start: Start) -> None:
    house = await start()
    kiki = ask(house)
    shown = await kiki("autonomy", "show", "--json")
    assert {each["level"] for each in json.loads(shown.output)["items"]} == {"act"}
    for name in ("tiktok", "linkedin"):
        assert "suggest" in (await kiki("autonomy", "set", name, "suggest", "--reason", "look")).output
    assert "Nothing waits" in (await kiki("approvals", "list")).output
    await house.run(31)
    items = json.loads((await kiki("approvals", "list", "--json")).output)["items"]
    assert len(items) > 2
    table = (await kiki("approvals", "list")).output
    assert items[0]["suggestion_id"] in table
    approved = await kiki("approvals", "approve", items[0]["suggestion_id"])
    assert "Approved; the change is done." in approved.output
    assert (
        "Declined; nothing is changed."
        in (await kiki("approvals", "decline", items[1]["suggestion_id"], "--comment", "no")).output
    )
    link = await kiki("approvals", "link", items[2]["suggestion_id"], "--decline")
    assert f":{house.client.port}/approvals/{items[2]['suggestion_id']}.decline." in link.output
    again = await kiki("approvals", "approve", items[0]["suggestion_id"])
    assert again.exception is not None
    assert "409" in str(again.exception)


async def test_a_stop_says_where_it_does_not_reach_and_ends_with_1(start: Start) -> None:
    house = await start(**only("tiktok", "meta"))
    kiki = ask(house)
    await house.run(3)
    whole = await kiki("kill-switch", "on", "--reason", "drill")
    assert (whole.output, whole.return_value) == ("Spending is stopped.\n", 0)
    assert (await kiki("kill-switch", "off", "--reason", "over")).output == "Spending is allowed again.\n"
    await kiki("autonomy", "set", "meta", "watch", "--reason", "look")
    part = await kiki("kill-switch", "on", "--reason", "drill")
    assert part.return_value == 1
    assert "stopped, but not everywhere" in part.output
    assert "meta is not stopped, because it is only watched" in part.output
    assert "kiki-agent autonomy set meta suggest" in part.output
    assert "tiktok" not in part.output


async def test_levers_and_roll_back(start: Start) -> None:
    house = await start()
    kiki = ask(house)
    name = house.campaign("tiktok").campaign_id
    assert "Nothing is left alone" in (await kiki("levers", "list")).output
    assert "stays at" in (await kiki("levers", "pin", "tiktok", name, "bid")).output
    assert name in (await kiki("levers", "list")).output
    assert "agent's again" in (await kiki("levers", "unpin", "tiktok", name, "bid")).output
    await house.run(12)
    ((shift,),) = house.rows("SELECT shift_id FROM shifts")
    before = len(house.effects.all)
    assert "back to" in (await kiki("rollback", "--batch", shift, "--preview")).output
    assert len(house.effects.all) == before
    done = await kiki("rollback", "--batch", shift)
    assert "is done" in done.output
    assert done.return_value == 0
    assert len(house.effects.all) > before


@pytest.mark.parametrize("wrong", [("rollback",), ("rollback", "--day", "2026-01-01", "--batch", "x")])
def test_a_roll_back_wants_one_thing(wrong: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(root, list(wrong))
    assert ended.exit_code == 2
    assert "exactly one of --change, --batch and --day" in ended.output
