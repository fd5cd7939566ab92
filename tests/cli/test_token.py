"""What commands do with a token that is kept in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest

from .conftest import Kiki

OPEN = ("--set", "http.host=0.0.0.0", "--set", "http.token_file=kept/token")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings agents were started with."""
    seen: list[Any] = []

    def main(loaded: Any) -> NoReturn:
        seen.append(loaded.settings)
        raise SystemExit(0)

    monkeypatch.setattr("kiki_agent.live.main", main)
    return seen


@pytest.mark.parametrize("command", ["run", "demo"])
def test_every_start_has_the_token_the_first_one_made(
    kiki: Kiki, started: list[Any], folder: Path, command: str
) -> None:
    for _ in range(3):
        with pytest.raises(SystemExit):
            kiki(command, *OPEN)
    token = (folder / "kept" / "token").read_text().strip()
    assert [settings.http.token.get_secret_value() for settings in started] == [token] * 3


def test_it_is_said_in_one_line(
    kiki: Kiki, started: list[Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kiki_agent.cli import invoke

    said = []
    for arguments in (["run", *OPEN], ["run", *OPEN], ["run", "--json", *OPEN]):
        with pytest.raises(SystemExit):
            invoke(arguments)
        said.append(capsys.readouterr())
    token = (folder / "kept" / "token").read_text().strip()
    assert [each.err for each in said] == ["", "", ""]
    assert said[0].out == (
        f"The access token of this agent is {token} - it is kept in kept/token and not shown again.\n"
    )
    assert said[1].out == "The access token of this agent is kept in kept/token.\n"
    assert said[2].out == '{"token": null, "token_file": "kept/token"}\n'


def test_without_a_file_nothing_is_said(kiki: Kiki, started: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    from kiki_agent.cli import invoke

    with pytest.raises(SystemExit):
        invoke(["run"])
    assert capsys.readouterr().out == ""
    assert started[0].http.token is None


def test_a_file_without_a_token_ends_with_2_and_one_sentence(kiki: Kiki, started: list[Any], folder: Path) -> None:
    (folder / "kept").mkdir()
    (folder / "kept" / "token").write_text("short")
    ended = kiki("run", *OPEN)
    assert (ended.code, started, ended.out) == (2, [], "")
    assert "kept/token: http.token_file: found 5 characters" in ended.err
    assert "short" not in ended.err
    assert "http.token_file" in kiki("status", *OPEN).err


def test_check_says_where_the_token_is(kiki: Kiki, folder: Path) -> None:
    flags = (*OPEN, "--set", "http.port=0", "--json")
    (row,) = [row for row in kiki("check", *flags).json["checks"] if row["check"] == "token"]
    assert (row["state"], row["detail"]) == ("ok", "kept/token will be made at the first start")
    assert not (folder / "kept").exists()
    (folder / "kept").mkdir()
    (folder / "kept" / "token").write_text("0123456789abcdef")
    (row,) = [row for row in kiki("check", *flags).json["checks"] if row["check"] == "token"]
    assert (row["state"], row["detail"]) == ("ok", "kept/token holds it")
    (folder / "kept" / "token").write_text("")
    ended = kiki("check", *flags)
    (row,) = [row for row in ended.json["checks"] if row["check"] == "token"]
    assert (ended.code, row["state"]) == (1, "failed")
