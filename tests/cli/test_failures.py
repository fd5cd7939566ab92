"""How commands fail: one sentence, the right exit code, JSON when asked, the traceback only with -v."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kiki_agent.cli.failure import report
from kiki_agent.errors import Bug, ConfigError, Denied, Fault, Finding, KikiError, StoreError
from kiki_agent.store import AlreadyRunning

from .conftest import Kiki


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "kiki-agent: No such command 'nonsense' (kiki-agent --help)"),
        (["config", "shwo"], "kiki-agent: No such command 'shwo'. Did you mean 'show'? (kiki-agent config --help)"),
        (["status", "--nope"], "kiki-agent: No such option '--nope'"),
        (["--set", "http.port", "config", "show"], "expected key=value such as http.port=9000, found 'http.port'"),
        (["kill-switch", "on"], "Missing option '--reason' (kiki-agent kill-switch --help)"),
        (["kill-switch"], "Missing argument '{on|off}'. Choose from: on, off (kiki-agent kill-switch --help)"),
        (["backtest", "--days", "0"], "kiki-agent: Invalid value for '--days'"),
        (["backtest", "--policy", "lin"], "kiki-agent: --policy has no meaning without --auctions"),
        (["backtest", "stray.tsv"], "kiki-agent: a file has no meaning without --auctions"),
        (["backtest", "--auctions", "x", "--days", "3"], "kiki-agent: --days has no meaning with --auctions"),
    ],
)
def test_misuse_ends_with_2_and_one_sentence(kiki: Kiki, arguments: list[str], said: str) -> None:
    ended = kiki(*arguments)
    assert ended.code == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert ended.out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["backtest", "--report", "nowhere/r.html"], "the report cannot be written to nowhere/r.html"),
        (["ledger", "verify", "--database", "nowhere.db"], "there is no database at nowhere.db"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(
    kiki: Kiki, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kiki_agent import backtest

    monkeypatch.setattr(backtest, "run_market", lambda *_, **__: pytest.fail("it began to work"))
    ended = kiki(*arguments)
    assert ended.code == 1
    assert ended.err.startswith(f"kiki-agent: {said}")
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_a_log_that_is_not_there_is_said_without_the_words_of_the_system(kiki: Kiki) -> None:
    ended = kiki("backtest", "--auctions", "nope.tsv")
    assert ended.code == 2
    assert "nope.tsv: file: cannot be read: No such file or directory\n" in ended.err


@pytest.mark.parametrize("arguments", [[], ["config"], ["ledger"]])
def test_without_a_command_there_is_help_and_2(kiki: Kiki, arguments: list[str]) -> None:
    ended = kiki(*arguments)
    assert ended.code == 2
    assert ended.err.startswith(f"Usage: {' '.join(['kiki-agent', *arguments])} [OPTIONS] COMMAND")


def test_a_wrong_configuration_tells_everything(kiki: Kiki, folder: Path) -> None:
    (folder / "config.toml").write_text("[http]\nprot = 1\n[log]\nlevel = 'loud'\n")
    ended = kiki("config", "show")
    assert ended.code == 2
    assert ended.err.splitlines() == [
        "kiki-agent: what was configured or given cannot be used (2 findings):",
        "  config.toml:2: http.prot: unknown key; did you mean http.port?",
        "  config.toml:4: log.level: found 'loud', expected one of debug, info, warning, error",
    ]


def test_errors_are_json_when_json_is_asked_for(kiki: Kiki) -> None:
    ended = kiki("config", "show", "--json", "--set", "http.prot=1")
    assert (ended.code, ended.out) == (2, "")
    assert ended.error["code"] == "config"
    assert ended.error["exit_code"] == 2
    assert ended.error["findings"] == [
        {"place": "command line", "key": "http.prot", "message": "unknown key; did you mean http.port?"}
    ]
    assert kiki("--json", "nonsense").error["code"] == "usage"


def test_the_traceback_is_there_with_v_only(kiki: Kiki) -> None:
    assert "Traceback" not in kiki("config", "show", "--config", "no.toml").err
    shown = kiki("config", "show", "--config", "no.toml", "-v").err
    assert "Traceback" in shown
    assert shown.splitlines()[-1] == "  no.toml: (file): does not exist (named by the command line)"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError([Finding("a:1", "b", "c")]), 2, "config"),
        (AlreadyRunning(Path("x.lock"), "pid 7 on here"), 75, "already_running"),
        (StoreError("disk is full"), 1, "failed"),
        (Denied("NO_CAP"), 1, "failed"),
        (Bug("returned nothing"), 1, "failed"),
        (Fault("sum is wrong"), 1, "fault"),
        (KikiError("no"), 1, "failed"),
        (PermissionError(13, "Permission denied", "/x"), 1, "failed"),
        (ZeroDivisionError("division by zero"), 1, "defect"),
    ],
)
def test_each_error_has_its_exit_code(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, said: str
) -> None:
    assert report(error, as_json=True, with_traceback=False) == code
    assert f'"code": "{said}"' in capsys.readouterr().err


def test_a_second_agent_ends_with_75_and_names_the_first(kiki: Kiki, folder: Path) -> None:
    holding = """
import sys
from pathlib import Path
from kiki_agent.store.lock import LockFile
LockFile.take(Path("data/demo.db.lock"))
sys.stdout.write("held\\n"); sys.stdout.flush(); sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        ended = kiki("migrate", "up")
        holder.stdin.close()
    assert ended.code == 75
    assert f"pid {holder.pid}" in ended.err


def test_a_reader_who_leaves_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        command = [sys.executable, "-c", "from kiki_agent.cli import main; main()", "config", "show"]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "")
