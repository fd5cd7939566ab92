"""The way back: the same ledger, a higher epoch, the replaced files kept, and nothing half done wherever it is cut."""

from __future__ import annotations

import pkgutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.ledger import verify_file
from kiki_agent.model import Instant
from kiki_agent.recovery import restore as restore_backup
from kiki_agent.recovery import unfinished_restore
from kiki_agent.recovery.loops import RestoredHold
from kiki_agent.store import AlreadyRunning, get_meta

from .conftest import NOON, Office


async def test_a_restored_ledger_is_the_one_that_was_backed_up(office: Office) -> None:
    await office.write(50)
    made = office.back_up()
    await office.write(30)
    later, epoch = office.ledger.head, office.store.epoch
    await office.close()
    done = office.restore(made.name)
    assert (done.seq, done.head_hash) == (made.seq, made.head_hash)
    assert done.lost_entries == later[0] - made.seq == 30
    assert done.epoch > epoch
    found = verify_file(office.database, office.head)
    assert (found.ok, found.entries, found.head_hash) == (True, made.seq, made.head_hash)
    replaced = next(Path(path) for path in done.replaced if path.endswith("db.replaced-20260310T120000Z"))
    kept = verify_file(replaced, Path(f"{office.head}.replaced-20260310T120000Z"))
    assert (kept.ok, kept.entries, kept.head_hash) == (True, *later), "what was replaced is whole as well"
    await office.open()
    assert office.ledger.hold_reason is None
    assert office.store.epoch > epoch + 1


async def test_a_restore_is_refused_while_the_database_is_in_use(office: Office) -> None:
    await office.write(5)
    made = office.back_up()
    with pytest.raises(AlreadyRunning):
        office.restore(made.name)


async def test_a_damaged_database_is_replaced_and_kept_as_found(office: Office) -> None:
    await office.write(5)
    made = office.back_up()
    await office.close()
    office.database.write_bytes(b"not a database at all " * 500)
    office.head.unlink()
    done = office.restore(made.name)
    assert done.lost_entries is None, "nobody knows"
    assert _begins_with(done.replaced, b"not a database")
    await office.open()
    assert office.ledger.hold_reason is None
    assert office.ledger.head[0] == made.seq + 1


def _begins_with(paths: list[str], words: bytes) -> bool:
    return any(Path(path).read_bytes().startswith(words) for path in paths)


async def test_a_machine_that_was_moved_needs_a_backup_and_nothing_else(office: Office, tmp_path: Path) -> None:
    await office.write(5)
    made = office.back_up()
    new = Office(tmp_path / "elsewhere")
    new.folder.mkdir()
    done = restore_backup(new.database, new.head, office.kept / f"{made.name}.db", client_id="demo", now=NOON)
    assert done.replaced == []
    await new.open()
    assert new.ledger.hold_reason is None
    assert new.ledger.head[0] == made.seq + 1
    await new.close()


async def test_a_backup_of_somebody_else_or_of_a_newer_program_is_refused(office: Office) -> None:
    await office.write(5)
    made = office.back_up()
    await office.close()
    with pytest.raises(StoreError, match="belongs to client 'demo'"):
        office.restore(made.name, client_id="other")
    copy = office.kept / f"{made.name}.db"
    connection = sqlite3.connect(copy)
    connection.execute("INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 1)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="another version"):
        office.restore(made.name)
    with pytest.raises(StoreError, match="there is no backup"):
        office.restore("agent-20200101T000000Z-daily")
    office.database.with_name("agent.db-wal").write_bytes(b"")  # an agent died over it: its end is in the WAL
    with pytest.raises(StoreError, match="not a backup"):
        restore_backup(office.folder / "other.db", office.head, office.database, client_id="demo", now=NOON)


STEPS = ["_set_aside", "os.replace", "sync_folder", "write_head", "Path.unlink"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_restore_cut_off_anywhere_lets_nobody_spend_and_is_finished_by_another(
    office: Office, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.write(10)
    made = office.back_up()
    await office.write(10)
    await office.close()
    marker = Path(f"{office.database}.restore")
    place = f"kiki_agent.recovery.restoring.{step}"
    real: Any = pkgutil.resolve_name(place)

    def cut(*args: Any, **kwargs: Any) -> Any:
        if not marker.exists() or (step == "Path.unlink" and args[0] != marker):
            return real(*args, **kwargs)
        raise OSError(5, "the power went")

    with monkeypatch.context() as patch:
        patch.setattr(place, cut)
        with pytest.raises(StoreError, match="the power went"):
            office.restore(made.name)
    reason = unfinished_restore(office.database)
    assert reason is not None
    assert made.name in reason
    done = office.restore(made.name)
    assert unfinished_restore(office.database) is None
    assert (done.seq, done.head_hash) == (made.seq, made.head_hash)
    found = verify_file(office.database, office.head)
    assert (found.ok, found.entries) == (True, made.seq)


async def test_nothing_is_permitted_until_every_platform_has_told(office: Office) -> None:
    await office.write(5)
    made = office.back_up()
    await office.close()
    office.restore(made.name)
    heard: set[str] = set()
    holds: list[str | None] = []

    def loop() -> RestoredHold:
        return RestoredHold(office.store, office.ledger, ("meta", "tiktok"), heard.__contains__, holds.append)

    await office.open()
    waiting = loop()
    assert await waiting.load()
    assert holds[-1] is not None
    assert "meta, tiktok" in holds[-1]
    await waiting.note(NOON)
    heard.add("meta")
    assert "tiktok" in str(await waiting.tick(NOON))
    await office.close()
    await office.open()  # a restart waits again, and notes nothing twice
    waiting = loop()
    assert await waiting.load()
    await waiting.note(NOON)
    heard.add("tiktok")
    assert await waiting.tick(Instant(NOON + 1)) is None
    assert holds[-1] is None
    assert not await loop().load()
    rows = await office.store.read(
        lambda connection: connection.execute("SELECT body FROM ledger_entries WHERE body LIKE '%restore%'").fetchall()
    )
    assert rows == [(f'{{"backup":"{made.name}","control":"restore","seq":{made.seq}}}',)]
    assert await office.store.read(lambda connection: get_meta(connection, "restored")) == ""
