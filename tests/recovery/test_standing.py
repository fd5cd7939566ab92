"""A restore makes nobody bolder: what stood when the older record came is carried over, or the agent stops (M1)."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kiki_agent.accounts import Lever
from kiki_agent.agent import Agent
from kiki_agent.config import Mode
from kiki_agent.errors import Denied
from kiki_agent.governor import Level
from kiki_agent.ledger import verify_file
from kiki_agent.model import HOUR, SECOND
from kiki_agent.recovery import Reason, Restored, carrying, restore, standing
from kiki_agent.shield import Permit

from .conftest import Office
from .town import Town, raises_spend

UNIT = 1_000_000


async def backed_up(town: Town) -> str:
    return (await town.backups.make(Reason.MANUAL)).name


def put_back(town: Town, name: str) -> Restored:
    source = town.backups.folder / f"{name}.db"
    return restore(town.database, town.head, source, client_id=town.settings.client_id, now=town.clock.now())


async def place_all(town: Town, connector: str, amount: int) -> list[Permit]:
    """Place bids until one is refused."""
    placed = []
    while True:
        try:
            placed.append(await town.agent.shield.place(connector, "c-1", amount, town.clock.now()))
        except Denied:
            return placed


def controls(town: Town) -> list[dict[str, object]]:
    rows = town.rows("SELECT body FROM ledger_entries WHERE kind = 'control' ORDER BY seq")
    return [json.loads(str(body)) for (body,) in rows]


async def stop_by_every_means(agent: Agent, now: int) -> str:
    """A person and the agent itself take back what it may do; the campaign that was pinned."""
    campaign = next(each for each in agent.accounts.table.rows if each.connector == "meta")
    await agent.shield.kill(True, "told so by a person", now)  # type: ignore[arg-type]
    await agent.shield.freeze("tiktok", "an anomaly", now)  # type: ignore[arg-type]
    await agent.governor.set_level("meta", Level.SUGGEST, "ann", "not now", now)  # type: ignore[arg-type]
    await agent.governor.pin("meta", campaign.campaign_id, Lever.BUDGET, "ann", now)  # type: ignore[arg-type]
    return campaign.campaign_id


async def test_switch_levels_freezes_and_pins_outlive_a_restore(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        agent = await town.start(backups=True)
        await town.live(4)
        await agent.governor.set_level("linkedin", Level.WATCH, "ann", "later", town.clock.now())
        name = await backed_up(town)
        await agent.governor.set_level("linkedin", Level.ACT, "ann", "now", town.clock.now())
        pinned = await stop_by_every_means(agent, town.clock.now())
        await town.close()
        done = put_back(town, name)
        assert done.unknown is None
        assert any("kill switch" in each for each in done.carried)

        before = len(town.done())
        agent = await town.start(backups=True)
        assert agent.shield.killed
        assert "told so by a person" in agent.shield.kill_reason
        assert "an anomaly" in str(agent.shield.frozen("tiktok"))
        levels = {name: agent.governor.standing(name).level for name in ("meta", "linkedin", "tiktok")}
        assert levels == {"meta": Level.SUGGEST, "linkedin": Level.WATCH, "tiktok": Level.ACT}, "the lower of both"
        assert [(each.campaign_id, each.source) for each in agent.governor.holds.all() if each.source == "pinned"] == [
            (pinned, "pinned")
        ]
        await town.live(40)
        assert not [each for each in town.done(before) if raises_spend(each)]
        written = [each for each in controls(town) if "kept over the restore" in str(each.get("reason"))]
        assert {each["control"] for each in written} >= {"kill_switch", "freeze:tiktok", "autonomy"}
        await town.close()
        await town.start()
        assert sum("kept over" in str(each.get("reason")) for each in controls(town)) == len(written), "carried once"
    assert verify_file(town.database, town.head).ok


async def test_bids_placed_since_the_backup_still_count(tmp_path: Path) -> None:
    """Placed, spent and still open since the backup: what is accepted before and after it fits the caps together."""
    async with Town(tmp_path) as town:
        agent = await town.start(backups=True)
        await town.live(4)
        shield, now = agent.shield, town.clock.now()
        early = await shield.place("meta", "c-1", 3 * UNIT, now)
        name = await backed_up(town)
        before = shield.status("meta", now)
        room = before.max_budget_micros - before.current_spend_micros - before.reserved_micros
        assert room > 20 * UNIT
        await shield.commit(early, now)
        since = [await shield.place("meta", "c-1", 40 * UNIT, now) for _ in range(room // (50 * UNIT))]
        for permit in since[1:]:
            await shield.commit(permit, now)
        still_open = since[0]
        stood = shield.status("meta", now)
        await town.close()
        put_back(town, name)

        agent = await town.start(backups=True)
        await town.live(4)
        shield, now = agent.shield, town.clock.now()
        assert shield.hold_reason is None
        found = shield.status("meta", now)
        assert found.reserved_micros == still_open.amount_micros
        assert found.current_spend_micros >= stood.current_spend_micros
        assert found.spent_today_micros >= stood.spent_today_micros
        more = await place_all(town, "meta", 5 * UNIT)
        together = sum(each.amount_micros for each in (*since, *more))
        assert room * 9 // 10 < together <= room, "and the rest of the room is there"
        kept = {each.reservation_id: each for each in shield.open_permits()}
        assert early.reservation_id not in kept, "ended since the backup"
        await shield.commit(kept[still_open.reservation_id], now)
    assert verify_file(town.database, town.head).ok


async def test_what_nothing_can_end_ends_with_its_day(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        agent = await town.start(backups=True)
        await town.live(4)
        name = await backed_up(town)
        await agent.shield.place("meta", "c-1", 5 * UNIT, town.clock.now())
        await town.close()
        put_back(town, name)
        agent = await town.start(backups=True)
        town.pass_time(24 * HOUR)
        assert len(agent.shield.open_permits()) == 1
        town.pass_time(2 * HOUR)
        await town.live(10)
        assert agent.shield.open_permits() == []


async def test_an_allocation_lowered_since_stays_low_and_its_spend_stands(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        agent = await town.start(backups=True)
        await town.live(4)
        now = town.clock.now()
        await agent.shield.allocate("c-1", 50 * UNIT, "USD", now, pacing="accelerated")
        name = await backed_up(town)
        await agent.shield.allocate("c-1", 20 * UNIT, "USD", now, pacing="accelerated")
        await agent.shield.allocate("c-2", 5 * UNIT, "USD", now, pacing="accelerated")
        await agent.shield.commit(await agent.shield.place("meta", "c-1", 15 * UNIT, now), now)
        await town.close()
        put_back(town, name)
        agent = await town.start(backups=True)
        await town.live(4)
        first, second = await agent.shield.budget("c-1"), await agent.shield.budget("c-2")
        assert first is not None
        assert second is not None
        assert (first.budget_micros, first.spent_micros) == (20 * UNIT, 15 * UNIT)
        assert second.budget_micros == 5 * UNIT
        with pytest.raises(Denied):
            await agent.shield.place("meta", "c-1", 6 * UNIT, town.clock.now())


async def test_changes_sent_since_count_and_orders_of_the_old_record_are_not_carried_out(tmp_path: Path) -> None:
    order = (
        "INSERT INTO orders (order_id, kind, subject, changes, made_by, made_at, state)"
        " VALUES ('old', 'rollback', 'x', '[]', 'ann', 1, 'open')"
    )
    async with Town(tmp_path) as town:
        agent = await town.start(backups=True)
        await agent.store.write(lambda connection: connection.execute(order))
        name = await backed_up(town)
        await town.live(30)
        sent = set(town.rows("SELECT key, state, sent_at FROM intents WHERE state IN ('accepted', 'rejected')"))
        assert sent
        await town.close()
        put_back(town, name)
        agent = await town.start(backups=True)
        assert sent <= set(town.rows("SELECT key, state, sent_at FROM intents"))
        assert town.rows("SELECT state FROM orders") == [("failed",)]
        await town.live(60)
        assert {each.key for each in town.done() if each.key}
    assert verify_file(town.database, town.head).ok


def spoil(town: Town) -> None:
    town.database.write_bytes(b"not a database at all " * 5_000)


async def test_a_live_agent_starts_stopped_where_nobody_can_say_what_stood(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        town.settings = town.settings.model_copy(update={"mode": Mode.LIVE})
        agent = await town.start(backups=True)
        for connector in agent.connectors:
            await agent.governor.set_level(connector, Level.ACT, "ann", "go", town.clock.now())
        await town.live(4)
        name = await backed_up(town)
        await town.close()
        spoil(town)
        done = put_back(town, name)
        assert "not a database" in str(done.unknown)

        before = len(town.done())
        agent = await town.start(backups=True)
        assert agent.shield.killed
        assert {agent.governor.standing(each).level for each in agent.connectors} == {Level.WATCH}
        await agent.shield.kill(False, "a person looked", town.clock.now())
        seen = await town.live(30)
        assert all(seen.held(0, 29)), "every platform has told, and still what was placed today is not known"
        with pytest.raises(Denied, match="nothing is permitted before 2026-01-06T"):
            await agent.shield.place("meta", "c-1", UNIT, town.clock.now())
        assert town.done(before) == []
        told = dict(town.rows("SELECT title, message FROM notifications"))  # type: ignore[arg-type]
        assert "The kill switch is on" in str(told["The record was restored"])

        town.pass_time(25 * HOUR)
        await town.live(30)
        assert agent.shield.hold_reason is None
        assert await agent.shield.place("meta", "c-1", UNIT, town.clock.now())


@pytest.mark.parametrize("harm", ["unreadable", "contradictory"])
async def test_what_cannot_be_carried_over_counts_as_unknown(tmp_path: Path, harm: str) -> None:
    async with Town(tmp_path) as town:
        town.settings = town.settings.model_copy(update={"mode": Mode.LIVE})
        agent = await town.start(backups=True)
        await agent.governor.set_level("meta", Level.ACT, "ann", "go", town.clock.now())
        await town.live(2)
        early = await agent.shield.place("meta", "c-1", UNIT, town.clock.now())
        name = await backed_up(town)
        await town.close()
        put_back(town, name)
        connection = sqlite3.connect(town.database)
        text = str(connection.execute("SELECT value FROM meta WHERE key = 'carried'").fetchone()[0])
        bad = text[:40] if harm == "unreadable" else text.replace(early.reservation_id, "f" * 32)
        assert bad != text
        connection.execute("UPDATE meta SET value = ? WHERE key = 'carried'", (bad,))
        connection.commit()
        connection.close()
        agent = await town.start(backups=True)
        assert agent.shield.killed
        assert agent.governor.standing("meta").level is Level.WATCH
        await town.live(20)
        assert "nothing is permitted before" in str(town.hold())


async def test_a_demo_goes_on_and_still_honours_what_can_be_read(tmp_path: Path) -> None:
    """The ledger was tampered with, so nothing is certain; the switch that was on is believed all the same."""
    async with Town(tmp_path) as town:
        agent = await town.start(backups=True)
        await town.live(4)
        name = await backed_up(town)
        await agent.shield.freeze("tiktok", "an anomaly", town.clock.now())
        await town.close()
        connection = sqlite3.connect(town.database)
        connection.execute("DROP TRIGGER ledger_entries_no_update")
        connection.execute("UPDATE ledger_entries SET body = json_set(body, '$.client_id', 'x') WHERE seq = 1")
        connection.commit()
        connection.close()
        done = put_back(town, name)
        assert done.unknown is not None
        agent = await town.start(backups=True)
        assert not agent.shield.killed
        assert agent.shield.frozen("tiktok") is not None
        await town.live(30)
        assert agent.shield.hold_reason is None


async def test_a_record_that_does_not_go_on_from_the_backup_says_nothing_for_certain(tmp_path: Path) -> None:
    """As on a new machine, where an agent was started before the backup was put back."""
    async with Town(tmp_path / "old") as town:
        await town.start(backups=True)
        await town.live(4)
        name = await backed_up(town)
        await town.close()
        async with Town(tmp_path / "new", seed=2) as other:
            await other.start()
            await other.live(4)
            await other.close()
            source = town.backups.folder / f"{name}.db"
            now = other.clock.now() + SECOND
            done = restore(other.database, other.head, source, client_id="demo", now=now)  # type: ignore[arg-type]
            assert "does not hold the last entry" in str(done.unknown)


async def test_restored_twice_before_a_start_still_carries_what_stood(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        agent = await town.start(backups=True)
        await town.live(10)
        older = await backed_up(town)
        town.pass_time(2 * SECOND)
        name = await backed_up(town)
        await agent.shield.kill(True, "stop", town.clock.now())
        await town.close()
        assert put_back(town, name).unknown is None
        assert put_back(town, name).unknown is None, "the same again"
        again = put_back(town, older)
        assert "another backup" in str(again.unknown)
        agent = await town.start(backups=True)
        assert agent.shield.killed


async def test_what_a_stand_in_was_told_counts(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        await town.start(backups=True)
        await town.live(4)
        name = await backed_up(town)
        await town.close()
        spoil(town)
        agent = await town.start(backups=True)
        assert agent.guard is not None
        await agent.shield.kill(True, "stop all", town.clock.now())
        await town.close()
        done = put_back(town, name)
        assert any(".hold.db.replaced" in each for each in done.replaced)
        agent = await town.start(backups=True)
        assert "stop all" in agent.shield.kill_reason


async def test_what_a_stand_in_paused_is_on_record_after_the_restore(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        await town.start(backups=True)
        await town.live(8)
        name = await backed_up(town)
        await town.close()
        spoil(town)
        await town.start(backups=True)
        before = len(town.done())
        await town.live(20)
        paused = [each for each in town.done(before) if each.kind == "set_status"]
        assert paused
        await town.close()
        put_back(town, name)
        await town.start(backups=True)
        await town.live(20)
        pauses = town.rows("SELECT count(*) FROM intents WHERE kind = 'set_status' AND after = 0")
        assert int(str(pauses[0][0])) == len(paused)
        assert town.rows("SELECT campaign_id FROM external_edits WHERE lever = 'status'") == []
    assert verify_file(town.database, town.head).ok


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("spend_days", standing.DAY_COLUMNS),
        ("reported_spend", standing.REPORTED_COLUMNS),
        ("reservations", standing.PERMIT_COLUMNS),
        ("budget_allocations", standing.ALLOCATION_COLUMNS),
        ("intents", standing.INTENT_COLUMNS),
        ("lever_holds", standing.HOLD_COLUMNS),
    ],
)
async def test_whole_rows_are_carried(office: Office, table: str, columns: str) -> None:
    """Whoever adds a column to one of these tables has to say what a restore does with it."""
    sql = f"SELECT name FROM pragma_table_info('{table}')"
    found = await office.store.read(lambda connection: {str(row[0]) for row in connection.execute(sql)})
    assert {each.strip() for each in columns.split(",")} == found


async def test_the_ladder_is_the_governors() -> None:
    assert tuple(each.value for each in Level) == carrying.LADDER


@pytest.mark.parametrize(
    ("unknown", "words"),
    [
        ("", "Nothing stood that the backup does not know."),
        ("it is damaged", "What stood before is not known for certain: it is damaged. Nothing of it is kept."),
    ],
)
def test_what_is_not_known_is_not_said_to_be_nothing(unknown: str, words: str) -> None:
    told: list[str] = []
    signals = SimpleNamespace(publish=lambda _, data: told.append(data["message"]))
    agent: Any = SimpleNamespace(settings=SimpleNamespace(mode=Mode.DEMO), signals=signals)
    Agent._tell_carried(agent, standing.Standing("b", 0, unknown))
    assert told == [words]
