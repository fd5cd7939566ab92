"""Predictions that are stored, kept fresh, asked for and missing."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from kiki_agent.config import ValueSettings
from kiki_agent.errors import Bug, PluginError, RateLimited, Temporary
from kiki_agent.model import DAY, HOUR, Customer, CustomerPage, DecisionSource, Instant, parse_iso
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.store import Store
from kiki_agent.value import Value, ValueLoop

NOW = parse_iso("2026-03-10T12:00:00Z")
PLATFORMS = ("meta", "tiktok", "linkedin")


class ScriptedCrm:
    """Stands at the plugin seam: pages of customers by cursor."""

    def __init__(self) -> None:
        self.log: list[Customer] = []
        self.fails: list[PluginError] = []
        self.asked: list[str] = []
        self.page = 100

    async def to(self, instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
        assert verb == "fetch_customers"
        cursor = args[0]
        assert isinstance(cursor, str)
        self.asked.append(cursor)
        if self.fails:
            raise self.fails.pop(0)
        begin = int(cursor or 0)
        found = tuple(self.log[begin : begin + self.page])
        return CustomerPage(found, str(begin + len(found)), begin + len(found) < len(self.log))


async def under_their_own_names(customer_ids: Sequence[str], now: Instant) -> list[str | None]:
    return [*customer_ids]


def customer(name: str, platform: str = "meta", weeks: int = 0, purchases: int = 1, revenue: int = 0) -> Customer:
    won = Instant(NOW - weeks * 7 * DAY)
    return Customer(name, platform, won, purchases, revenue or purchases * 50_000_000, won, won)


class Desk:
    """A value service on a real store with its loop and a scripted CRM."""

    def __init__(self, path: Path, settings: ValueSettings) -> None:
        self.path, self.settings, self.crm = path, settings, ScriptedCrm()

    async def start(self, now: Instant = NOW) -> Desk:
        self.store = await Store.open(self.path / "v.db", synchronous="OFF", now=now)
        self.value = await Value.open(
            self.store,
            self.settings,
            client_id="demo",
            platforms=PLATFORMS,
            metrics=Metrics(process=False),
            tokens=under_their_own_names,
            now=now,
        )
        self.loop = ValueLoop(self.settings, self.value, self.crm, ["crm"])
        return self

    async def insert(self, platform: str, micros: list[int], at: int = NOW, client: str = "demo") -> None:
        """Store predictions as if a model had made them."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO ltv_predictions (client_id, customer_id, platform, predicted_ltv_micros, predicted_at)"
                " VALUES (?, ?, ?, ?, ?)",
                [(client, f"{platform}{at}{number}", platform, each, at) for number, each in enumerate(micros)],
            )

        await self.store.write(work)

    async def rows(self, sql: str) -> list[tuple[object, ...]]:
        return await self.store.read(lambda connection: connection.execute(sql).fetchall())


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = await Desk(tmp_path, ValueSettings()).start()
    yield made
    await made.store.close()


async def test_the_answer_is_mean_quartiles_and_count_of_what_is_stored(desk: Desk) -> None:
    await desk.insert("meta", [400_000_000, 100_000_000, 300_000_000, 200_000_000])
    await desk.insert("meta", [999_000_000], at=NOW - 90 * DAY)
    await desk.insert("meta", [999_000_000], at=NOW + HOUR)
    await desk.insert("meta", [999_000_000], client="another")
    found = await desk.value.platform_ltv("meta", 90, NOW)
    assert (found.average_ltv_micros, found.p25_ltv_micros, found.p75_ltv_micros, found.sample_size) == (
        250_000_000,
        175_000_000,
        325_000_000,
        4,
    )
    wider = await desk.value.platform_ltv("meta", 91, NOW)
    assert wider.sample_size == 5


