"""What a forger or a rotting disk does to a closed ledger, and where verification says it happened (M7)."""

import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kiki_agent.errors import StoreError
from kiki_agent.ledger import Ledger, Reallocation, record_reallocation, verify_file
from kiki_agent.ledger.canonical import GENESIS, entry_hash
from kiki_agent.model import Instant
from kiki_agent.store import Store

Agent = tuple[Store, Ledger]
OpenAgent = Callable[..., Awaitable[Agent]]
Tamper = Callable[..., None]
ENTRIES = 22
SHIFTS = 5


def shift(number: int) -> Reallocation:
    return Reallocation(
        "demo", "PLATFORM_META", "PLATFORM_X", 1_000_000 * (number + 1), "USD", 1.25, 2.5, "test", number
    )


@pytest.fixture
async def closed(open_agent: OpenAgent) -> Path:
    """A closed database of 22 entries and 5 shifts, all verified, with its head outside."""
    store, ledger = await open_agent()
    for number in range(ENTRIES - 2):
        await store.write(
            lambda connection, n=number: ledger.append(connection, Instant(n), "control", {"amount_micros": 100 + n})
        )
    for number in range(SHIFTS):
        await store.write(lambda connection, n=number: record_reallocation(connection, shift(n)))
    assert (await ledger.verify()).ok
    await ledger.write_head()
    await store.close()
    return store.path


def head_of(path: Path) -> Path:
    return path.with_name("ledger.head")


def test_an_untouched_ledger_verifies(closed: Path) -> None:
    found = verify_file(closed, head_of(closed))
    assert (found.ok, found.entries, found.reallocations, found.first_bad) == (True, ENTRIES, SHIFTS, None)
    assert found.head_hash in head_of(closed).read_text()


@pytest.mark.parametrize(
    ("statements", "first_bad"),
    [
        (("UPDATE ledger_entries SET body = '{\"amount_micros\":1}' WHERE seq = 9",), 9),
        (("UPDATE ledger_entries SET at = at + 1 WHERE seq = 9",), 9),
        (("UPDATE ledger_entries SET kind = 'alert' WHERE seq = 9",), 9),
        (("UPDATE ledger_entries SET hash = zeroblob(32) WHERE seq = 9",), 9),
        (("UPDATE ledger_entries SET body = body || ' ' WHERE seq = 9",), 9),
        (("DELETE FROM ledger_entries WHERE seq = 9",), 9),
        (("DELETE FROM ledger_entries WHERE seq = 1",), 1),
        (("DELETE FROM ledger_entries WHERE seq > 19",), 20),
        (("DELETE FROM ledger_entries",), 1),
        (
            (  # two neighbours change places
                "UPDATE ledger_entries SET seq = 1000 WHERE seq = 9",
                "UPDATE ledger_entries SET seq = 9 WHERE seq = 10",
                "UPDATE ledger_entries SET seq = 10 WHERE seq = 1000",
            ),
            9,
        ),
        (
            (  # one is put between
                "UPDATE ledger_entries SET seq = seq + 1000 WHERE seq >= 9",
                "INSERT INTO ledger_entries (seq, at, kind, body, hash)"
                " SELECT 9, at, kind, body, hash FROM ledger_entries WHERE seq = 8",
                "UPDATE ledger_entries SET seq = seq - 999 WHERE seq >= 1000",
            ),
            9,
        ),
    ],
)
async def test_every_change_is_found_where_it_was_made(
    closed: Path, tamper: Tamper, open_agent: OpenAgent, statements: tuple[str, ...], first_bad: int
) -> None:
    tamper(*statements)
    found = verify_file(closed, head_of(closed))
    assert not found.ok
    assert found.first_bad == first_bad
    assert found.problem
    _, ledger = await open_agent()
    whole = await ledger.verify()
    assert not whole.ok
    assert ledger.hold_reason is not None


