"""Reallocations and exports: what people and programs read of the ledger."""

import csv
import json
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.ledger import Ledger, Reallocation, Records, export, export_file, record_reallocation
from kiki_agent.ledger.canonical import GENESIS, entry_hash
from kiki_agent.model import Instant, parse_iso
from kiki_agent.store import Store

Agent = tuple[Store, Ledger]
OpenAgent = Callable[..., Awaitable[Agent]]
SHIFT = Reallocation(
    client_id="demo-001",
    from_platform="PLATFORM_META",
    to_platform="PLATFORM_GOOGLE",
    amount_shifted_micros=2_500_000_000,
    currency="USD",
    from_efficiency=1.5,
    to_efficiency=2.25,
    reason="20.0 % below the mean",
    timestamp=1_700_000_000,
    run_id="run-1",
    notification_id="shift-1",
)


async def test_shifts_are_listed_newest_first_and_by_client(agent: Agent) -> None:
    store, ledger = agent
    for number in range(5):
        shift = replace(SHIFT, timestamp=SHIFT.timestamp + number, client_id=f"demo-00{1 + number % 2}")
        assert await store.write(lambda connection, s=shift: record_reallocation(connection, s)) == number + 1
    rows, total = await Records(store).reallocations()
    assert [row.id for row in rows] == [5, 4, 3, 2, 1]
    assert total == 5
    rows, total = await Records(store).reallocations(client_id="demo-001", limit=2, offset=1)
    assert ([row.id for row in rows], total) == ([3, 1], 3)
    assert (rows[1].from_efficiency, rows[1].amount_shifted_micros) == (1.5, 2_500_000_000)
    found = await ledger.verify()
    assert (found.ok, found.reallocations) == (True, 5)


@pytest.mark.parametrize("wrong", [{"client_id": ""}, {"amount_shifted_micros": 0}, {"amount_shifted_micros": -1}])
async def test_empty_clients_and_amounts_are_refused(agent: Agent, wrong: dict[str, object]) -> None:
    store, _ = agent
    with pytest.raises(ValueError, match="a reallocation"):
        await store.write(lambda connection: record_reallocation(connection, replace(SHIFT, **wrong)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE budget_reallocation_log SET reason = 'x'",
        "DELETE FROM budget_reallocation_log",
        "INSERT OR REPLACE INTO budget_reallocation_log SELECT * FROM budget_reallocation_log",
    ],
)
async def test_the_log_only_grows(agent: Agent, statement: str) -> None:
    store, _ = agent
    await store.write(lambda connection: record_reallocation(connection, SHIFT))
    with pytest.raises(sqlite3.IntegrityError):
        await store.write(lambda connection: connection.execute(statement))


@pytest.fixture
async def filled(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setattr("kiki_agent.ledger.exports.CHUNK", 7)
    store, ledger = agent
    for number in range(18):
        body = {"number": number, "text": 'comma, "quote"\nline é'}
        store.submit(lambda connection, n=number, b=body: ledger.append(connection, Instant(n), "control", b))
    await store.drain()
    return agent


async def test_json_lines_hold_everything_the_hash_needs(filled: Agent, tmp_path: Path) -> None:
    store, ledger = filled
    pieces: list[str] = []
    assert await export(store, "jsonl", pieces.append) == 20
    digest = GENESIS
    for number, line in enumerate("".join(pieces).splitlines(), start=1):
        entry = json.loads(line)
        assert entry["seq"] == number
        assert parse_iso(entry["time"]) == entry["at"]
        body = line.split('"body":', 1)[1].rsplit(',"hash":', 1)[0]
        digest = entry_hash(digest, entry["seq"], entry["at"], entry["kind"].encode(), body.encode())
        assert entry["hash"] == digest.hex()
    assert number == 20
    assert ledger.head[1] == digest.hex()


async def test_csv_survives_quotes_and_newlines_and_the_file_gives_the_same(filled: Agent) -> None:
    store, _ = filled
    live: list[str] = []
    await export(store, "csv", live.append)
    offline: list[str] = []
    assert export_file(store.path, "csv", offline.append) == 20
    assert "".join(live) == "".join(offline)
    rows = list(csv.DictReader("".join(live).splitlines(keepends=True)))
    assert [int(row["seq"]) for row in rows] == list(range(1, 21))
    assert json.loads(rows[-1]["body"]) == {"number": 17, "text": 'comma, "quote"\nline é'}


def test_an_export_of_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no database"):
        export_file(tmp_path / "none.db", "csv", print)
    (tmp_path / "bad.db").write_bytes(b"x" * 4096)
    with pytest.raises(StoreError):
        export_file(tmp_path / "bad.db", "jsonl", print)