async def test_without_predictions_there_are_no_numbers(desk: Desk) -> None:
    found = await desk.value.platform_ltv("tiktok", 90, NOW)
    assert (found.average_ltv_micros, found.p25_ltv_micros, found.p75_ltv_micros, found.sample_size) == (
        None,
        None,
        None,
        0,
    )


async def test_the_bidder_hears_the_mean_or_a_fallback(desk: Desk) -> None:
    assert desk.value.ltv_micros("meta") == (300_000_000, DecisionSource.FALLBACK, "prior")
    await desk.insert("meta", [100_000_000, 300_000_000, 200_000_000])
    await desk.value.refresh(NOW)
    assert desk.value.ltv_micros("meta") == (200_000_000, DecisionSource.AI, "prior")
    assert desk.value.ltv_micros("tiktok") == (300_000_000, DecisionSource.FALLBACK, "prior")
    assert desk.value.ltv_micros("linkedin") == (240_000_000, DecisionSource.FALLBACK, "prior")
    assert desk.value.platform_value("meta", NOW).sample_size == 3


async def test_the_history_of_the_fallback_is_short_and_drops_the_oldest(tmp_path: Path) -> None:
    desk = await Desk(tmp_path, ValueSettings(history=3, min_samples=2)).start()
    await desk.insert("meta", [900_000_000], at=NOW - HOUR)
    await desk.value.refresh(NOW)
    assert desk.value.ltv_micros("tiktok")[0] == 300_000_000, "one sample is too few"
    await desk.insert("meta", [100_000_000, 100_000_000, 200_000_000])
    await desk.value.refresh(NOW)
    assert desk.value.ltv_micros("tiktok")[0] == 150_000_000
    await desk.store.close()


async def test_customers_are_read_once_and_predicted_once(desk: Desk) -> None:
    desk.crm.log = [customer(f"c{number}") for number in range(250)]
    assert await desk.loop.tick(NOW) is None
    assert desk.crm.asked == ["", "100", "200"]
    assert await desk.rows(
        "SELECT count(*), min(model_version), sum(pending) FROM ltv_predictions, customers"
        " WHERE ltv_predictions.customer_id = customers.customer_id"
    ) == [(250, "prior", 0)]
    desk.crm.log.append(customer("c7", purchases=2))
    later = Instant(NOW + HOUR)
    assert await desk.loop.tick(later) is None
    assert desk.crm.asked[3:] == ["250"]
    assert desk.value.predicted == 251
    desk.crm.log.append(customer("c7", purchases=2))
    await desk.loop.tick(Instant(NOW + 2 * HOUR))
    assert desk.value.predicted == 251, "the same again is no change"


async def test_a_changed_customer_is_predicted_anew_and_an_unchanged_one_is_not(desk: Desk) -> None:
    first = customer("a")
    desk.crm.log = [first, customer("b")]
    await desk.loop.tick(NOW)
    newer = Customer("a", "meta", first.acquired_at, 3, 700_000_000, NOW, Instant(NOW + HOUR))
    desk.crm.log += [newer, customer("b")]
    assert await desk.loop.tick(Instant(NOW + HOUR)) is None
    assert await desk.rows("SELECT customer_id, predicted_at FROM ltv_predictions ORDER BY 1") == [
        ("a", NOW + HOUR),
        ("b", NOW),
    ]
    assert await desk.loop.tick(Instant(NOW + 2 * HOUR)) == "no customer changed"


async def test_a_model_is_trained_from_enough_customers_and_predicts_again(desk: Desk) -> None:
    desk.crm.log = [
        customer(f"{week}-{number}", weeks=week, purchases=1 + week) for week in range(4) for number in range(100)
    ]
    await desk.loop.tick(NOW)
    assert desk.value.model.version == "credibility-2026-03-10"
    found = await desk.rows("SELECT model_version, source, count(*) FROM ltv_predictions GROUP BY 1, 2")
    assert found == [("credibility-2026-03-10", "ai", 400)]
    assert desk.value.ltv_micros("meta")[2] == "credibility-2026-03-10"
    new = await desk.rows("SELECT predicted_ltv_micros FROM ltv_predictions WHERE customer_id = '0-0'")
    assert new[0][0] == pytest.approx(4 * 50_000_000, rel=1e-6)


