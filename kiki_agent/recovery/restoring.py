"""The way back: a proved backup in place of the database, and what keeps an old record from acting twice.

The replaced files stay beside the new ones. The restored database carries a mark, and what stood in the one it
replaces (`standing.py`): switches, levels, holds and money, which the agent that opens it takes over first. It permits
nothing before every platform has told what was spent meanwhile (`RestoredHold`), takes no budget shift of the old
record further, and reads back what was under way.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from kiki_agent.errors import StoreError
from kiki_agent.ledger.head import KnownHead, UnreadableHead, read_head, write_head
from kiki_agent.ledger.segments import find_folder, own_folder, owner_of
from kiki_agent.ledger.verify import Verification, verify_file
from kiki_agent.model.time import SECOND, Instant
from kiki_agent.recovery.backups import sha256_of
from kiki_agent.recovery.beside import hand_back
from kiki_agent.recovery.segments import bring_segments
from kiki_agent.recovery.standing import CARRIED, Standing, decode, pending, read_standing
from kiki_agent.store.backup import OnProgress, sync_file
from kiki_agent.store.durable import replace_file, sync_folder
from kiki_agent.store.lock import LockFile
from kiki_agent.store.meta import get_meta, set_meta
from kiki_agent.store.schema import lock_path, status
from kiki_agent.store.seat import uri
from kiki_agent.store.trouble import world_error

RESTORED = "restored"
"""Key of the mark in `meta`; empty once the agent has caught up."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did."""

    database: str
    backup: str
    """Name of the backup."""
    seq: int
    """Number of the last entry of the ledger now."""
    head_hash: str
    """Hash of that entry, hexadecimal."""
    epoch: int
    """Epoch of the database now; above that of the backup and of what was replaced."""
    lost_entries: int | None
    """Entries known to have been written after the backup, which the ledger lacks now; None when that is not known."""
    replaced: list[str]
    """Where the replaced files are kept."""
    unknown: str | None = None
    """Why it is not known what stood before; then a live agent starts stopped. None when it is carried over."""
    carried: list[str] = field(default_factory=list)
    """What of the present the next agent takes over, a sentence each."""


