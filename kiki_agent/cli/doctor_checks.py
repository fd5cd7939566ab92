"""The checks of `kiki-agent doctor`: each looks at one thing, in one sentence, and says what to do about it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kiki_agent.cli.check import look_at_plugins, look_at_port
from kiki_agent.config import Loaded, Mode, Settings
from kiki_agent.errors import StoreError
from kiki_agent.ledger.head import UnreadableHead, read_head
from kiki_agent.ledger.verify import verify_file
from kiki_agent.model import HOUR, MINUTE, SECOND, iso, parse_iso
from kiki_agent.recovery import list_backups, unfinished_restore
from kiki_agent.recovery.beside import left_behind, stand_in_path
from kiki_agent.runtime.clock import SystemClock
from kiki_agent.runtime.secrets import is_secret_name
from kiki_agent.store import AlreadyRunning
from kiki_agent.store.lock import LockFile
from kiki_agent.store.schema import lock_path, status
from kiki_agent.store.seat import uri
from kiki_agent.store.store import LEAST_ROOM

State = Literal["ok", "warning", "failed", "skipped"]
ROOM_WANTED = 256 * 1024 * 1024
_RESTORE = "Stop the agent and put a backup back: kiki-agent backup --list, kiki-agent restore NAME (docs/recovery.md)."
_FIRST_YEAR = parse_iso("2026-01-01T00:00:00Z")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    state: State
    finding: str
    """One sentence."""
    remedy: str = ""
    """What to do; empty when there is nothing to do."""


def folder(loaded: Loaded) -> Iterator[Finding]:
    """The folder of the database: there, ours, with room, closed to others."""
    settings = loaded.settings
    path = Path(settings.store.folder).absolute()
    nearest = path
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        remedy = f"Give the user of the agent the right to write into {nearest}, or set store.folder."
        yield Finding("data folder", "failed", f"{path} cannot be written: {nearest} forbids it.", remedy)
        return
    there = "is there and may be written" if nearest == path else "will be made at the first start"
    yield Finding("data folder", "ok", f"{path} {there}.")
    free = shutil.disk_usage(nearest).free
    megabytes = f"{free // 1_000_000:,} MB are free on the disk of {path}."
    if free < LEAST_ROOM:
        yield Finding("disk", "failed", megabytes, "Make room: the agent spends nothing on a full disk.")
    elif free < max(ROOM_WANTED, 2 * _size(settings.database)):
        yield Finding("disk", "warning", megabytes, "Make room for growth and the next backup.")
    else:
        yield Finding("disk", "ok", megabytes)
    database = settings.database
    if database.exists() and stat.S_IMODE(database.stat().st_mode) & 0o007:
        said = f"{database} can be read by every user of this machine."
        yield Finding("rights", "warning", said, f"chmod o-rwx {database.parent}")


def database(loaded: Loaded) -> Iterator[Finding]:
    """The file as SQLite sees it, and its schema."""
    path = loaded.settings.database
    cut_off = unfinished_restore(path)
    if cut_off is not None:
        yield Finding("restore", "failed", f"{cut_off[0].upper()}{cut_off[1:]}.", "Run the same restore again.")
    if not path.exists():
        yield Finding("database", "ok", f"{path} does not exist yet; the first start makes it.")
        return
    if not os.access(path, os.R_OK | os.W_OK):
        said = f"{path} may not be read and written by this user."
        yield Finding("database", "failed", said, f"Give it to the user of the agent: chown and chmod u+rw {path}.")
        return
    try:
        connection = sqlite3.connect(uri(path, read_only=True), uri=True, timeout=5.0)
        try:
            verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict != "ok":
        yield Finding("database", "failed", f"{path} is damaged or cannot be used: {verdict}.", _RESTORE)
        return
    yield Finding("database", "ok", f"{path} is sound to SQLite {sqlite3.sqlite_version}, {_size(path):,} bytes.")
    wrong = [each for each in status(path) if each.state in ("changed", "unknown")]
    pending = sum(each.state == "pending" for each in status(path))
    if wrong:
        said = ", ".join(f"{each.version:04} {each.name} is {each.state}" for each in wrong)
        remedy = "Use the version of the program that wrote this database."
        yield Finding("migrations", "failed", f"The schema is out of step: {said}.", remedy)
    elif pending:
        said = f"{pending} migrations will be applied at the next start, after a backup."
        yield Finding("migrations", "ok", said)
    else:
        yield Finding("migrations", "ok", "The schema is up to date.")


def chain(loaded: Loaded) -> Iterator[Finding]:
    """The record: every entry hashed again, against the head known outside."""
    settings = loaded.settings
    path, head_path = settings.database, settings.ledger_head
    if not path.exists():
        if head_path.exists():
            remedy = f"Put the database back, or move {head_path} away if a new beginning is meant. {_RESTORE}"
            yield Finding("known head", "failed", f"{head_path} knows a ledger that is gone.", remedy)
        return
    if not os.access(path, os.R_OK | os.W_OK):  # SQLite would make files beside it that are as closed
        yield Finding("ledger", "skipped", f"{path} may not be read and written by this user.")
        return
    try:
        known = read_head(head_path)
    except UnreadableHead as error:
        yield Finding("known head", "failed", f"{error}.", "docs/recovery.md, lost head file.")
        known = None
    else:
        if known is None:
            said, remedy = f"{head_path} is missing.", "docs/recovery.md, lost head file."
            yield Finding("known head", "failed" if _has_history(path) else "ok", said, remedy)
        else:
            yield Finding("known head", "ok", f"{head_path} knows entry {known.seq}.")
    found = verify_file(path, head_path if known is not None else None)
    if found.ok:
        said = f"All {found.entries:,} entries and {found.reallocations:,} reallocations hash as they should."
        yield Finding("ledger", "ok", said)
    else:
        yield Finding("ledger", "failed", f"The record is not whole: {found.problem}.", _RESTORE)


def lock(loaded: Loaded) -> Iterator[Finding]:
    """Who uses the database, and whether the port is free for a start."""
    settings = loaded.settings
    path = lock_path(settings.database)
    running = False
    if path.exists():
        try:
            LockFile.take(path).release()
        except AlreadyRunning as error:
            running = True
            yield Finding("lock", "ok", f"An agent runs: {error.holder}.")
        except StoreError as error:
            yield Finding("lock", "failed", f"{error}.", f"Give {path} to the user of the agent.")
    if not running:
        yield Finding("lock", "ok", "No agent uses the database.")
        port = look_at_port(settings)
        state: State = "failed" if port.state == "failed" else "ok"
        remedy = "End what listens there, or set http.port." if port.state == "failed" else ""
        yield Finding("port", state, f"{port.detail}.", remedy)


def cuts(loaded: Loaded) -> Iterator[Finding]:
    """Cuts that were written down beside a database that took no writes."""
    stand_in = stand_in_path(loaded.settings.database)
    if left_behind(stand_in):
        said = f"{stand_in} holds what the agent did and was told while the database could not be written."
        yield Finding("stand-in", "warning", said, "The next start with a sound disk takes it up; leave it there.")
    path = loaded.settings.database.with_suffix(".cuts")
    if not path.exists():
        return
    with path.open("rb") as file:
        waiting = file.readline(1 << 16).endswith(b"\n")
    if waiting:
        said = f"{path} holds cuts that are not in the ledger yet."
        yield Finding("cuts", "warning", said, "They enter it by themselves when the database takes writes again.")
    else:
        yield Finding("cuts", "ok", f"{path} is empty.")


def backups(loaded: Loaded) -> Iterator[Finding]:
    """Whether there is a way back, and how old it is."""
    settings = loaded.settings
    if not settings.database.exists():
        return
    found = list_backups(settings.backup_folder, settings.database.stem)
    whole = [each for each in found if each.verified_at is not None]
    bad = [each.name for each in found if each.problem]
    if bad:
        remedy = "Make another: kiki-agent backup; remove the bad files when it is whole."
        yield Finding("backups", "warning", f"Not whole: {', '.join(bad[:5])}.", remedy)
    if not whole:
        remedy = "Make one now: kiki-agent backup. A running agent makes one a day."
        yield Finding("backups", "warning", f"There is no whole backup in {settings.backup_folder}.", remedy)
        return
    age = SystemClock().now() - whole[0].made_at
    said = f"{len(whole)} whole backups, the newest {whole[0].name}, {max(0, age) / HOUR:.1f} h old."
    late = age > 2 * settings.store.backup_interval_s * SECOND
    remedy = "See why in /status and the log; make one now: kiki-agent backup." if late else ""
    yield Finding("backups", "warning" if late else "ok", said, remedy)
    if not late and settings.store.backup_folder is None and settings.mode is Mode.LIVE:
        said = f"Backups lie on the disk of the database, in {settings.backup_folder}."
        yield Finding("backup folder", "warning", said, "Set store.backup_folder to another disk.")


def clock(loaded: Loaded) -> Iterator[Finding]:
    """Whether this machine's clock can be right."""
    settings, now = loaded.settings, SystemClock().now()
    if now < _FIRST_YEAR:
        said = f"The clock of this machine says {iso(now)[:19]}, which is long past."
        yield Finding("clock", "failed", said, "Set it, and keep it right with NTP.")
        return
    last = _last_entry_at(settings)
    if settings.mode is not Mode.DEMO and last is not None and last > now + 5 * MINUTE:
        said = f"The last entry of the ledger was written at {iso(last)[:19]}, after now, {iso(now)[:19]}."
        yield Finding("clock", "warning", said, "The clock was put back, or was wrong; keep it right with NTP.")
        return
    yield Finding("clock", "ok", f"It is {iso(now)[:19]} UTC.")


