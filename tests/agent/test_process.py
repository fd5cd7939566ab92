"""`kiki-agent demo` as a user has it: started, killed, started again, stopped, and asked afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kiki_agent.sandbox.effects import Effect

from .matching import CAMPAIGNS, LEDGER, keyed
from .running import BOUND, Demo, command, ended, free_port

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(300)]

LIVELY: dict[str, object] = {
    "demo__campaigns": 24,
    "demo__history_days": 8,
    "demo__fault_rate": 0.1,
    "demo__speed": 60,
    "bidding__write_interval_s": 10,
    "bidding__min_write_gap_s": 60,
    "bidding__min_change_percent": 1,
    "ledger__settle_s": 0.5,
    "optimizer__interval_s": 60,
    "optimizer__threshold": 0.03,
    "optimizer__cooldown_s": 0,
    "optimizer__consume_evidence": "false",
}
"""A small market in quick motion, at which a tenth of all calls fail; budgets move whatever the hour of the day."""
PLATFORMS = 6


@dataclass
class Life:
    """What was seen of one demo from its first start to its end."""

    demo: Demo
    health_after_s: float = 0.0
    health_seconds: list[float] = field(default_factory=list)
    starting: set[tuple[int, str]] = field(default_factory=set)
    """What /ready said before it was."""
    second: subprocess.CompletedProcess[str] | None = None
    blocked: subprocess.CompletedProcess[str] | None = None
    sandboxes: list[int] = field(default_factory=list)
    effects: list[int] = field(default_factory=list)
    """Effects known before each kill."""
    epochs: list[int] = field(default_factory=list)
    shifts: int = 0
    silent: Any = None
    """The overview while the platforms were away."""
    silent_tasks: list[dict[str, Any]] = field(default_factory=list)
    back: Any = None
    stopped_without: tuple[int, float] = (-1, 0.0)
    """Exit code and seconds of an end without a market."""
    stopped: tuple[int, float] = (-1, 0.0)
    resident_mb: float = 0.0


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """Start, watch the start, kill it three times, take its platforms away for a while, stop it."""
    demo = Demo(tmp_path_factory.mktemp("life"), dict(LIVELY))
    seen = Life(demo)
    try:
        _first_start(seen)
        seen.second = command(demo.folder, "demo", http__port=free_port(), **LIVELY)
        elsewhere = demo.folder / "elsewhere"
        elsewhere.mkdir()
        seen.blocked = command(elsewhere, "demo", http__port=demo.port, **LIVELY)
        for _ in range(3):
            _live_on(seen)
            demo.end(signal.SIGKILL)
            demo.start()
            demo.wait_ready()
        _live_on(seen)
        _without_platforms(seen)
        seen.stopped_without = demo.end()
        demo.start()
        demo.wait_ready()
        _live_on(seen)
        seen.stopped = demo.end()
        yield seen
    finally:
        demo.clean_up()


def _first_start(seen: Life) -> None:
    begun = time.monotonic()
    seen.demo.start()
    while True:
        asked = time.monotonic()
        status, _ = seen.demo.get("/health")
        if status:
            assert status == 200
            seen.health_seconds.append(time.monotonic() - asked)
            seen.health_after_s = seen.health_after_s or asked - begun
            ready, body = seen.demo.get("/ready")
            if ready == 200:
                return
            seen.starting.add((ready, body["reason"]))
        assert time.monotonic() - begun < 60, seen.demo.last_words()
        time.sleep(0.01)


def _live_on(seen: Life) -> None:
    """Until a few more changes were made at the platforms."""
    demo = seen.demo
    seen.sandboxes.append(demo.sandbox()["pid"])
    before = len(demo.effects())
    due = time.monotonic() + 30
    while len(demo.effects()) < before + 5:
        assert time.monotonic() < due, demo.last_words()
        time.sleep(0.02)
    seen.effects.append(len(demo.effects()))
    status = demo.get("/status")[1]
    seen.epochs.append(status["database"]["epoch"])
    seen.resident_mb = max(seen.resident_mb, status["rss_mb"])


def _without_platforms(seen: Life) -> None:
    """Kill the market's process, wait until the agent says so, bring it back at its place."""
    demo = seen.demo
    state = demo.sandbox()
    os.kill(state["pid"], signal.SIGKILL)

    def polls(status: dict[str, Any]) -> list[dict[str, Any]]:
        return [each for each in status["tasks"] if each["name"].startswith("poll:")]

    demo.wait("/status", lambda code, body: all(each["failures_in_a_row"] > 0 for each in polls(body)))
    seen.silent = demo.wait("/api/v1/overview", lambda code, body: len(_away(body)) == PLATFORMS)
    seen.silent_tasks = demo.get("/status")[1]["tasks"]
    arguments = ["--port", state["port"], "--seed", state["seed"], "--speed", state["speed"]]
    arguments += ["--campaigns", state["campaigns"], "--history-days", state["history_days"], "--detach"]
    for vendor in state["vendors"].split():
        arguments += ["--vendor", vendor]
    subprocess.run(
        [sys.executable, "-m", "kiki_agent.sandbox", str(demo.data / "sandbox"), *map(str, arguments)],
        cwd=demo.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    seen.back = demo.wait("/api/v1/overview", lambda code, body: not _away(body))
    _live_on(seen)
    os.kill(demo.sandbox()["pid"], signal.SIGTERM)


def told(demo: Demo) -> list[Effect]:
    """The effects as the platforms know them, each with the key of its intent."""
    effects = [msgspec.convert(each, Effect) for each in demo.effects()]
    return keyed(effects, demo.rows(LEDGER), demo.rows(CAMPAIGNS), int(str(LIVELY["demo__campaigns"])))


def _away(overview: dict[str, Any]) -> list[str]:
    """Platforms that are said not to report, or not to be there."""
    return [need["id"] for need in overview["needs"] if need["id"].startswith(("old-", "lost-"))]


def test_health_answers_from_the_first_second(life: Life) -> None:
    assert life.health_after_s < 10, "1.5 s on a machine with nothing else to do"
    assert sorted(life.health_seconds)[int(len(life.health_seconds) * 0.99) - 1] < 1.0, "50 ms there"
    assert life.starting, "/ready was asked before it was"
    assert {status for status, _ in life.starting} == {503}
    assert all(reason.startswith("starting") for _, reason in life.starting)


def test_a_second_agent_on_the_database_is_refused(life: Life) -> None:
    assert life.second is not None
    assert life.second.returncode == 75
    holder = next(each["pid"] for each in _holders(life.second.stderr))
    assert holder > 1
    assert len(life.second.stderr.strip().splitlines()) == 1
    assert len(set(life.sandboxes[:4])) == 1, "and it has not touched the market of the first"


def _holders(text: str) -> Iterator[dict[str, int]]:
    for word in text.replace(",", " ").replace("(", " ").replace(")", " ").split():
        if word.isdecimal():
            yield {"pid": int(word)}


def test_a_port_in_use_is_said_in_one_sentence(life: Life) -> None:
    assert life.blocked is not None
    assert life.blocked.returncode == 1
    (line,) = life.blocked.stderr.strip().splitlines()
    assert line.startswith(f"kiki-agent: cannot listen on 127.0.0.1:{life.demo.port}")
    assert "http.port" in line
    left = [path.name for path in (life.demo.folder / "elsewhere" / "data").iterdir()]
    assert left in ([], ["demo.db.lock"]), "and no market was started, no database made"


def test_a_killed_agent_goes_on_with_the_same_market(life: Life) -> None:
    assert len(set(life.sandboxes[:4])) == 1, "adopted each time"
    assert life.epochs == [1, 2, 3, 4, 4, 5]
    assert all(later >= before + 5 for before, later in zip(life.effects, life.effects[1:], strict=False))
    assert life.resident_mb < 200


def test_no_change_was_lost_and_none_made_twice(life: Life) -> None:
    """Kills, lost answers and a market that went away: the platforms' log of effects is what the ledger says (M3)."""
    demo = life.demo
    effects = Counter(each.key for each in told(demo))
    assert effects.most_common(1)[0][1] == 1
    states = dict(demo.rows("SELECT key, state FROM intents"))
    assert effects.keys() <= states.keys()
    accepted = {key for key, state in states.items() if state == "accepted"}
    assert accepted <= effects.keys()
    unsettled = {key for key, state in states.items() if state in ("pending", "unknown")}
    assert effects.keys() - accepted <= unsettled
    assert len(accepted) > 20
    bodies = [json.loads(body) for (body,) in demo.rows("SELECT body FROM ledger_entries WHERE kind = 'receipt'")]
    assert {body["key"] for body in bodies if body["outcome"] == "accepted"} == accepted
    assert any(body["read_back"] for body in bodies), "some outcomes had to be read back"


def test_shifts_made_no_money(life: Life) -> None:
    """Over the whole life the sum of daily budgets was never above the first one (M4), each shift on record (M5)."""
    demo = life.demo
    first: dict[int, int] = {}
    budgets = [each for each in told(demo) if each.kind == "set_budget"]
    for each in budgets:  # a shared budget is looked at as a whole, under its first campaign
        first.setdefault(each.campaign, each.before)
    now = dict(first)
    for each in budgets:
        assert now[each.campaign] == each.before
        now[each.campaign] = each.after
        assert sum(now.values()) <= sum(first.values())
    done = demo.rows("SELECT shift_id FROM shifts WHERE moved_micros > 0 ORDER BY 1")
    assert done
    logged = demo.rows("SELECT notification_id FROM budget_reallocation_log ORDER BY 1")
    assert logged == [(f"shift-{key}",) for (key,) in done]
    assert logged == demo.rows(
        "SELECT notification_id FROM notifications WHERE notification_id LIKE 'shift-%' ORDER BY 1"
    )


def test_platforms_that_went_away_are_said_and_come_back(life: Life) -> None:
    assert life.silent["status"]["tone"] in ("attention", "bad")
    assert life.back["status"]["tone"] in ("good", "attention")
    polls = [each for each in life.silent_tasks if each["name"].startswith("poll:")]
    assert polls
    assert all("NoAnswer" in each["last_error"] for each in polls)
    bidding = next(each for each in life.silent_tasks if each["name"] == "bidding")
    assert bidding["state"] == "ok", "the loop that decides lives on"
    assert bidding["failures_in_a_row"] == 0


def test_it_stops_in_time_and_takes_the_market_along(life: Life) -> None:
    for code, seconds in (life.stopped_without, life.stopped):
        assert code == 0
        assert seconds < 10
    assert ended(life.sandboxes[-1])
    assert life.demo.sandbox()["pid"] == 0
    last = life.demo.events()[-1]
    assert (last["event"], last["unclean"]) == ("stopped", [])


def test_nothing_was_logged_as_a_defect(life: Life) -> None:
    wrong = [each for each in life.demo.events() if each["level"] == "error" and not each["event"].startswith("loop_")]
    assert not wrong
    assert "Traceback" not in life.demo.log.read_text()


def test_the_stopped_ledger_verifies_and_can_be_exported(life: Life) -> None:
    demo = life.demo
    verified = command(demo.folder, "ledger", "verify", "--json", mode="demo")
    found = json.loads(verified.stdout)
    assert verified.returncode == 0
    assert found["ok"]
    assert found["head"] is not None
    entries = demo.rows("SELECT count(*) FROM ledger_entries")[0][0]
    assert found["entries"] == entries
    exported = command(demo.folder, "ledger", "export", "--format", "jsonl", "--output", "all.jsonl", mode="demo")
    assert exported.returncode == 0
    lines = (demo.folder / "all.jsonl").read_text().splitlines()
    assert len(lines) == entries
    assert json.loads(lines[-1])["hash"] == found["head_hash"]


HOLDS = {
    "damaged": "damaged",
    "emptied": "the ledger is empty, but entry",
    "truncated": "is known to have been written",
}
"""What was done to a closed database, and what the reason must say."""


def _spoil(demo: Demo, how: str) -> None:
    import sqlite3

    if how == "emptied":
        for suffix in (".db", ".db-wal", ".db-shm"):
            demo.database.with_suffix(suffix).unlink(missing_ok=True)
    elif how == "damaged":
        with demo.database.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            for place in range(4_096 * 2, size, 4_096 * 3):
                file.seek(place)
                file.write(b"\xa5" * 4_096)
    else:
        connection = sqlite3.connect(demo.database)
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM ledger_entries WHERE seq > (SELECT max(seq) - 5 FROM ledger_entries)")
        connection.commit()
        connection.close()


@pytest.fixture(scope="module")
def held(life: Life, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Demo]]:
    """Copies of the stopped demo, each spoilt in its way, all started."""
    import shutil

    demos: dict[str, Demo] = {}
    try:
        for how in HOLDS:
            folder = tmp_path_factory.mktemp(how)
            shutil.copytree(life.demo.data, folder / "data")
            demos[how] = Demo(folder, dict(LIVELY))
            _spoil(demos[how], how)
            demos[how].start()
        yield demos
    finally:
        for demo in demos.values():
            demo.clean_up()


