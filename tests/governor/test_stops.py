"""Stopping: the kill switch by file and signal, and figures far outside their own history."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.anomalies import one
from kiki_agent.config import Mode
from kiki_agent.governor import anomaly
from kiki_agent.governor.kill import FILE
from kiki_agent.governor.loop import GovernorLoop
from kiki_agent.model import HOUR, iso
from kiki_agent.sandbox import layout as at
from tests.agent.running import Demo

from .conftest import Start
from .rig import only

# -- kill switch --------------------------------------------------------------------------------------------------


async def test_a_file_stops_everything_within_a_tick(start: Start) -> None:
    house = await start(**only("tiktok"))
    await house.run(3)
    (house.folder / FILE).write_text("  the sky\n is falling \x00\n")
    await house.run(0.2)
    assert (await house.get("/admin/kill-switch"))["reason"] == "file KILL: the sky is falling \x00"
    await house.run(1)
    assert not house.agent.accounts.table.active.any()
    assert int((house.market.control[at.ACTIVE] == 0).sum()) == len(house.agent.accounts.table)
    said = await house.get("/admin/kill-switch")
    assert (said["by"], said["at"], said["sentence"]) == (
        "file", iso(house.agent.shield.kill_at), "tiktok: stopped, no campaign runs."
    )  # fmt: skip
    house = await house.again()  # who and when are known after a restart
    again = await house.get("/admin/kill-switch")
    assert {name: again[name] for name in ("on", "reason", "at", "by")} == {
        name: said[name] for name in ("on", "reason", "at", "by")
    }
    # off while the file is there is refused, and the file named; off without it holds
    refused = await house.post("/admin/kill-switch", 409, on=False, reason="try")
    assert refused["code"] == "KILL_FILE"
    assert str(house.folder / FILE) in refused["detail"]
    await house.run(0.1)
    assert (await house.get("/admin/kill-switch"))["on"] is True
    (house.folder / FILE).unlink()
    await house.post("/admin/kill-switch", on=False, reason="over")
    await house.run(0.1)
    assert (await house.get("/admin/kill-switch"))["on"] is False
    said = [json.loads(body) for (body,) in house.rows(
        "SELECT body FROM ledger_entries WHERE kind = 'control' AND json_extract(body, '$.control') = 'kill_switch'"
        " ORDER BY seq")]  # fmt: skip
    assert [(each["on"], each["by"]) for each in said] == [(True, "file"), (False, "http")]
    answer = await house.get("/admin/kill-switch")
    assert (answer["by"], answer["at"]) == ("http", iso(house.agent.shield.kill_at))


async def test_the_file_refuses_off_also_before_it_was_seen(start: Start) -> None:
    house = await start(**only("tiktok"))
    (house.folder / FILE).touch()
    refused = await house.post("/admin/kill-switch", 409, on=False, reason="try")
    assert refused["code"] == "KILL_FILE"


async def test_a_stop_says_where_it_does_not_reach_and_what_to_do(start: Start) -> None:
    house = await start(**only("tiktok", "meta"))
    await house.run(3)
    await house.post("/api/v1/autonomy/meta", level="watch", reason="test")
    low, high = house.agent.accounts.table.bounds["meta"]
    running = int(house.agent.accounts.table.active[low:high].sum())
    assert running > 1
    told = await house.post("/admin/kill-switch", on=True, reason="drill")
    reach = {each["connector"]: each for each in told["platforms"]}
    assert (reach["tiktok"]["reached"], reach["tiktok"]["why_not"]) == (True, None)
    assert (reach["meta"]["reached"], reach["meta"]["running"]) == (False, running)
    assert "autonomy set meta suggest" in reach["meta"]["what_to_do"]
    assert (
        f"meta: not stopped, because it is only watched, and there the agent writes nothing. {running} "
        in (told["sentence"])
    )
    await house.run(0.2)
    page = await house.get("/api/v1/overview")
    assert page["status"]["sentence"].startswith("Stopped, but not Meta: campaigns run on there.")
    assert [each["id"] for each in page["needs"] if each["severity"] == "stopped"] == ["stop", "unstopped-meta"]
    assert {each["title"] for each in page["needs"]} == {"Spending is stopped", "Meta is not stopped"}  # each once
    alerts = dict(house.rows("SELECT title, message FROM notifications WHERE severity = 'CRITICAL'"))
    assert "it is only watched" in alerts["meta is not stopped"]
    assert "wherever the agent may write" in alerts["Kill switch is on"]
    # what it says to do does it, and then it says so
    await house.post("/api/v1/autonomy/meta", level="suggest", reason="stop it")
    await house.run(1)
    assert not house.agent.accounts.table.active[low:high].any()
    page = await house.get("/api/v1/overview")
    assert page["status"]["sentence"] == "Stopped. No bid and no budget is raised until you say so."
    assert house.rows("SELECT count(*) FROM notifications WHERE title = 'meta is not stopped'") == [(1,)]
    put = await house.client.put("/api/v1/connectors/tiktok", json={"enabled": False})
    assert put.status == 200
    said = {each["connector"]: each["why_not"] for each in (await house.get("/admin/kill-switch"))["platforms"]}
    assert said == {"meta": None, "tiktok": "it is switched off"}


async def test_a_dry_run_says_that_it_stops_nothing(start: Start) -> None:
    house = await start(mode=Mode.DRY_RUN, **only("tiktok"))
    told = await house.post("/admin/kill-switch", on=True, reason="drill")
    (reach,) = told["platforms"]
    assert (reach["reached"], reach["why_not"]) == (False, "nothing is sent in a dry run")


async def test_a_file_that_cannot_be_read_stops_too(start: Start) -> None:
    house = await start(**only("tiktok"))
    (house.folder / FILE).mkdir()
    await house.run(0.1)
    assert (await house.get("/admin/kill-switch"))["on"] is True


async def test_a_signal_asks_once(start: Start) -> None:
    house = await start(**only("tiktok"))
    assert house.agent.kill_watch is not None
    house.agent.kill_watch.signal("SIGUSR1")
    await house.run(0.1)
    answer = await house.get("/admin/kill-switch")
    assert (answer["on"], answer["reason"], answer["by"]) == (True, "signal SIGUSR1", "signal")
    house.agent.kill_watch.signal("SIGUSR1")
    await house.run(0.1)
    await house.post("/admin/kill-switch", on=False, reason="over")
    await house.run(0.1)
    assert (await house.get("/admin/kill-switch"))["on"] is False


@pytest.mark.process
def test_the_signal_reaches_a_real_process(tmp_path: Path) -> None:
    demo = Demo(tmp_path, {"demo__campaigns": 12, "demo__history_days": 5})
    demo.start()
    try:
        demo.wait_ready()
        assert demo.process is not None
        os.kill(demo.process.pid, signal.SIGUSR1)
        switch = demo.wait("/admin/kill-switch", lambda status, body: body["on"])
        assert switch["reason"] == "signal SIGUSR1"
        key = demo.data / "approval.key"
        assert (key.stat().st_mode & 0o777, key.stat().st_size) == (0o600, 32)
    finally:
        code, _ = demo.end()
        time.sleep(0)
    assert code == 0


# -- anomalies ----------------------------------------------------------------------------------------------------


def test_like_hours_are_the_same_hour_of_the_day_and_its_neighbours() -> None:
    history = [(hour, float(hour)) for hour in range(72)]
    assert anomaly.like_hours(72, history) == [0, 1, 23, 24, 25, 47, 48, 49, 71]
    assert anomaly.like_hours(49, history) == [0, 1, 2, 24, 25, 26, 48, 50]


@pytest.mark.parametrize(
    ("like", "limit"),
    [
        ([0.05] * 11, None),
        ([0.05] * 12, 0.25),
        ([0.10] * 12, 0.30),
        ([0.10] * 20 + [0.3], 0.45),
        ([0.06] * 10 + [0.14] * 10, 0.10 + 8 * 1.4826 * 0.04),
    ],
)
def test_the_limit_of_an_hour(like: list[float], limit: float | None) -> None:
    found = anomaly.spend_limit(like)
    assert found is None if limit is None else found == pytest.approx(limit)


@given(st.integers(0, 60), st.floats(0.01, 80))
def test_poisson_against_its_definition(count: int, expected: float) -> None:
    exact = math.fsum(math.exp(-expected + k * math.log(expected) - math.lgamma(k + 1)) for k in range(count + 1))
    assert anomaly.poisson_at_most(count, expected) == pytest.approx(min(1.0, exact), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(
    ("day", "past", "expected"),
    [
        ((100, 10), (1_400, 140), False),
        ((100, 0), (1_400, 140), False),  # ten expected, none came: once in 22,000 days
        ((1_000, 10), (1_400, 140), True),
        ((1_000, 40), (1_400, 140), False),  # dear, but not three times
        ((1_000, 0), (1_400, 29), False),  # too little history to say
        ((0, 0), (1_400, 140), False),
    ],
)
def test_a_price_far_outside_its_history(day: tuple[int, int], past: tuple[int, int], expected: bool) -> None:
    assert anomaly.too_dear(*day, *past) is expected


async def test_why_a_person_thawed_a_platform_is_on_record(start: Start) -> None:
    house = await start(**only("tiktok"))
    await house.agent.shield.freeze("tiktok", "odd", house.clock.now())
    await house.post("/api/v1/autonomy/tiktok/thaw", reason="a sale")
    bodies = house.rows("SELECT body FROM ledger_entries WHERE kind = 'control' ORDER BY seq")
    said = [json.loads(body) for (body,) in bodies]
    assert [each["reason"] for each in said if each["control"] == "freeze:tiktok"] == ["odd", "a sale"]


async def test_an_hour_that_costs_far_too_much_freezes_the_platform_and_says_why(start: Start) -> None:
    house = await start(**only("meta", "tiktok"))
    loop = next(each for each in house.agent.loops if isinstance(each, GovernorLoop))
    hour = house.clock.now() // HOUR
    budget = house.agent.accounts.budget_micros("meta")
    rows = [("meta", hour - each, budget // 25, budget) for each in range(1, 14 * 24)]

    def write(connection: object) -> None:
        connection.executemany("INSERT INTO spend_hours VALUES (?, ?, ?, ?)", rows)  # type: ignore[attr-defined]

    await house.agent.store.write(write)
    await house.run(65)
    assert (await house.get("/api/v1/autonomy"))["items"][0]["frozen"] is None
    # within an hour somebody's mistake lets it spend half of the day's budgets
    meter = loop._meters["meta"]
    meter.spent -= budget // 2
    await house.run(60)
    level = {each["connector"]: each for each in (await house.get("/api/v1/autonomy"))["items"]}["meta"]
    assert "like hours" in level["frozen"]
    assert (level["level"], level["set_by"]) == ("suggest", "agent")
    await house.run(2)
    low, high = house.agent.accounts.table.bounds["meta"]
    assert not house.agent.accounts.table.active[low:high].any()
    assert house.agent.accounts.table.active[high:].any()
    told = house.rows("SELECT severity FROM notifications WHERE title = 'meta is frozen'")
    assert told == [("CRITICAL",)]
    # it stays over a restart, refuses raises and bids by hand, and only a person ends it
    house = await house.again()
    await house.run(5)
    bid = await house.post("/api/v1/bids", campaign_id="c", platform="meta", bid_amount=0.5)
    assert (bid["status"], bid["reason"]) == ("REJECTED", "ANOMALY")
    await house.post("/api/v1/autonomy/tiktok/thaw", 409, reason="")
    await house.post("/api/v1/autonomy/nobody/thaw", 404, reason="")
    await house.post("/api/v1/autonomy/meta/thaw", reason="a planned burst")
    await house.post("/api/v1/autonomy/meta", level="act", reason="it was planned")
    await house.run(2 * 15)
    assert house.agent.accounts.table.active[low:high].any()


def test_a_spike_that_no_single_hour_shows_is_seen_by_three_together() -> None:
    quiet = [(hour, 0.03 + 0.01 * (hour % 3)) for hour in range(10 * 24)]
    begin = 10 * 24
    assert anomaly.unbelievable(quiet) is None
    assert anomaly.unbelievable([*quiet, (begin, 0.18), (begin + 1, 0.18)]) is None
    hours, share, limit = anomaly.unbelievable([*quiet, *((begin + n, 0.18) for n in range(3))]) or (0, 0.0, 0.0)
    assert (hours, share > limit >= anomaly.LEAST_OF_THREE) == (3, True)
    assert share == pytest.approx(0.54)
    gap = [*quiet, (begin, 0.18), (begin + 2, 0.18), (begin + 3, 0.18)]
    assert anomaly.unbelievable(gap) is None, "hours that do not follow each other are not three together"
    assert anomaly.unbelievable([*quiet[-9:], *((begin + n, 0.18) for n in range(3))]) is None, "too little history"


def test_nothing_is_frozen_without_cause_in_the_market() -> None:
    """The count of `benchmarks/anomalies.py` on one seed; more of them there."""
    counts = one((7, 21))
    assert (counts["false spend"], counts["false price"]) == (0, 0)
    assert counts["hours"] == 6 * (21 * 24 - 1 - 96)
    assert counts["10 in 24"] >= 0.7 * counts["spikes"] > 0