def credentials(loaded: Loaded) -> Iterator[Finding]:
    """Whether every connector that needs a key has one. Values are never shown."""
    settings = loaded.settings
    if settings.mode in (Mode.DEMO, Mode.BACKTEST):
        yield Finding("credentials", "skipped", f"{settings.mode.value} mode brings its own.")
        return
    for name, table in settings.connector.items():
        if not table.enabled:
            continue
        given = [key for key, value in table.options.items() if is_secret_name(key) and str(value).strip()]
        if given:
            yield Finding(f"credentials {name}", "ok", f"Given: {', '.join(sorted(given))}.")
        else:
            remedy = f"Set them, best in the environment: KIKI__CONNECTOR__{name.upper()}__..."
            yield Finding(f"credentials {name}", "failed", f"connector.{name} has no key, token or secret.", remedy)


async def plugins(loaded: Loaded, *, online: bool) -> list[Finding]:
    """Whether the plugins load, and, when `online`, whether their platforms answer."""
    rows, _ = await look_at_plugins(loaded, online=online)
    found = []
    for row in rows:
        remedy = "docs/plugins.md; kiki-agent plugins list shows what each provides." if row.state == "failed" else ""
        found.append(Finding(row.check, row.state, f"{row.detail}.", remedy))
    if not online:
        found.append(Finding("platforms", "skipped", "Not asked; --online asks them."))
    return found


OFFLINE: tuple[Callable[[Loaded], Iterator[Finding]], ...] = (
    folder,
    lock,
    database,
    chain,
    cuts,
    backups,
    clock,
    credentials,
)
"""Everything that needs nobody but this machine, in the order it is shown."""


def _has_history(path: Path) -> bool:
    try:
        connection = sqlite3.connect(uri(path, read_only=True), uri=True, timeout=5.0)
        try:
            sql = "SELECT 1 FROM ledger_entries WHERE kind NOT IN ('genesis', 'epoch') LIMIT 1"
            return connection.execute(sql).fetchone() is not None
        finally:
            connection.close()
    except sqlite3.Error:
        return True


def _last_entry_at(settings: Settings) -> int | None:
    if not os.access(settings.database, os.R_OK | os.W_OK):
        return None
    try:
        connection = sqlite3.connect(uri(settings.database, read_only=True), uri=True, timeout=5.0)
        try:
            row = connection.execute("SELECT at FROM ledger_entries ORDER BY seq DESC LIMIT 1").fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return None
    return None if row is None else int(row[0])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
