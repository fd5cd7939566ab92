"""Decisions and how long they stood: a changed one is an entry of the ledger, an equal one is a count."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from kiki_agent.errors import StoreError
from kiki_agent.ledger.canonical import encode_checked
from kiki_agent.ledger.ledger import Ledger
from kiki_agent.model.decision import Decision, DecisionOutcome, DecisionSource
from kiki_agent.model.time import SECOND, Instant
from kiki_agent.store import Store

MOST_LOST = 100_000
"""Decisions kept in memory while the database cannot be written; more than these stop the loop that makes them."""

_UPSERT = "INSERT OR REPLACE INTO decision_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

_Row = tuple[Instant, Decision, int, int]
"""When it was made, the decision, ticks of the run it ended, tick it came with."""


@dataclass(frozen=True, slots=True)
class DecisionRun:
    """A decision, and how long it stood."""

    seq: int
    """Number of its ledger entry."""
    decision: Decision
    first_at: Instant
    last_at: Instant
    """When it was last confirmed; for one that was replaced, when that happened."""
    ticks: int
    """How many ticks it stood, the first included."""
    current: bool


class _Run:
    __slots__ = ("first_tick", "identity")

    def __init__(self, identity: tuple[int, str, str, str, str], first_tick: int) -> None:
        self.identity = identity
        self.first_tick = first_tick


class DecisionBook:
    """Keeps the decision in force for every campaign, and writes down the ones that change.

    A tick costs one addition, whatever the number of campaigns: a run's length is the difference of two tick numbers.
    Changed decisions gather in one function as long as nothing else was submitted after it, so the order of the ledger
    is that of the calls, however the writer's batches fall.
    """

    def __init__(self, store: Store, ledger: Ledger, *, flush_every: int = 30 * SECOND) -> None:
        self._store = store
        self._ledger = ledger
        self._flush_every = flush_every
        self._runs: dict[tuple[str, str], _Run] = {}
        self._ticks = 0
        self._last_at = Instant(-1)
        self._flushed_at = Instant(0)
        self._rows: list[_Row] = []
        self._future: asyncio.Future[None] | None = None
        self._lost: list[_Row] = []
        self.changes = 0
        """Decisions recorded as changed since the start."""
        self.failure: str | None = None
        """Why decisions were given up, None when none were: a defect of the agent, not of the disk."""

    async def load(self) -> None:
        """Take up the runs of the last process; to be called once, before the first tick."""

        def read(connection: sqlite3.Connection) -> None:
            self._ticks, last_at = connection.execute("SELECT ticks, last_at FROM decision_ticks").fetchone()
            self._last_at = Instant(last_at)
            for row in connection.execute(
                "SELECT connector, campaign_id, bid_micros, outcome, reason, source, model_version, first_tick"
                " FROM decision_runs"
            ):
                self._runs[row[0], row[1]] = _Run((row[2], row[3], row[4], row[5], row[6]), row[7])

        await self._store.read(read)

    # -- the two-second loop ------------------------------------------------------------------------------------

    def record(self, now: Instant, changed: Sequence[Decision]) -> None:
        """Note decisions; those equal to the one in force change nothing. Submits and does not wait.

        Raises StoreError when too many wait for a database that cannot be written.
        """
        runs = self._runs
        done = self._ticks - (self._last_at == now)
        rows: list[_Row] = []
        for decision in changed:
            key = (decision.connector, decision.campaign_id)
            identity = decision.identity
            run = runs.get(key)
            if run is None:
                runs[key] = _Run(identity, done)
                rows.append((now, decision, 0, done))
            elif run.identity != identity:
                rows.append((now, decision, done - run.first_tick, done))
                run.identity = identity
                run.first_tick = done
        if rows:
            self.changes += len(rows)
            self._submit(rows)

    def tick(self, now: Instant) -> None:
        """Every decision in force was confirmed once more, whether `record` is called before or after."""
        self._ticks += 1
        self._last_at = now
        if self._lost and self._future is None:
            self._submit([])
        if now - self._flushed_at >= self._flush_every:
            self._flushed_at = now
            self._store.submit(self._write_ticks)

    async def flush(self, now: Instant) -> None:
        """Write the counts down and wait until they are durable. Raises StoreError."""
        self._flushed_at = now
        if self._lost and self._future is None:
            self._submit([])
        await self._store.write(self._write_ticks)

    def _submit(self, rows: list[_Row]) -> None:
        if self._lost:
            if len(self._lost) > MOST_LOST:
                raise StoreError(f"{len(self._lost)} decisions wait for a database that cannot be written")
            rows, self._lost = self._lost + rows, []
        elif self._future is not None and self._store.join(self._future, weight=len(rows)):
            self._rows.extend(rows)
            return
        self._flushed_at = self._last_at
        self._rows = rows
        self._future = self._store.submit(partial(self._write, rows), weight=len(rows))
        self._future.add_done_callback(partial(self._settled, rows))

    def _settled(self, rows: list[_Row], future: asyncio.Future[None]) -> None:
        if future is self._future:
            self._future = None
        if future.cancelled():
            return
        error = future.exception()
        if isinstance(error, StoreError):
            self._lost.extend(rows)
        elif error is not None:
            self.failure = f"{len(rows)} decisions could not be written: {type(error).__name__}: {error}"

    # -- on the database thread ---------------------------------------------------------------------------------

    def _write(self, rows: list[_Row], connection: sqlite3.Connection) -> None:
        self._ledger.append_encoded(connection, "decision", [(row[0], _body(row[1], row[2])) for row in rows])
        last = {(row[1].connector, row[1].campaign_id): row for row in rows}
        connection.executemany(
            _UPSERT,
            [(*key, *decision.identity, at, first_tick) for key, (at, decision, _, first_tick) in last.items()],
        )
        self._write_ticks(connection)

    def _write_ticks(self, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE decision_ticks SET ticks = ?, last_at = ?", (self._ticks, self._last_at))

    # -- reading ------------------------------------------------------------------------------------------------

    async def decisions(
        self,
        *,
        campaign_id: str | None = None,
        platform: str | None = None,
        source: str | None = None,
        since: Instant | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[list[DecisionRun], int]:
        """Recorded decisions, newest first, and how many there are in all (FLW-04)."""
        wanted = {"campaign_id": campaign_id, "platform": platform, "source": source}
        rows, total = await self._store.read(lambda connection: _select(connection, wanted, since, limit, offset))
        return [self._run(*row) for row in rows], total

    def _run(self, seq: int, at: int, body: str, end_at: int | None, end_body: str | None) -> DecisionRun:
        facts = msgspec.json.decode(body, type=_Body)
        decision = Decision(
            facts.connector,
            facts.campaign_id,
            facts.platform,
            facts.bid_micros,
            DecisionOutcome(facts.outcome),
            facts.reason,
            DecisionSource(facts.source),
            facts.model_version,
            facts.ltv_micros,
            facts.basis,
        )
        if end_at is not None and end_body is not None:
            ticks = msgspec.json.decode(end_body, type=_Body).ended_ticks
            return DecisionRun(seq, decision, Instant(at), Instant(end_at), ticks, current=False)
        run = self._runs.get((facts.connector, facts.campaign_id))
        ticks = 0 if run is None else self._ticks - run.first_tick
        return DecisionRun(seq, decision, Instant(at), Instant(max(at, self._last_at)), ticks, current=True)


class _Body(msgspec.Struct):
    """The body of a decision entry; fields in the order of the canonical JSON."""

    basis: str
    bid_micros: int
    campaign_id: str
    connector: str
    ended_ticks: int
    ltv_micros: int
    model_version: str
    outcome: str
    platform: str
    reason: str
    source: str


def _body(decision: Decision, ended_ticks: int) -> bytes:
    return encode_checked(
        {
            "basis": decision.basis,
            "bid_micros": decision.bid_micros,
            "campaign_id": decision.campaign_id,
            "connector": decision.connector,
            "ended_ticks": ended_ticks,
            "ltv_micros": decision.ltv_micros,
            "model_version": decision.model_version,
            "outcome": decision.outcome,
            "platform": decision.platform,
            "reason": decision.reason,
            "source": decision.source,
        }
    )


_Found = tuple[int, int, str, int | None, str | None]


def _select(
    connection: sqlite3.Connection, wanted: dict[str, str | None], since: Instant | None, limit: int, offset: int
) -> tuple[list[_Found], int]:
    conditions, arguments = ["kind = 'decision'"], list[str | int]()
    for column, value in wanted.items():
        if value is not None:
            conditions.append(f"{column} = ?")
            arguments.append(value)
    if since is not None:
        conditions.append("seq >= ?")
        arguments.append(first_since(connection, since))
    where = " AND ".join(conditions)
    total = connection.execute(f"SELECT count(*) FROM ledger_entries WHERE {where}", arguments).fetchone()[0]
    rows = connection.execute(
        f"SELECT seq, at, body, connector, campaign_id FROM ledger_entries WHERE {where}"
        " ORDER BY seq DESC LIMIT ? OFFSET ?",
        (*arguments, limit, offset),
    ).fetchall()
    found = []
    for seq, at, body, connector, campaign in rows:
        end = connection.execute(
            "SELECT at, body FROM ledger_entries WHERE kind = 'decision' AND campaign_id = ? AND seq > ?"
            " AND connector = ? ORDER BY seq LIMIT 1",
            (campaign, seq, connector),
        ).fetchone()
        found.append((seq, at, body, *(end or (None, None))))
    return found, total


def first_since(connection: sqlite3.Connection, since: Instant) -> int:
    """Number of the first entry of the table at or after an instant, by bisection: entries stand in order of time."""
    low = connection.execute("SELECT coalesce(min(seq), 1) FROM ledger_entries").fetchone()[0]
    high = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM ledger_entries").fetchone()[0]
    while low < high:
        middle = (low + high) // 2
        if connection.execute("SELECT at FROM ledger_entries WHERE seq = ?", (middle,)).fetchone()[0] >= since:
            high = middle
        else:
            low = middle + 1
    return int(low)
