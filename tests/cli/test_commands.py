"""Each command through the front door."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

from kiki_agent.cli.root import COMMANDS
from kiki_agent.config import Loaded, Mode
from kiki_agent.ledger import Ledger
from kiki_agent.model import SECOND, Instant
from kiki_agent.store import Store

from .conftest import Kiki


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(kiki: Kiki, name: str) -> None:
    ended = kiki(name, "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: kiki-agent {name}")
    assert kiki(name, "-h").out == ended.out


def test_help_lists_every_command(kiki: Kiki) -> None:
    out = kiki("--help").out
    assert [name for name in COMMANDS if f"\n  {name} " not in out] == []


def test_version(kiki: Kiki) -> None:
    version = kiki("version", "--json").json["version"]
    assert kiki("version").out.startswith(f"kiki-agent {version} (Python ")


class TestConfigShow:
    """`config show`."""

    def test_options_count_before_and_after_the_command(self, kiki: Kiki, folder: Path) -> None:
        (folder / "mine.toml").write_text('client_id = "mine"\n[http]\ntoken = "canary-1234567890"\n')
        before = kiki("--config", "mine.toml", "--set", "http.port=1", "--json", "config", "show")
        after = kiki("config", "show", "--config", "mine.toml", "--set", "http.port=1", "--json")
        assert before == after
        settings = {entry["key"]: entry for entry in after.json["settings"]}
        client_id = {"key": "client_id", "value": "mine", "source": "mine.toml:1", "variables": ["KIKI__CLIENT_ID"]}
        assert settings["client_id"] == client_id
        assert (settings["http.port"]["value"], settings["http.port"]["source"]) == (1, "command line")
        assert settings["http.token"]["value"] == "***"
        assert "canary" not in after.out

    def test_the_later_of_two_flags_wins(self, kiki: Kiki) -> None:
        shown = kiki("--set", "http.port=1", "config", "show", "--set", "http.port=2", "--json").json
        assert next(entry["value"] for entry in shown["settings"] if entry["key"] == "http.port") == 2

    def test_for_people_it_is_a_table(self, kiki: Kiki) -> None:
        lines = kiki("config", "show").out.splitlines()
        assert lines[0] == "file: packaged config.toml"
        assert next(line.split() for line in lines if line.startswith("http.host "))[:2] == ["http.host", "127.0.0.1"]


class TestRunAndDemo:
    """`run` and `demo` hand a loaded configuration to the agent."""

    @pytest.fixture
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
        """What an agent in the place of the real one was given."""
        given: list[Loaded] = []
        stand_in = ModuleType("kiki_agent.live")
        stand_in.main = given.append  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "kiki_agent.live", stand_in)
        return given

    def test_run_follows_the_configuration(self, kiki: Kiki, started: list[Loaded]) -> None:
        assert kiki("run", "--set", "mode=dry-run").code == 0
        assert started[0].settings.mode is Mode.DRY_RUN

    def test_demo_never_touches_a_real_platform(self, kiki: Kiki, folder: Path, started: list[Loaded]) -> None:
        (folder / "config.toml").write_text('mode = "live"\n')
        assert kiki("demo", "--speed", "60", "--seed", "7", "--port", "0").code == 0
        settings = started[0].settings
        assert (settings.mode, settings.demo.speed, settings.demo.seed, settings.http.port) == (Mode.DEMO, 60.0, 7, 0)

    def test_a_bad_flag_is_a_finding_like_any_other(self, kiki: Kiki, started: list[Loaded]) -> None:
        ended = kiki("demo", "--speed", "fast")
        assert ended.code == 2
        assert "command line: demo.speed: found 'fast', expected a number from 0.01 to 3600" in ended.err
        assert started == []

    def test_run_refuses_the_backtest(self, kiki: Kiki, started: list[Loaded]) -> None:
        ended = kiki("run", "--set", "mode=backtest")
        assert (ended.code, started) == (2, [])
        assert "kiki-agent backtest" in ended.err


class TestMigrate:
    """`migrate status` and `migrate up`."""

    def test_from_nothing_to_complete(self, kiki: Kiki) -> None:
        before = kiki("migrate", "status", "--json")
        assert (before.code, before.json["exists"], before.json["complete"]) == (1, False, False)
        applied = kiki("migrate", "up", "--json").json["applied"]
        assert applied == [entry["version"] for entry in before.json["migrations"]]
        after = kiki("migrate", "status", "--json")
        assert (after.code, after.json["complete"]) == (0, True)
        assert kiki("migrate", "up", "--json").json["applied"] == []
        assert "nothing to do" in kiki("migrate", "up").out

    def test_each_mode_has_its_own_database(self, kiki: Kiki) -> None:
        kiki("migrate", "up")
        assert kiki("migrate", "status", "--json", "--set", "mode=dry-run").json["exists"] is False


NOW = Instant(1_750_000_000 * SECOND)


@pytest.fixture
async def ledger_file(folder: Path) -> Path:
    """A database of the demo with three entries, closed."""
    path = folder / "data" / "demo.db"
    store = await Store.open(path, now=NOW)
    ledger = await Ledger.open(store, path.with_suffix(".head"), client_id="demo", now=NOW)
    await store.write(lambda connection: ledger.append(connection, NOW, "control", {"text": "with, comma"}))
    await store.write(lambda connection: ledger.append(connection, NOW, "control", {"text": "zwei\n"}))
    await ledger.write_head()
    await store.close()
    return path


class TestLedger:
    """`ledger verify` and `ledger export`."""

    def test_a_whole_ledger(self, kiki: Kiki, ledger_file: Path) -> None:
        ended = kiki("ledger", "verify", "--json")
        assert ended.code == 0
        assert ended.json["ok"] is True
        assert ended.json["head"] == "data/demo.head"
        assert "the ledger is whole" in kiki("ledger", "verify").out

    def test_a_copy_with_one_byte_changed(self, kiki: Kiki, ledger_file: Path, folder: Path) -> None:
        raw = ledger_file.read_bytes()
        at = raw.index(b"with, comma")
        copy = folder / "copy.db"
        copy.write_bytes(raw[:at] + b"W" + raw[at + 1 :])
        ended = kiki("ledger", "verify", "--database", str(copy), "--json")
        assert (ended.code, ended.json["ok"]) == (1, False)
        assert ended.json["first_bad"] is not None
        assert "the ledger is damaged" in kiki("ledger", "verify", "--database", str(copy)).out

    def test_an_empty_ledger_with_a_known_head(self, kiki: Kiki, ledger_file: Path, folder: Path) -> None:
        kiki("migrate", "up", "--set", "store.folder=other")
        ended = kiki("ledger", "verify", "--database", "other/demo.db", "--head", str(ledger_file.with_suffix(".head")))
        assert ended.code == 1
        assert "known to have been written" in ended.out

    def test_export_to_both_formats(self, kiki: Kiki, ledger_file: Path) -> None:
        lines = [json.loads(line) for line in kiki("ledger", "export").out.splitlines()]
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
        assert lines[-1]["body"] == {"text": "zwei\n"}
        rows = list(csv.DictReader(io.StringIO(kiki("ledger", "export", "--format", "csv").out)))
        assert [row["hash"] for row in rows] == [line["hash"] for line in lines]

    def test_export_never_overwrites(self, kiki: Kiki, ledger_file: Path, folder: Path) -> None:
        done = kiki("ledger", "export", "--output", "out.jsonl", "--json")
        written = (folder / "out.jsonl").read_text()
        assert done.json["entries"] == len(written.splitlines())
        again = kiki("ledger", "export", "--output", str(ledger_file))
        assert again.code == 1
        assert "an export never overwrites a file" in again.err
        assert kiki("ledger", "verify").code == 0

    def test_nothing_is_left_of_an_export_that_failed(self, kiki: Kiki, folder: Path) -> None:
        assert kiki("ledger", "export", "--output", "out.jsonl").code == 1
        assert not (folder / "out.jsonl").exists()


def test_plugins_list(kiki: Kiki) -> None:
    ended = kiki("plugins", "list", "--json")
    assert ended.code == 0
    offered = {entry["name"] for plugin in ended.json["plugins"] for entry in plugin["provides"]}
    assert offered >= {"google_ads", "meta", "sandbox"}
    assert {entry["name"] for entry in ended.json["instances"]} >= {"meta", "google_ads", "shop"}
    assert "connector.meta" in kiki("plugins", "list").out


def test_a_broken_plugin_is_listed_and_the_answer_is_1(kiki: Kiki, folder: Path) -> None:
    (folder / "own").mkdir()
    (folder / "own" / "broken.py").write_text("raise RuntimeError('no luck')\n")
    flags = ("--set", 'plugins.allow=["sandbox", "broken"]', "--set", "plugins.folder=own")
    ended = kiki("plugins", "list", *flags)
    assert ended.code == 1
    assert "no luck" in ended.out
    assert ended.err == ""


class TestCheck:
    """`check`."""

    FREE = ("--set", "http.port=0")

    def test_the_shipped_demo_can_start_and_nothing_is_made(self, kiki: Kiki, folder: Path) -> None:
        ended = kiki("check", "--json", *self.FREE)
        assert ended.json["ok"] is True, ended.out
        assert ended.code == 0
        assert list(folder.iterdir()) == []

    def test_a_wrong_configuration_ends_with_2(self, kiki: Kiki) -> None:
        ended = kiki("check", "--set", "http.prot=1", "--set", "mode=x")
        assert ended.code == 2
        assert ended.out.count("failed") == 3
        assert "An agent cannot start: 2 of 2 checks failed." in ended.out

    def test_plugin_keys_are_looked_at(self, kiki: Kiki) -> None:
        ended = kiki("check", "--json", *self.FREE, "--set", "connector.meta.nonsense=1")
        assert ended.code == 2
        (failed,) = [row for row in ended.json["checks"] if row["state"] == "failed"]
        assert "connector.meta.nonsense" in failed["detail"]

    def test_everything_in_the_way_is_told_at_once(self, kiki: Kiki, folder: Path) -> None:
        (folder / "data").write_text("a file where a folder should be")
        with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
            ended = kiki("check", "--json", "--set", f"http.port={other.server_address[1]}")
        assert ended.code == 1
        failed = {row["check"] for row in ended.json["checks"] if row["state"] == "failed"}
        assert failed == {"database", "port"}

    def test_a_database_that_was_written_by_a_newer_version(self, kiki: Kiki, folder: Path) -> None:
        import sqlite3

        kiki("migrate", "up")
        with sqlite3.connect(folder / "data" / "demo.db") as connection:
            connection.execute("INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 1)")
        connection.close()
        ended = kiki("check", *self.FREE)
        assert ended.code == 1
        assert "9999 later is unknown" in ended.out


ACCOUNTS = """
from kiki_agent import hookimpl
from kiki_agent.errors import AuthExpired

