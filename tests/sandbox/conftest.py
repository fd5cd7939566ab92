"""The market's kernel is compiled once for all of these tests."""

from __future__ import annotations

import pytest

from kiki_agent.sandbox.kernel import advance

from .vendor import Vendor, small_market


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    advance.compile()


@pytest.fixture
def vendor() -> Vendor:
    """Twelve campaigns, two on each platform, two days old, and nothing goes wrong."""
    return Vendor(small_market())
