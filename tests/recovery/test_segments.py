"""Segments in backups: copied once, proved with them, brought back with them, gone with the last that names them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.ledger import export_file, verify_file
from kiki_agent.ledger.sealing import Sealer
from kiki_agent.model import DAY, Instant
from kiki_agent.recovery import Reason, prune, verify_backup
from kiki_agent.recovery.service import SPARE_BYTES

from .conftest import Office


def exported(database: Path) -> list[Any]:
    pieces: list[str] = []
    export_file(database, "jsonl", pieces.append)
    return [json.loads(line) for line in "".join(pieces).splitlines()]


async def seal(office: Office, **keep: int) -> None:
    office.now = Instant(office.now + 10 * DAY)
    await office.ledger.write_head()
    await Sealer(office.store, office.ledger, hot=DAY, keep=keep, rows=20, batch=7).run(office.now)
    await office.ledger.write_head()


def segments(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


async def test_a_backup_brings_its_segments_and_a_restore_takes_them_back(office: Office) -> None:
    await office.write(90)
    await seal(office)
    first = office.back_up()
    shared = office.kept / "segments"
    assert first.verified_at is not None
    assert segments(shared)
    copied = segments(shared)
    await office.write(40)
    await seal(office)
    second = office.back_up()
    assert second.verified_at is not None
    assert copied.items() < segments(shared).items(), "copied once, and more came"
    before = exported(office.database)
    await office.close()
    shutil.rmtree(office.folder / "agent.segments")
    assert not verify_file(office.database, office.head).ok
    done = office.restore(second.name)
    assert done.seq == second.seq
    assert verify_file(office.database, office.head).ok
    assert exported(office.database) == before
    await office.open()
    assert office.ledger.hold_reason is None
    await office.write(30)
    await seal(office)
    assert (await office.ledger.verify()).ok
    await office.close()
    replaced = next(Path(path) for path in office.restore(first.name).replaced if ".db.replaced-" in path)
    assert verify_file(replaced).segments > 4, "what was replaced is whole as well"
    assert exported(office.database) == before[: first.seq]
    await office.open()
    assert office.ledger.hold_reason is None
    assert (await office.ledger.verify()).segments > 0


@pytest.mark.parametrize("harm", ["missing", "altered"])
async def test_a_backup_whose_segment_is_harmed_is_not_whole(office: Office, harm: str) -> None:
    await office.write(90)
    await seal(office)
    made = office.back_up()
    await office.close()
    path = sorted((office.kept / "segments").iterdir())[2]
    good = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert path.name in verify_backup(office.kept, made.name, office.now).problem
    with pytest.raises(StoreError, match=path.name):
        office.restore(made.name)
    path.write_bytes(good)
    assert verify_backup(office.kept, made.name, office.now).verified_at == office.now
    assert office.restore(made.name).seq == made.seq


async def test_a_harmed_copy_is_replaced_by_the_next_backup(office: Office) -> None:
    await office.write(90)
    await seal(office)
    office.back_up()
    path = sorted((office.kept / "segments").iterdir())[0]
    path.write_bytes(b"not a segment")
    again = office.back_up()
    assert again.verified_at is not None


async def test_a_backup_of_a_record_whose_segment_is_missing_says_so(office: Office) -> None:
    await office.write(90)
    await seal(office)
    path = sorted((office.folder / "agent.segments").iterdir())[0]
    path.unlink()
    made = office.back_up()
    assert made.verified_at is None
    assert path.name in made.problem


@pytest.mark.parametrize("harm", ["missing", "cut short", "empty"])
async def test_a_start_holds_where_a_file_of_a_segment_is_gone(office: Office, harm: str) -> None:
    await office.write(90)
    await seal(office)
    await office.close()
    path = sorted((office.folder / "agent.segments").iterdir())[1]
    good = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(good[:-9] if harm == "cut short" else b"")
    await office.open()
    assert path.name in str(office.ledger.hold_reason)
    await office.close()
    path.write_bytes(good)
    await office.open()
    assert office.ledger.hold_reason is None


async def test_a_backup_asks_for_the_room_that_its_segments_need(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.write(90)
    await seal(office)
    kept = office.service()
    sizes = (os.stat(office.database).st_size, os.stat(f"{office.database}-wal").st_size)
    room = SPARE_BYTES + sum(sizes) + sum(path.stat().st_size for path in (office.folder / "agent.segments").iterdir())
    monkeypatch.setattr("kiki_agent.recovery.service.shutil.disk_usage", lambda folder: SimpleNamespace(free=room - 1))
    with pytest.raises(StoreError, match="MB free"):
        kept.begin(Reason.MANUAL)
    office.back_up()
    kept.begin(Reason.MANUAL)  # those that a backup has brought already need none
    assert (await kept.outcome()).verified_at is not None


async def test_segments_go_with_the_last_backup_that_names_them(office: Office) -> None:
    await office.write(90)
    await seal(office)
    first = office.back_up()
    old = set(segments(office.kept / "segments"))
    await seal(office, money=DAY)  # the bodies go by age
    for _ in range(2):
        await seal(office)
    second = office.back_up()
    assert second.verified_at is not None
    prune(office.kept, "agent", daily=7, weekly=0)
    assert old <= set(segments(office.kept / "segments")), "the first backup still needs them"
    assert verify_backup(office.kept, first.name, office.now).verified_at is not None
    for suffix in (".db", ".head", ".json"):
        os.unlink(office.kept / f"{first.name}{suffix}")
    prune(office.kept, "agent", daily=7, weekly=0)
    left = set(segments(office.kept / "segments"))
    assert not any("-money-" in name for name in old & left)
    assert any("-links-" in name for name in left)
    assert verify_backup(office.kept, second.name, office.now).verified_at is not None


async def test_nothing_is_pruned_while_a_backup_cannot_be_asked(office: Office) -> None:
    await office.write(90)
    await seal(office)
    made = office.back_up()
    names = set(segments(office.kept / "segments"))
    (office.kept / f"{made.name}.db").write_bytes(b"broken" * 1000)
    prune(office.kept, "agent", daily=7, weekly=0)
    assert set(segments(office.kept / "segments")) == names