class Account:
    def __init__(self, context):
        self.context = context

    @hookimpl
    async def check(self):
        if self.context.instance_id == "expired":
            raise AuthExpired("the token ended yesterday")

def register(api):
    api.connector("account", Account)
"""


def test_check_asks_real_platforms_whether_they_answer(kiki: Kiki, folder: Path) -> None:
    (folder / "own").mkdir()
    (folder / "own" / "accounts.py").write_text(ACCOUNTS)
    tables = "".join(f'[connector.{name}]\nplugin = "account"\nplatform = "x"\n' for name in ("good", "expired", "off"))
    (folder / "config.toml").write_text(
        f'mode = "dry-run"\n[plugins]\nallow = ["accounts"]\nfolder = "own"\n{tables}enabled = false\n'
    )
    ended = kiki("check", "--json", "--set", "http.port=0")
    rows = {row["check"]: (row["state"], row["detail"]) for row in ended.json["checks"]}
    assert ended.code == 1
    assert rows["connector good"] == ("ok", "answers")
    assert rows["connector off"][0] == "skipped"
    assert rows["connector expired"][0] == "failed"
    assert "the token ended yesterday" in rows["connector expired"][1]


class _Agent(BaseHTTPRequestHandler):
    """Answers like an agent, and keeps what it was asked."""

    asked: list[tuple[str, str, Any, str | None]]
    ready = 200

    def _answer(self, status: int, body: object) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self) -> None:
        self.asked.append(("GET", self.path, None, self.headers["Authorization"]))
        if self.path == "/ready":
            self._answer(self.ready, {"ready": self.ready == 200, "reason": None if self.ready == 200 else "safe hold"})
        else:
            self._answer(200, {"mode": "demo", "bidding": {"ticks": 3}, "tasks": [{"name": "bidding", "state": "ok"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(("POST", self.path, body, self.headers["Authorization"]))
        if body["reason"] == "forbidden":
            self._answer(403, {"detail": "an operator's token is needed"})
        elif body["reason"] == "starting":
            self._answer(503, {"detail": "syncshield is off or not up yet"})
        elif body["reason"] == "garbage":
            self._answer(200, b"<html>")
        else:
            self._answer(200, {"on": body["on"], "reason": body["reason"]})

    def log_message(self, format: str, *args: object) -> None:  # silence is what a test wants
        return


@pytest.fixture
def agent() -> Iterator[type[_Agent]]:
    """A listener in the place of an agent; `port` is where."""
    handler = type("Handler", (_Agent,), {"asked": [], "port": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.port = server.server_address[1]  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler
        server.shutdown()
        thread.join()


class TestStatusAndKillSwitch:
    """Questions to a running agent."""

    def _flags(self, agent: Any) -> tuple[str, ...]:
        return ("--set", f"http.port={agent.port}", "--set", "http.token=0123456789abcdef")

    def test_a_ready_agent(self, kiki: Kiki, agent: type[_Agent]) -> None:
        ended = kiki("status", "--json", *self._flags(agent))
        assert (ended.code, ended.json["ready"], ended.json["status"]["mode"]) == (0, True, "demo")
        assert {entry[3] for entry in agent.asked} == {"Bearer 0123456789abcdef"}
        text = kiki("status", *self._flags(agent)).out
        assert text.startswith("Ready at http://127.0.0.1:")
        assert "ticks" in text

    def test_an_agent_that_is_not_ready_says_why(self, kiki: Kiki, agent: type[_Agent]) -> None:
        agent.ready = 503
        ended = kiki("status", *self._flags(agent))
        assert ended.code == 1
        assert ": safe hold" in ended.out.splitlines()[0]

    def test_nobody_answers(self, kiki: Kiki) -> None:
        ended = kiki("status", "--set", "http.port=1")
        assert ended.code == 1
        assert "no agent answers at http://127.0.0.1:1" in ended.err
        assert ended.err.count("\n") == 1

    @pytest.mark.parametrize(("position", "on"), [("on", True), ("off", False)])
    def test_the_switch(self, kiki: Kiki, agent: type[_Agent], position: str, on: bool) -> None:
        ended = kiki("kill-switch", position, "--reason", "a look", "--json", *self._flags(agent))
        assert ended.json == {"on": on, "reason": "a look"}
        assert agent.asked[-1][:3] == ("POST", "/admin/kill-switch", {"on": on, "reason": "a look"})

    @pytest.mark.parametrize(
        ("reason", "said"),
        [
            ("forbidden", "refused with 403: an operator's token"),
            ("starting", "refused with 503: syncshield is off"),
            ("garbage", "is not a kiki-agent"),
        ],
    )
    @pytest.mark.parametrize("form", [(), ("--json",)])
    def test_a_refusal_is_a_failure(
        self, kiki: Kiki, agent: type[_Agent], reason: str, said: str, form: tuple[str, ...]
    ) -> None:
        ended = kiki("kill-switch", "on", "--reason", reason, *form, *self._flags(agent))
        assert ended.code == 1
        assert said in ended.err
        assert not ended.out

    def test_the_switch_is_not_turned_off_while_the_file_stops(
        self, kiki: Kiki, agent: type[_Agent], tmp_path: Path
    ) -> None:
        (tmp_path / "KILL").touch()
        flags = (*self._flags(agent), "--set", f"store.folder={tmp_path}")
        ended = kiki("kill-switch", "off", "--reason", "all is well", *flags)
        assert ended.code == 1
        assert f"the file {tmp_path / 'KILL'} still stops all spending" in ended.err
        assert not agent.asked, "nothing is spent in the second until the file is seen again"
        (tmp_path / "KILL").unlink()
        assert kiki("kill-switch", "off", "--reason", "all is well", *flags).code == 0


AUCTIONS = "0\t10\t0.001\t0\n1\t20\t0.002\t1\n0\t30\t0.003\t2\n"


class TestBacktest:
    """`backtest --auctions`; the market has tests of its own."""

    def test_every_policy_by_default_over_all_files(self, kiki: Kiki, folder: Path) -> None:
        (folder / "a.tsv").write_text(AUCTIONS)
        (folder / "b.tsv").write_text(AUCTIONS)
        ended = kiki("backtest", "--auctions", "a.tsv", "b.tsv", "--json")
        assert ended.code == 0
        assert ended.json["files"] == ["a.tsv", "b.tsv"]
        assert [row["policy"] for row in ended.json["results"]] == ["truth", "lin:75", "const:5", "mcpc"]
        assert {row["auctions"] for row in ended.json["results"]} == {6}

    def test_policy_and_budget(self, kiki: Kiki, folder: Path) -> None:
        (folder / "a.tsv").write_text(AUCTIONS)
        flags = ("--policy", "const:25", "--budget", "1000", "--train", "a.tsv")
        (row,) = kiki("backtest", "--auctions", "a.tsv", *flags, "--json").json["results"]
        assert (row["impressions"], row["cost"], row["budget"]) == (2, 30, 1000.0)
        assert "const:25" in kiki("backtest", "--auctions", "a.tsv", *flags).out

    @pytest.mark.parametrize("flags", [("--policy", "magic"), ("--budget", "many")])
    def test_nonsense_is_refused(self, kiki: Kiki, folder: Path, flags: tuple[str, str]) -> None:
        (folder / "a.tsv").write_text(AUCTIONS)
        assert kiki("backtest", "--auctions", "a.tsv", *flags).code == 2

    def test_the_market_under_the_agent(self, kiki: Kiki, folder: Path) -> None:
        from kiki_agent import backtest

        given: dict[str, Any] = {}

        class Result:
            """What a run gives back."""

            def to_json(self) -> dict[str, object]:
                return {"ledger_hash": "abc", "totals": {"spend": "1.00"}, "spend_by_day": ["1.00"]}

        def run_market(loaded: Loaded, **kwargs: Any) -> Result:
            given.update(kwargs, mode=loaded.settings.mode)
            kwargs["on_progress"](0.5)
            return Result()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backtest, "run_market", run_market)
            ended = kiki("backtest", "--days", "2", "--seed", "5", "--report", "r.html", "--json")
            text = kiki("backtest", "--days", "2").out
        assert ended.json["ledger_hash"] == "abc"
        assert "spend_by_day" not in text
        assert given["mode"] is Mode.BACKTEST
        assert given["days"] == 2


def test_sandbox_is_served_from_where_it_is_asked(kiki: Kiki, monkeypatch: pytest.MonkeyPatch) -> None:
    from kiki_agent.sandbox import process

    given: list[tuple[Path, dict[str, Any]]] = []
    monkeypatch.setattr(process, "run_sandbox", lambda folder, **kwargs: given.append((folder, kwargs)) or 0)
    assert kiki("sandbox", "--folder", "here", "--port", "0", "--seed", "4", "--speed", "2.5").code == 0
    assert given[0][0] == Path("here")
    assert (given[0][1]["seed"], given[0][1]["speed"], given[0][1]["epoch"]) == (4, 2.5, None)