async def test_a_change_after_the_checkpoint_is_found_at_the_start(
    closed: Path, tamper: Tamper, open_agent: OpenAgent
) -> None:
    store, ledger = await open_agent(now=3)
    await store.write(lambda connection: ledger.append(connection, Instant(4), "control", {"amount_micros": 7}))
    await store.close()
    tamper("UPDATE ledger_entries SET body = '{\"amount_micros\":8}' WHERE seq = (SELECT max(seq) FROM ledger_entries)")
    store, ledger = await open_agent(now=5)
    assert ledger.hold_reason is not None
    assert "was changed" in ledger.hold_reason


def forge(path: Path, seq: int, body: str) -> None:
    """Change an entry and hash everything after it anew, so that the chain is sound in itself."""
    connection = sqlite3.connect(path)
    digest = GENESIS
    connection.execute("UPDATE ledger_entries SET body = ? WHERE seq = ?", (body, seq))
    for number, at, kind, text in connection.execute("SELECT seq, at, kind, body FROM ledger_entries").fetchall():
        digest = entry_hash(digest, number, at, kind.encode(), text.encode())
        connection.execute("UPDATE ledger_entries SET hash = ? WHERE seq = ?", (digest, number))
    connection.execute("DELETE FROM meta WHERE key = 'ledger_verified'")
    connection.commit()
    connection.close()


async def test_a_forgery_hashed_anew_is_caught_by_the_head_outside(
    closed: Path, tamper: Tamper, open_agent: OpenAgent
) -> None:
    tamper()
    forge(closed, 9, '{"amount_micros":1}')
    assert verify_file(closed).ok, "sound in itself"
    found = verify_file(closed, head_of(closed))
    assert not found.ok
    assert "known outside" in found.problem
    _, ledger = await open_agent()
    assert ledger.hold_reason is not None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE budget_reallocation_log SET amount_shifted_micros = 5 WHERE id = 3",
        "UPDATE budget_reallocation_log SET from_efficiency = 9.0 WHERE id = 3",
        "UPDATE budget_reallocation_log SET reason = 'other' WHERE id = 3",
        "DELETE FROM budget_reallocation_log WHERE id = 3",
        "DELETE FROM budget_reallocation_log WHERE id > 3",
        "DELETE FROM budget_reallocation_log",
    ],
)
def test_the_reallocation_log_is_guarded_too(closed: Path, tamper: Tamper, statement: str) -> None:
    tamper(statement)
    found = verify_file(closed, head_of(closed))
    assert not found.ok
    assert found.entries == ENTRIES
    assert "reallocation" in found.problem


async def test_a_truncated_reallocation_log_holds_at_the_start(
    closed: Path, tamper: Tamper, open_agent: OpenAgent
) -> None:
    tamper("DELETE FROM budget_reallocation_log WHERE id > 3")
    _, ledger = await open_agent()
    assert ledger.hold_reason is not None
    assert "reallocation 5" in ledger.hold_reason


@pytest.mark.parametrize("position", range(0, 100, 7))
def test_a_flipped_bit_in_an_entry_is_seen(closed: Path, position: int) -> None:
    """SQLite's own integrity check misses most of these."""
    data = bytearray(closed.read_bytes())
    place = data.find(b'{"amount_micros":110}')
    assert place > 0
    place += position % len('{"amount_micros":110}')
    data[place] ^= 1 << (position % 8)
    closed.write_bytes(bytes(data))
    found = verify_file(closed, head_of(closed))
    assert not found.ok
    assert found.first_bad == 13


async def test_a_database_cut_short_is_told_and_not_raised(closed: Path, open_agent: OpenAgent) -> None:
    os.truncate(closed, os.stat(closed).st_size // 3)
    found = verify_file(closed, head_of(closed))
    assert not found.ok
    assert found.problem
    try:
        _, ledger = await open_agent()
    except StoreError:
        return
    assert ledger.hold_reason is not None


def test_missing_files_are_told(tmp_path: Path, closed: Path) -> None:
    assert "no database" in verify_file(tmp_path / "nowhere.db").problem
    os.truncate(closed, 0)
    assert not verify_file(closed, head_of(closed)).ok
