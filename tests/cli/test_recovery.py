"""`backup`, `restore` and `doctor`: what they find, what they refuse, and how they say it."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.ledger import Ledger
from kiki_agent.ledger.fallback import Fallback
from kiki_agent.model import SECOND, Instant, Intent, IntentKind
from kiki_agent.recovery.beside import make_place, stand_in_path
from kiki_agent.runtime.clock import SystemClock
from kiki_agent.store import Store
from kiki_agent.store.lock import LockFile
from kiki_agent.store.schema import lock_path

from .conftest import Kiki

NOW = Instant(1_750_000_000 * SECOND)
PORT = ("--set", "http.port=0")


@pytest.fixture
async def database(folder: Path) -> Path:
    """A database of the demo with a few entries, closed."""
    path = folder / "data" / "demo.db"
    store = await Store.open(path, now=NOW)
    ledger = await Ledger.open(store, path.with_suffix(".head"), client_id="demo", now=NOW)
    for number in range(5):
        await store.write(
            lambda connection, n=number: ledger.append(connection, NOW, "control", {"amount_micros": 100 + n})
        )
    await ledger.write_head()
    await store.close()
    os.chmod(path, 0o600)
    return path


def find(ended: Any, check: str) -> tuple[str, str]:
    (found,) = [each for each in ended.json["findings"] if each["check"] == check]
    return found["state"], found["finding"] + " " + found["remedy"]


class TestBackup:
    """`backup`, with --list and --verify."""

    def test_make_list_verify(self, kiki: Kiki, database: Path) -> None:
        assert "There is no backup" in kiki("backup", "--list").out
        made = kiki("backup", "--json")
        assert made.code == 0
        assert made.json["verified"]
        assert made.json["seq"] == 7
        name = made.json["name"]
        assert (Path("data/backups") / f"{name}.db").exists()
        assert [each["name"] for each in kiki("backup", "--list", "--json").json["backups"]] == [name]
        assert name in kiki("backup", "--list").out
        assert kiki("backup", "--verify", name).out == f"{name}: whole, 7 entries, head {made.json['head_hash']}\n"

    def test_a_spoiled_backup_ends_with_1(self, kiki: Kiki, database: Path) -> None:
        name = kiki("backup", "--json").json["name"]
        os.truncate(f"data/backups/{name}.db", 8192)
        ended = kiki("backup", "--verify", "--json")
        assert (ended.code, ended.json["ok"]) == (1, False)
        assert "bytes" in ended.json["backups"][0]["problem"]
        assert "no: its bytes" in kiki("backup", "--list").out

    def test_a_record_that_is_not_whole_makes_a_backup_that_says_so(self, kiki: Kiki, database: Path) -> None:
        head = json.loads(database.with_suffix(".head").read_text())
        database.with_suffix(".head").write_text(json.dumps(head | {"hash": "00" * 32}))
        ended = kiki("backup")
        assert ended.code == 1
        assert "not whole, not to be relied on" in ended.out

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (("backup", "--list", "--verify"), 2, "one at a time"),
            (("backup", "some-name"), 2, "a name goes with --verify"),
            (("backup", "--verify"), 1, "there is no backup"),
            (("backup", "--verify", "../../etc/passwd"), 1, "is not the name of a backup"),
            (("backup", "--verify", "demo-20200101T000000Z-daily"), 1, "there is no backup"),
            (("restore", "demo-20200101T000000Z-daily"), 1, "there is no backup"),
            (("restore", "nowhere.db"), 1, "nowhere.db; `kiki-agent backup --list` names those there are"),
            (("restore",), 2, "Missing argument"),
        ],
    )
    def test_what_cannot_be_is_one_sentence(
        self, kiki: Kiki, database: Path, arguments: tuple[str, ...], code: int, words: str
    ) -> None:
        ended = kiki(*arguments)
        assert ended.code == code
        assert words in ended.err
        assert len(ended.err.strip().splitlines()) == 1

    def test_there_is_nothing_to_back_up(self, kiki: Kiki) -> None:
        ended = kiki("backup")
        assert ended.code == 1
        assert "there is no database" in ended.err


class TestRestore:
    """`restore` by name and by path."""

    def test_by_name_and_by_path(self, kiki: Kiki, database: Path) -> None:
        made = kiki("backup", "--json").json
        for argument in (made["name"], f"data/backups/{made['name']}.db"):
            done = kiki("restore", argument, "--json")
            assert done.code == 0, done.err
            assert (done.json["seq"], done.json["head_hash"]) == (7, made["head_hash"])
            assert done.json["replaced"]
            verified = kiki("ledger", "verify", "--json").json
            assert (verified["ok"], verified["head_hash"]) == (True, made["head_hash"])
        assert "waits until every platform" in kiki("restore", made["name"]).out

    async def test_it_is_refused_while_an_agent_runs(self, kiki: Kiki, database: Path) -> None:
        name = kiki("backup", "--json").json["name"]
        store = await Store.open(database, now=NOW)
        ended = kiki("restore", name)
        await store.close()
        assert ended.code == 75
        assert f"pid {os.getpid()}" in ended.err

    def test_a_text_file_is_no_backup(self, kiki: Kiki, database: Path) -> None:
        Path("letter.txt").write_text("Dear agent")
        ended = kiki("restore", "letter.txt")
        assert ended.code == 1
        assert "is not whole" in ended.err


def _nothing(database: Path) -> None:
    """All is well."""


def _damage(database: Path) -> None:
    data = bytearray(database.read_bytes())
    data[-4096 * 20 :] = b"\xff" * 4096 * 20
    database.write_bytes(bytes(data))


def _forge(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("DROP TRIGGER ledger_entries_no_update")
    connection.execute("UPDATE ledger_entries SET body = '{\"amount_micros\":1}' WHERE seq = 4")
    connection.commit()
    connection.close()


def _newer(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 1)")
    connection.commit()
    connection.close()


ILLS: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "damaged": (_damage, "database", "failed", "restore NAME"),
    "forged": (_forge, "ledger", "failed", "entry 4 was changed"),
    "head lost": (lambda path: path.with_suffix(".head").unlink(), "known head", "failed", "lost head file"),
    "head unreadable": (lambda path: path.with_suffix(".head").write_text("{"), "known head", "failed", "name"),
    "database gone": (lambda path: path.unlink(), "known head", "failed", "knows a ledger that is gone"),
    "newer program": (_newer, "migrations", "failed", "9999 later is unknown"),
    "restore cut off": (
        lambda path: path.with_name("demo.db.restore").write_text('{"backup":"b"}'),
        "restore",
        "failed",
        "kiki-agent restore b",
    ),
    "open to all": (lambda path: path.chmod(0o644), "rights", "warning", "chmod o-rwx"),
    "no backup": (_nothing, "backups", "warning", "Make one now"),
}


class TestDoctor:
    """`doctor`."""

    def test_nothing_is_wrong(self, kiki: Kiki, database: Path) -> None:
        kiki("backup")
        ended = kiki("doctor", "--json", *PORT)
        assert (ended.code, ended.json["ok"]) == (0, True), ended.out
        states = {each["check"]: each["state"] for each in ended.json["findings"]}
        assert {"configuration", "data folder", "disk", "lock", "port", "database", "migrations", "known head"} <= set(
            states
        )
        assert {"ledger", "backups", "clock", "credentials", "plugin sandbox", "platforms"} <= set(states)
        assert set(states.values()) == {"ok", "skipped"}
        assert "Nothing is wrong" in kiki("doctor", *PORT).out

    @pytest.mark.parametrize("ill", ILLS)
    def test_each_ill_is_named_with_what_to_do(self, kiki: Kiki, database: Path, ill: str) -> None:
        make, check, state, words = ILLS[ill]
        make(database)
        ended = kiki("doctor", "--json", *PORT)
        found, text = find(ended, check)
        assert found == state
        assert words in text
        assert ended.code == (1 if state == "failed" else 0)
        shown = kiki("doctor", *PORT).out
        assert "What to do:" in shown

    def test_who_uses_the_database_is_told(self, kiki: Kiki, database: Path) -> None:
        held = LockFile.take(lock_path(database))
        ended = kiki("doctor", "--json")
        held.release()
        assert find(ended, "lock") == ("ok", f"An agent runs: pid {os.getpid()} on {socket.gethostname()}. ")
        assert not [each for each in ended.json["findings"] if each["check"] == "port"], "it may well listen there"

    def test_a_port_in_use_and_a_wrong_configuration(self, kiki: Kiki, folder: Path) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            ended = kiki("doctor", "--json", "--set", f"http.port={other.getsockname()[1]}")
        assert find(ended, "port")[0] == "failed"
        wrong = kiki("doctor", "--json", "--set", "http.prot=1")
        assert wrong.code == 1
        assert "http.port" in find(wrong, "configuration")[1]

    def test_a_ledger_from_the_future_is_a_clock_that_was_wrong(self, kiki: Kiki, database: Path) -> None:
        connection = sqlite3.connect(database)
        connection.execute("DROP TRIGGER ledger_entries_no_update")
        later = SystemClock().now() + 86_400 * SECOND
        connection.execute("UPDATE ledger_entries SET at = ? WHERE seq = 7", (later,))
        connection.commit()
        connection.close()
        for suffix in (".db", ".head"):
            database.with_suffix(suffix).rename(database.with_name(f"dryrun{suffix}"))
        state, text = find(kiki("doctor", "--json", "--set", "mode=dry-run", *PORT), "clock")
        assert state == "warning"
        assert "NTP" in text

    def test_a_stand_in_that_was_left_is_told(
        self, kiki: Kiki, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        place = stand_in_path(database)
        assert make_place(place) is None
        place.write_bytes(b"")
        assert find(kiki("doctor", "--json", *PORT), "stand-in")[0] == "warning"
        place.parent.chmod(0o755)  # as somebody else may have put it there
        assert "stand-in" not in {each["check"] for each in kiki("doctor", "--json", *PORT).json["findings"]}

    def test_cuts_that_wait_are_told(self, kiki: Kiki, database: Path) -> None:
        cuts = Fallback(database.with_suffix(".cuts"))
        cuts.prepare()
        assert find(kiki("doctor", "--json", *PORT), "cuts")[0] == "ok"
        intent = Intent("k", IntentKind.SET_STATUS, "meta", "c", 1, 0, "USD", "SAFE_HOLD", NOW)
        cuts.write_intents(NOW, [intent])
        cuts.close()
        assert find(kiki("doctor", "--json", *PORT), "cuts")[0] == "warning"
