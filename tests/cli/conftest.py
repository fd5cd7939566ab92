"""Commands run in a folder of their own, without configuration from outside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.cli import invoke


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document it must be."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The last line of standard error as the JSON object it must be."""
        return json.loads(self.err.splitlines()[-1])["error"]


Kiki = Callable[..., Ended]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("KIKI")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def kiki(capsys: pytest.CaptureFixture[str]) -> Kiki:
    """Runs one command line in this process."""

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = invoke(arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run
