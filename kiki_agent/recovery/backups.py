"""Backups as files: made from a live database in steps, proved by hashing both chains, kept by day and by week."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import msgspec

from kiki_agent.errors import StoreError
from kiki_agent.ledger.canonical import GENESIS
from kiki_agent.ledger.head import KnownHead, UnreadableHead, read_head, write_head
from kiki_agent.ledger.segments import folder_of, hash_at, owner_of, shared_folder
from kiki_agent.ledger.verify import verify_file
from kiki_agent.model.time import HOUR, SECOND, Instant
from kiki_agent.recovery.segments import bring_segments, prune_segments
from kiki_agent.store.backup import OnProgress, copy_to
from kiki_agent.store.durable import replace_file
from kiki_agent.store.meta import get_meta
from kiki_agent.store.seat import uri
from kiki_agent.store.trouble import world_error

NAME = re.compile(r"[A-Za-z0-9_]{1,64}-\d{8}T\d{6}Z(?:-\d{1,3})?-(?:daily|manual|migration)")
"""What a backup may be called: the database, the second it was made, and why."""

_ENDINGS = ("db", "head", "db.partial", "db.partial-journal", "head.new", "json.new")
"""Files that a backup has before its note, also half written."""


class Reason(StrEnum):
    """Why a backup was made."""

    DAILY = "daily"
    MANUAL = "manual"
    MIGRATION = "migration"


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup, as its note says."""

    name: str
    made_at: Instant
    reason: str
    size_bytes: int
    sha256: str
    """Of the database file, hexadecimal."""
    seq: int
    """Number of the last entry of its ledger."""
    head_hash: str
    """Hash of that entry, hexadecimal."""
    client_id: str
    """Whose ledger it is; empty when it has no first entry."""
    epoch: int
    """Epoch of the database when it was copied."""
    verified_at: Instant | None = None
    """When its bytes and both its chains were last found whole; None when they were not."""
    problem: str = ""
    """What was found wrong with it, in one sentence; empty when nothing was."""


def database_of(folder: Path, name: str) -> Path:
    """The database file of a backup; its head and note stand beside it."""
    return folder / f"{name}.db"