async def test_a_restart_knows_model_cursor_and_values(desk: Desk) -> None:
    desk.crm.log = [customer(f"{n}", weeks=n % 4, purchases=1 + n % 4) for n in range(400)]
    await desk.loop.tick(NOW)
    said = {platform: desk.value.ltv_micros(platform) for platform in PLATFORMS}
    await desk.store.close()
    crm = desk.crm
    await desk.start(Instant(NOW + HOUR))
    assert {platform: desk.value.ltv_micros(platform) for platform in PLATFORMS} == said
    desk.loop = ValueLoop(desk.settings, desk.value, crm, ["crm"])
    crm.asked.clear()
    await desk.loop.tick(Instant(NOW + HOUR))
    assert crm.asked == ["400"]


async def test_old_predictions_of_recent_customers_are_made_anew(desk: Desk) -> None:
    desk.crm.log = [customer("recent"), customer("old", weeks=20)]
    await desk.loop.tick(NOW)
    await desk.loop.tick(Instant(NOW + 8 * DAY))
    assert await desk.rows("SELECT customer_id, predicted_at FROM ltv_predictions ORDER BY 1") == [
        ("old", NOW),
        ("recent", NOW + 8 * DAY),
    ]


async def test_customers_that_cannot_be_are_left_out(desk: Desk) -> None:
    desk.crm.log = [
        customer("a", revenue=-1),
        customer("b", weeks=-1),
        customer(""),
        customer("c", purchases=-1, revenue=1),
        customer("d", platform="nowhere"),
        customer("e", platform="PLATFORM_TIKTOK"),
    ]
    await desk.loop.tick(NOW)
    assert desk.value.skipped == 4
    assert await desk.rows("SELECT customer_id, platform FROM ltv_predictions ORDER BY 1") == [
        ("d", ""),
        ("e", "tiktok"),
    ]


async def test_a_source_that_fails_is_weather_at_first_then_a_failed_tick(desk: Desk) -> None:
    desk.crm.fails = [Temporary("500")] * 3
    assert "500" in str(await desk.loop.tick(NOW))
    assert "500" in str(await desk.loop.tick(Instant(NOW + HOUR)))
    with pytest.raises(Temporary):
        await desk.loop.tick(Instant(NOW + 2 * HOUR))
    desk.crm.log = [customer("a")]
    assert await desk.loop.tick(Instant(NOW + 3 * HOUR)) is None


async def test_a_source_that_asks_for_patience_gets_it(desk: Desk) -> None:
    desk.crm.fails = [RateLimited("later", NOW + 3 * HOUR)]
    for hour in range(3):
        await desk.loop.tick(Instant(NOW + hour * HOUR))
    assert len(desk.crm.asked) == 1
    await desk.loop.tick(Instant(NOW + 3 * HOUR))
    assert len(desk.crm.asked) == 2


async def test_a_source_that_pages_for_ever_is_a_bug(desk: Desk) -> None:
    class Endless(ScriptedCrm):
        async def to(self, instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
            return CustomerPage((), "same", True)

    with pytest.raises(Bug, match="same cursor"):
        await ValueLoop(desk.settings, desk.value, Endless(), ["crm"]).tick(NOW)


async def test_values_nobody_refreshed_for_days_no_longer_steer_bids(desk: Desk) -> None:
    await desk.insert("meta", [500_000_000])
    await desk.value.refresh(NOW)
    desk.value.distrust(Instant(NOW + HOUR), 2 * DAY)
    assert desk.value.ltv_micros("meta")[1] is DecisionSource.AI
    desk.value.distrust(Instant(NOW + 3 * DAY), 2 * DAY)
    assert desk.value.ltv_micros("meta")[1] is DecisionSource.FALLBACK
