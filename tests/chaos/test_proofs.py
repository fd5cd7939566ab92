"""The proofs at a reduced count, and that each of them sees an agent that is wrong; `make chaos` runs them in full."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.ledger import sealing
from kiki_agent.model import Instant
from kiki_agent.store import schema
from kiki_agent.testing import diskrecord, powercut, simulate
from kiki_agent.testing.audit import Audit, check_orders

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def proof(name: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run one as a user would: exit code, its JSON, what it said on the way."""
    done = subprocess.run(
        [sys.executable, "-m", f"kiki_agent.testing.{name}", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stdout.startswith("{"), done.stderr[-3_000:]
    return done.returncode, json.loads(done.stdout), done.stderr


def test_forked_writers_that_are_killed_lose_nothing() -> None:
    code, found, said = proof("forks", "--kills", "100", "--seed", "3")
    counts = found["counts"]
    assert (code, found["problems"]) == (0, []), said
    assert counts["kills"] == 100
    assert counts["kills between journal and confirm"] > 25
    assert counts["  refused at a cap"] > 100, "caps were fought for"
    assert counts["effects"] > 200


def test_power_cuts_lose_nothing_that_was_acknowledged(recorded: Path) -> None:
    code, found, said = proof("powercut", "--disks", "300", "--turns", "24")
    assert (code, found["problems"]) == (0, []), said
    assert found["counts"]["disks rebuilt"] == 300
    assert found["counts"]["acknowledged facts asked for"] > 10_000


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_power_cuts_are_seen_where_commits_are_not_synced(recorded: Path, synchronous: str) -> None:
    code, found, _ = proof("powercut", "--disks", "60", "--turns", "24", "--synchronous", synchronous)
    assert code == 1
    assert found["counts"]["acknowledged facts lost"] > 0 or found["counts"]["disks that lost any"] > 0


def test_power_cuts_while_entries_are_sealed_lose_none(recorded: Path) -> None:
    code, found, said = proof("powercut", "--sealing", "--disks", "40", "--turns", "16")
    assert (code, found["problems"]) == (0, []), said
    assert found["counts"]["acknowledged facts asked for"] > 2_000


def test_a_sealer_that_does_not_wait_for_the_disk_is_seen(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entries left the table before their files were on the disk: the start says which file is not whole."""
    real = sealing.replace_file
    monkeypatch.setattr(sealing, "replace_file", lambda path, data, *, sync: real(path, data, sync=False))
    operations = powercut.record(recorded / "disk", turns=14, seed=1, sealing=True)
    found = powercut.cut(operations, recorded / "disk", recorded / "rebuilt", 10, sealing=True)
    assert found.held > 0
    assert any("segment" in each for each in found.problems)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Skips where this Python's SQLite cannot be recorded."""
    try:
        with diskrecord.Recorder(tmp_path).recording():
            pass
    except diskrecord.NoSqlite as error:
        pytest.skip(f"this Python hides its SQLite, so its disk cannot be recorded: {error}")
    return tmp_path


PATIENT = ("--seed", "18", "--ready-s", "60")
"""The first two lives of this seed end between a change and its answer; the machine of a test may be busy."""


@pytest.mark.process
def test_agents_that_are_killed_lose_nothing() -> None:
    code, found, said = proof("crash", "--kills", "6", *PATIENT)
    counts = found["counts"]
    assert (code, found["problems"]) == (0, []), said
    assert counts["kills"] == 6
    assert counts["kills between journal and confirm"] >= 3
    assert counts["effects at the platforms"] > 20
    assert counts["orders of a person"] > 0


@pytest.mark.process
@pytest.mark.parametrize(("way", "seen"), [("resend", "double effects"), ("journal-late", "effects nobody meant")])
def test_an_agent_that_is_wrong_is_seen(way: str, seen: str) -> None:
    code, found, said = proof("crash", "--kills", "2", *PATIENT, "--break", way)
    assert code == 1
    assert found["counts"][seen] > 0, said


@pytest.mark.process
def test_an_agent_without_its_database_or_with_a_wrong_clock_spends_nothing_it_may_not() -> None:
    code, found, said = proof("holds", "--seconds", "4", "--together", "--slack", "10")
    assert (code, found["problems"]) == (0, []), said
    counts = found["counts"]
    for done in (
        "locked: database locked for 4 s",
        "no-growth: no file may grow for 4 s",
        "clock: 14 jumps of the clock",
    ):
        assert counts[done] == "done"
    held = [name for name in ("locked", "no-growth", "disk-full", "read-only") if f"{name}: skipped" not in counts]
    assert os.geteuid() != 0 or held[2:], "root may mount a small disk or make files immutable"
    for name in held:
        assert counts[f"  {name}: bids refused in hold"] > 0
        assert counts[f"  {name}: effects that raise spend in hold"] == 0


def test_seeds_with_faults_at_every_seam_are_sound_and_repeat() -> None:
    code, found, said = proof("simulate", "--seeds", "2", "--hours", "2")
    counts = found["counts"]
    assert (code, found["problems"]) == (0, []), said
    assert counts["intents"] > 100
    assert counts["restarts"] > 0
    for seam in ("calls refused", "calls cut off after they acted", "writes refused", "  that failed"):
        assert counts[seam] > 0, f"no fault got in at: {seam}"


def test_a_seed_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def ran(seed: int, span: int, *, twice: bool) -> simulate.Ran:
        found = simulate.Ran(seed)
        if seed == 3:
            found.audit.lost = 1
            found.audit.problems.append("an effect is missing")
        return found

    monkeypatch.setattr(simulate, "try_seed", ran)
    monkeypatch.setattr(simulate.log, "configure", lambda *args, **options: None)
    assert simulate.main(["--seeds", "5"]) == 1
    out, err = capsys.readouterr()
    assert "seeds that failed" in out
    assert "seed 3: FAILED" in err
    assert "--seeds 1 --seed 3" in err


def test_a_disk_keeps_what_was_synced_and_any_part_of_the_rest() -> None:
    disk = powercut.Disk()
    write = diskrecord.Write
    for each in (
        diskrecord.Create("/d/a"),
        write("/d/a", 0, b"A" * 1_024),
        diskrecord.Sync("/d/a"),
        write("/d/a", 0, b"B" * 1_024),
        diskrecord.Create("/d/b"),
        write("/d/b", 0, b"new"),
        diskrecord.Sync("/d/b"),
        diskrecord.Rename("/d/b", "/d/c"),
    ):
        disk.do(each)
    assert disk.after_cut("nothing", iter([0.0] * 99)) == {"/d/a": b"A" * 1_024, "/d/b": b"new"}
    assert disk.after_cut("all", iter([0.0] * 99)) == {"/d/a": b"B" * 1_024, "/d/c": b"new"}
    torn = disk.after_cut("sectors", iter([0.0, 0.0, 0.9, 0.1, *[0.0] * 99]))["/d/a"]
    assert torn == b"A" * 512 + b"B" * 512
    disk.do(diskrecord.SyncFolder("/d"))
    assert set(disk.after_cut("nothing", iter([0.0] * 99))) == {"/d/a", "/d/c"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("INSERT INTO orders VALUES ('o2', 'suggestion', 's1', '[{}]', 'p', 3, 'done', '', 4)", "was ordered 2 times"),
        ("UPDATE intents SET cause = 'o1' WHERE key = 'i2'", "makes 2 changes instead of 1"),
        ("DELETE FROM orders", "approved and is not ordered"),
    ],
)
def test_an_order_that_is_wrong_is_seen(tmp_path: Path, wrong: str, words: str) -> None:
    database = tmp_path / "a.db"
    schema.up(database, Instant(0))
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            "INSERT INTO orders VALUES ('o1', 'suggestion', 's1', '[{}]', 'p', 1, 'done', '', 2);"
            "INSERT INTO suggestions VALUES"
            " ('s1', 'change', 'x', 'amazon', '', '', '[{}]', '{}', 0, 9, 'approved', 'p', 1, '');"
        )
        for key, cause in (("i1", "o1"), ("i2", "")):
            connection.execute(
                "INSERT INTO intents (key, connector, campaign_id, kind, before, after, currency, reason, at, cause,"
                " sent_at, state, settled_at) VALUES (?, 'amazon', '1', 'adjust_bid', 1, 2, 'USD', '', 1, ?, 1,"
                " 'accepted', 2)",
                (key, cause),
            )
        found = Audit()
        check_orders(connection, found)
        assert (found.orders, found.disorders, found.problems) == (1, 0, [])
        connection.execute(wrong)
        check_orders(connection, found)
        assert found.disorders == 1
        assert words in found.problems[0]
