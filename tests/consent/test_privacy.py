"""Knowing and erasing a person: nothing of them is left anywhere, the chain stays whole, and no restore undoes it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kiki_agent.config import ValueSettings
from kiki_agent.consent import DENIED, ConsentType, RequestType, Vault
from kiki_agent.consent.erasures import Erased, ErasureList
from kiki_agent.errors import Denied, StoreError
from kiki_agent.model import DAY, Customer, CustomerPage, Instant
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.value import Value

from .rooms import NOON, Room

T = ConsentType.TARGETING
CANARY = "canary-7f3a-customer"
EVIDENCE = {"ip_address": "203.0.113.77", "user_agent": "CanaryBrowser/9"}
TRACES = (CANARY.encode(), b"203.0.113.77", b"CanaryBrowser", b"canary@example.org")


def customer(name: str) -> Customer:
    return Customer(name, "meta", Instant(NOON - DAY), 2, 90_000_000, NOON, NOON)


async def read_customers(room: Room, *names: str) -> Value:
    """What the value loop does with a page of a CRM."""
    value = await Value.open(
        room.store,
        ValueSettings(),
        client_id="demo",
        platforms=("meta",),
        metrics=Metrics(process=False),
        tokens=room.vault.tokens,
        now=NOON,
    )
    await value.take_page("crm", CustomerPage(tuple(map(customer, names)), "1", False), NOON)
    await value.predict(NOON)
    return value


async def a_known_person(room: Room, name: str = CANARY) -> str:
    """A customer with rows everywhere; their token."""
    await read_customers(room, name, "another")
    await room.consents.grant(name, T, NOON, evidence=EVIDENCE)
    await room.privacy.request(name, RequestType.ACCESS, "canary@example.org", NOON)
    subject = await room.vault.subject(name)
    assert subject is not None
    return subject


# -- export -------------------------------------------------------------------------------------------------------


async def test_an_export_holds_everything_and_opens_what_was_sealed(room: Room) -> None:
    subject = await a_known_person(room)
    found = await room.privacy.export(subject, NOON, "test")
    assert found is not None
    assert json.loads(json.dumps(found)) == found
    assert (found["customer_id"], found["subject"]) == (CANARY, subject)
    counts = {name: len(rows) for name, rows in found.items() if isinstance(rows, list)}
    assert counts == {
        "customers": 1,
        "predictions": 1,
        "consents": 1,
        "requests": 1,
        "bids": 0,
        "record": 2,
        "conversions": 0,
    }
    assert found["consents"][0]["evidence"] == EVIDENCE  # type: ignore[index]
    assert found["requests"][0]["requested_by"] == {"requested_by": "canary@example.org"}  # type: ignore[index]
    kinds = await room.rows("SELECT json_extract(body, '$.action') FROM ledger_entries WHERE kind = 'privacy'")
    assert kinds == [("access",), ("export",)]


async def test_no_table_with_a_token_is_forgotten_by_export_and_erasure(room: Room) -> None:
    """A new table about people must be added to both: columns are found by name."""
    of_changes = {"orders", "suggestions"}  # their `subject` is a campaign or a platform
    tables = [name for (name,) in await room.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    personal = set()
    for table in tables:
        columns = {str(row[1]) for row in await room.rows(f"PRAGMA table_info({table})")}
        if columns & {"customer_id", "subject", "customer_hash"}:
            personal.add(table)
    assert personal - of_changes == {
        "customers",
        "ltv_predictions",
        "consents",
        "privacy_requests",
        "erasures",
        "conversions",
    }


async def test_who_is_not_known_gets_no_export_and_no_line(room: Room) -> None:
    for kind in (RequestType.ACCESS, RequestType.PORTABILITY, RequestType.RECTIFICATION):
        with pytest.raises(Denied, match="nothing is known"):
            await room.privacy.request("stranger", kind, "", NOON)
    assert await room.vault.subject("stranger") is None


async def test_a_rectification_waits_for_the_source(room: Room) -> None:
    await a_known_person(room)
    made = await room.privacy.request(CANARY, RequestType.RECTIFICATION, "", NOON)
    assert (made.status, made.completed_at, made.due_at) == ("PENDING", None, NOON + 30 * DAY)
    assert await room.privacy.find(made.request_id) == made
    assert (await room.privacy.counts(NOON, Instant(NOON + 31 * DAY)))["overdue"] == 1


# -- erasure ------------------------------------------------------------------------------------------------------


async def test_before_an_erasure_the_id_is_in_the_keys_alone(room: Room) -> None:
    await a_known_person(room)
    await room.store.drain()
    holding = {path.name for path in room.folder.iterdir() if CANARY.encode() in path.read_bytes()}
    assert holding == {"a.keys"}


async def test_after_an_erasure_nothing_is_left_anywhere(room: Room) -> None:
    subject = await a_known_person(room)
    await room.store.backup(room.folder / "a.backup")
    key = await _key(room, subject)
    assert len(key) == 32
    assert key in room.bytes()
    entries = room.ledger.head[0]
    made = await room.privacy.erase(CANARY, NOON)
    assert made.status == "COMPLETED"
    await room.again()
    everything = room.bytes()
    assert [trace for trace in (*TRACES, key) if trace in everything] == []
    assert subject.encode() in everything  # a number that stands for nobody
    assert room.ledger.head[0] > entries
    assert await room.privacy.export(subject, NOON, "test") is None
    assert await room.rows("SELECT count(*) FROM customers") == [(1,)]  # the other one
    assert await room.rows("SELECT count(*) FROM ltv_predictions") == [(1,)]
    assert await room.consents.status(CANARY) == {}
    assert await room.consents.look(CANARY, T, "meta", NOON) == DENIED


async def test_many_erasures_leave_no_trace_in_the_keys(room: Room) -> None:
    names = [f"someone-{number:05d}-else" for number in range(3_000)]
    for begin in range(0, len(names), 500):
        await room.vault.tokens(names[begin::6][:500], NOON)
    gone = names[::40]
    keys = []
    for each in gone:
        subject = await room.vault.enrol(each, NOON)
        await room.vault.seal(subject, {"a": "b"})
        keys.append(await _key(room, subject))
        await room.vault.erase(each, NOON)
    everything = room.bytes()
    assert [name for name in gone if name.encode() in everything] == []
    assert [key for key in keys if key in everything] == []


async def test_a_source_does_not_bring_an_erased_person_back(room: Room) -> None:
    await a_known_person(room)
    await room.privacy.erase(CANARY, NOON)
    for _ in range(2):
        await read_customers(room, CANARY, "third")
        assert await room.vault.subject(CANARY) is None
        assert await room.rows("SELECT count(*) FROM customers") == [(2,)]
        await room.again()
    assert CANARY.encode() not in room.bytes()


async def test_only_the_person_comes_back_and_as_somebody_new(room: Room) -> None:
    before = await a_known_person(room)
    await room.privacy.erase(CANARY, NOON)
    await room.consents.grant(CANARY, T, NOON)
    after = await room.vault.subject(CANARY)
    assert after not in (None, before)
    await room.again()
    assert room.reapplied == 0
    assert room.consents.basis(CANARY, T, "meta", NOON) != DENIED
    await read_customers(room, CANARY)
    assert await room.rows(f"SELECT count(*) FROM customers WHERE customer_id = '{after}'") == [(1,)]


async def test_erasing_who_is_not_known_keeps_them_out(room: Room) -> None:
    made = await room.privacy.request("stranger", RequestType.DELETION, "", NOON)
    assert (made.status, made.subject) == ("COMPLETED", "")
    await room.again()
    await read_customers(room, "stranger")
    assert await room.rows("SELECT count(*) FROM customers") == [(0,)]
    assert b"stranger" not in room.bytes()


async def test_a_page_on_its_way_leaves_nothing(room: Room) -> None:
    """The tokens were asked for before the erasure, the rows are written after it."""
    value = await read_customers(room)
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(customer_ids: object, now: Instant) -> list[str | None]:
        found = await room.vault.tokens([CANARY], now)
        asked.set()
        await go.wait()
        return found

    value._tokens = slow
    page = CustomerPage((customer(CANARY),), "2", False)
    taking = asyncio.create_task(value.take_page("crm", page, NOON))
    await asked.wait()
    await room.privacy.erase(CANARY, NOON)
    go.set()
    await taking
    assert await room.rows("SELECT count(*) FROM customers") == [(0,)]


async def test_grants_during_an_erasure_end_with_it(room: Room) -> None:
    for _ in range(10):
        await room.consents.grant(CANARY, T, NOON)
        results = await asyncio.gather(
            room.consents.grant(CANARY, T, NOON, evidence=EVIDENCE),
            room.privacy.erase(CANARY, NOON),
            room.consents.grant(CANARY, T, NOON, evidence=EVIDENCE),
            room.consents.look(CANARY, T, "meta", NOON),
            return_exceptions=True,
        )
        assert all(isinstance(each, Denied) for each in results if isinstance(each, Exception)), results
        assert room.consents.basis(CANARY, T, "meta", NOON) == DENIED
        assert await room.rows("SELECT count(*) FROM consents") == [(0,)]
        assert await room.vault.subject(CANARY) is None
    assert [trace for trace in TRACES if trace in room.bytes()] == []


# -- the list, after crashes and restores ---------------------------------------------------------------------------


async def test_a_restored_backup_is_erased_again(room: Room) -> None:
    await a_known_person(room)
    kept = room.folder / "kept"
    kept.mkdir()
    await room.store.backup(kept / "a.db")
    await room.privacy.erase(CANARY, NOON)
    await room.stop()
    for name in ("a.db-wal", "a.db-shm", "a.head"):
        (room.folder / name).unlink(missing_ok=True)
    shutil.copy(kept / "a.db", room.folder / "a.db")
    await room.start()
    assert room.reapplied == 1
    assert await room.rows("SELECT count(*) FROM customers") == [(1,)]
    assert await room.rows("SELECT count(*) FROM consents") == [(0,)]
    assert await room.rows("SELECT count(*) FROM erasures") == [(1,)]
    await room.again()
    assert room.reapplied == 0


async def test_a_restored_backup_brings_no_revoked_consent_back(room: Room) -> None:
    await room.consents.grant("anna", T, NOON)
    await room.consents.grant("bob", T, NOON)
    kept = room.folder / "kept"
    kept.mkdir()
    await room.store.backup(kept / "a.db")
    await room.consents.revoke("anna", T, NOON)
    await room.consents.grant("anna", T, NOON)
    await room.consents.revoke("anna", T, NOON)
    await room.stop()
    for name in ("a.db-wal", "a.db-shm", "a.head"):
        (room.folder / name).unlink(missing_ok=True)
    shutil.copy(kept / "a.db", room.folder / "a.db")
    for _ in range(2):
        await room.start()
        assert await room.consents.look("anna", T, "meta", NOON) == DENIED
        assert (await room.consents.status("anna"))[T].status.value == "REVOKED"
        assert await room.consents.look("bob", T, "meta", NOON) != DENIED
        await room.stop()
    await room.start()
    made = await room.consents.grant("anna", T, NOON)
    await room.again()
    assert room.consents.basis("anna", T, "meta", NOON) == f"consent:{made.consent_id}"


async def test_an_older_copy_of_the_keys_is_erased_again(room: Room) -> None:
    subject = await a_known_person(room)
    await room.stop()
    shutil.copy(room.folder / "a.keys", room.folder / "a.keys.kept")
    await room.start()
    await room.privacy.erase(CANARY, NOON)
    await room.stop()
    (room.folder / "a.keys.kept").replace(room.folder / "a.keys")
    await room.start()
    assert room.reapplied == 1
    assert await room.vault.subject(CANARY) is None
    assert await room.privacy.export(subject, NOON, "test") is None
    assert [trace for trace in TRACES if trace in room.bytes()] == []


@pytest.mark.parametrize("step", ["listed", "key destroyed"])
async def test_a_crash_in_the_middle_is_finished_at_the_next_start(room: Room, step: str) -> None:
    subject = await a_known_person(room)
    if step == "listed":
        room.vault.learn([Erased(room.vault.mark(CANARY), subject, NOON)])
    else:
        await room.vault.erase(CANARY, NOON)
    assert await room.rows("SELECT count(*) FROM consents") == [(1,)]
    await room.again()
    assert room.reapplied == 1
    assert await room.vault.subject(CANARY) is None
    assert await room.rows("SELECT count(*) FROM consents") == [(0,)]
    assert await room.consents.look(CANARY, T, "meta", NOON) == DENIED
    assert [trace for trace in TRACES if trace in room.bytes()] == []


async def test_a_lost_list_is_written_again(room: Room) -> None:
    await a_known_person(room)
    await room.privacy.erase(CANARY, NOON)
    await room.stop()
    (room.folder / "a.erased").unlink()
    await room.start()
    assert room.vault.refuses(CANARY)
    assert len(ErasureList.load(room.folder / "a.erased").lines) == 1


def test_kills_at_random_points_undo_nothing_that_was_acknowledged() -> None:
    """Reduced; `python -m tests.consent.kills 500` is the whole. In a process without threads, because it forks."""
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.consent.kills", "25"], cwd=root, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr


def test_a_line_cut_off_by_a_crash_is_dropped_and_nonsense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.erased"
    path.write_bytes(b'{"at":1,"lifted":false,"mark":"m","subject":"s"}\n{"at":2,"lif')
    assert [each.subject for each in ErasureList.load(path).lines] == ["s"]
    assert path.read_bytes().endswith(b"}\n")
    path.write_bytes(b"[]\n")
    with pytest.raises(StoreError, match=r"a\.erased:1 is no erasure"):
        ErasureList.load(path)


def test_a_line_that_does_not_fit_on_the_disk_is_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.erased"
    listed = ErasureList.load(path, sync=False)
    listed.add([Erased("one", "s1", NOON)])
    write, room = os.write, [10]

    def nearly_full(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        fits, room[0] = data[: room[0]], 0
        return write(descriptor, fits)

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(StoreError, match="cannot be written: No space left"):
        listed.add([Erased("two", "s2", NOON)])
    room[0] = 1_000
    listed.add([Erased("three", "s3", NOON)])
    assert [each.mark for each in listed.lines] == ["one", "three"]
    assert ErasureList.load(path).lines == listed.lines


# -- the keys -----------------------------------------------------------------------------------------------------


async def test_only_the_owner_can_read_the_keys_and_the_list(room: Room) -> None:
    await room.privacy.erase(CANARY, NOON)
    await room.stop()
    (room.folder / "a.keys").chmod(0o644)
    await room.start()
    for name in ("a.keys", "a.erased"):
        assert stat.S_IMODE((room.folder / name).stat().st_mode) == 0o600


async def test_sealed_facts_are_for_one_subject_and_one_key(room: Room) -> None:
    anna, bob = await room.vault.enrol("anna", NOON), await room.vault.enrol("bob", NOON)
    sealed = await room.vault.seal(anna, {"ip_address": "203.0.113.9"})
    twice = await room.vault.seal(anna, {"ip_address": "203.0.113.9"})
    assert sealed != twice
    assert await room.vault.reveal(anna, [sealed, twice, ""]) == [{"ip_address": "203.0.113.9"}] * 2 + [{}]
    await room.vault.seal(bob, {"a": "b"})
    flipped = sealed[:-2] + ("A" if sealed[-2] != "A" else "B") + sealed[-1]
    assert await room.vault.reveal(bob, [sealed]) == [None]
    assert await room.vault.reveal(anna, [flipped, "v1:", "v1:!!!", "plain", sealed[3:]]) == [None] * 5


async def test_tokens_say_nothing_and_are_never_given_twice(room: Room) -> None:
    first = await room.vault.tokens(["anna", "bob", "anna"], NOON)
    assert first[0] == first[2] != first[1]
    assert await room.vault.tokens(["bob"], Instant(NOON + DAY)) == [first[1]]
    await room.privacy.erase("anna", NOON)
    again = await room.vault.enrol("anna", NOON)
    assert again not in first


async def test_keys_that_cannot_be_written_allow_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of the keys is full: no grant counts, a revocation counts at once, an erasure is not said to be done."""
    await room.consents.grant("anna", T, NOON)
    real, full = room.vault._seat.run, [True]

    async def run(work: object) -> object:
        if full[0]:
            raise sqlite3.OperationalError("database or disk is full")
        return await real(work)  # type: ignore[type-var]

    monkeypatch.setattr(room.vault._seat, "run", run)
    with pytest.raises(StoreError):
        await room.consents.grant("bob", T, NOON)
    assert room.consents.basis("bob", T, "meta", NOON) == DENIED
    assert room.consents.basis("anna", T, "meta", NOON) != DENIED
    with pytest.raises(StoreError):
        await room.consents.revoke("anna", T, NOON)
    assert room.consents.basis("anna", T, "meta", NOON) == DENIED
    with pytest.raises(StoreError):
        await room.privacy.erase("anna", NOON)
    with pytest.raises(StoreError):
        await read_customers(room, "carol")
    assert await room.rows("SELECT count(*) FROM customers") == [(0,)]
    full[0] = False
    await room.privacy.erase("anna", NOON)
    assert b"anna" not in room.bytes()


async def test_nothing_is_read_back_of_who_is_erased_but_for_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await Room(tmp_path, most=1).start()
    for name in ("anna", "bob", "carol"):
        await room.consents.grant(name, T, NOON)

    async def full(_: object) -> int:
        raise StoreError("the disk is full")

    monkeypatch.setattr(room.vault, "forget", full)
    with pytest.raises(StoreError):
        await room.privacy.erase("anna", NOON)
    assert await room.consents.look("anna", T, "meta", NOON) == DENIED
    assert await room.consents.look("bob", T, "meta", NOON) != DENIED
    await room.stop()


async def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.keys").write_bytes(b"this is no database, and it is long enough to be looked at" * 20)
    with pytest.raises(StoreError):
        await Vault.open(tmp_path / "x.keys", tmp_path / "x.erased")


async def _key(room: Room, subject: str) -> bytes:
    connection = sqlite3.connect(f"file:{room.folder / 'a.keys'}?mode=ro", uri=True)
    try:
        return bytes(connection.execute("SELECT key FROM subjects WHERE subject = ?", (subject,)).fetchone()[0])
    finally:
        connection.close()
