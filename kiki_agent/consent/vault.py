"""Who is who: customers' ids, the tokens that stand for them everywhere else, and a key for each subject.

One small SQLite file beside the database, readable by its owner alone, and part of no backup. Erasing a person deletes
their line here: what was encrypted with their key can be read by nobody any more, wherever it was copied to, and their
token is a number that stands for nobody.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kiki_agent.consent.erasures import Erased, ErasureList
from kiki_agent.errors import Denied, StoreError
from kiki_agent.model import MILLISECOND, Instant
from kiki_agent.store.seat import Seat, uri
from kiki_agent.store.store import Synchronous
from kiki_agent.store.trouble import world_error

T = TypeVar("T")
Entropy = Callable[[int], bytes]
"""So many unpredictable bytes; seeded in simulations."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS subjects (
    customer_id TEXT PRIMARY KEY,
    subject TEXT NOT NULL UNIQUE,
    key BLOB CHECK (key IS NULL OR length(key) = 32)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ended (
    consent_id TEXT PRIMARY KEY,
    subject TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ended_subject ON ended (subject);
CREATE TABLE IF NOT EXISTS secrets (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID
"""
_NONCE = 12
_SALT = 7
"""Random bytes of a token, beside the millisecond it was made in."""
_PREFIX = "v1:"


class Vault:
    """The file and its one thread. Made by `open`, ended by `close`."""

    def __init__(self, seat: Seat, pepper: bytes, entropy: Entropy, erasures: ErasureList) -> None:
        self._seat = seat
        self._pepper = pepper
        self._entropy = entropy
        self.erasures = erasures
        self.salt = entropy(8).hex()
        """Different in every run."""
        self._refused = erasures.refused
        """Marks of erased people: no source may bring them back, only they themselves by a new consent."""

    @classmethod
    async def open(
        cls, path: Path, erasures: Path, *, synchronous: Synchronous = "FULL", entropy: Entropy = os.urandom
    ) -> Vault:
        """Open or make the file, and read the list of erasures. Raises StoreError when one cannot be used."""
        listed = ErasureList.load(erasures, sync=synchronous == "FULL")
        try:
            await asyncio.to_thread(_owner_only, path)
            seat = await Seat.take(uri(path, read_only=False), busy_seconds=1.0)
        except OSError as error:
            raise StoreError(f"the personal keys {path} cannot be opened: {error.strerror}") from error
        try:
            pepper = await seat.run(partial(_prepare, synchronous=synchronous, entropy=entropy))
        except BaseException as error:
            await seat.close()
            if isinstance(error, sqlite3.Error):
                raise world_error(error) or StoreError(f"{path} holds no personal keys: {error}") from error
            raise
        return cls(seat, pepper, entropy, listed)

    async def close(self) -> None:
        """End the thread."""
        await self._seat.close()

    def mark(self, customer_id: str) -> str:
        """A keyed hash of an id, 64 hexadecimal characters: recognises it, and says nothing without the key here."""
        return hmac.new(self._pepper, customer_id.encode("utf-8", "surrogatepass"), "sha256").hexdigest()

    # -- names ----------------------------------------------------------------------------------------------------

    async def subject(self, customer_id: str) -> str | None:
        """The token of a customer; None when there is none. Raises StoreError."""
        return await self._run(partial(_subject, customer_id=customer_id))

    def refuses(self, customer_id: str) -> bool:
        """Whether a customer was erased and has not come back by themselves."""
        return bool(self._refused) and self.mark(customer_id) in self._refused

    async def enrol(self, customer_id: str, now: Instant) -> str:
        """The token of a customer who speaks for themselves, made when there is none; lifts an erasure's refusal.

        Raises StoreError.
        """
        if self.refuses(customer_id):
            self._add([Erased(self.mark(customer_id), "", now, lifted=True)])
        return (await self._run(partial(self._enrol, [customer_id], now)))[0]

    async def tokens(self, customer_ids: Sequence[str], now: Instant) -> list[str | None]:
        """The tokens of customers a source states, made where there are none; None for who was erased."""
        if not self._refused:
            return [*(await self._run(partial(self._enrol, list(customer_ids), now)))]
        welcome = [each for each in customer_ids if self.mark(each) not in self._refused]
        found = dict(zip(welcome, await self._run(partial(self._enrol, welcome, now)), strict=True))
        return [found.get(each) for each in customer_ids]

    async def customers(self, subjects: Iterable[str]) -> dict[str, str]:
        """Who some subjects are: token -> customer id; those without a line here are left out."""
        wanted = msgspec.json.encode(list(subjects)).decode()
        return await self._run(partial(_customers, wanted=wanted))

    async def erase(self, customer_id: str, now: Instant) -> Erased:
        """Put a customer on the list of erasures, then delete their line and key, for good. Raises StoreError.

        From the first step on a crash changes nothing: the next start ends what was begun.
        """
        erased = Erased(self.mark(customer_id), await self.subject(customer_id) or "", now)
        self._add([erased])
        await self.forget([erased.subject])
        return erased

    async def forget(self, subjects: Iterable[str]) -> int:
        """Delete lines and keys; how many there were."""
        return await self._run(partial(_forget, subjects=list(subjects)))

    def learn(self, missing: Iterable[Erased]) -> None:
        """Add erasures to the list that it does not hold, because it was lost."""
        self._add(list(missing))

    def _add(self, lines: list[Erased]) -> None:
        self.erasures.add(lines)
        for each in lines:
            (self._refused.discard if each.lifted else self._refused.add)(each.mark)

    # -- grants that have ended -------------------------------------------------------------------------------------

    async def end(self, subject: str, consent_ids: Sequence[str], last: tuple[int, str]) -> None:
        """Remember outside the database that grants ended: no restored backup brings them back. Raises StoreError.

        `last` is the ledger entry that ended them: its number and its consent's id.
        """
        await self._run(partial(_end, subject=subject, consent_ids=list(consent_ids), last=last))

    async def ended(self, consent_ids: Iterable[str]) -> set[str]:
        """Which of these grants have ended."""
        wanted = msgspec.json.encode(list(consent_ids)).decode()
        return await self._run(partial(_ended, wanted=wanted))

    async def last_end(self) -> tuple[int, str] | None:
        """The ledger entry that ended a grant last; None when none was."""
        return await self._run(_last_end)

    # -- sealing --------------------------------------------------------------------------------------------------

    async def seal(self, subject: str, facts: Mapping[str, str]) -> str:
        """Encrypt facts about a subject with their own key (AES-256-GCM), made when there is none; empty for none.

        Raises Denied when the subject has no line here any more, StoreError.
        """
        if not facts:
            return ""
        return await self._run(partial(self._seal, subject, dict(facts)))

    async def reveal(self, subject: str, sealed: Sequence[str]) -> list[dict[str, str] | None]:
        """What was sealed; None where the key is gone, or the text is not what was sealed for this subject."""
        key = await self._run(partial(_key, subject=subject))
        return [_opened(key, subject, each) for each in sealed]

    # -- on the vault's thread --------------------------------------------------------------------------------------

    def _enrol(self, customer_ids: list[str], now: Instant, connection: sqlite3.Connection) -> list[str]:
        execute = connection.execute
        found: list[str] = []
        fresh: list[tuple[str, str]] = []
        made: dict[str, str] = {}
        for each in customer_ids:
            row = execute("SELECT subject FROM subjects WHERE customer_id = ?", (each,)).fetchone()
            if row is not None:
                found.append(row[0])
                continue
            if each not in made:
                made[each] = f"{now // MILLISECOND:011x}{self._entropy(_SALT).hex()}"
                fresh.append((each, made[each]))
            found.append(made[each])
        if fresh:
            connection.executemany("INSERT INTO subjects (customer_id, subject) VALUES (?, ?)", fresh)
        return found

    def _seal(self, subject: str, facts: dict[str, str], connection: sqlite3.Connection) -> str:
        key = _key(connection, subject)
        if key is None:
            key = self._entropy(32)
            if not connection.execute("UPDATE subjects SET key = ? WHERE subject = ?", (key, subject)).rowcount:
                raise Denied("CONFLICT", "this customer is being erased")
        nonce = self._entropy(_NONCE)
        text = AESGCM(key).encrypt(nonce, msgspec.json.encode(facts), subject.encode())
        return _PREFIX + base64.urlsafe_b64encode(nonce + text).decode()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._seat.run(partial(_together, work))
        except sqlite3.Error as error:
            raise world_error(error) or StoreError(f"the personal keys cannot be used: {error}") from error


def seeded_entropy(seed: int) -> Entropy:
    """Bytes that look random and are the same for the same seed: for simulations, never for people."""
    count = itertools.count()

    def draw(size: int) -> bytes:
        return hashlib.shake_128(f"{seed}|{next(count)}".encode()).digest(size)

    return draw


def _owner_only(path: Path) -> None:
    """Make the file, if there is none, so that nobody else can read it for one moment; SQLite opens it afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        os.chmod(path, 0o600)


def _prepare(connection: sqlite3.Connection, synchronous: Synchronous, entropy: Entropy) -> bytes:
    """No WAL, and deleted bytes are overwritten: what is forgotten stands nowhere in this folder any more."""
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA cache_size = -4096")
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute("INSERT OR IGNORE INTO secrets (name, value) VALUES ('pepper', ?)", (entropy(32),))
    row = connection.execute("SELECT value FROM secrets WHERE name = 'pepper'").fetchone()
    return bytes(row[0])


def _together(work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    """All of it or nothing, durable when it returns."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return done


def _subject(connection: sqlite3.Connection, customer_id: str) -> str | None:
    row = connection.execute("SELECT subject FROM subjects WHERE customer_id = ?", (customer_id,)).fetchone()
    return None if row is None else str(row[0])


def _customers(connection: sqlite3.Connection, wanted: str) -> dict[str, str]:
    rows = connection.execute(
        "SELECT subject, customer_id FROM subjects WHERE subject IN (SELECT value FROM json_each(?))", (wanted,)
    )
    return dict(rows.fetchall())


def _forget(connection: sqlite3.Connection, subjects: list[str]) -> int:
    before = connection.total_changes
    connection.executemany("DELETE FROM subjects WHERE subject = ?", [(each,) for each in subjects])
    connection.executemany("DELETE FROM ended WHERE subject = ?", [(each,) for each in subjects])
    return connection.total_changes - before


def _end(connection: sqlite3.Connection, subject: str, consent_ids: list[str], last: tuple[int, str]) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO ended (consent_id, subject) VALUES (?, ?)", [(each, subject) for each in consent_ids]
    )
    connection.execute(
        "INSERT OR REPLACE INTO secrets (name, value) VALUES ('last_end', ?)", (f"{last[0]}:{last[1]}".encode(),)
    )


def _ended(connection: sqlite3.Connection, wanted: str) -> set[str]:
    rows = connection.execute(
        "SELECT consent_id FROM ended WHERE consent_id IN (SELECT value FROM json_each(?))", (wanted,)
    )
    return {row[0] for row in rows.fetchall()}


def _last_end(connection: sqlite3.Connection) -> tuple[int, str] | None:
    row = connection.execute("SELECT value FROM secrets WHERE name = 'last_end'").fetchone()
    if row is None:
        return None
    seq, _, consent_id = bytes(row[0]).decode().partition(":")
    return int(seq), consent_id


def _key(connection: sqlite3.Connection, subject: str) -> bytes | None:
    row = connection.execute("SELECT key FROM subjects WHERE subject = ?", (subject,)).fetchone()
    return None if row is None or row[0] is None else bytes(row[0])


def _opened(key: bytes | None, subject: str, sealed: str) -> dict[str, str] | None:
    if not sealed:
        return {}
    if key is None or not sealed.startswith(_PREFIX):
        return None
    try:
        data = base64.urlsafe_b64decode(sealed.removeprefix(_PREFIX))
        text = AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], subject.encode())
    except (InvalidTag, ValueError):
        return None
    return msgspec.json.decode(text, type=dict[str, str])