@pytest.mark.parametrize("how", HOLDS)
def test_a_record_that_cannot_be_trusted_holds_all_spending(life: Life, held: dict[str, Demo], how: str) -> None:
    demo = held[how]
    said = demo.wait("/ready", lambda status, body: status == 503 and "safe hold" in body["reason"])
    assert HOLDS[how] in said["reason"]
    demo.wait("/status", lambda status, body: body["bidding"]["ticks"] > 3)
    overview = demo.get("/api/v1/overview")[1]
    assert overview["status"]["tone"] == "bad"
    assert overview["status"]["sentence"].startswith("On hold")
    assert any(HOLDS[how].lower() in need["text"].lower() for need in overview["needs"])
    assert demo.get("/health")[0] == 200
    raises = [each for each in demo.effects()[len(life.demo.effects()) :] if each["after"] > each["before"]]
    assert raises == []
    code, seconds = demo.end()
    assert (code, seconds < 10) == (0, True)
    demo.start()
    again = demo.wait("/ready", lambda status, body: status == 503 and "safe hold" in body["reason"])
    assert "known" in again["reason"] or how == "damaged", "another start does not heal it"
    demo.end()


def test_wrong_settings_end_with_all_findings(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        'client_id = "x"\n[http]\nport = "eighty"\nprot = 1\n[bidding]\ninterval_s = -2\n[connector.meta]\nplugin = 3\n'
    )
    done = command(tmp_path, "demo", htp__port=1, optimizer__treshold=0.5)
    assert done.returncode == 2
    for part in (
        "config.toml:3: http.port",
        "config.toml:4: http.prot",
        "config.toml:6: bidding.interval_s",
        "connector.meta",
        "KIKI__HTP__PORT",
        "KIKI__OPTIMIZER__TRESHOLD",
        "did you mean",
    ):
        assert part in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o555)
    demo = Demo(tmp_path, before=BOUND)
    demo.start()
    assert demo.process is not None
    assert demo.process.wait(timeout=60) == 1
    (line,) = demo.log.read_text().strip().splitlines()
    assert str(folder.name) in line
    assert "denied" in line
    assert list(folder.iterdir()) == []


