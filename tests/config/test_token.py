"""The access token in a file: made once, for its user alone, never replaced, and what cannot be one is said."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from kiki_agent.config import HttpSettings, Loaded, load, read_token, shown_settings, with_token
from kiki_agent.config.checks import MIN_TOKEN_LENGTH
from kiki_agent.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "volume" / "token"


def loaded(file: Path, **more: str) -> Loaded:
    return load(None, {}, {"http.host": "0.0.0.0", "http.token_file": str(file)} | more)


def token(of: Loaded) -> str:
    found = of.settings.http.token
    assert found is not None
    return found.get_secret_value()


def test_a_listener_others_can_reach_may_keep_its_token_in_a_file(file: Path) -> None:
    assert loaded(file).settings.http.token is None
    assert not file.exists(), "reading settings makes nothing"
    with pytest.raises(ConfigError, match=r"http\.host"):
        load(None, {}, {"http.host": "0.0.0.0"})


def test_it_is_made_once_and_for_its_user_alone(file: Path) -> None:
    before = os.umask(0)
    try:
        first, kept = with_token(loaded(file))
    finally:
        os.umask(before)
    assert kept is not None
    assert (kept.file, kept.made) == (file, True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(token(first)) >= 43, "256 bits"
    assert file.read_text() == token(first) + "\n"
    assert [each.name for each in file.parent.iterdir()] == [file.name], "nothing is left beside it"
    again, kept = with_token(loaded(file))
    assert kept is not None
    assert not kept.made
    assert token(again) == token(first)


def test_each_agent_gets_another(file: Path) -> None:
    made = {token(with_token(loaded(file.with_name(f"token{number}")))[0]) for number in range(20)}
    assert len(made) == 20


def test_a_token_of_the_configuration_wins_and_no_file_is_made(file: Path) -> None:
    given, kept = with_token(loaded(file, **{"http.token": "0123456789abcdef"}))
    assert (token(given), kept) == ("0123456789abcdef", None)
    assert not file.parent.exists()


def test_one_that_somebody_put_there_is_taken(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("  put-here-by-hand-1234 \r\n")
    taken, kept = with_token(loaded(file))
    assert token(taken) == "put-here-by-hand-1234"
    assert kept is not None
    assert not kept.made
    assert read_token(loaded(file).settings.http) == SecretStr("put-here-by-hand-1234")


def test_two_that_start_at_once_end_with_one_token(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, raced = os.link, []

    def slower(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", real)
        raced.append(token(with_token(loaded(file))[0]))
        real(source, target)

    monkeypatch.setattr(os, "link", slower)
    ours, kept = with_token(loaded(file))
    assert raced == [token(ours)]
    assert kept is not None
    assert not kept.made
    assert len(list(file.parent.iterdir())) == 1


def test_a_client_reads_and_never_makes(file: Path) -> None:
    assert read_token(loaded(file).settings.http) is None
    assert not file.parent.exists()
    assert read_token(HttpSettings()) is None


def test_the_token_is_masked_where_settings_are_shown(file: Path) -> None:
    rows = {row.key: (row.text, row.source) for row in shown_settings(with_token(loaded(file))[0])}
    assert rows["http.token"] == ("***", str(file))
    assert rows["http.token_file"] == (str(file), "command line")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"x" * (MIN_TOKEN_LENGTH - 1), f"found {MIN_TOKEN_LENGTH - 1} characters"),
        (b"first-line-of-sixteen\nsecond-line-of-it", "expected one line"),
        (b"with a blank in between", "expected one line"),
        ("schlüssel-mit-umlaut".encode(), "expected one line"),
        (b"\x00" * 40, "expected one line"),
        (b"x" * 5_000, "expected one line"),
    ],
)
def test_what_cannot_be_a_token_is_said_without_showing_it(file: Path, content: bytes, said: str) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    for read in (lambda: with_token(loaded(file)), lambda: read_token(loaded(file).settings.http)):
        with pytest.raises(ConfigError, match=said) as caught:
            read()
        assert str(caught.value).startswith(f"{file}: http.token_file: ")
        assert "xxxx" not in str(caught.value)
        assert "line-of" not in str(caught.value)
    assert file.read_bytes() == content


def test_a_folder_in_its_place_is_said(file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        with_token(loaded(file))


def test_a_file_in_place_of_its_folder_is_said(file: Path) -> None:
    file.parent.write_text("")
    with pytest.raises(ConfigError, match="cannot be"):
        with_token(loaded(file))


def test_a_disk_that_refuses_leaves_nothing_behind(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ConfigError, match="cannot be made: No space left on device"):
        with_token(loaded(file))
    assert list(file.parent.iterdir()) == []
