"""An agent on a restored record: it spends nothing before the platforms have told, and does nothing twice (M16)."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from kiki_agent.errors import Denied
from kiki_agent.ledger import verify_file
from kiki_agent.model import HOUR
from kiki_agent.recovery import Backup, Reason, restore

from .town import Town, raises_spend

SHIFT = (
    "INSERT INTO shifts (shift_id, run_id, at, from_connector, to_connector, from_platform, to_platform, wanted_micros,"
    " currency, from_efficiency, to_efficiency, reason, evidence_as_of, state) VALUES ('half-way', 'run', 1, 'meta',"
    " 'tiktok', 'meta', 'tiktok', 5000000, 'USD', '1.000000', '2.000000', 'test', 1, 'increasing')"
)
INTENT = (
    "INSERT INTO intents (key, kind, connector, campaign_id, before, after, currency, reason, at, cause, sent_at,"
    " state, settled_at) VALUES ('taken', 'set_budget', 'meta', 'c-1', 9000000, 4000000, 'USD', 'test', 1, 'half-way',"
    " 1, 'accepted', 1)"
)


async def back_up(town: Town, *statements: str) -> Backup:
    def work(connection: sqlite3.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    await town.agent.store.write(work)
    return await town.backups.make(Reason.MANUAL)


def put_back(town: Town, made: Backup) -> None:
    source = town.backups.folder / f"{made.name}.db"
    done = restore(town.database, town.head, source, client_id=town.settings.client_id, now=town.clock.now())
    assert (done.seq, done.head_hash) == (made.seq, made.head_hash)


async def test_what_was_spent_since_the_backup_is_not_permitted_again(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        agent = await town.start(backups=True)
        await town.live(20)
        made = await back_up(town)
        assert agent.ledger.head[0] >= made.seq
        known = agent.shield.status("tiktok", town.clock.now()).spent_today_micros
        town.pass_time(9 * HOUR)
        await town.live(20)
        spent = agent.shield.status("tiktok", town.clock.now()).spent_today_micros
        assert spent > known
        await town.close()
        put_back(town, made)

        before = len(town.done())
        town.silent.add("tiktok")
        agent = await town.start(backups=True)
        assert "tiktok" in str(town.hold())
        with pytest.raises(Denied, match="restored from"):
            await agent.shield.place("meta", "c-1", 1_000_000, town.clock.now())
        seen = await town.live(20)
        assert all(seen.held(0, 19))
        assert not [each for each in town.done(before) if raises_spend(each)]

        town.silent.clear()
        seen = await town.live(120)
        assert not any(seen.held(90, 119)), seen.holds[-1]
        assert agent.shield.status("tiktok", town.clock.now()).spent_today_micros >= spent
        assert [each for each in town.done(before) if raises_spend(each)], "it goes on"
    assert max(Counter(each.key for each in town.done() if each.key).values()) == 1
    assert verify_file(town.database, town.head).ok
    notes = town.rows('SELECT body FROM ledger_entries WHERE body LIKE \'%"control":"restore"%\'')
    assert [json.loads(str(body))["backup"] for (body,) in notes] == [made.name]


async def test_a_shift_that_was_half_way_in_the_backup_is_not_carried_on(tmp_path: Path) -> None:
    """Its other half was sent long ago, as far as the record can know."""
    async with Town(tmp_path) as town:
        await town.start(backups=True)
        await town.live(20)
        made = await back_up(town, SHIFT, INTENT)
        await town.close()
        put_back(town, made)
        before = len(town.done())
        await town.start(backups=True)
        await town.live(330)
        budgets = [each for each in town.done(before) if each.kind == "set_budget"]
        assert 5_000_000 not in {each.after - each.before for each in budgets}
    assert town.rows("SELECT state, moved_micros FROM shifts WHERE shift_id = 'half-way'") == [("failed", 0)]
    rows = town.rows("SELECT body FROM ledger_entries WHERE kind = 'reallocation' AND body LIKE '%half-way%'")
    assert [json.loads(str(body))["outcome"] for (body,) in rows] == ["failed"]