def failing(status: Any) -> dict[str, str]:
    return {each["name"]: each["last_error"] for each in status["tasks"] if each["last_error"]}


def test_a_folder_that_becomes_read_only_is_told_and_survived(tmp_path: Path) -> None:
    demo = Demo(tmp_path, {**LIVELY, "demo__fault_rate": 0}, before=BOUND)
    try:
        demo.start()
        demo.wait_ready()
        demo.data.chmod(0o555)
        told = demo.wait("/status", lambda status, body: "head" in failing(body))
        wrong = failing(told)
        assert "denied" in wrong.pop("head")
        assert all("read-only" in each for each in wrong.values()), "SQLite may want a new file meanwhile"
        demo.data.chmod(0o755)
        demo.wait("/status", lambda status, body: all(each["state"] == "ok" for each in body["tasks"]))
        assert demo.end()[0] == 0
    finally:
        demo.data.chmod(0o755)
        demo.clean_up()


def test_a_platform_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    demo = Demo(tmp_path, {**LIVELY, "demo__fault_rate": 0})
    try:
        demo.start()
        demo.wait("/status", lambda status, body: len(demo.effects()) >= 10)
        market = demo.sandbox()["pid"]
        os.kill(market, signal.SIGSTOP)
        ticks = demo.get("/status")[1]["bidding"]["ticks"]
        demo.wait("/status", lambda status, body: body["bidding"]["ticks"] > ticks + 20)
        code, seconds = demo.end()
        assert code == 0
        assert seconds < 10
    finally:
        demo.clean_up()


def test_it_can_be_stopped_in_the_middle_of_a_start(tmp_path: Path) -> None:
    demo = Demo(tmp_path, {"demo__campaigns": 600})
    try:
        demo.start()
        demo.wait("/health", lambda status, body: status == 200)
        demo.wait("/ready", lambda status, body: status == 200 or "platforms" in body["reason"])
        code, seconds = demo.end()
        assert code == 0
        assert seconds < 10
        state = demo.sandbox()
        assert state["pid"] == 0 or ended(state["pid"])
    finally:
        demo.clean_up()
