"""What stood in a database that is about to be replaced, or stood in for: orders to stop, levels, money set aside.

A backup knows none of what people and the agent did since. So it is read here, from the file that goes, and carried
into the one that comes (`carrying.py`); tables are asked by their columns, because what their rows mean is decided in
rooms above this one. What cannot be read for certain is called unknown, and never guessed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from kiki_agent.ledger.segments import hash_at, owner_of
from kiki_agent.ledger.verify import verify_file
from kiki_agent.model.time import Instant
from kiki_agent.store import get_meta
from kiki_agent.store.seat import uri

CARRIED = "carried"
"""Key in `meta` of what waits to be carried over; empty once it was."""
KILL_SWITCH = "kill_switch"
Row = list[Any]

DAY_COLUMNS = (
    "connector, day, currency, cap_micros, reported_micros, placed_micros, reserved_micros, lease_micros, warned,"
    " as_of, updated_at"
)
REPORTED_COLUMNS = "connector, day, campaign_id, spend_micros"
WINDOW_COLUMNS = "connector_id, at, amount_micros, decision_id"
PERMIT_COLUMNS = (
    "sequence, reservation_id, connector, campaign_id, amount_micros, spent_micros, basis, allocated, state, at,"
    " settled_at, expires_at"
)
ALLOCATION_COLUMNS = (
    "campaign_id, budget_micros, currency, spent_micros, reserved_micros, pacing, start_at, end_at,"
    " warning_threshold, critical_threshold, status, last_warning_at, warned, created_at, updated_at"
)
INTENT_COLUMNS = (
    "key, kind, connector, campaign_id, before, after, currency, reason, at, cause, budget_id, ltv_micros,"
    " confidence_permille, note, basis, sent_at, state, outcome_reason, vendor_ref, settled_at"
)
HOLD_COLUMNS = "connector, entity, lever, campaign_id, value, source, since, until"


class Money(msgspec.Struct):
    """What was spent, set aside and sent, as rows of the tables by their columns above."""

    days: list[Row] = []
    """The last account day of each connector."""
    reported: list[Row] = []
    window: list[Row] = []
    permits: list[Row] = []
    """Open ones, and those that were open in the backup and have ended since."""
    allocations: list[Row] = []
    overrides: list[Row] = []
    """Settings changed at run time: scope, key, value, at."""
    intents: list[Row] = []
    """Changes the backup does not know, or knows otherwise; of placed bids those that are open."""


class Standing(msgspec.Struct):
    """What stood, as far as it can be read."""

    backup: str
    """Name of the backup that takes the place; empty for a stand-in."""
    at: int
    """When it was read."""
    unknown: str = ""
    """Why what stood is not known for certain; empty when it is."""
    switches: dict[str, str] = {}
    """Control (`kill_switch`, `freeze:<connector>`) -> reason, of those that are on."""
    levels: dict[str, tuple[str, int]] = {}
    """Connector -> level of autonomy and its limit, where one was set."""
    holds: list[Row] = []
    money: Money | None = None
    """None where it is unknown."""

    def sentences(self) -> list[str]:
        """What is carried over, for people."""
        said = []
        for control, reason in sorted(self.switches.items()):
            name = "the kill switch" if control == KILL_SWITCH else control.replace(":", " of ")
            said.append(f"{name} stays on: {reason}")
        levels = [f"{connector} {level}" for connector, (level, _) in sorted(self.levels.items())]
        if levels:
            said.append(f"levels of autonomy, where they are lower than in the backup: {', '.join(levels)}")
        if self.holds:
            said.append(f"{len(self.holds)} levers are still left alone")
        if self.money is not None:
            still = sum(row[8] == "reserved" for row in self.money.permits)
            said.append(f"the money of the day and of the window, {still} open reservations among it")
        return said


def read_standing(database: Path, known_head: Path, source: Path, now: Instant, *, client_id: str) -> Standing:
    """What stands in `database`, which no agent uses, beyond what the backup at `source` knows.

    Never raises for what it finds: what is not whole, not ours, or does not go on from the backup is unknown, and then
    only its orders to stop, levels and holds are told, as far as they can be read. A stand-in of the database that was
    told to stop counts as well.
    """
    found = Standing(source.stem, now)
    if not database.exists():
        found.unknown = f"there is no {database.name}"
    else:
        found.unknown = _doubt(database, known_head, source, client_id) or ""
        _read_orders(database, found)
        if not found.unknown:
            _read_money(database, source, found)
    stop = stopped(database.with_suffix(".hold.db"))
    if stop is not None:
        found.switches.setdefault(KILL_SWITCH, stop)
    return found


def read_orders(database: Path, now: Instant) -> Standing:
    """What a stand-in for a database that takes no writes goes by: orders to stop, levels and holds, unproved.

    Never raises for what it finds: `unknown` tells why nothing, or not all, could be read.
    """
    found = Standing("", now)
    if not database.exists():
        found.unknown = f"there is no {database.name}"
    else:
        _read_orders(database, found)
    return found


def pending(database: Path) -> Standing | None:
    """What a database that was put in place and never opened since was to take over; None when there is nothing."""
    try:
        with _asked(database) as connection:
            text = get_meta(connection, CARRIED)
    except sqlite3.Error:
        return None
    return decode(text) if text else None


def decode(text: str) -> Standing:
    """What was written down to be carried over; unknown when it cannot be understood."""
    try:
        return msgspec.json.decode(text, type=Standing)
    except msgspec.DecodeError as error:
        return Standing("a backup", 0, f"what was written down of it is not readable: {error}")


# -- reading --------------------------------------------------------------------------------------------------------


@contextmanager
def _asked(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, and makes no files: SQLite would give them the rights of a sick database."""
    place = uri(database, read_only=True)
    log, index = (database.with_name(database.name + suffix) for suffix in ("-wal", "-shm"))
    if not log.exists() or log.stat().st_size == 0:
        place += "&immutable=1"
    elif not index.exists() and not os.access(database, os.W_OK):
        raise sqlite3.OperationalError(f"{log.name} cannot be read without writing")
    with closing(sqlite3.connect(place, uri=True, isolation_level=None)) as connection:
        yield connection


