"""Carrying what stood into the database that took its place: never bolder than before, and no money permitted twice.

Done once, in one transaction, before anything of the agent looks at the tables; each thing with its ledger entry.
Where what stood is unknown, a live agent starts with the kill switch on and every platform at `watch`, and permits
nothing before the account days and the window of that moment have ended: all that was placed in them lies behind then.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec

from kiki_agent.ledger import Ledger
from kiki_agent.ledger.intents import confirm, find, journal
from kiki_agent.model import HOUR, Instant, Intent, IntentKind, Outcome, Receipt, day_bounds, local_day
from kiki_agent.recovery.restoring import RESTORED
from kiki_agent.recovery.standing import (
    ALLOCATION_COLUMNS,
    CARRIED,
    DAY_COLUMNS,
    HOLD_COLUMNS,
    KILL_SWITCH,
    PERMIT_COLUMNS,
    REPORTED_COLUMNS,
    WINDOW_COLUMNS,
    Money,
    Row,
    Standing,
    decode,
)
from kiki_agent.runtime.log import get_logger
from kiki_agent.store import Store, get_meta, set_meta

LADDER = ("watch", "suggest", "act_limited", "act")
"""Levels of autonomy, the lowest first, as the table's own check names them."""
_LONGEST_DAY = 25 * HOUR
_NO_CAP = 2**62
_log = get_logger("recovery")


@dataclass(frozen=True, slots=True)
class Ground:
    """What the agent that carries over is."""

    live: bool
    """Whether real money is at stake, and nothing may be guessed."""
    zones: Mapping[str, str]
    """Connector -> time zone of its account."""
    window: int
    """Microseconds of the sliding window."""
    confirmed: Callable[[sqlite3.Connection, Intent, Receipt], None] = lambda connection, intent, receipt: None
    """Makes a confirmed change the known value of its campaign, so that it is not taken for somebody else's."""

    @property
    def first(self) -> str:
        """The level of a connector that nobody set."""
        return "watch" if self.live else "act"

    def over_at(self, at: int) -> Instant:
        """When the account days and the window of an instant have ended, of all connectors."""
        ends = [day_bounds(local_day(Instant(at), zone), zone)[1] for zone in self.zones.values()]
        return Instant(max([at + self.window, *ends]))


async def carry_over(store: Store, ledger: Ledger, now: Instant, ground: Ground) -> Standing | None:
    """Take over what a restore, or the making of a stand-in, left to be carried; None when there is nothing.

    Raises StoreError.
    """
    text = await store.read(lambda connection: get_meta(connection, CARRIED))
    if not text:
        return None
    standing = decode(text)
    standing.at = standing.at or now
    try:
        await store.write(partial(_carry, ledger=ledger, now=now, standing=standing, ground=ground))
    except sqlite3.IntegrityError as error:  # rows that contradict each other: then nothing of them counts
        standing.unknown = standing.unknown or f"its rows contradict those of the backup: {error}"
        standing.money = None
        await store.write(partial(_carry, ledger=ledger, now=now, standing=standing, ground=ground))
    said = "; ".join(standing.sentences()) or "nothing that the backup does not know"
    if standing.unknown:
        _log.warning("carried_over", f"Not known is {standing.unknown}; carried over: {said}")
    else:
        _log.info("carried_over", f"Carried over: {said}")
    return standing


async def leave_to_carry(store: Store, standing: Standing) -> None:
    """Let a stand-in take over what stands in the database it stands for. Raises StoreError."""
    text = msgspec.json.encode(standing).decode()
    await store.write(lambda connection: set_meta(connection, CARRIED, text))


def _carry(connection: sqlite3.Connection, *, ledger: Ledger, now: Instant, standing: Standing, ground: Ground) -> None:
    why = f"kept over the restore of {standing.backup}" if standing.backup else "as it stands in the real database"
    hand = _Hand(connection, ledger, now, why)
    unknown = bool(standing.unknown) and ground.live
    _switches(hand, standing, unknown=unknown)
    _levels(hand, standing, ground, unknown=unknown)
    _holds(hand, standing)
    if standing.backup:
        _close_orders(hand)
    if standing.money is not None:
        _intents(hand, standing.money, ground)
        _money(hand, standing.money, ground)
    mark = get_meta(connection, RESTORED)
    if mark and unknown:
        until = ground.over_at(standing.at)
        body = {**msgspec.json.decode(mark, type=dict[str, str | int]), "until": until, "unknown": standing.unknown}
        set_meta(connection, RESTORED, msgspec.json.encode(body).decode())
        hand.enter({"control": "restore_unknown", "why": standing.unknown, "nothing_before": until})
    set_meta(connection, CARRIED, "")


