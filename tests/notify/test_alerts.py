"""An alert is stored once with its cause, says its weight, and reaches people or is given up after a day."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from kiki_agent.errors import PluginError, Temporary, Unsupported
from kiki_agent.ledger import Ledger
from kiki_agent.model import DAY, HOUR, MINUTE, SECOND, Alert, Instant, Severity
from kiki_agent.notify import Alerts, DeliveryLoop
from kiki_agent.notify.alerts import formatted
from kiki_agent.store import Store

NOW = Instant(1_790_000_000 * SECOND)
Open = Callable[..., Awaitable[Alerts]]


class Notifiers:
    """Stands where the plugin caller does; channels in `down` do not work."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Alert]] = []
        self.tries: list[tuple[str, str]] = []
        self.down: dict[str, PluginError] = {}

    async def to(self, instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
        assert verb == "notify"
        (alert,) = args
        assert isinstance(alert, Alert)
        self.tries.append((instance_id, alert.notification_id))
        if instance_id in self.down:
            raise self.down[instance_id]
        self.told.append((instance_id, alert))
        return None


@pytest.fixture
def notifiers() -> Notifiers:
    return Notifiers()


@pytest.fixture
async def opens(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the alerts of the next process."""
    stores: list[Store] = []

    async def opens(*channels: str) -> Alerts:
        for store in stores:
            await store.close()
        stores.append(await Store.open(tmp_path / "agent.db", synchronous="OFF", readers=1, now=NOW))
        ledger = await Ledger.open(stores[-1], tmp_path / "agent.head", client_id="demo", now=NOW)
        return Alerts(stores[-1], ledger, channels)

    yield opens
    for store in stores:
        await store.close()


def alert(number: int = 1, severity: Severity = Severity.INFO, at: int = NOW) -> Alert:
    return Alert(
        f"shift-{number}",
        severity,
        "72.86 USD a day moved from TikTok to Amazon",
        "TikTok earns -18.8 % against the average of all platforms.",
        Instant(at),
        {"to_platform": "PLATFORM_AMAZON", "amount_shifted": "72.86"},
    )


def loop(alerts: Alerts, notifiers: Notifiers) -> DeliveryLoop:
    return DeliveryLoop(alerts, notifiers)  # type: ignore[arg-type]


async def rows(alerts: Alerts, sql: str) -> list[tuple[object, ...]]:
    return await alerts._store.read(lambda connection: connection.execute(sql).fetchall())


async def statuses(alerts: Alerts) -> list[tuple[object, ...]]:
    """Channel, status and attempts of all deliveries."""
    return await rows(alerts, "SELECT channel, status, attempts FROM notification_deliveries ORDER BY 1")


@pytest.mark.parametrize(
    ("severity", "marker"), [(Severity.INFO, "ℹ"), (Severity.WARNING, "⚠"), (Severity.CRITICAL, "🚨")]
)
def test_the_text_begins_with_its_weight(severity: Severity, marker: str) -> None:
    """NTF-02."""
    assert formatted(alert(severity=severity)).splitlines() == [
        f"{marker} 72.86 USD a day moved from TikTok to Amazon",
        "TikTok earns -18.8 % against the average of all platforms.",
        "amount_shifted: 72.86",
        "to_platform: PLATFORM_AMAZON",
    ]
    assert formatted(Alert("x", severity, "Title", "", NOW)) == f"{marker} Title"


async def test_an_alert_is_stored_once_with_a_ledger_entry(opens: Open) -> None:
    alerts = await opens("desk", "phone")
    assert await alerts.tell(alert())
    assert not await alerts.tell(alert())
    assert await alerts.tell(alert(2, Severity.CRITICAL, NOW + SECOND))
    newest, oldest = await alerts.latest()
    assert (newest.notification_id, newest.severity, oldest.notification_id) == ("shift-2", "CRITICAL", "shift-1")
    assert oldest.formatted == formatted(alert())
    assert oldest.metadata == alert().metadata
    assert oldest.read_at is None
    assert await alerts.latest(1, 1) == [oldest]
    assert await rows(alerts, "SELECT count(*) FROM ledger_entries WHERE kind = 'alert'") == [(2,)]
    assert await rows(alerts, "SELECT count(*) FROM notification_deliveries") == [(4,)]


async def test_an_alert_shares_the_fate_of_its_cause(opens: Open) -> None:
    alerts = await opens("desk")

    def work(connection: sqlite3.Connection) -> None:
        assert alerts.record(connection, alert())
        raise KeyError("the cause did not happen")

    with pytest.raises(KeyError):
        await alerts._store.write(work)
    assert await alerts.latest() == []
    assert await rows(alerts, "SELECT count(*) FROM notification_deliveries") == [(0,)]


async def test_every_channel_gets_it_once(opens: Open, notifiers: Notifiers) -> None:
    alerts = await opens("desk", "phone")
    await alerts.tell(alert())
    deliver = loop(alerts, notifiers)
    assert await deliver.tick(NOW) is None
    assert notifiers.told == [("desk", alert()), ("phone", alert())]
    assert await deliver.tick(Instant(NOW + DAY)) == "nothing waits to be delivered"
    assert len(notifiers.tries) == 2
    assert await statuses(alerts) == [("desk", "sent", 1), ("phone", "sent", 1)]


async def test_what_is_not_delivered_is_tried_again_later_and_later(opens: Open, notifiers: Notifiers) -> None:
    alerts = await opens("desk", "phone")
    await alerts.tell(alert())
    deliver = loop(alerts, notifiers)
    notifiers.down["phone"] = Temporary("no answer")
    tried: list[int] = []
    for second in range(0, 4 * 3_600, 10):
        before = len(notifiers.tries)
        await deliver.tick(Instant(NOW + second * SECOND))
        if len(notifiers.tries) > before:
            tried.append(second // 60)
    assert tried == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    assert await rows(alerts, "SELECT error FROM notification_deliveries WHERE channel = 'phone'") == [("no answer",)]
    notifiers.down.clear()
    await deliver.tick(Instant(NOW + 5 * HOUR))
    assert notifiers.told == [("desk", alert()), ("phone", alert())]
    assert await statuses(alerts) == [("desk", "sent", 1), ("phone", "sent", 10)]
    assert await rows(alerts, "SELECT error FROM notification_deliveries WHERE channel = 'phone'") == [("",)]


async def test_a_clock_put_back_keeps_no_alert_waiting(opens: Open, notifiers: Notifiers) -> None:
    alerts = await opens("phone")
    await alerts.tell(alert())
    await loop(alerts, notifiers).tick(Instant(NOW - 365 * DAY))
    assert notifiers.told == [("phone", alert())]


async def test_it_is_given_up_after_a_day(opens: Open, notifiers: Notifiers) -> None:
    alerts = await opens("phone")
    await alerts.tell(alert())
    deliver = loop(alerts, notifiers)
    notifiers.down["phone"] = Unsupported("switched off")
    for minute in range(30 * 60):
        await deliver.tick(Instant(NOW + minute * MINUTE))
    ((_, status, attempts),) = await statuses(alerts)
    assert status == "failed"
    assert 25 <= int(str(attempts)) <= 32
    assert len(notifiers.tries) == attempts
    notifiers.down.clear()
    await deliver.tick(Instant(NOW + 2 * DAY))
    assert notifiers.told == []
    assert len(await alerts.latest()) == 1, "the page still shows it"


async def test_a_restart_delivers_what_was_left(opens: Open, notifiers: Notifiers) -> None:
    alerts = await opens("desk", "phone")
    await alerts.tell(alert())
    notifiers.down["phone"] = Temporary("no answer")
    await loop(alerts, notifiers).tick(NOW)
    alerts = await opens("desk", "phone")
    notifiers.down.clear()
    await loop(alerts, notifiers).tick(Instant(NOW + HOUR))
    assert notifiers.told == [("desk", alert()), ("phone", alert())]


async def test_one_broken_channel_does_not_keep_the_others_waiting(opens: Open, notifiers: Notifiers) -> None:
    alerts = await opens("broken", "desk")
    for number in range(150):
        await alerts.tell(alert(number))
    notifiers.down["broken"] = Temporary("no answer")
    deliver = loop(alerts, notifiers)
    for second in range(0, 60, 10):
        await deliver.tick(Instant(NOW + second * SECOND))
    assert len(notifiers.told) == 150
    assert len(notifiers.tries) - 150 <= 6, "one try a tick, or each would wait for the deadline of all"


async def test_without_a_channel_nothing_waits(opens: Open, notifiers: Notifiers) -> None:
    alerts = await opens()
    await alerts.tell(alert())
    assert await loop(alerts, notifiers).tick(NOW) == "no notifier is configured"
    assert notifiers.tries == []
    assert await rows(alerts, "SELECT count(*) FROM notification_deliveries") == [(0,)]
