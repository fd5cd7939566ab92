"""A stand-in for a database that cannot be used: where it lies, when it is not needed any more, and what it leaves.

While a disk takes no writes the agent lives on a small database elsewhere: it asks the platforms, pauses what a hold
pauses, and takes an order to stop. What it did and was told goes into the real record as soon as there is one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path

from kiki_agent.ledger.fallback import Fallback
from kiki_agent.ledger.intents import IntentRow, recent_rows
from kiki_agent.model import Instant, Outcome, Receipt
from kiki_agent.runtime.log import get_logger
from kiki_agent.store import set_meta
from kiki_agent.store.seat import uri
from kiki_agent.store.store import LEAST_ROOM, ROOM_TO_GO_ON

_MOST = 4_000
"""Cuts that find room in the file for them."""
_log = get_logger("recovery")


def stand_in_path(database: Path) -> Path:
    """Where the stand-in of a database lies: the same place at every start, on another disk if there is one."""
    text = hashlib.sha256(str(database.absolute()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"kiki-agent-{os.getuid()}-{text}" / f"{database.stem}.hold.db"


def make_place(stand_in: Path) -> str | None:
    """Make the stand-in's folder, for this user alone; why there can be none, or None."""
    folder = stand_in.parent
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _is_ours(folder):
            return f"{folder} belongs to somebody else, or is open to others"
        if shutil.disk_usage(folder).free < 2 * LEAST_ROOM:
            return f"the disk of {folder} is full as well"
    except OSError as error:
        return f"{folder} cannot be made: {error.strerror}"
    return None


def left_behind(stand_in: Path) -> bool:
    """Whether an earlier process left a stand-in here; one that somebody else put here does not count."""
    return stand_in.exists() and _is_ours(stand_in.parent)


def trouble_of(database: Path) -> str | None:
    """Why a database that no agent has open cannot be used now; None when it takes a commit. May block for a moment."""
    folder = database.parent
    try:
        free = shutil.disk_usage(folder).free
        if free < LEAST_ROOM:
            return f"the disk is full: {free // 1024} KiB are left"
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(ROOM_TO_GO_ON))
        files = [database, database.with_name(database.name + "-wal"), database.with_name(database.name + "-shm")]
        if any(file.exists() and not os.access(file, os.R_OK | os.W_OK) for file in files):
            return f"{database} may not be read and written by this user"
        if not database.exists() or database.stat().st_size == 0:
            return None
        place = uri(database, read_only=False)
        with closing(sqlite3.connect(place, uri=True, timeout=0.2, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            set_meta(connection, "probe", " " * ROOM_TO_GO_ON)
            set_meta(connection, "probe", "")
            connection.execute("COMMIT")
    except OSError as error:
        return f"{folder} takes no files: {error.strerror}"
    except sqlite3.Error as error:
        return str(error)
    return None


def hand_back(stand_in: Path, database: Path) -> int:
    """Put the cuts that a stand-in sent where the real record takes them up at its next start; how many.

    Twice does no harm. What a stand-in's file does not tell any more, the platforms tell when they are read. Raises
    StoreError when they cannot be put there.
    """
    if not stand_in.exists():
        return 0
    try:
        with closing(sqlite3.connect(uri(stand_in, read_only=True), uri=True)) as connection:
            rows = [row for row in recent_rows(connection, Instant(0), (), _MOST) if not row.intent.raises_spend]
    except sqlite3.Error as error:
        _log.warning("no_cuts", f"The cuts of {stand_in} cannot be read: {error}")
        return 0
    if not rows:
        return 0
    rows.reverse()
    room = Fallback(database.with_suffix(".cuts"))
    try:
        known = room.write_intents(rows[-1].sent_at, [row.intent for row in rows])
        answered = [row for row in rows if row.intent.key not in known and row.state != "pending"]
        if answered:
            at = rows[-1].sent_at
            room.write_receipts(at, [row.intent for row in answered], [_receipt(row) for row in answered])
    finally:
        room.close()
    return len(rows)


def clear_away(stand_in: Path) -> None:
    """Remove a stand-in that left everything it had. Raises OSError."""
    if stand_in.parent.is_dir():
        shutil.rmtree(stand_in.parent)


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    private = not stat.S_IMODE(found.st_mode) & 0o077
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and private


def _receipt(row: IntentRow) -> Receipt:
    return Receipt(row.intent.key, Outcome(row.state), row.outcome_reason, row.vendor_ref)


__all__ = ["clear_away", "hand_back", "left_behind", "make_place", "stand_in_path", "trouble_of"]