@dataclass(frozen=True, slots=True)
class _Hand:
    """Writes rows, each with its entry."""

    connection: sqlite3.Connection
    ledger: Ledger
    now: Instant
    why: str

    def enter(self, body: Mapping[str, object]) -> None:
        self.ledger.append(self.connection, self.now, "control", body)

    def one(self, sql: str, *arguments: object) -> Row | None:
        row = self.connection.execute(sql, arguments).fetchone()
        return None if row is None else list(row)

    def put(self, table: str, columns: str, row: Row, more: str = "") -> None:
        marks = ", ".join("?" * len(row))
        self.connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks}) {more}", row)


# -- orders to stop -------------------------------------------------------------------------------------------------


def _switches(hand: _Hand, standing: Standing, *, unknown: bool) -> None:
    """On, where it is on in either."""
    wanted = {control: f"{reason} ({hand.why})" for control, reason in standing.switches.items()}
    if unknown:
        wanted.setdefault(KILL_SWITCH, f"nobody knows whether spending had been stopped: {standing.unknown}")
    for control, reason in sorted(wanted.items()):
        if hand.one("SELECT 1 FROM shield_controls WHERE control = ? AND is_on = 1", control) is None:
            more = (
                "ON CONFLICT (control) DO UPDATE SET is_on = 1, reason = excluded.reason, at = excluded.at,"
                " set_by = excluded.set_by"
            )
            row = [control, 1, reason, hand.now, "restore"]
            hand.put("shield_controls", "control, is_on, reason, at, set_by", row, more)
            hand.enter({"control": control, "on": True, "reason": reason, "by": "restore"})


def _levels(hand: _Hand, standing: Standing, ground: Ground, *, unknown: bool) -> None:
    """The lower of both. A stand-in has no level of its own: what stood stands."""
    rows = hand.connection.execute("SELECT connector, level, limit_permille FROM autonomy").fetchall()
    here: dict[str, tuple[str, int | None]] = {connector: (level, limit) for connector, level, limit in rows}
    for connector in sorted({*ground.zones, *here, *standing.levels}):
        before, bound = here.get(connector, (ground.first, None))
        there = standing.levels.get(connector)
        if unknown:
            level, limit = "watch", bound
        elif there is None and (standing.unknown or not standing.backup):
            continue  # not set, or not readable where no real money is at stake
        else:
            level, limit = there or (ground.first, None)
            if standing.backup and LADDER.index(before) < LADDER.index(level):
                level = before
            limit = min((each for each in (limit, bound) if each is not None), default=None)
        if (level, limit) == (before, bound):
            continue
        reason = standing.unknown if unknown else hand.why
        limit = limit or 1
        values: Row = [connector, level, limit, "agent", reason, hand.now]
        more = (
            "ON CONFLICT (connector) DO UPDATE SET level = excluded.level, limit_permille = excluded.limit_permille,"
            " set_by = excluded.set_by, reason = excluded.reason, at = excluded.at"
        )
        hand.put("autonomy", "connector, level, limit_permille, set_by, reason, at", values, more)
        body = {"control": "autonomy", "connector": connector, "before": before, "level": level}
        hand.enter({**body, "limit_permille": limit, "by": "agent", "reason": reason})


def _holds(hand: _Hand, standing: Standing) -> None:
    """All of both; where both have one, what stood, pinned if either is."""
    for row in standing.holds:
        connector, entity, lever, _, value, source, _, until = row
        known = hand.one(
            "SELECT source, value, until FROM lever_holds WHERE connector = ? AND entity = ? AND lever = ?", *row[:3]
        )
        if known is not None and known[0] == "pinned":
            source, until = "pinned", None
        if known == [source, value, until]:
            continue
        more = (
            "ON CONFLICT (connector, entity, lever) DO UPDATE SET campaign_id = excluded.campaign_id,"
            " value = excluded.value, source = excluded.source, since = excluded.since, until = excluded.until"
        )
        hand.put("lever_holds", HOLD_COLUMNS, [*row[:5], source, row[6], until], more)
        body = {"control": "lever_hold", "on": True, "connector": connector, "entity": entity, "lever": lever}
        hand.enter({**body, "value": value, "source": source, "by": "agent"})