def make_backup(
    database: Path,
    folder: Path,
    name: str,
    reason: Reason,
    now: Instant,
    *,
    known_head: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Backup:
    """Copy the database at `database`, which may be in use, prove the copy, and note it. Raises StoreError.

    `known_head` is the head kept outside the database: an entry it names must be found in the copy. A copy that does
    not prove is noted with its problem and without `verified_at`; it is never taken for a good one.
    """
    if not database.exists():
        raise StoreError(f"there is no database at {database} to back up")
    try:
        connection = sqlite3.connect(uri(database, read_only=True), uri=True, isolation_level=None, timeout=5.0)
        try:
            return backup_from(connection, folder, name, reason, now, known_head=known_head, on_progress=on_progress)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise world_error(error) or StoreError(f"{database}: {error}") from error


def backup_from(
    connection: sqlite3.Connection,
    folder: Path,
    name: str,
    reason: Reason,
    now: Instant,
    *,
    known_head: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Backup:
    """The same from an open connection in autocommit mode. Raises StoreError, sqlite3.Error."""
    prepare_folder(folder)
    copy = database_of(folder, name)
    known = _known(known_head)  # before the snapshot, which therefore must hold what it names
    try:
        connection.execute("BEGIN")
        try:
            head, epoch = _facts(connection)
            copy_to(connection, copy, on_progress)
        finally:
            connection.execute("ROLLBACK")
        write_head(copy.with_suffix(".head"), head, sync=True)
        bring_segments(copy, folder_of(connection), shared_folder(copy))
        found = Backup(
            name, now, reason.value, copy.stat().st_size, sha256_of(copy), head.seq, head.hash, head.client_id, epoch
        )
        found = _judged(found, _problem_of(folder, found) or _contradiction(copy, found, known), now)
        write_note(folder, found)
    except BaseException as error:
        _remove(folder, name)
        if isinstance(error, OSError):
            raise StoreError(f"the backup {copy} cannot be written: {error.strerror}") from error
        raise
    return found


def verify_backup(folder: Path, name: str, now: Instant) -> Backup:
    """Hash a backup's bytes and both its chains again, and note what was found. Raises StoreError."""
    found = find_backup(folder, name)
    checked = _judged(found, _problem_of(folder, found), now)
    try:
        write_note(folder, checked)
    except OSError as error:
        raise StoreError(f"the note of backup {name} cannot be written: {error.strerror}") from error
    return checked


def list_backups(folder: Path, database: str) -> list[Backup]:
    """The backups of a database (its file name without ending), newest first. Raises StoreError."""
    try:
        notes = sorted(folder.glob(f"{database}-*.json"), reverse=True)
    except OSError as error:
        raise StoreError(f"the folder of backups {folder} cannot be read: {error.strerror}") from error
    found = [find_backup(folder, note.stem) for note in notes if NAME.fullmatch(note.stem)]
    return sorted(found, key=lambda each: (each.made_at, each.name), reverse=True)


def find_backup(folder: Path, name: str) -> Backup:
    """One backup by its name. Raises StoreError when there is none, or its note cannot be read."""
    if not NAME.fullmatch(name):
        raise StoreError(f"{name[:80]!r} is not the name of a backup; kiki-agent backup --list shows them")
    note = database_of(folder, name).with_suffix(".json")
    try:
        found = msgspec.json.decode(note.read_bytes(), type=Backup)
    except FileNotFoundError:
        raise StoreError(f"there is no backup {name} in {folder}; kiki-agent backup --list shows them") from None
    except OSError as error:
        raise StoreError(f"the note {note} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise StoreError(f"the note {note} is not readable ({error}); make another backup") from error
    if found.name != name:
        raise StoreError(f"the note {note} speaks of another backup, {found.name}")
    return found


def new_name(folder: Path, database: str, reason: Reason, now: Instant) -> str:
    """A name that is free in the folder."""
    stamp = datetime.fromtimestamp(now // SECOND, UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1, 1_000):
        name = f"{database}-{stamp}{f'-{number}' if number > 1 else ''}-{reason.value}"
        if not any(database_of(folder, name).with_suffix(suffix).exists() for suffix in (".db", ".json")):
            return name
    raise StoreError(f"a thousand backups were made in one second in {folder}")


def prune(folder: Path, database: str, *, daily: int, weekly: int) -> list[str]:
    """Remove what need not be kept; the names removed.

    Of the daily backups stay the newest of each of the last `daily` days and of each of the last `weekly` weeks that
    have one; of those made before a migration the newest `daily`; what a person made stays. The newest backup that was
    found whole is never removed, and one that was not found whole counts for nothing and goes once a newer one is.
    """
    backups = list_backups(folder, database)
    whole = [each for each in backups if each.verified_at is not None]
    kept = {each.name for each in backups if each.reason == Reason.MANUAL}
    kept |= {each.name for each in whole[:1]}
    scheduled = [each for each in whole if each.reason == Reason.DAILY]
    kept |= _newest_of_each(scheduled, _day, daily) | _newest_of_each(scheduled, _week, weekly)
    kept |= {each.name for each in [each for each in whole if each.reason == Reason.MIGRATION][:daily]}
    newest_whole = whole[0].made_at if whole else None
    for each in backups:
        if each.verified_at is None and (newest_whole is None or each.made_at > newest_whole):
            kept.add(each.name)
    removed = [each.name for each in backups if each.name not in kept]
    for name in removed:
        _remove(folder, name)
    prune_segments(folder)
    return removed


def prune_leftovers(folder: Path, database: str, now: Instant) -> list[str]:
    """Remove what a killed backup left: files without a note, none of them touched for an hour; the names removed."""
    left: dict[str, list[Path]] = {}
    for path in folder.glob(f"{database}-*"):
        name, _, ending = path.name.partition(".")
        if NAME.fullmatch(name) and ending in _ENDINGS and not database_of(folder, name).with_suffix(".json").exists():
            left.setdefault(name, []).append(path)
    removed = []
    for name, paths in sorted(left.items()):
        try:
            touched = max(path.stat().st_mtime_ns for path in paths) // 1_000
        except FileNotFoundError:
            continue  # renamed this moment: a backup under way
        if touched <= now - HOUR:
            for path in paths:
                path.unlink(missing_ok=True)
            removed.append(name)
    return removed


def keep_before_migration(folder: Path, known_head: Path, now: Instant) -> Callable[..., None]:
    """What `Store.open` calls before it changes the schema of a database: makes a backup. Raises StoreError.

    The ledger of a record that is not whole is a reason to hold, and no reason not to migrate: then the backup says so.
    """

    def keep(connection: sqlite3.Connection, path: Path, applied: int, pending: int) -> None:
        name = new_name(folder, path.stem, Reason.MIGRATION, now)
        backup_from(connection, folder, name, Reason.MIGRATION, now, known_head=known_head)

    return keep


def sha256_of(path: Path) -> str:
    """Of a closed file, hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare_folder(folder: Path) -> None:
    """Make the folder of backups, for its owner alone. Raises StoreError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"the folder of backups {folder} cannot be made: {error.strerror}") from error


def write_note(folder: Path, backup: Backup) -> None:
    """Put a backup's note in place. Raises OSError."""
    note = msgspec.json.format(msgspec.json.encode(asdict(backup)), indent=1)
    replace_file(database_of(folder, backup.name).with_suffix(".json"), note + b"\n")


def _facts(connection: sqlite3.Connection) -> tuple[KnownHead, int]:
    """Where the chains of this snapshot end, whose they are, and its epoch."""
    owner = owner_of(connection) or ""
    last = connection.execute("SELECT seq, hash FROM ledger_entries ORDER BY seq DESC LIMIT 1").fetchone()
    seq, digest = (0, GENESIS) if last is None else last
    log = connection.execute("SELECT id, hash FROM budget_reallocation_log ORDER BY id DESC LIMIT 1").fetchone()
    number, log_hash = (0, "") if log is None else log
    return KnownHead(owner, seq, digest.hex(), number, log_hash), int(get_meta(connection, "epoch") or "0")


def _problem_of(folder: Path, backup: Backup) -> str:
    """What is wrong with a backup's files; empty when nothing is."""
    copy = database_of(folder, backup.name)
    try:
        if copy.stat().st_size != backup.size_bytes or sha256_of(copy) != backup.sha256:
            return "its bytes are not those that were written"
    except OSError as error:
        return f"its database cannot be read: {error.strerror}"
    try:
        own = read_head(copy.with_suffix(".head"))
    except UnreadableHead as error:
        return str(error)
    if own is None or (own.seq, own.hash) != (backup.seq, backup.head_hash):
        return "its known head is not the one that was written"
    found = verify_file(copy, copy.with_suffix(".head"))
    if not found.ok:
        return f"its ledger is not whole: {found.problem}"
    if (found.entries, found.head_hash) != (backup.seq, backup.head_hash):
        return f"its ledger ends at entry {found.entries}, not at {backup.seq}"
    return ""


def _known(path: Path | None) -> KnownHead | str | None:
    """The head kept outside the database, why it cannot be read, or None when there is none."""
    try:
        return None if path is None else read_head(path)
    except UnreadableHead as error:
        return str(error)


def _contradiction(copy: Path, backup: Backup, known: KnownHead | str | None) -> str:
    """How the copy differs from what is known outside the database; empty when it does not."""
    if known is None or isinstance(known, str):
        return known or ""
    if known.client_id != backup.client_id:
        return f"the known head belongs to client {known.client_id!r}, the backup to {backup.client_id!r}"
    connection = sqlite3.connect(uri(copy, read_only=True), uri=True, isolation_level=None)
    try:
        found = hash_at(connection, known.seq)
    finally:
        connection.close()
    if found is None or found.hex() != known.hash:
        return f"entry {known.seq} is not the one known outside the ledger"
    return ""


def _judged(backup: Backup, problem: str, now: Instant) -> Backup:
    return replace(backup, problem=problem, verified_at=None if problem else now)


def _newest_of_each(backups: Sequence[Backup], period: Callable[[Backup], str], count: int) -> set[str]:
    """Names of the newest backup of each of the last `count` periods that have one; backups come newest first."""
    newest: dict[str, str] = {}
    for each in backups:
        newest.setdefault(period(each), each.name)
    return set(list(newest.values())[:count])


def _day(backup: Backup) -> str:
    return datetime.fromtimestamp(backup.made_at // SECOND, UTC).strftime("%Y-%m-%d")


def _week(backup: Backup) -> str:
    return datetime.fromtimestamp(backup.made_at // SECOND, UTC).strftime("%G-W%V")


def _remove(folder: Path, name: str) -> None:
    """The note first: what has none is no backup."""
    for suffix in (".json", ".head", ".db"):
        database_of(folder, name).with_suffix(suffix).unlink(missing_ok=True)


__all__ = [
    "Backup",
    "Reason",
    "backup_from",
    "database_of",
    "find_backup",
    "keep_before_migration",
    "list_backups",
    "make_backup",
    "new_name",
    "prune",
    "prune_leftovers",
    "sha256_of",
    "verify_backup",
]
