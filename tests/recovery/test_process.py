"""The commands and endpoints of recovery, as a person uses them on a real agent under load."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.agent.running import BOUND, Demo, command, free_port

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(300)]

CANARY = "canary-4f1d9c-not-for-anybody"
SETTINGS: dict[str, object] = {
    "demo__campaigns": 24,
    "demo__history_days": 8,
    "demo__speed": 60,
    "bidding__min_write_gap_s": 60,
    "http__token": CANARY,
}


class Client:
    """Asks one agent, with its token."""

    def __init__(self, demo: Demo) -> None:
        self.base = f"http://127.0.0.1:{demo.port}"

    def __call__(self, method: str, path: str, body: dict[str, object] | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {CANARY}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def json(self, method: str, path: str, body: dict[str, object] | None = None) -> tuple[int, Any]:
        status, raw = self(method, path, body)
        return status, json.loads(raw)


class Load(threading.Thread):
    """Asks for the page's snapshot and for money as fast as it can."""

    def __init__(self, ask: Client) -> None:
        super().__init__(daemon=True)
        self.ask, self.answers, self.stopped = ask, 0, False

    def run(self) -> None:
        while not self.stopped:
            try:
                self.ask("GET", "/api/v1/overview")
                self.ask("POST", "/api/v1/bids", {"campaign_id": "c", "platform": "meta", "bid_amount": "0.01"})
            except OSError:
                return
            self.answers += 1


def wait_until(ask: Client, path: str, field: str, value: object, demo: Demo) -> Any:
    return demo.wait("/ready", lambda status, body: status == 200 and ask.json("GET", path)[1][field] == value)


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Demo]:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))  # where a stand-in lies
    demo = Demo(tmp_path, dict(SETTINGS))
    yield demo
    demo.clean_up()


def run(demo: Demo, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = command(demo.folder, *arguments, "--json", http__port=free_port(), **SETTINGS)
    return done.returncode, json.loads(done.stdout if done.returncode in (0, 1) and done.stdout else done.stderr)


def test_back_up_under_load_stop_restore_and_compare_heads(demo: Demo) -> None:
    demo.start()
    demo.wait_ready()
    ask = Client(demo)
    loads = [Load(ask) for _ in range(4)]
    for load in loads:
        load.start()
    status, begun = ask.json("POST", "/admin/backup")
    assert status == 202
    code, by_command = run(demo, "backup")
    assert code == 0
    assert by_command["verified"]
    wait_until(ask, "/admin/backups", "making", None, demo)
    _, listed = ask.json("GET", "/admin/backups")
    made = {each["backup_id"]: each for each in listed["items"]}
    assert made[begun["backup_id"]]["verified"]
    assert made[by_command["name"]]["head_hash"] == by_command["head_hash"]
    assert run(demo, "restore", begun["backup_id"])[0] == 75, "an agent uses it"
    assert ask.json("POST", f"/admin/backups/{begun['backup_id']}/restore", {"confirm": begun["backup_id"]})[0] == 409
    code, found = run(demo, "doctor")
    assert code == 0, found
    stop = {"on": True, "reason": "after the backup"}
    assert ask.json("POST", "/admin/kill-switch", stop)[0] == 200
    code, seconds = demo.end(signal.SIGTERM)
    assert all(load.answers for load in loads)
    assert code == 0
    assert seconds < 10, "the deadline of a shutdown"
    assert "unclean" not in demo.events()[-1] or demo.events()[-1]["unclean"] == []

    code, restored = run(demo, "restore", begun["backup_id"])
    assert code == 0, restored
    assert restored["head_hash"] == made[begun["backup_id"]]["head_hash"]
    assert restored["unknown"] is None
    code, verified = run(demo, "ledger", "verify")
    assert (code, verified["head_hash"], verified["entries"]) == (0, restored["head_hash"], restored["seq"])
    assert run(demo, "backup", "--verify")[1]["ok"]

    demo.start()
    demo.wait_ready()
    _, switch = ask.json("GET", "/admin/kill-switch")
    assert (switch["on"], switch["reason"][:16]) == (True, "after the backup"), "a restore lets nobody spend again"
    demo.end()
    assert run(demo, "ledger", "verify")[0] == 0
    _assert_no_secret_in(demo)


def _assert_no_secret_in(demo: Demo) -> None:
    """Neither the token nor what the market's platforms were opened with."""
    kept = [file for file in (demo.data / "backups").iterdir() if file.is_file()]
    assert len(kept) >= 6
    secrets = [CANARY, str(demo.sandbox().get("client_secret") or CANARY)]
    for file in (*kept, demo.log, *demo.data.glob("demo.db*")):
        data = file.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in data], file


SPOIL = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(8192)
    file.write(b"\\xff" * 4096 * 60)