def _close_orders(hand: _Hand) -> None:
    """An order of the old record may have been carried out, or taken back, since: a person gives it again."""
    rows = hand.connection.execute("SELECT order_id FROM orders WHERE state = 'open' ORDER BY order_id").fetchall()
    note = "the record was restored while it was under way; give it again if it is still wanted"
    for (order,) in rows:
        hand.connection.execute(
            "UPDATE orders SET state = 'failed', note = ?, closed_at = ? WHERE order_id = ?", (note, hand.now, order)
        )
        body = {"order_id": order, "state": "failed", "done": 0, "note": note}
        hand.ledger.append(hand.connection, hand.now, "order", body)


# -- money ----------------------------------------------------------------------------------------------------------


def _intents(hand: _Hand, money: Money, ground: Ground) -> None:
    """What was sent since counts for quotas and rests, settles what was set aside for it, and is never sent again."""
    for row in money.intents:
        intent = Intent(row[0], IntentKind(row[1]), *row[2:15])
        sent_at, state, reason, vendor, settled_at = row[15:]
        if not find(hand.connection, [intent.key]):
            journal(hand.connection, hand.ledger, hand.now, [intent])
        if state != "pending":
            receipt = Receipt(intent.key, Outcome(state), reason, vendor)
            if confirm(hand.connection, hand.ledger, hand.now, intent, receipt, read_back=False):
                ground.confirmed(hand.connection, intent, receipt)
        hand.connection.execute(
            "UPDATE intents SET sent_at = ?, settled_at = ? WHERE key = ?", (sent_at, settled_at, intent.key)
        )


def _money(hand: _Hand, money: Money, ground: Ground) -> None:
    """Day, window, reservations and allocations as they stood, so that no cap has more room than it had."""
    connection = hand.connection
    for table, columns, rows in (
        ("reported_spend", REPORTED_COLUMNS, money.reported),
        ("spend_window", WINDOW_COLUMNS, money.window),
    ):
        connection.execute(f"DELETE FROM {table}")
        for row in rows:
            hand.put(table, columns, row)
    for row in money.permits:
        _permit(hand, row, ground)
    for row in money.days:
        _day(hand, row)
    for row in money.allocations:
        _allocation(hand, row)
    _overrides(hand, money.overrides)


def _permit(hand: _Hand, row: Row, ground: Ground) -> None:
    """A reservation as it stood. What nothing on record could end any more ends when its day and window have."""
    key, is_open = row[1], row[8] == "reserved"
    known = hand.one("SELECT state FROM reservations WHERE reservation_id = ?", key)
    if known is not None:
        hand.connection.execute(
            "UPDATE reservations SET state = ?, spent_micros = ?, settled_at = ? WHERE reservation_id = ?",
            (row[8], row[5], row[10], key),
        )
    else:
        if is_open and row[11] is None and hand.one("SELECT 1 FROM intents WHERE cause = ?", key) is None:
            row = [*row[:11], hand.now + _LONGEST_DAY + ground.window]
        hand.put("reservations", PERMIT_COLUMNS, row)
    if known is None or known[0] != row[8]:
        body = {"reservation_id": key, "connector": row[2], "campaign_id": row[3], "amount_micros": row[4]}
        body |= {"basis": row[6], "state": row[8], "spent_micros": row[5]}
        hand.ledger.append(hand.connection, hand.now, "permit", body)


