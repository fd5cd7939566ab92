"""Requests of people about their data: everything that is known of one person, and erasing them.

Erasing goes in four steps, each of which a crash may follow: the person has no consent in memory any more; a line in
the list of erasures, durable; their line and key in the vault; their rows in the database, with an entry of the ledger.
`reapply` at the next start, and after a restore, does what is left of it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

from kiki_agent.consent import records
from kiki_agent.consent.consents import DENIED, Consents
from kiki_agent.consent.erasures import Erased
from kiki_agent.consent.vault import Vault
from kiki_agent.errors import Denied
from kiki_agent.ledger import Ledger
from kiki_agent.ledger.records import AUDITED_KINDS
from kiki_agent.model import DAY, Instant, iso
from kiki_agent.store import Store

TERM = 30 * DAY
"""A request is answered within this time (GDPR article 12: one month)."""
_TABLES = (
    ("customers", "customer_id"),
    ("ltv_predictions", "customer_id"),
    ("consents", "subject"),
    ("conversions", "subject"),
)
"""Tables with rows about one person, and the column that holds the token."""
_SEALED = ("evidence", "requested_by", "sealed")
_COLUMNS = "request_id, subject, request_type, status, requested_by, requested_at, due_at, completed_at, notes"


class RequestType(StrEnum):
    """What a person may ask for."""

    ACCESS = "ACCESS"
    PORTABILITY = "PORTABILITY"
    DELETION = "DELETION"
    RECTIFICATION = "RECTIFICATION"


@dataclass(frozen=True, slots=True)
class PrivacyRequest:
    """One request and what became of it."""

    request_id: str
    subject: str
    request_type: RequestType
    status: str
    """PENDING, COMPLETED or REJECTED."""
    requested_by: str
    """Encrypted."""
    requested_at: Instant
    due_at: Instant
    completed_at: Instant | None
    notes: str


class Privacy:
    """Answers requests at once, and keeps a record of them that names nobody."""

    def __init__(self, store: Store, ledger: Ledger, vault: Vault, consents: Consents) -> None:
        self._store = store
        self._ledger = ledger
        self._vault = vault
        self._consents = consents

    # -- requests -------------------------------------------------------------------------------------------------

    async def request(
        self, customer_id: str, request_type: RequestType, requested_by: str, now: Instant
    ) -> PrivacyRequest:
        """Take a request and do what it asks for. Raises Denied NOT_FOUND for who is not known, StoreError.

        A deletion is done also for who is not known: no source may bring them from then on.
        """
        if request_type is RequestType.DELETION:
            return await self.erase(customer_id, now)
        subject = await self._vault.subject(customer_id)
        if subject is None:
            raise Denied("NOT_FOUND", "nothing is known of this customer")
        sealed = await self._vault.seal(subject, {"requested_by": requested_by} if requested_by else {})
        waits = request_type is RequestType.RECTIFICATION
        notes = "correct it where it is kept, in the source; the next read takes it over" if waits else ""
        return await self._store.write(
            lambda connection: self._enter(connection, subject, request_type, sealed, now, not waits, notes)
        )

    async def find(self, request_id: str) -> PrivacyRequest | None:
        """A request by its id."""
        return await self._store.read(partial(_find, request_id=request_id))

    async def counts(self, since: Instant, until: Instant) -> dict[str, int]:
        """How many requests of each type there were in a period, and `overdue`: those still open past their date."""
        return await self._store.read(partial(_counts, since=since, until=until))

    async def history(self, customer_id: str) -> list[records.Entry]:
        """Entries of the ledger about a customer, oldest first; none for who is not known."""
        subject = await self._vault.subject(customer_id)
        return [] if subject is None else await self._store.read(partial(records.history, subject=subject))

    async def settle(self, request_id: str, done: bool, now: Instant) -> PrivacyRequest:
        """End a request that waits for a person: it was done, or refused. Raises Denied NOT_FOUND, CONFLICT."""
        return await self._store.write(lambda connection: self._settle(connection, request_id, done, now))

    # -- what was done with what is known -------------------------------------------------------------------------

    async def accessed(self, customer_id: str, purpose: str, now: Instant) -> None:
        """Put on record that somebody reads what a person said or what was done about them (SHD-05)."""
        subject = await self._vault.subject(customer_id)
        if subject is not None:
            body = {"action": "read", "purpose": purpose, "subject": subject}
            await self._store.write(lambda connection: self._ledger.append(connection, now, "privacy", body))

    async def refused(self, customer_id: str, purpose: str, platform: str, campaign_id: str, now: Instant) -> None:
        """Put on record that a bid about a person was refused for want of a basis (M12); of a stranger, nobody."""
        body = {
            "action": "bid_refused",
            "basis": DENIED,
            "campaign_id": campaign_id,
            "platform": platform,
            "purpose": purpose,
            "subject": await self._vault.subject(customer_id) or "",
        }
        await self._store.write(lambda connection: self._ledger.append(connection, now, "privacy", body))

    async def refusals(self, since: Instant, until: Instant) -> int:
        """How many bids were refused for want of a basis in a period, as far as entries are in the database."""
        return await self._store.read(partial(_refusals, since=since, until=until))

    async def kept(self) -> tuple[int, Instant | None, int]:
        """Entries of the ledger, the instant of the oldest, and how many people were erased."""
        return await self._store.read(_kept)

    # -- export -----------------------------------------------------------------------------------------------------

    async def export(self, subject: str, now: Instant, purpose: str) -> dict[str, object] | None:
        """Everything that is known of a subject, as plain JSON; None when they were erased. On record as an access."""
        customer_id = (await self._vault.customers([subject])).get(subject)
        if customer_id is None:
            return None
        found = await self._store.read(partial(_collect, subject=subject))
        told = await self._reveal(subject, found)
        body = {"action": "export", "purpose": purpose, "subject": subject}
        await self._store.write(lambda connection: self._ledger.append(connection, now, "privacy", body))
        return {"customer_id": customer_id, "subject": subject, "generated_at": iso(now), **told}

    async def _reveal(self, subject: str, found: dict[str, list[dict[str, object]]]) -> dict[str, object]:
        """The same rows with what was encrypted in them, and instants as people read them."""
        every = [row for rows in found.values() for row in rows]
        sealed = [(row, name) for row in every for name in _SEALED if name in row]
        opened = await self._vault.reveal(subject, [str(row[name]) for row, name in sealed])
        for (row, name), facts in zip(sealed, opened, strict=True):
            row[name] = facts
        for row in every:
            instants = {name: value for name, value in row.items() if name == "at" or name.endswith("_at")}
            row.update({name: iso(Instant(value)) for name, value in instants.items() if isinstance(value, int)})
        return dict(found)

    # -- erasure ----------------------------------------------------------------------------------------------------

    async def erase(self, customer_id: str, now: Instant) -> PrivacyRequest:
        """Make a person unknown, at once and for good. Raises StoreError; then ask again, or restart."""
        with self._consents.erasing(customer_id):
            erased = await self._vault.erase(customer_id, now)
            return await self._store.write(lambda connection: self._erase(connection, [erased], now))

    async def reapply(self, now: Instant) -> int:
        """Erase again what a restored backup, or a crash in the middle, left of people on the list; how many subjects.

        To be called at every start, before any customer is read or any consent is looked up. Raises StoreError.
        """
        listed = self._vault.erasures
        done = await self._store.read(_erasures)
        known = {(each.mark, each.subject) for each in listed.lines}
        lost = [each for each in done if (each.mark, each.subject) not in known]
        self._vault.learn(lost)
        have = {(each.mark, each.subject) for each in done}
        missing = [each for each in listed.lines if not each.lifted and (each.mark, each.subject) not in have]
        keys = await self._vault.forget(listed.subjects)
        if missing:
            await self._store.write(lambda connection: self._erase(connection, missing, now))
        return max(len(missing), keys)

    # -- on the database thread -------------------------------------------------------------------------------------

    def _erase(self, connection: sqlite3.Connection, erased: Sequence[Erased], now: Instant) -> PrivacyRequest:
        last: PrivacyRequest | None = None
        for each in erased:
            rows = 0
            for table, column in _TABLES if each.subject else ():
                rows += connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (each.subject,)).rowcount
            connection.execute("UPDATE privacy_requests SET requested_by = '' WHERE subject = ?", (each.subject,))
            connection.execute(
                "UPDATE privacy_requests SET status = 'REJECTED', completed_at = ?, notes = 'erased meanwhile'"
                " WHERE subject = ? AND status = 'PENDING'",
                (now, each.subject),
            )
            connection.execute(
                "INSERT OR IGNORE INTO erasures (mark, subject, at) VALUES (?, ?, ?)",
                (each.mark, each.subject, each.at),
            )
            notes = f"{rows} rows deleted, the key destroyed" if each.subject else "nothing was known; kept out"
            last = self._enter(connection, each.subject, RequestType.DELETION, "", now, True, notes)
        assert last is not None
        return last

    def _settle(self, connection: sqlite3.Connection, request_id: str, done: bool, now: Instant) -> PrivacyRequest:
        known = _find(connection, request_id)
        if known is None:
            raise Denied("NOT_FOUND", "there is no request with this id")
        if known.status != "PENDING":
            raise Denied("CONFLICT", f"the request is {known.status} already")
        settled = replace(known, status="COMPLETED" if done else "REJECTED", completed_at=now)
        connection.execute(
            "UPDATE privacy_requests SET status = ?, completed_at = ? WHERE request_id = ?",
            (settled.status, now, request_id),
        )
        self._note(connection, settled, now)
        return settled

    def _note(self, connection: sqlite3.Connection, request: PrivacyRequest, now: Instant) -> None:
        body = {
            "action": request.request_type.value.lower(),
            "purpose": "request of the person",
            "request_id": request.request_id,
            "status": request.status,
            "subject": request.subject,
        }
        self._ledger.append(connection, now, "privacy", body)

    def _enter(
        self,
        connection: sqlite3.Connection,
        subject: str,
        request_type: RequestType,
        requested_by: str,
        now: Instant,
        done: bool,
        notes: str,
    ) -> PrivacyRequest:
        number = connection.execute("SELECT count(*) FROM privacy_requests").fetchone()[0]
        fact = "\x1f".join(("privacy", subject, request_type.value, str(now), str(number)))
        made = PrivacyRequest(
            hashlib.sha256(fact.encode()).hexdigest()[:32],
            subject,
            request_type,
            "COMPLETED" if done else "PENDING",
            requested_by,
            now,
            Instant(now + TERM),
            now if done else None,
            notes,
        )
        connection.execute(
            f"INSERT INTO privacy_requests ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            tuple(getattr(made, name) for name in PrivacyRequest.__slots__),
        )
        self._note(connection, made, now)
        return made


def _find(connection: sqlite3.Connection, request_id: str) -> PrivacyRequest | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM privacy_requests WHERE request_id = ?", (request_id,)).fetchone()
    return None if row is None else PrivacyRequest(row[0], row[1], RequestType(row[2]), *row[3:])


def _counts(connection: sqlite3.Connection, since: Instant, until: Instant) -> dict[str, int]:
    found = dict.fromkeys((each.value for each in RequestType), 0)
    found |= dict(
        connection.execute(
            "SELECT request_type, count(*) FROM privacy_requests WHERE requested_at >= ? AND requested_at <= ?"
            " GROUP BY 1",
            (since, until),
        ).fetchall()
    )
    overdue = connection.execute(
        "SELECT count(*) FROM privacy_requests WHERE status = 'PENDING' AND due_at <= ?", (until,)
    ).fetchone()[0]
    return found | {"overdue": overdue}


def _refusals(connection: sqlite3.Connection, since: Instant, until: Instant) -> int:
    count = connection.execute(
        f"SELECT count(*) FROM ledger_entries WHERE {AUDITED_KINDS} AND kind = 'privacy' AND at BETWEEN ? AND ?"
        " AND json_extract(body, '$.action') = 'bid_refused'",
        (since, until),
    ).fetchone()[0]
    return int(count)


def _kept(connection: sqlite3.Connection) -> tuple[int, Instant | None, int]:
    entries = connection.execute("SELECT coalesce(max(seq), 0) FROM ledger_entries").fetchone()[0]
    oldest = connection.execute(
        "SELECT first_at FROM ledger_segments WHERE first_seq = 1"
        " UNION ALL SELECT at FROM ledger_entries WHERE seq = 1 LIMIT 1"
    ).fetchone()
    erased = connection.execute("SELECT count(DISTINCT mark) FROM erasures").fetchone()[0]
    return entries, None if oldest is None else Instant(oldest[0]), erased


def _erasures(connection: sqlite3.Connection) -> list[Erased]:
    rows = connection.execute("SELECT mark, subject, at FROM erasures ORDER BY at, mark").fetchall()
    return [Erased(mark, subject, Instant(at)) for mark, subject, at in rows]


def _collect(connection: sqlite3.Connection, subject: str) -> dict[str, list[dict[str, object]]]:
    """Rows about a subject, table by table; bids by the consents they stood on."""
    history = records.history(connection, subject)
    entries: list[dict[str, object]] = [{"seq": seq, "at": at, "kind": kind, **body} for seq, at, kind, body in history]
    bases = [f"consent:{body['consent_id']}" for _, _, kind, body in history if kind == "consent"]
    marks = ", ".join("?" * len(bases))
    found = {
        "customers": _rows(connection, "SELECT * FROM customers WHERE customer_id = ?", (subject,)),
        "predictions": _rows(connection, "SELECT * FROM ltv_predictions WHERE customer_id = ?", (subject,)),
        "consents": _rows(connection, "SELECT * FROM consents WHERE subject = ?", (subject,)),
        "conversions": _rows(connection, "SELECT * FROM conversions WHERE subject = ?", (subject,)),
        "requests": _rows(connection, "SELECT * FROM privacy_requests WHERE subject = ?", (subject,)),
        "bids": _rows(
            connection,
            "SELECT reservation_id, connector, campaign_id, amount_micros, spent_micros, basis, state, at, settled_at"
            f" FROM reservations WHERE basis <> 'not_personal' AND basis IN ({marks}) ORDER BY sequence",
            tuple(bases),
        ),
    }
    return {**found, "record": entries}


def _rows(connection: sqlite3.Connection, sql: str, arguments: tuple[str, ...]) -> list[dict[str, object]]:
    cursor = connection.execute(sql, arguments)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
