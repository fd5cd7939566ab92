"""Backups: of one instant while the writer goes on, proved by both chains, and never all thrown away (M16)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.ledger import verify_file
from kiki_agent.model import DAY, HOUR, Instant
from kiki_agent.recovery import Backup, Reason, find_backup, list_backups, prune, verify_backup
from kiki_agent.recovery.backups import prune_leftovers, write_note
from kiki_agent.recovery.service import Busy
from kiki_agent.store import Store
from kiki_agent.store.schema import FOLDER

from .conftest import NOON, Office


async def test_a_backup_under_load_is_whole_and_the_writer_goes_on(office: Office) -> None:
    """What was committed before it began is in it; what comes meanwhile is neither refused nor half in it."""
    await office.write(20_000)
    before, going, written = office.ledger.head[0], True, 0

    async def load() -> None:
        nonlocal written
        while going:
            await office.store.write(
                lambda connection: office.ledger.append(connection, NOON, "control", {"amount_micros": 7})
            )
            written += 1

    loads = [asyncio.create_task(load()) for _ in range(4)]
    made = await office.service().make(Reason.MANUAL)
    during = written
    going = False
    await asyncio.gather(*loads)
    assert made.verified_at == NOON
    assert made.problem == ""
    assert before <= made.seq <= office.ledger.head[0]
    assert during > 20, "writes went on while the copy was made"
    copy = office.kept / f"{made.name}.db"
    found = verify_file(copy, copy.with_suffix(".head"))
    assert (found.ok, found.entries, found.head_hash, found.reallocations) == (True, made.seq, made.head_hash, 1)
    assert found.head_hash == await office.store.read(
        lambda connection: (
            connection.execute("SELECT hash FROM ledger_entries WHERE seq = ?", (made.seq,)).fetchone()[0].hex()
        )
    )
    assert {oct(os.stat(file).st_mode & 0o777) for file in office.kept.iterdir()} == {"0o600"}


async def test_a_backup_is_on_record_and_can_be_proved_again(office: Office) -> None:
    await office.write(5)
    service = office.service()
    service.store = office.store
    made = await service.make(Reason.MANUAL)
    office.now = Instant(NOON + DAY)
    again = await service.verify(made.name)
    assert again.verified_at == office.now
    assert await service.listed() == [again]
    assert service.age_s(office.now) == 86_400
    rows = await office.store.read(
        lambda connection: connection.execute("SELECT name, sha256, seq, verified_at FROM backups").fetchall()
    )
    assert rows == [(made.name, made.sha256, made.seq, office.now)]


async def test_a_backup_whose_note_and_bytes_were_replaced_is_seen_by_the_record(office: Office) -> None:
    await office.write(5)
    service = office.service()
    service.store = office.store
    made = await service.make(Reason.MANUAL)
    await office.write(5)
    other = office.back_up()
    for ending in (".db", ".head"):
        shutil.copy(office.kept / f"{other.name}{ending}", office.kept / f"{made.name}{ending}")
    note = json.loads((office.kept / f"{other.name}.json").read_text())
    (office.kept / f"{made.name}.json").write_text(json.dumps(note | {"name": made.name}))
    assert verify_backup(office.kept, made.name, NOON).problem == "", "sound in itself"
    with pytest.raises(StoreError, match="not the one this agent made"):
        await service.verify(made.name)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.find(b'"amount_micros":3') + 16] ^= 1
    path.write_bytes(bytes(data))


SPOILS: dict[str, tuple[Callable[[Path, str], None], str]] = {
    "a flipped bit": (lambda kept, name: _flip(kept / f"{name}.db"), "bytes"),
    "no database": (lambda kept, name: (kept / f"{name}.db").unlink(), "cannot be read"),
    "a short database": (lambda kept, name: os.truncate(kept / f"{name}.db", 8192), "bytes"),
    "no head": (lambda kept, name: (kept / f"{name}.head").unlink(), "known head"),
    "a broken head": (lambda kept, name: (kept / f"{name}.head").write_text("{"), "does not name"),
}


@pytest.mark.parametrize("spoil", SPOILS)
async def test_a_spoiled_backup_is_found_out_and_not_restored(office: Office, spoil: str) -> None:
    await office.write(8)
    made = office.back_up()
    spoiler, words = SPOILS[spoil]
    spoiler(office.kept, made.name)
    found = verify_backup(office.kept, made.name, Instant(NOON + DAY))
    assert found.verified_at is None
    assert words in found.problem
    assert find_backup(office.kept, made.name) == found, "it is noted"
    await office.close()
    before = office.database.read_bytes()
    if spoil != "no head":  # a database whose chain is whole can come back without its head
        with pytest.raises(StoreError):
            office.restore(made.name)
        assert office.database.read_bytes() == before


async def test_a_forged_database_makes_no_good_backup(office: Office) -> None:
    """The head outside the database knows better than a chain that was hashed anew."""
    await office.write(8)
    await office.close()
    head = json.loads(office.head.read_text())
    office.head.write_text(json.dumps(head | {"hash": "00" * 32}))
    made = office.back_up()
    assert made.verified_at is None
    assert "known outside" in made.problem


async def test_what_a_backup_is_made_of_is_asked_before_it_counts(office: Office, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no database"):
        Office(tmp_path / "nowhere").back_up()
    with pytest.raises(StoreError, match="is not the name of a backup"):
        find_backup(office.kept, "../agent")
    with pytest.raises(StoreError, match="there is no backup"):
        find_backup(office.kept, "agent-20260310T120000Z-daily")
    made = office.back_up()
    (office.kept / f"{made.name}.json").write_text("{")
    with pytest.raises(StoreError, match="not readable"):
        list_backups(office.kept, "agent")


async def test_one_backup_at_a_time_and_none_that_is_cut_off_stays(office: Office) -> None:
    await office.write(3_000)
    service = office.service()
    progressed = service._progressed

    def stopped_half_way(share: float) -> None:
        service._stop.set()
        progressed(share)

    service._progressed = stopped_half_way  # type: ignore[method-assign]
    service.begin(Reason.MANUAL)
    with pytest.raises(Busy):
        service.begin(Reason.MANUAL)
    await service.close()
    assert service.failure is None
    assert list(office.kept.iterdir()) == []


async def test_a_disk_without_room_is_told_before_it_is_full(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1_000_000

    monkeypatch.setattr("kiki_agent.recovery.service.shutil.disk_usage", lambda folder: Usage)
    told: list[object] = []
    service = office.service()
    service._publish = lambda topic, data: told.append(data["title"])
    with pytest.raises(StoreError, match="MB free"):
        service.begin(Reason.DAILY)
    assert told == ["A backup failed"]


def _note(office: Office, name: str, days_ago: float, reason: Reason, *, whole: bool = True) -> None:
    at = Instant(NOON - round(days_ago * DAY))
    backup = Backup(name, at, reason.value, 1, "0" * 64, 1, "0" * 64, "demo", 1, at if whole else None)
    office.kept.mkdir(exist_ok=True)
    for ending in (".db", ".head"):
        (office.kept / f"{name}{ending}").write_text("")
    write_note(office.kept, backup)


async def test_days_and_weeks_are_kept_and_the_rest_goes(office: Office) -> None:
    names = {}
    for number in range(60):
        for hour in (0, 1):
            day = number + hour / 24
            names[day] = f"agent-2026010{hour}T0000{number:02}Z-daily"
            _note(office, names[day], day, Reason.DAILY)
    _note(office, "agent-20250101T000000Z-manual", 300, Reason.MANUAL)
    removed = prune(office.kept, "agent", daily=7, weekly=4)
    kept = [each.name for each in list_backups(office.kept, "agent")]
    assert len(removed) + len(kept) == 121
    assert kept[-1] == "agent-20250101T000000Z-manual", "what a person made stays"
    assert kept[:7] == [names[float(number)] for number in range(7)], "the newest of each of seven days"
    weekly = [each.made_at for each in list_backups(office.kept, "agent")][7:-1]
    assert len(weekly) == 2, "four weeks, of which the days hold two"
    assert {path.suffix for path in office.kept.iterdir()} == {".db", ".head", ".json"}
    assert len(list(office.kept.iterdir())) == 3 * len(kept)
    assert prune(office.kept, "agent", daily=7, weekly=4) == []


async def test_the_last_whole_backup_never_goes(office: Office) -> None:
    _note(office, "agent-20260101T000000Z-daily", 90, Reason.DAILY)
    for number in range(1, 12):
        _note(office, f"agent-2026020{number % 10}T0000{number:02}Z-daily", 30 - number, Reason.DAILY, whole=False)
    assert prune(office.kept, "agent", daily=1, weekly=0) == []
    _note(office, "agent-20260301T000000Z-daily", 1, Reason.DAILY)
    assert len(prune(office.kept, "agent", daily=1, weekly=0)) == 12
    assert [each.name for each in list_backups(office.kept, "agent")] == ["agent-20260301T000000Z-daily"]


def _files(folder: Path, names: list[str], at: int) -> None:
    for name in names:
        (folder / name).write_text("")
        os.utime(folder / name, ns=(at * 1_000, at * 1_000))


async def test_what_a_killed_backup_left_goes_after_an_hour(office: Office) -> None:
    _note(office, "agent-20260301T000000Z-daily", 1, Reason.DAILY)
    whole = sorted(path.name for path in office.kept.iterdir())
    gone, young = "agent-20260302T000000Z-manual", "agent-20260303T000000Z-manual"
    others = ["agent-notes.db", "other-20260302T000000Z-manual.db", f"{gone}.txt"]
    _files(office.kept, [f"{young}.db", *others], NOON - HOUR + 1)
    _files(office.kept, [f"{gone}.{ending}" for ending in ("db", "head", "json.new")], NOON - HOUR)
    _files(office.kept, [f"{gone[:-6]}daily.db.partial", f"{young}.head"], NOON - DAY)
    assert prune_leftovers(office.kept, "agent", NOON) == [f"{gone[:-6]}daily", gone]
    kept = sorted([*whole, f"{young}.db", f"{young}.head", *others])
    assert sorted(path.name for path in office.kept.iterdir()) == kept
    assert prune_leftovers(office.kept, "agent", Instant(NOON + 1)) == [young]


async def test_a_migration_makes_a_proved_backup_first(office: Office, tmp_path: Path) -> None:
    from kiki_agent.recovery import keep_before_migration

    await office.write(5)
    head = office.ledger.head
    await office.close()
    folder = tmp_path / "migrations"
    shutil.copytree(FOLDER, folder)
    (folder / "9000_more.sql").write_text("CREATE TABLE more (n INTEGER) STRICT;\n")
    store = await Store.open(
        office.database, now=NOON, migrations=folder, keep=keep_before_migration(office.kept, office.head, NOON)
    )
    await store.close()
    (made,) = list_backups(office.kept, "agent")
    assert (made.reason, made.verified_at, made.seq, made.head_hash) == ("migration", NOON, *head)
    connection = sqlite3.connect(office.kept / f"{made.name}.db")
    assert connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'more'").fetchone() is None
    connection.close()