def _doubt(database: Path, known_head: Path, source: Path, client_id: str) -> str | None:
    """Why a database's word does not count for certain."""
    try:
        with _asked(database) as connection:
            verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            owner = owner_of(connection) if verdict == "ok" else client_id
        if verdict != "ok":
            return f"{database.name} is damaged: {verdict}"
        if owner != client_id:
            return f"{database.name} belongs to client {owner!r}"
        checked = verify_file(database, known_head if known_head.exists() else None)
        if not checked.ok:
            return f"the ledger of {database.name} is not whole: {checked.problem}"
        return _not_from(database, source)
    except sqlite3.Error as error:
        return f"{database.name} cannot be read: {error}"


def _not_from(database: Path, source: Path) -> str | None:
    """Why a database does not go on from a backup: it lacks the backup's last entry."""
    with _asked(source) as connection:
        seq, digest = connection.execute("SELECT seq, hash FROM ledger_entries ORDER BY seq DESC LIMIT 1").fetchone()
    with _asked(database) as connection:
        if hash_at(connection, seq) == digest:
            return None
    return f"{database.name} does not hold the last entry of the backup, so it knows nothing of what came after it"


def _read_orders(database: Path, found: Standing) -> None:
    def read(connection: sqlite3.Connection) -> None:
        found.switches = dict(connection.execute("SELECT control, reason FROM shield_controls WHERE is_on = 1"))

    def levels(connection: sqlite3.Connection) -> None:
        rows = connection.execute("SELECT connector, level, limit_permille FROM autonomy")
        found.levels = {connector: (level, limit) for connector, level, limit in rows}

    def holds(connection: sqlite3.Connection) -> None:
        found.holds = _rows(connection, f"SELECT {HOLD_COLUMNS} FROM lever_holds ORDER BY connector, entity, lever")

    for each in (read, levels, holds):
        _try(database, each, found)


def _read_money(database: Path, source: Path, found: Standing) -> None:
    def read(connection: sqlite3.Connection) -> None:
        connection.execute("ATTACH ? AS backup", (uri(source, read_only=True),))
        connection.execute("BEGIN")
        found.money = Money(
            days=_rows(
                connection,
                f"SELECT {DAY_COLUMNS} FROM main.spend_days d WHERE day ="
                " (SELECT max(day) FROM main.spend_days WHERE connector = d.connector) ORDER BY connector",
            ),
            reported=_rows(connection, f"SELECT {REPORTED_COLUMNS} FROM main.reported_spend"),
            window=_rows(connection, f"SELECT {WINDOW_COLUMNS} FROM main.spend_window ORDER BY id"),
            permits=_rows(connection, f"SELECT {PERMIT_COLUMNS} FROM main.reservations {_CHANGED}"),
            allocations=_rows(connection, f"SELECT {ALLOCATION_COLUMNS} FROM main.budget_allocations"),
            overrides=_rows(connection, "SELECT scope, key, value, at FROM main.setting_overrides"),
            intents=_rows(connection, _NEW_INTENTS),
        )

    _try(database, read, found)


_CHANGED = (
    "WHERE state = 'reserved' OR reservation_id IN"
    " (SELECT reservation_id FROM backup.reservations WHERE state = 'reserved') ORDER BY sequence"
)
_NEW_INTENTS = (
    f"SELECT {INTENT_COLUMNS} FROM main.intents i"
    " WHERE NOT EXISTS (SELECT 1 FROM backup.intents o WHERE o.key = i.key AND o.state = i.state)"
    " AND (kind <> 'place_bid' OR state IN ('pending', 'unknown')"
    " OR cause IN (SELECT reservation_id FROM main.reservations WHERE state = 'reserved')) ORDER BY sent_at, key"
)


def _try(database: Path, read: Callable[[sqlite3.Connection], None], found: Standing) -> None:
    try:
        with _asked(database) as connection:
            read(connection)
    except sqlite3.Error as error:
        found.money = None
        found.unknown = found.unknown or f"{database.name} cannot be read: {error}"


def _rows(connection: sqlite3.Connection, sql: str) -> list[Row]:
    return [list(row) for row in connection.execute(sql)]


def stopped(stand_in: Path) -> str | None:
    """Why a stand-in was told to stop; None when it was not, or cannot say."""
    if not stand_in.exists():
        return None
    sql = "SELECT reason FROM shield_controls WHERE control = ? AND is_on = 1"
    try:
        with _asked(stand_in) as connection:
            row = connection.execute(sql, (KILL_SWITCH,)).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])


__all__ = ["CARRIED", "Money", "Standing", "decode", "pending", "read_orders", "read_standing", "stopped"]
