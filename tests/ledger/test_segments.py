"""Sealed segments: nothing is lost at any step, nothing altered goes unseen, and hashes outlive what is dropped."""

import asyncio
import gzip
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiki_agent.consent.records import history
from kiki_agent.errors import Fault, StoreError
from kiki_agent.ledger import Ledger, export_file, verify, verify_file
from kiki_agent.ledger import sealing as sealing_module
from kiki_agent.ledger.canonical import KINDS
from kiki_agent.ledger.decisions import first_since
from kiki_agent.ledger.records import Records
from kiki_agent.ledger.sealing import Sealer
from kiki_agent.ledger.segments import CLASSES, PERSONAL, Segment, hash_at, owner_of, segments
from kiki_agent.ledger.verify import Walk
from kiki_agent.model import Instant
from kiki_agent.store import Store

HOT = 100
KIND_OF = ("decision", "spend", "consent", "intent", "control", "decision", "decision")


class Killed(BaseException):
    """The process ended here."""


OPEN: list[Store] = []


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    """A test that fails leaves no thread behind."""
    yield
    await close_all()


async def close_all() -> None:
    while OPEN:
        await OPEN.pop().close()


async def opened(folder: Path, now: int) -> tuple[Store, Ledger]:
    await close_all()
    store = await Store.open(folder / "agent.db", now=Instant(now), synchronous="OFF")
    OPEN.append(store)
    return store, await Ledger.open(store, folder / "agent.head", client_id="demo", now=Instant(now))


def body_of(number: int, kind: str) -> dict[str, object]:
    if kind == "consent":
        return {"subject": f"s{number % 3}", "consent_id": f"c{number}", "said": "ja, wenn's \n sein muß"}
    return {"campaign_id": f"c{number % 5}", "connector": "x", "n": number, "outcome": "BID", "reason": "a|b"}


async def fill(store: Store, ledger: Ledger, entries: int, start: int = 1) -> None:
    def append(connection: sqlite3.Connection) -> None:
        for number in range(start, start + entries):
            kind = KIND_OF[number % len(KIND_OF)]
            ledger.append(connection, Instant(number), kind, body_of(number, kind))

    await store.write(append)
    await ledger.write_head()


def sealer(store: Store, ledger: Ledger, *, hot: int = HOT, rows: int = 16, **keep: int) -> Sealer:
    return Sealer(store, ledger, hot=hot, keep=keep, rows=rows, batch=5)


def exported(folder: Path) -> list[Any]:
    pieces: list[str] = []
    export_file(folder / "agent.db", "jsonl", pieces.append)
    return [json.loads(line) for line in "".join(pieces).splitlines()]


def verified(folder: Path) -> str:
    return verify_file(folder / "agent.db", folder / "agent.head").problem


def files(folder: Path) -> list[Path]:
    return sorted((folder / "agent.segments").iterdir())


def on_record(folder: Path) -> set[str]:
    connection = sqlite3.connect(folder / "agent.db")
    try:
        return {file.name for each in segments(connection) for file in each.files.values() if not file.dropped}
    finally:
        connection.close()


def sealed_end(folder: Path) -> int:
    connection = sqlite3.connect(folder / "agent.db")
    try:
        return max(each.last for each in segments(connection))
    finally:
        connection.close()


def first_in_table(folder: Path) -> int:
    connection = sqlite3.connect(folder / "agent.db")
    try:
        return int(connection.execute("SELECT min(seq) FROM ledger_entries").fetchone()[0])
    finally:
        connection.close()


async def sealed_folder(folder: Path, entries: int = 90, **keep: int) -> list[Any]:
    """A closed ledger of which the first entries are sealed; what an export told before that."""
    store, ledger = await opened(folder, 0)
    await fill(store, ledger, entries)
    before = exported(folder)
    done = await sealer(store, ledger, **keep).run(Instant(HOT + 75))
    assert done.segments >= 4
    assert done.entries > 60
    await ledger.write_head()
    await close_all()
    return before


def test_every_kind_of_entry_has_a_class() -> None:
    assert set(CLASSES) == KINDS


