"""What the parts publish reaches people once, with its weight, also when the database was away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.ledger import Ledger
from kiki_agent.model import HOUR, SECOND, Alert, Instant
from kiki_agent.notify import Alerts, NewsLoop
from kiki_agent.runtime.signals import Signals
from kiki_agent.store import Store

NOW = Instant(1_790_000_000 * SECOND)


class Desk:
    """A loop on a real database, and the switches a test turns."""

    def __init__(self, alerts: Alerts) -> None:
        self.alerts = alerts
        self.signals = Signals()
        self.hold: str | None = None
        self.loop = NewsLoop(alerts, self.signals, lambda: self.hold)
        self.now = NOW

    async def tick(self) -> list[tuple[str, str, str]]:
        """One tick later: all alerts so far, oldest first."""
        self.now = Instant(self.now + 2 * SECOND)
        await self.loop.tick(self.now)
        return [(each.severity, each.title, each.message) for each in reversed(await self.alerts.latest())]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = await Store.open(tmp_path / "agent.db", synchronous="OFF", readers=1, now=NOW)
    ledger = await Ledger.open(store, tmp_path / "agent.head", client_id="demo", now=NOW)
    yield Desk(Alerts(store, ledger, ["chat"]))
    await store.close()


@pytest.mark.parametrize(
    ("scope", "level", "spent", "severity", "title"),
    [
        ("day", "warning", 80_000_000, "WARNING", "meta used 80 % of the cap of its day"),
        ("day", "critical", 95_000_000, "CRITICAL", "meta used 95 % of the cap of its day"),
        ("allocation", "warning", 81_900_000, "WARNING", "meta used 81 % of its allocation"),
        ("window", "warning", 80_000_000, "WARNING", "meta used 80 % of its spending window"),
        ("day", "overshoot", 120_000_000, "CRITICAL", "meta spent more than the cap of its day"),
        (
            "client_day",
            "warning",
            80_000_000,
            "WARNING",
            "All platforms together used 80 % of the client's cap of the day",
        ),
        (
            "client_day",
            "overshoot",
            101_000_000,
            "CRITICAL",
            "All platforms together spent more than the client's cap of the day",
        ),
        (
            "client_window",
            "critical",
            95_000_000,
            "CRITICAL",
            "All platforms together used 95 % of the client's spending window",
        ),
    ],
)
async def test_a_budget_that_runs_short_is_told_once(
    desk: Desk, scope: str, level: str, spent: int, severity: str, title: str
) -> None:
    subject = "" if scope.startswith("client") else "meta"
    fact = {"scope": scope, "subject": subject, "level": level, "spent_micros": spent, "limit_micros": 100_000_000}
    desk.signals.publish("budget", fact | {"currency": "USD"})
    told = await desk.tick()
    assert [(each[0], each[1]) for each in told] == [(severity, title)]
    assert f"{spent / 1e6:.2f} of 100.00 USD" in told[0][2]
    assert await desk.tick() == told


@pytest.mark.parametrize(
    ("error", "essential", "severity"),
    [
        ("Temporary: no answer", False, "WARNING"),
        ("Temporary: no answer", True, "CRITICAL"),
        ("Outdated: version v3 is over", False, "CRITICAL"),
        ("AuthExpired: the token was revoked", False, "CRITICAL"),
        ("AccountMismatch: the account is in EUR", False, "CRITICAL"),
    ],
)
async def test_a_loop_that_fails_weighs_what_it_costs(desk: Desk, error: str, essential: bool, severity: str) -> None:
    desk.signals.publish("loop.faulted", {"loop": "poll:meta", "essential": essential, "error": error})
    assert await desk.tick() == [(severity, "Reading meta does not work", error)]
    desk.signals.publish("loop.recovered", {"loop": "poll:meta", "essential": essential, "error": error})
    assert (await desk.tick())[-1][:2] == ("INFO", "Reading meta works again")


async def test_hold_and_its_end_are_told_once_each(desk: Desk) -> None:
    assert await desk.tick() == []
    desk.hold = "the disk is full"
    held = await desk.tick()
    assert held == [("CRITICAL", "Safe hold: nothing is spent", "the disk is full")]
    assert await desk.tick() == held
    desk.hold = None
    assert (await desk.tick())[1:] == [("INFO", "Safe hold is over", "What held it is over: the disk is full")]


async def test_the_kill_switch_a_quota_and_plain_news_are_told(desk: Desk) -> None:
    desk.signals.publish("shield", {"kill_switch": True, "reason": "a drill", "at": 1})
    desk.signals.publish("shield", {"caps": "changed"})
    desk.signals.publish("quota", {"connector": "meta", "used": 180, "limit": 200, "window_s": 3600})
    desk.signals.publish("news", {"severity": "INFO", "title": "A thing", "message": "Happened.", "subject": "x"})
    assert sorted(await desk.tick()) == [
        (
            "CRITICAL",
            "Kill switch is on",
            "Campaigns are being paused wherever the agent may write. Reason: a drill.",
        ),
        ("INFO", "A thing", "Happened."),
        ("WARNING", "meta nears its call quota", "180 of 200 calls in 3600 s are used; the agent spaces the rest out."),
    ]


async def test_a_named_fact_is_told_once_by_any_process(desk: Desk) -> None:
    fact = {"scope": "day", "subject": "meta", "level": "warning", "limit_micros": 100_000_000, "currency": "USD"}
    desk.signals.publish("budget", fact | {"spent_micros": 80_000_000, "fact": "day|meta|2026-03-10|warning|100000000"})
    told = await desk.tick()
    later = Desk(desk.alerts)
    later.now = Instant(desk.now + 3 * HOUR)
    later.signals.publish(
        "budget", fact | {"spent_micros": 83_000_000, "fact": "day|meta|2026-03-10|warning|100000000"}
    )
    assert await later.tick() == told
    later.signals.publish(
        "budget", fact | {"spent_micros": 83_000_000, "fact": "day|meta|2026-03-11|warning|100000000"}
    )
    assert len(await later.tick()) == 2


async def test_a_quota_is_told_once_a_day_whoever_counts_it(desk: Desk) -> None:
    counted = {"connector": "meta", "used": 180, "limit": 200, "window_s": 60}
    for _ in range(5):
        desk.signals.publish("quota", counted)
        desk.signals.publish("quota", {"connector": "google_ads", "usage": 0.93})
        told = await desk.tick()
        desk.now = Instant(desk.now + HOUR)
    assert sorted(each[1:] for each in told) == [
        ("google_ads nears its call quota",
         "The platform says that 93 % of its quota is used; the agent spaces the rest out."),
        ("meta nears its call quota", "180 of 200 calls in 60 s are used; the agent spaces the rest out."),
    ]  # fmt: skip
    again = Desk(desk.alerts)
    again.now = desk.now
    again.signals.publish("quota", counted)
    assert await again.tick() == told, "nor again after a restart"
    desk.now = Instant(desk.now + 24 * HOUR)
    desk.signals.publish("quota", counted)
    assert len(await desk.tick()) == 3


async def test_every_turn_of_the_kill_switch_is_told(desk: Desk) -> None:
    for on in (True, False, True):
        desk.signals.publish("shield", {"kill_switch": on, "reason": "a drill", "at": 1})
        told = await desk.tick()
    assert [each[1] for each in told] == ["Kill switch is on", "Kill switch is off", "Kill switch is on"]


async def test_a_clock_put_back_silences_nothing(desk: Desk) -> None:
    news = {"severity": "INFO", "title": "A thing", "message": "Happened.", "subject": "x"}
    desk.signals.publish("news", news)
    await desk.tick()
    desk.now = Instant(desk.now - 365 * 24 * HOUR)
    desk.signals.publish("news", news)
    assert len(await desk.tick()) == 2


async def test_alerts_wait_for_a_database_that_takes_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tell = desk.alerts.tell

    async def away(alert: Alert) -> bool:
        raise StoreError("the disk is full")

    monkeypatch.setattr(desk.alerts, "tell", away)
    desk.hold = "the disk is full"
    assert await desk.tick() == []
    assert await desk.tick() == []
    monkeypatch.setattr(desk.alerts, "tell", tell)
    desk.hold = None
    assert [each[1] for each in await desk.tick()] == ["Safe hold: nothing is spent", "Safe hold is over"]


async def test_what_comes_and_goes_is_told_once_an_hour(desk: Desk) -> None:
    fact = {"loop": "poll:meta", "essential": False, "error": "Temporary: no answer"}
    for _ in range(20):
        desk.signals.publish("loop.faulted", fact)
        desk.signals.publish("loop.recovered", fact)
        told = await desk.tick()
    assert len(told) == 2
    desk.now = Instant(desk.now + HOUR)
    desk.signals.publish("loop.faulted", fact)
    assert len(await desk.tick()) == 3