def _day(hand: _Hand, row: Row) -> None:
    """An account day as it stood. The guard against raised reservations is for new ones; these were permitted."""
    connector, day, currency, cap, reported, placed, reserved, lease, warned, as_of, _ = row
    known = hand.one(
        "SELECT placed_micros, reserved_micros, reported_micros FROM spend_days WHERE connector = ? AND day = ?",
        connector,
        day,
    )
    if known == [placed, reserved, reported]:
        lease_only = "UPDATE spend_days SET lease_micros = max(lease_micros, ?) WHERE connector = ? AND day = ?"
        hand.connection.execute(lease_only, (lease, connector, day))
        return
    if known is None:
        hand.put("spend_days", DAY_COLUMNS, row)
    else:
        place = "WHERE connector = ? AND day = ?"
        hand.connection.execute(f"UPDATE spend_days SET cap_micros = ? {place}", (_NO_CAP, connector, day))
        hand.connection.execute(
            "UPDATE spend_days SET reported_micros = ?, placed_micros = ?, reserved_micros = ?,"
            f" lease_micros = max(lease_micros, ?), warned = ?, as_of = ? {place}",
            (reported, placed, reserved, lease, warned, as_of, connector, day),
        )
        hand.connection.execute(f"UPDATE spend_days SET cap_micros = ? {place}", (cap, connector, day))
    body = {"control": "day", "connector": connector, "day": day, "reported_micros": reported, "currency": currency}
    hand.enter({**body, "placed_micros": placed, "reserved_micros": reserved, "reason": hand.why})


def _allocation(hand: _Hand, row: Row) -> None:
    """A campaign's budget, the lower of both, and what was spent and is set aside of it."""
    campaign, budget, currency, spent, reserved = row[:5]
    known = hand.one(
        "SELECT budget_micros, spent_micros, reserved_micros FROM budget_allocations WHERE campaign_id = ?", campaign
    )
    lower = budget if known is None else min(budget, known[0])
    if known == [lower, spent, reserved]:
        return
    if known is None:
        hand.put("budget_allocations", ALLOCATION_COLUMNS, row)
    else:
        place = "WHERE campaign_id = ?"
        room = max(lower, spent + reserved, 1)
        hand.connection.execute(f"UPDATE budget_allocations SET budget_micros = ? {place}", (room, campaign))
        hand.connection.execute(
            f"UPDATE budget_allocations SET spent_micros = ?, reserved_micros = ?, warned = ? {place}",
            (spent, reserved, row[12], campaign),
        )
        hand.connection.execute(f"UPDATE budget_allocations SET budget_micros = ? {place}", (lower, campaign))
    before = known or [lower, 0, 0]
    more = "ON CONFLICT (campaign_id) DO UPDATE SET base_micros = min(base_micros, excluded.base_micros)"
    hand.put("allocation_bases", "campaign_id, base_micros, at", [campaign, lower, hand.now], more)
    hand.put(
        "budget_transactions",
        "transaction_id, campaign_id, platform, kind, amount_micros, spent_delta_micros, reserved_delta_micros,"
        " reservation_id, balance_after_micros, at",
        [
            f"restore-{hand.now}-{campaign}",
            campaign,
            "",
            "adjustment",
            spent - before[1],
            spent - before[1],
            reserved - before[2],
            "",
            lower - spent - reserved,
            hand.now,
        ],
    )
    body = {"control": "allocation", "campaign_id": campaign, "budget_micros": lower, "currency": currency}
    hand.enter({**body, "spent_micros": spent, "reserved_micros": reserved, "reason": hand.why})


def _overrides(hand: _Hand, rows: list[Row]) -> None:
    """Settings changed at run time, lowered windows among them, as they stood."""
    columns = "scope, key, value, at"
    before = [list(row) for row in hand.connection.execute(f"SELECT {columns} FROM setting_overrides")]
    if before == rows:
        return
    hand.connection.execute("DELETE FROM setting_overrides")
    for row in rows:
        hand.put("setting_overrides", columns, row)
    was, now = ({(scope, key): json.loads(value) for scope, key, value, _ in each} for each in (before, rows))
    for scope in sorted({scope for scope, _ in {*was, *now}}):
        changed = {
            key: now.get((scope, key))
            for owner, key in {*was, *now}
            if owner == scope and was.get((scope, key)) != now.get((scope, key))
        }
        if changed:
            body = {"control": "connector" if scope else "resilience", "set": changed, "reason": hand.why}
            hand.enter({**body, "connector": scope} if scope else body)


__all__ = ["Ground", "carry_over", "leave_to_carry"]