"""


def test_a_damaged_database_is_served_and_restored_over_http(demo: Demo) -> None:
    demo.start()
    demo.wait_ready()
    ask = Client(demo)
    name = ask.json("POST", "/admin/backup")[1]["backup_id"]
    wait_until(ask, "/admin/backups", "making", None, demo)
    demo.end()  # in order, so that the WAL is folded back and hides nothing
    subprocess.run([sys.executable, "-c", SPOIL, str(demo.database)], check=True)
    spoiled = demo.database.read_bytes()
    assert run(demo, "doctor")[0] == 1

    demo.start()
    ready = demo.wait("/ready", lambda status, body: status == 503 and "safe hold" in body["reason"])
    assert "damaged" in ready["reason"]
    assert demo.database.read_bytes() == spoiled, "left as found"
    assert run(demo, "restore", name)[0] == 75, "a stand-in holds its place"
    assert ask.json("GET", "/status")[1]["ready"] is False
    assert ask.json("POST", f"/admin/backups/{name}/restore", {"confirm": "another"})[0] == 422
    assert ask.json("POST", "/admin/backups/demo-20200101T000000Z-daily/restore", {"confirm": "x"})[0] == 404
    before = len(demo.effects())
    status, done = ask.json("POST", f"/admin/backups/{name}/restore", {"confirm": name})
    assert status == 200, done
    demo.wait_ready()
    assert ask.json("GET", "/api/v1/ledger/verify")[1]["ok"]
    exported = ask("GET", "/api/v1/ledger/export")[1].decode().splitlines()
    assert json.loads(exported[done["seq"] - 1])["hash"] == done["head_hash"]
    assert demo.end()[0] == 0
    assert len(demo.effects()) >= before
    assert any(Path(demo.folder / path).read_bytes()[:9000] == spoiled[:9000] for path in done["replaced"])


def stop_reason(ask: Client) -> str:
    """Why spending is stopped, as soon as the agent is far enough to be asked."""
    due = time.monotonic() + 20
    while True:
        status, switch = ask.json("GET", "/admin/kill-switch")
        if status == 200:
            return str(switch["reason"])
        assert time.monotonic() < due, switch
        time.sleep(0.05)


def holds(status: int, body: Any) -> bool:
    return status == 503 and "safe hold" in body["reason"]


def test_a_database_that_may_not_be_written_is_stood_in_for_until_it_may(demo: Demo) -> None:
    """From the start on: campaigns are paused, a stop is taken, and the record knows of both when it is back."""
    demo.before = BOUND
    demo.start()
    demo.wait_ready()
    ask = Client(demo)
    demo.wait("/ready", lambda status, body: any(each["kind"] == "adjust_bid" for each in demo.effects()))
    demo.end()
    mode, before = os.stat(demo.database).st_mode, len(demo.effects())
    os.chmod(demo.database, 0o400)
    demo.start()
    ready = demo.wait("/ready", holds)
    assert "read-only" in ready["reason"] or "opened" in ready["reason"]
    demo.wait("/ready", lambda status, body: len(demo.effects()) > before)
    assert all(each["after"] < each["before"] for each in demo.effects()[before:]), "nothing but cuts"
    assert ask.json("GET", "/status")[1]["ready"] is False
    status, switch = ask.json("POST", "/admin/kill-switch", {"on": True, "reason": "seen on the page"})
    assert (status, switch["on"], switch["recorded"]) == (200, True, False)
    assert ask.json("POST", "/api/v1/autonomy/meta", {"level": "watch", "reason": "x"})[0] == 503
    assert demo.end()[0] == 0
    demo.start()
    demo.wait("/ready", holds)
    assert "seen on the page" in stop_reason(ask)
    demo.end(signal.SIGKILL)  # what the stand-in did and was told is not lost with the process either
    os.chmod(demo.database, mode)
    paused = len(demo.effects()) - before
    demo.start()
    demo.wait_ready()
    assert "seen on the page" in stop_reason(ask)
    assert demo.end()[0] == 0
    with closing(sqlite3.connect(demo.database)) as connection:
        known = connection.execute("SELECT count(*) FROM intents WHERE kind = 'set_status' AND after = 0").fetchone()[0]
        edits = connection.execute("SELECT count(*) FROM external_edits").fetchone()[0]
    assert known >= paused > 0
    assert edits == 0, "its own pauses are nobody else's"


@pytest.fixture
def sick_disk(demo: Demo) -> Iterator[Path]:
    """A disk of its own for the agent's folder; the demo's market lives beside it. Needs the right to mount."""
    market = demo.folder / "market"
    market.mkdir()
    demo.data.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(demo.data)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("mounting a small disk needs root")
    (demo.data / "sandbox").symlink_to(market)
    yield demo.data
    demo.clean_up()
    subprocess.run(["umount", "-l", str(demo.data)], check=True)


def read_only(disk: Path, *, sick: bool) -> None:
    subprocess.run(["mount", "-o", f"remount,{'ro' if sick else 'rw'}", str(disk)], check=True)


def full(disk: Path, *, sick: bool) -> None:
    filler = disk / "filler"
    if not sick:
        filler.unlink()
        return
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 12)):
                pass
        except OSError:
            pass


@pytest.mark.parametrize("fall", [read_only, full])
def test_a_start_on_a_sick_disk_holds_until_it_is_cured(demo: Demo, sick_disk: Path, fall: Callable[..., None]) -> None:
    demo.start()
    demo.wait_ready()
    ask = Client(demo)
    assert ask.json("POST", "/api/v1/autonomy/tiktok", {"level": "watch", "reason": "mine alone"})[0] == 200
    demo.wait("/ready", lambda status, body: any(each["kind"] == "adjust_bid" for each in demo.effects()))
    demo.end()
    before = len(demo.effects())
    fall(sick_disk, sick=True)
    demo.start()
    demo.wait("/ready", holds)
    demo.wait("/ready", lambda status, body: len(demo.effects()) > before)
    assert ask.json("POST", "/admin/kill-switch", {"on": True, "reason": "seen on the page"})[0] == 200
    fall(sick_disk, sick=False)
    demo.wait_ready()
    assert "seen on the page" in stop_reason(ask)
    cuts = demo.effects()[before:]
    assert all(each["after"] < each["before"] for each in cuts), "nothing but cuts"
    assert "tiktok" not in {each["platform"] for each in cuts}, "its level was read"
    assert demo.end()[0] == 0
    with closing(sqlite3.connect(demo.database)) as connection:
        assert connection.execute("SELECT count(*) FROM external_edits").fetchone() == (0,)
    assert run(demo, "ledger", "verify")[0] == 0