async def test_what_is_sealed_reads_and_verifies_as_before(tmp_path: Path) -> None:
    before = await sealed_folder(tmp_path)
    found = verify_file(tmp_path / "agent.db", tmp_path / "agent.head")
    after = exported(tmp_path)
    assert found.ok
    assert found.segments == 4
    assert found.sealed == 64
    assert found.dropped == 0
    assert found.entries == len(after)
    assert after[: len(before)] == before
    assert {each["kind"] for each in after[len(before) :]} == {"sealed"}
    assert on_record(tmp_path) == {path.name for path in files(tmp_path)}
    csv: list[str] = []
    export_file(tmp_path / "agent.db", "csv", csv.append)
    assert "".join(csv).count("\r\n") == len(after) + 1
    connection = sqlite3.connect(tmp_path / "agent.db")
    assert connection.execute("SELECT min(seq) FROM ledger_entries").fetchone() == (65,)
    assert hash_at(connection, 3).hex() == after[2]["hash"]  # type: ignore[union-attr]
    assert owner_of(connection) == "demo"
    assert first_since(connection, Instant(0)) == 65
    assert first_since(connection, Instant(80)) == 82
    assert [each[3]["consent_id"] for each in history(connection, "s0")] == [
        each["body"]["consent_id"] for each in before if each["kind"] == "consent" and each["body"]["subject"] == "s0"
    ]
    connection.close()
    store, ledger = await opened(tmp_path, 200)
    assert ledger.hold_reason is None
    assert (await ledger.verify()).segments == 4
    assert (await Records(store).audit((), Instant(0), 50, 0))[1] > 0
    await close_all()


async def test_a_record_that_was_set_aside_keeps_its_segments(tmp_path: Path) -> None:
    await sealed_folder(tmp_path)
    (tmp_path / "agent.db").rename(tmp_path / "agent.db.before-7")
    (tmp_path / "agent.segments").rename(tmp_path / "agent.segments.before-7")
    (tmp_path / "agent.head").unlink()
    await sealed_folder(tmp_path, 120)  # another record takes its place
    found = verify_file(tmp_path / "agent.db.before-7")
    assert found.ok
    assert found.segments == 4


