"""Agents on the simulated market."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.runtime import log

from .rig import House

Start = Callable[..., Awaitable[House]]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log._output, "rank", 100)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts an agent; it is ended after the test."""
    opened: list[House] = []

    async def make(**options: Any) -> House:
        opened.append(await House(tmp_path / f"a{len(opened)}", **options).open())
        return opened[-1]

    yield make
    for house in opened:
        await house.close()
