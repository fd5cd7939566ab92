"""One backup a day, none of a record nobody trusts, and people told when one fails."""

from __future__ import annotations

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.model import DAY, HOUR, MINUTE, Instant
from kiki_agent.recovery import BackupLoop, Reason, list_backups

from .conftest import NOON, Office


async def test_one_a_day(office: Office) -> None:
    await office.write(3)
    service = office.service()
    loop = BackupLoop(service, 86_400, 1.0, lambda: None)
    assert loop.period == 10 * MINUTE
    acted = []
    for minute in range(0, 3 * 24 * 60, 10):
        office.now = Instant(NOON + minute * MINUTE)
        if await loop.tick(office.now) is None:
            acted.append(minute)
            await service.outcome()
    assert acted == [0, 24 * 60, 48 * 60]
    found = list_backups(office.kept, "agent")
    assert [each.reason for each in found] == ["daily"] * 3
    assert service.age_s(Instant(found[0].made_at + HOUR)) == 3600


async def test_a_demo_in_quick_motion_fills_no_disk(office: Office) -> None:
    loop = BackupLoop(office.service(), 86_400, 60.0, lambda: None)
    assert loop.period == 600 * MINUTE
    assert await loop.tick(NOON) is None
    await loop._backups.outcome()
    assert "h old" in str(await loop.tick(Instant(NOON + 59 * DAY)))
    assert await loop.tick(Instant(NOON + 60 * DAY)) is None
    await loop._backups.outcome()


async def test_what_is_not_trusted_is_not_backed_up(office: Office) -> None:
    loop = BackupLoop(office.service(), 86_400, 1.0, lambda: "entry 9 was changed")
    assert "entry 9 was changed" in str(await loop.tick(NOON))
    assert not office.kept.exists()


async def test_a_failure_fails_the_loop_and_is_tried_again(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    service = office.service()
    loop = BackupLoop(service, 86_400, 1.0, lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr("kiki_agent.recovery.service.backups.make_backup", _broken)
        assert await loop.tick(NOON) is None
        with pytest.raises(StoreError, match="the disk is gone"):
            await service.outcome()
        with pytest.raises(StoreError, match="the disk is gone"):
            await loop.tick(Instant(NOON + 10 * MINUTE))
    assert service.failure == "the disk is gone"
    assert await loop.tick(Instant(NOON + 20 * MINUTE)) is None
    assert (await service.outcome()).reason == Reason.DAILY
    assert service.failure is None


def _broken(*args: object, **kwargs: object) -> None:
    raise StoreError("the disk is gone")
