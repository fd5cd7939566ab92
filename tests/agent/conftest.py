"""Thousands of log lines of simulated days only hide what a failing test says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kiki_agent.runtime import log


@pytest.fixture(scope="package", autouse=True)
def _quiet() -> Iterator[None]:
    before = log._output.rank
    log._output.rank = 100
    yield
    log._output.rank = before