async def test_young_entries_and_the_known_head_stay(tmp_path: Path) -> None:
    store, ledger = await opened(tmp_path, 0)
    await fill(store, ledger, 40)
    assert (await sealer(store, ledger, hot=0).run(Instant(10_000))).entries == 0
    assert (await sealer(store, ledger).run(Instant(HOT))).entries == 0
    assert (await sealer(store, ledger, rows=64).run(Instant(HOT + 20))).entries == 0  # not full, and not old enough
    assert (await sealer(store, ledger, rows=64).run(Instant(HOT + HOT // 4 + 2))).entries > 0
    assert (await sealer(store, ledger).run(Instant(10**6))).entries > 0
    kept = await store.read(lambda connection: connection.execute("SELECT min(seq) FROM ledger_entries").fetchone())
    assert kept[0] == ledger.known_seq
    await close_all()
    assert verified(tmp_path) == ""


async def test_the_database_refuses_what_is_not_sealed(tmp_path: Path) -> None:
    await sealed_folder(tmp_path)
    connection = sqlite3.connect(tmp_path / "agent.db")
    for statement in (
        "DELETE FROM ledger_entries WHERE seq = 65",
        "DELETE FROM ledger_entries WHERE seq = (SELECT max(seq) FROM ledger_entries)",
        "UPDATE ledger_segments SET last_seq = 80 WHERE last_seq = 64",
        "DELETE FROM ledger_segments",
        "DELETE FROM ledger_segment_files",
        "UPDATE ledger_segment_files SET sha256 = replace(sha256, 'a', 'b')",
        "UPDATE ledger_segment_files SET dropped_at = 1 WHERE class = 'links'",
        "INSERT INTO ledger_segments SELECT 65, seq, 1, 2, zeroblob(32), 'demo' FROM ledger_entries WHERE seq = 70",
        "INSERT INTO ledger_segments SELECT 66, seq, 1, 2, hash, 'demo' FROM ledger_entries WHERE seq = 70",
        "INSERT INTO ledger_segments SELECT 65, seq, 1, 2, hash, 'demo' FROM ledger_entries ORDER BY seq DESC LIMIT 1",
        "INSERT INTO ledger_entries SELECT 3, 1, 'spend', '{}', zeroblob(32)",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)
    connection.close()
    assert verified(tmp_path) == ""


def _missing(path: Path, _: Path) -> None:
    path.unlink()


def _truncated(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _longer(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def _swapped(path: Path, other: Path) -> None:
    shutil.copy(other, path)


def _rewritten(path: Path, _: Path) -> None:
    text = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(text.replace(b"1", b"2", 1)))


@pytest.mark.parametrize("harm", [_missing, _truncated, _longer, _swapped, _rewritten])
async def test_a_harmed_segment_is_found_and_named(tmp_path: Path, harm: Callable[[Path, Path], None]) -> None:
    await sealed_folder(tmp_path)
    for path in files(tmp_path):
        other = next(each for each in files(tmp_path) if each.stem.split("-")[3] == path.stem.split("-")[3] != path)
        good = path.read_bytes()
        harm(path, other if other != path else files(tmp_path)[-1])
        if path.exists() and path.read_bytes() == good:
            continue
        found = verify_file(tmp_path / "agent.db", tmp_path / "agent.head")
        assert not found.ok, path
        assert path.name in found.problem
        first, last = (int(part) for part in path.name.split("-")[1:3])
        assert first <= (found.first_bad or 0) <= last
        with pytest.raises(StoreError, match=path.name):
            exported(tmp_path)
        path.write_bytes(good)
    assert verified(tmp_path) == ""


async def test_every_flipped_byte_of_a_segments_text_is_found(tmp_path: Path) -> None:
    await sealed_folder(tmp_path)
    for path in (each for each in files(tmp_path) if each.name.startswith("agent-17-")):
        good = path.read_bytes()
        text = gzip.decompress(good)
        for place in range(0, len(text), 7):
            path.write_bytes(gzip.compress(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :], 1))
            assert path.name in verified(tmp_path)
        path.write_bytes(good)


async def test_a_forged_file_with_a_forged_record_is_not_the_one_of_the_chain(
    tmp_path: Path, tamper_at: Callable[..., None]
) -> None:
    await sealed_folder(tmp_path, decision=1)
    links = next(each for each in files(tmp_path) if "-17-" in each.name and "-links-" in each.name)
    lines = [json.loads(line) for line in gzip.decompress(links.read_bytes()).splitlines()]
    place = next(i for i, line in enumerate(lines) if line["kind"] == "decision")
    lines[place]["at"] += 1  # of an entry whose body went: no hash can tell
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    links.write_bytes(gzip.compress(text))
    from hashlib import sha256

    tamper_at(
        f"UPDATE ledger_segment_files SET sha256 = '{sha256(text).hexdigest()}', size = {len(text)}"
        f" WHERE name = '{links.name}'"
    )
    assert "is not of the files that the ledger's own entry about it names" in verified(tmp_path)


@pytest.fixture
def tamper_at(tmp_path: Path) -> Callable[..., None]:
    def tamper(*statements: str) -> None:
        connection = sqlite3.connect(tmp_path / "agent.db")
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return tamper


async def test_bodies_go_by_class_and_the_chain_stays(tmp_path: Path) -> None:
    before = await sealed_folder(tmp_path, personal=HOT + 10)
    store, ledger = await opened(tmp_path, 176)
    assert verified(tmp_path) == ""
    gone = [path for path in files(tmp_path) if path.name not in on_record(tmp_path)]
    assert gone
    assert all("-personal-" in path.name for path in gone)
    done = await sealer(store, ledger, personal=HOT + 10).run(Instant(176))
    assert done.removed == len(gone)
    assert not any(path.exists() for path in gone)
    await close_all()
    found = verify_file(tmp_path / "agent.db", tmp_path / "agent.head")
    after = exported(tmp_path)
    lost = [row for row in after if row["body"] is None]
    assert found.ok
    assert found.dropped == len(lost) > 0
    assert {row["kind"] for row in lost} == {"consent"}
    assert [row["hash"] for row in after[: len(before)]] == [row["hash"] for row in before]
    assert [row for row in after[: len(before)] if row["body"] is not None] == [
        row for row, now in zip(before, after, strict=False) if now["body"] is not None
    ]
    connection = sqlite3.connect(tmp_path / "agent.db")
    assert 0 < len(history(connection, "s0")) < len([r for r in before if r["body"].get("subject") == "s0"])
    connection.close()


async def test_a_class_that_went_without_a_word_of_the_chain_is_found(
    tmp_path: Path, tamper_at: Callable[..., None]
) -> None:
    await sealed_folder(tmp_path)
    tamper_at(f"UPDATE ledger_segment_files SET dropped_at = 1 WHERE class = '{PERSONAL}' AND first_seq = 17")
    assert "lost its bodies of personal" in verified(tmp_path)


async def test_a_record_that_does_not_verify_is_never_sealed(tmp_path: Path, tamper_at: Callable[..., None]) -> None:
    store, ledger = await opened(tmp_path, 0)
    await fill(store, ledger, 60)
    await close_all()
    store, ledger = await opened(tmp_path, 61)  # verified up to here, then changed
    tamper_at("UPDATE ledger_entries SET body = replace(body, '7', '8') WHERE seq = 9")
    with pytest.raises(Fault, match="nothing is sealed: entry 9"):
        await sealer(store, ledger).run(Instant(1_000))
    await close_all()
    assert not (tmp_path / "agent.segments").exists()


async def test_a_walk_goes_on_when_its_rows_are_sealed_under_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(verify, "CHUNK", 10)
    store, ledger = await opened(tmp_path, 0)
    await fill(store, ledger, 90)
    walk = Walk()
    assert await store.read(walk.chunk)
    assert walk.seq == 10
    await sealer(store, ledger).run(Instant(HOT + 75))
    while await store.read(walk.chunk):
        pass
    walk.finish()
    assert walk.problem == ""
    assert walk.seq == ledger.head[0]
    await close_all()


async def test_a_walk_outside_a_snapshot_asks_again_when_rows_left_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed_folder(tmp_path)
    plain, asked = verify.segments.segments, count()

    def late(connection: sqlite3.Connection, covering: int | None = None) -> list[Segment]:
        return [] if next(asked) == 0 else plain(connection, covering)

    monkeypatch.setattr(verify.segments, "segments", late)
    assert verified(tmp_path) == ""


async def test_rows_that_are_sealed_and_not_deleted_yet_are_compared(
    tmp_path: Path, tamper_at: Callable[..., None]
) -> None:
    store, ledger = await opened(tmp_path, 0)
    await fill(store, ledger, 60)
    asked = count()
    done = await sealer(store, ledger, money=1).run(Instant(HOT * 3), lambda: next(asked) > 3)
    assert done.segments == 1
    assert done.dropped == 0, "its rows are still in the table"
    await ledger.write_head()
    await close_all()
    assert first_in_table(tmp_path) < sealed_end(tmp_path)
    assert verified(tmp_path) == ""
    tamper_at("UPDATE ledger_entries SET at = at + 1 WHERE seq = 16")
    assert "entry 16 is another one in the table" in verified(tmp_path)


async def test_a_start_after_the_last_verified_entry_was_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ledger = await opened(tmp_path, 0)
    await fill(store, ledger, 40)
    assert (await ledger.verify()).ok
    await fill(store, ledger, 60, 41)
    await sealer(store, ledger).run(Instant(HOT + 90))
    await ledger.write_head()
    await close_all()
    assert sealed_end(tmp_path) > 45
    walked: list[Segment] = []
    monkeypatch.setattr(verify.Walk, "_walk_segment", lambda *given: walked.append(given[-1]))
    _, ledger = await opened(tmp_path, 300)
    assert ledger.hold_reason is None
    assert not walked, "a start reads no segment"


# -- crashes ----------------------------------------------------------------------------------------------------


class Doom:
    """Ends the process at the n-th step that leaves a trace: before it, after it, or amid the writing of a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, when: str) -> None:
        self.steps = count()
        self.at, self.when = at, when
        self.hit = False
        write, replace, unlink = Store.write, sealing_module.replace_file, Sealer._unlink

        async def doomed_write(store: Store, work: Callable[[sqlite3.Connection], Any]) -> Any:
            with self.step():
                return await write(store, work)

        def doomed_replace(path: Path, data: bytes, *, sync: bool = True) -> None:
            doomed = self.next()
            if doomed and self.when == "amid":
                path.with_name(path.name + ".new").write_bytes(data[: len(data) // 2])
            self.end(doomed, "before", "amid")
            replace(path, data, sync=sync)
            self.end(doomed, "after")

        def doomed_unlink(sealer: Sealer, names: list[str]) -> None:
            doomed = self.next()
            self.end(doomed, "before")
            unlink(sealer, names[:1] if doomed and self.when == "amid" else names)
            self.end(doomed, "amid", "after")

        monkeypatch.setattr(Store, "write", doomed_write)
        monkeypatch.setattr(sealing_module, "replace_file", doomed_replace)
        monkeypatch.setattr(Sealer, "_unlink", doomed_unlink)

    def next(self) -> bool:
        return next(self.steps) == self.at

    def end(self, doomed: bool, *when: str) -> None:
        if doomed and self.when in when:
            self.hit = True
            raise Killed

    def step(self) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def around() -> Iterator[None]:
            doomed = self.next()
            self.end(doomed, "before", "amid")
            yield
            self.end(doomed, "after")

        return around()


@pytest.mark.parametrize("when", ["before", "amid", "after"])
async def test_killed_at_every_step_nothing_is_lost(tmp_path: Path, when: str) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    store, ledger = await opened(origin, 0)
    await fill(store, ledger, 60)
    await close_all()
    before = exported(origin)
    keep = {"personal": HOT + 30}
    for step in count():
        folder = tmp_path / f"{when}{step}"
        shutil.copytree(origin, folder)
        store, ledger = await opened(folder, 61)
        await ledger.write_head()
        with pytest.MonkeyPatch.context() as patch:
            doom = Doom(patch, step, when)
            try:
                for _ in range(2):
                    await sealer(store, ledger, rows=20, **keep).run(Instant(HOT + 51))
            except Killed:
                pass
        await close_all()
        assert verified(folder) == "", step
        partly = exported(folder)
        assert [row["hash"] for row in partly[: len(before)]] == [row["hash"] for row in before]
        assert all(
            row["body"] == old["body"] or row["kind"] == "consent" for row, old in zip(partly, before, strict=False)
        )

        store, ledger = await opened(folder, 62)  # the next process finishes what was begun
        assert ledger.hold_reason is None
        for _ in range(2):
            await ledger.write_head()
            await sealer(store, ledger, rows=17, **keep).run(Instant(HOT + 51))
        assert (await ledger.verify()).ok
        await ledger.write_head()
        await close_all()
        assert {path.name for path in files(folder)} == on_record(folder), step
        assert sealed_end(folder) == first_in_table(folder) - 1
        assert verified(folder) == ""
        shutil.rmtree(folder)
        if not doom.hit:
            assert step > 20  # it ran through: there was no such step any more
            return


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 40)),
        st.tuples(st.just("seal"), st.integers(0, 200)),
        st.tuples(st.just("kill"), st.integers(0, 30)),
        st.tuples(st.just("reopen"), st.just(0)),
        st.tuples(st.just("verify"), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actions=ACTIONS,
    rows=st.integers(1, 30),
    keep=st.dictionaries(st.sampled_from(["money", "decision", "personal"]), st.integers(1, 400)),
    when=st.sampled_from(["before", "amid", "after"]),
)
def test_whatever_happens_the_chain_verifies_and_exports_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    actions: list[tuple[str, int]],
    rows: int,
    keep: dict[str, int],
    when: str,
) -> None:
    folder = tmp_path_factory.mktemp("walk")

    async def run() -> None:
        now, number = 0, 1
        known: dict[int, tuple[str, Any]] = {}
        store, ledger = await opened(folder, now)
        for action, amount in actions:
            if action == "append":
                await fill(store, ledger, amount, number)
                number += amount
                now = max(now, number)
            elif action == "seal":
                now += amount
                await sealer(store, ledger, rows=rows, **keep).run(Instant(now))
            elif action == "kill":
                with pytest.MonkeyPatch.context() as patch:
                    Doom(patch, amount, when)
                    try:
                        await sealer(store, ledger, rows=rows, **keep).run(Instant(now))
                    except Killed:
                        pass
                await close_all()
                store, ledger = await opened(folder, now)
            elif action == "reopen":
                await close_all()
                store, ledger = await opened(folder, now)
            assert ledger.hold_reason is None
            number = max(number, now)
            if action == "verify":
                assert (await ledger.verify()).ok
            for row in exported(folder):
                digest, body = known.setdefault(row["seq"], (row["hash"], row["body"]))
                assert row["hash"] == digest
                assert row["body"] == body or (row["body"] is None and keep.get(CLASSES[row["kind"]]))
            assert verified(folder) == ""
            assert len(known) == max(known, default=0)
        await close_all()

    async def to_the_end() -> None:
        try:
            await run()
        finally:
            await close_all()

    asyncio.run(to_the_end())
    shutil.rmtree(folder)


def test_killed_amid_sealing_at_any_moment_the_record_is_whole(tmp_path: Path) -> None:
    chance = random.Random(5)
    for _ in range(6):
        program = [sys.executable, str(Path(__file__).with_name("seal_run.py")), str(tmp_path)]
        with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n", "the process before left something it cannot start on"
            time.sleep(chance.random() * 0.4)
            process.kill()
        assert verified(tmp_path) == ""
    connection = sqlite3.connect(tmp_path / "agent.db")
    assert connection.execute("SELECT count(*) FROM ledger_segments").fetchone()[0] > 5
    assert {path.name for path in files(tmp_path)} >= on_record(tmp_path)
    connection.close()
