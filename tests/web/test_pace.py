"""One client that runs wild is told to wait; others, health and the kill switch answer (SHD-06)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from kiki_agent.model import MINUTE, SECOND, Instant
from kiki_agent.web import Services
from kiki_agent.web.pace import MOST_CLIENTS, Pace
from kiki_agent.web.problem import Problem

from .conftest import Client
from .fakes import NOON, FixedClock
from .fakes import services as well


async def test_the_request_after_the_last_waits_until_the_minute_frees_it(
    client_for: Callable[[Services], Awaitable[Client]],
) -> None:
    clock = FixedClock()
    client = await client_for(well(clock, requests_per_minute=20))
    for number in range(20):
        clock.instant = Instant(NOON + number * SECOND)
        assert (await client.get("/status")).status == 200
    for path in ("/status", "/api/v1/connectors", "/no-such-path"):
        refused = await client.get(path)
        told = await refused.json()
        assert (refused.status, told["code"], refused.headers["Retry-After"]) == (429, "RATE_LIMITED", "41")
        assert "http.requests_per_minute" in told["detail"]
    for path in ("/health", "/healthz", "/ready"):
        assert (await client.get(path)).status == 200, path
    stopped = await client.post("/admin/kill-switch", json={"on": True, "reason": "too much"})
    assert stopped.status == 200, "a stop always gets through"
    clock.instant = Instant(NOON + MINUTE - 1)
    assert (await client.get("/status")).status == 429
    clock.instant = Instant(NOON + MINUTE)
    assert [(await client.get("/status")).status for _ in range(2)] == [200, 429]


def test_clients_are_told_apart_and_the_longest_silent_is_forgotten_first() -> None:
    pace = Pace(1)
    pace.admit("first", NOON)
    pace.admit("second", NOON)
    with pytest.raises(Problem):
        pace.admit("first", NOON)
    for number in range(MOST_CLIENTS - 1):
        pace.admit(f"other {number}", NOON)
    with pytest.raises(Problem):
        pace.admit("first", NOON)
    pace.admit("second", NOON)