def restore(
    database: Path,
    known_head: Path,
    source: Path,
    *,
    client_id: str,
    now: Instant,
    on_progress: OnProgress | None = None,
    locked: bool = False,
) -> Restored:
    """Put the backup at `source` (its database file) in place of `database`.

    Nothing is touched before the backup is proved and copied. A restore that is cut off later leaves a mark, with which
    no agent spends; the same call again finishes it. `locked`: the caller holds the lock of the database.

    Raises AlreadyRunning while an agent uses the database, StoreError for everything else.
    """
    lock = None if locked else LockFile.take(lock_path(database))
    try:
        found = _proved(source, client_id)
        epoch = max(_epoch_of(source), _epoch_of(database)) + 1
        fresh = database.with_name(database.name + ".restoring")
        _copy_proved(source, fresh, on_progress)
        _bring_segments(source, database)
        standing = _standing(database, known_head, source, now, client_id)
        _mark(fresh, source.stem, found, epoch, standing)
        lost = _lost(known_head, found, client_id)
        head = _head_of(source, found, client_id)
        marker = {"backup": source.stem, "at": now, CARRIED: standing}
        replace_file(_marker(database), msgspec.json.encode(marker))
        hand_back(database.with_suffix(".hold.db"), database)
        replaced = _set_aside(database, known_head, now)
        os.replace(fresh, database)
        sync_folder(database.parent)
        write_head(known_head, head, sync=True)
        _marker(database).unlink()
        sync_folder(database.parent)
    except OSError as error:
        raise StoreError(f"{database} cannot be restored: {error.filename or source}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise world_error(error) or StoreError(f"{source} cannot be restored: {error}") from error
    finally:
        if lock is not None:
            lock.release()
    carried, unknown = standing.sentences(), standing.unknown or None
    return Restored(str(database), source.stem, found.entries, found.head_hash, epoch, lost, replaced, unknown, carried)


def unfinished_restore(database: Path) -> str | None:
    """Why the files beside the database cannot be trusted: a restore was cut off. None when there was none."""
    marker = _marker(database)
    if not marker.exists():
        return None
    try:
        name = msgspec.json.decode(marker.read_bytes(), type=dict).get("backup", "")
    except (OSError, msgspec.DecodeError):
        name = ""
    return f"a restore was cut off; finish it with `kiki-agent restore {name or 'NAME'}`"


def _proved(source: Path, client_id: str) -> Verification:
    """Walk the backup's chains, and see that it is ours and not of a newer program. Raises StoreError."""
    if not source.exists():
        raise StoreError(f"there is no backup at {source}; `kiki-agent backup --list` names those there are")
    head = source.with_suffix(".head")
    found = verify_file(source, head if head.exists() else None)
    if not found.ok:
        raise StoreError(f"the backup {source} is not whole, so it is not restored: {found.problem}")
    if found.entries == 0:
        raise StoreError(f"the backup {source} holds no ledger entry, so there is nothing to restore")
    connection = sqlite3.connect(uri(source, read_only=True), uri=True, isolation_level=None)
    try:
        owner = owner_of(connection)
    finally:
        connection.close()
    if owner != client_id:
        raise StoreError(f"the backup {source} belongs to client {owner!r}, not to {client_id!r} (client_id)")
    for each in status(source):
        if each.state in ("unknown", "changed"):
            raise StoreError(
                f"the backup {source} was written by another version of the program:"
                f" migration {each.version} ({each.name}) is {each.state}"
            )
    return found


def _copy_proved(source: Path, fresh: Path, on_progress: OnProgress | None) -> None:
    """Copy the bytes beside the database, durable; they are those of the note, where there is one."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    if source.with_name(source.name + "-wal").exists():
        raise StoreError(f"{source} is a database in use, not a backup: {source.name}-wal stands beside it")
    size = max(1, source.stat().st_size)
    digest, done = hashlib.sha256(), 0
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as original, os.fdopen(descriptor, "wb") as copy:
        while chunk := original.read(_CHUNK):
            copy.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if on_progress is not None:
                on_progress(done / size)
    sync_file(fresh)
    note = source.with_suffix(".json")
    written = msgspec.json.decode(note.read_bytes(), type=dict).get("sha256") if note.exists() else digest.hexdigest()
    if digest.hexdigest() != written or sha256_of(fresh) != written:
        fresh.unlink()
        raise StoreError(f"the bytes of {source} are not those its note speaks of, so it is not restored")


def _bring_segments(source: Path, database: Path) -> None:
    """Copy the segments of a backup to where the database looks for its own; what is there already stays."""
    bring_segments(source, find_folder(source), own_folder(database))


def _standing(database: Path, known_head: Path, source: Path, now: Instant, client_id: str) -> Standing:
    """What stands in the database that goes; of one that was never opened since its restore, what it was to take over.

    A restore that was cut off may have moved the database away already: then what it wrote down counts.
    """
    if database.exists():
        waiting = pending(database)
        return (
            read_standing(database, known_head, source, now, client_id=client_id)
            if waiting is None
            else _for(waiting, source)
        )
    marker = _marker(database)
    if marker.exists():
        try:
            noted = msgspec.json.decode(marker.read_bytes(), type=dict[str, msgspec.Raw]).get(CARRIED)
        except msgspec.DecodeError:
            noted = None
        if noted is not None:
            return _for(decode(bytes(noted).decode()), source)
    return read_standing(database, known_head, source, now, client_id=client_id)


def _for(standing: Standing, source: Path) -> Standing:
    """What was read for one backup, for another one: that this other came before it, nobody has seen."""
    if standing.backup != source.stem:
        standing.unknown = standing.unknown or f"it was read for another backup, {standing.backup}"
        standing.backup, standing.money = source.stem, None
    return standing


def _mark(fresh: Path, name: str, found: Verification, epoch: int, standing: Standing) -> None:
    """Raise the epoch and leave the mark and what is to be carried over, in the copy that is not in place yet."""
    connection = sqlite3.connect(uri(fresh, read_only=False), uri=True, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        set_meta(connection, "epoch", str(epoch))
        mark = {"backup": name, "head_hash": found.head_hash, "seq": found.entries}
        set_meta(connection, RESTORED, msgspec.json.encode(mark).decode())
        set_meta(connection, CARRIED, msgspec.json.encode(standing).decode())
        connection.execute("COMMIT")
    finally:
        connection.close()
    sync_file(fresh)


def _set_aside(database: Path, known_head: Path, now: Instant) -> list[str]:
    """Move what is replaced out of the way, and copy its known head; the names it is kept under."""
    stamp = datetime.fromtimestamp(now // SECOND, UTC).strftime("%Y%m%dT%H%M%SZ")
    ending, number = f".replaced-{stamp}", 1
    while database.with_name(database.name + ending).exists():
        number += 1
        ending = f".replaced-{stamp}-{number}"
    kept = []
    if known_head.exists():
        shutil.copyfile(known_head, known_head.with_name(known_head.name + ending))
        kept.append(str(known_head.with_name(known_head.name + ending)))
    for file in (database, database.with_suffix(".hold.db")):
        for suffix in ("", "-wal", "-shm"):
            path = file.with_name(file.name + suffix)
            if path.exists():
                aside = file.with_name(file.name + ending + suffix)
                path.replace(aside)
                kept.append(str(aside))
    sync_folder(database.parent)
    return kept


def _head_of(source: Path, found: Verification, client_id: str) -> KnownHead:
    try:
        own = read_head(source.with_suffix(".head"))
    except UnreadableHead as error:
        raise StoreError(str(error)) from error
    if own is not None and own.seq == found.entries:
        return own
    connection = sqlite3.connect(uri(source, read_only=True), uri=True, isolation_level=None)
    try:
        row = connection.execute("SELECT id, hash FROM budget_reallocation_log ORDER BY id DESC LIMIT 1").fetchone()
    finally:
        connection.close()
    return KnownHead(client_id, found.entries, found.head_hash, *(row or (0, "")))


def _lost(known_head: Path, found: Verification, client_id: str) -> int | None:
    try:
        known = read_head(known_head)
    except UnreadableHead:
        return None
    return None if known is None or known.client_id != client_id else max(0, known.seq - found.entries)


def _epoch_of(path: Path) -> int:
    """The epoch of a database as far as it can be read; 0 when it cannot."""
    if not path.exists():
        return 0
    try:
        connection = sqlite3.connect(uri(path, read_only=True), uri=True, isolation_level=None)
        try:
            return int(get_meta(connection, "epoch") or "0")
        finally:
            connection.close()
    except (sqlite3.Error, ValueError):
        return 0


def _marker(database: Path) -> Path:
    return database.with_name(database.name + ".restore")
