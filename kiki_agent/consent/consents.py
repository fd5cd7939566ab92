"""The legal basis of a decision about a person: `not_personal`, `consent:<id>` or `denied`, answered from memory.

Who has said nothing is denied, and so is who said no, took it back, or said yes until an instant that has come. A yes
counts once it is durable; a no counts from the moment it is asked for, before the database has it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from kiki_agent.consent import records
from kiki_agent.consent.records import Said
from kiki_agent.consent.statements import Consent, ConsentType, Source, Statement, Status, read_string
from kiki_agent.consent.tcf import Why
from kiki_agent.consent.vault import Vault
from kiki_agent.errors import Denied
from kiki_agent.ledger import Ledger
from kiki_agent.model import Instant
from kiki_agent.store import Store

NOT_PERSONAL = "not_personal"
"""Basis of a decision whose inputs carry no customer."""
DENIED = "denied"
BID_PURPOSE = ConsentType.TARGETING
"""What a person must allow before a bid may be about them."""
MOST_IN_MEMORY = 100_000
"""Grants of one purpose held in memory; those beyond are read when they are asked for (`look`)."""
_NEVER = 2**63 - 1
_TRIES = 5
_CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class _Held:
    """A grant in memory."""

    basis: str
    expires_at: int
    vendors: frozenset[int] | None


class Consents:
    """Statements of people; `load` what is on record. Everything that asks for a basis asks here."""

    def __init__(
        self, store: Store, ledger: Ledger, vault: Vault, vendors: Vendors, most: int = MOST_IN_MEMORY
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._vault = vault
        self._vendors = vendors
        self._most = most
        self._held: dict[ConsentType, dict[str, _Held]] = {kind: {} for kind in ConsentType}
        self._refusing: Counter[tuple[str, ConsentType]] = Counter()
        self._erasing: set[str] = set()
        self._changes = 0
        """Grows with whatever may make what was read a moment ago untrue."""
        self.complete = True
        """Whether all grants are in memory, so that who is not there has given none."""

    async def load(self, now: Instant) -> None:
        """Know again what was granted; nothing is granted before. Raises StoreError.

        Grants that ended after the backup was made that this database was restored from are ended again first.
        """
        await self._end_again(now)
        found: list[tuple[ConsentType, str, _Held]] = []
        offset = 0
        while len(found) <= self._most:
            rows = await self._store.read(partial(records.granted, now=now, limit=_CHUNK, offset=offset))
            names = await self._vault.customers({row[0] for row in rows})
            offset += len(rows)
            for subject, kind, consent_id, expires_at, vendors in rows:
                if subject in names:
                    held = _held(consent_id, expires_at, None if vendors is None else records.vendors_of(vendors))
                    found.append((ConsentType(kind), names[subject], held))
            if len(rows) < _CHUNK:
                break
        self.complete = len(found) <= self._most
        for kind, customer_id, held in reversed(found[: self._most]):  # the newest last; the oldest are dropped first
            self._held[kind][customer_id] = held

    # -- asking ---------------------------------------------------------------------------------------------------

    def basis(self, customer_id: str | None, purpose: ConsentType, platform: str, now: Instant) -> str:
        """The legal basis of a decision at `now` about a customer, or about nobody; from memory alone, never raises.

        A yes that came with a consent string holds for a platform only when it names this client's vendor id and the
        platform's, as far as they are configured, and there is at least one.
        """
        if customer_id is None:
            return NOT_PERSONAL
        held = self._held[purpose].get(customer_id)
        if held is None or now >= held.expires_at:
            return DENIED
        if held.vendors is not None:
            needed = self._vendors.of(platform)
            if not needed or not needed <= held.vendors:
                return DENIED
        return held.basis

    async def look(self, customer_id: str | None, purpose: ConsentType, platform: str, now: Instant) -> str:
        """The same; reads a grant that is not in memory when not all are. Raises StoreError."""
        found = self.basis(customer_id, purpose, platform, now)
        if found != DENIED or self.complete or customer_id is None or customer_id in self._held[purpose]:
            return found
        if self._vault.refuses(customer_id):  # whose erasing was begun, and could not be ended yet
            return found
        await self._recall(customer_id)
        return self.basis(customer_id, purpose, platform, now)

    async def status(self, customer_id: str) -> dict[ConsentType, Consent]:
        """What is in force for a customer; empty for who has said nothing. Raises StoreError."""
        subject = await self._vault.subject(customer_id)
        return {} if subject is None else await self._store.read(partial(records.find, subject=subject))

    async def counts(self, now: Instant) -> dict[str, int]:
        """Statements in force by status; EXPIRED are grants that ran out. Raises StoreError."""
        return await self._store.read(partial(records.counts, now=now))

    @property
    def held(self) -> int:
        """Grants in memory."""
        return sum(map(len, self._held.values()))

    # -- saying ---------------------------------------------------------------------------------------------------

    async def grant(
        self,
        customer_id: str,
        consent_type: ConsentType,
        now: Instant,
        *,
        expires_at: Instant | None = None,
        version: str = "1.0",
        legal_basis: str = "Consent",
        evidence: Mapping[str, str] | None = None,
    ) -> Consent:
        """A yes from now on. Raises StoreError, and Denied for one that has run out or of who is being erased."""
        if expires_at is not None and expires_at <= now:
            raise Denied("BAD_INPUT", "expires_at has passed already")
        said = Statement(
            consent_type, True, Source.API, None, expires_at=expires_at, version=version, legal_basis=legal_basis
        )
        self._refuse_while_erasing(customer_id)
        subject = await self._vault.enrol(customer_id, now)
        (done,) = await self._say(customer_id, subject, [said], evidence or {}, now)
        assert done is not None  # a statement made now is the newest
        return done

    async def revoke(
        self,
        customer_id: str,
        consent_type: ConsentType,
        now: Instant,
        *,
        evidence: Mapping[str, str] | None = None,
    ) -> Consent:
        """A no from this moment on, in memory before anything is written. Raises Denied NOT_FOUND, StoreError."""
        self._changes += 1
        self._held[consent_type].pop(customer_id, None)
        self._refusing[customer_id, consent_type] += 1
        try:
            subject = await self._vault.subject(customer_id)
            known = {} if subject is None else await self._store.read(partial(records.find, subject=subject))
            if subject is None or consent_type not in known:
                raise Denied("NOT_FOUND", "there is no consent of this customer for this purpose to take back")
            said = Statement(consent_type, False, Source.API, None)
            (done,) = await self._say(customer_id, subject, [said], evidence or {}, now)
        finally:
            self._refusing[customer_id, consent_type] -= 1
            if not self._refusing[customer_id, consent_type]:
                del self._refusing[customer_id, consent_type]
        assert done is not None
        return done

    async def take_string(self, customer_id: str, text: str, now: Instant) -> tuple[Why, list[Consent]]:
        """What a TC or GPP string of a customer says; `Why` it says nothing, and then nothing is written.

        Statements older than the ones in force change nothing and are left out. Raises StoreError, Denied.
        """
        why, said = read_string(text, self._vendors.all, now)
        if why is not Why.YES:
            return why, []
        self._refuse_while_erasing(customer_id)
        if self._vault.refuses(customer_id) and not any(each.yes for each in said):
            return why, []  # who was erased and says no again is not written down for it
        subject = await self._vault.enrol(customer_id, now)
        done = await self._say(customer_id, subject, said, {"consent_string": text}, now)
        return why, [each for each in done if each is not None]

    @contextmanager
    def erasing(self, customer_id: str) -> Iterator[None]:
        """While a person is being erased, and from its beginning, they have granted nothing and can grant nothing."""
        self._changes += 1
        self._erasing.add(customer_id)
        for held in self._held.values():
            held.pop(customer_id, None)
        try:
            yield
        finally:
            self._erasing.discard(customer_id)

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _say(
        self, customer_id: str, subject: str, said: Sequence[Statement], evidence: Mapping[str, str], now: Instant
    ) -> list[Consent | None]:
        sealed = await self._vault.seal(subject, evidence)
        statements = [(each, sealed) for each in said]

        def work(connection: sqlite3.Connection) -> list[Said]:
            return records.say(connection, self._ledger, subject, statements, now, self._vault.salt)

        future = self._store.submit(work)
        future.add_done_callback(partial(self._said, customer_id))
        try:
            done = await asyncio.shield(future)
        except sqlite3.IntegrityError as error:
            raise Denied("CONFLICT", "this customer is being erased") from error
        await self._remember(subject, done)
        return [each.new for each in done]

    async def _remember(self, subject: str, done: Sequence[Said]) -> None:
        """What has ended is known outside the database too, before anybody hears that it has."""
        ended = [each.ended for each in done if each.ended is not None]
        if ended:
            last = next(each for each in reversed(done) if each.new is not None)
            assert last.new is not None
            await self._vault.end(subject, ended, (last.seq, last.new.consent_id))

    async def _end_again(self, now: Instant) -> None:
        last = await self._vault.last_end()
        if last is None or await self._store.read(partial(records.stands, seq=last[0], consent_id=last[1])):
            return
        offset = 0
        while True:
            rows = await self._store.read(partial(records.granted, now=now, limit=_CHUNK, offset=offset))
            ended = await self._vault.ended(row[2] for row in rows)
            for subject, kind, consent_id, _, _ in rows:
                if consent_id in ended:
                    await self._take_back(subject, ConsentType(kind), now)
            offset += len(rows) - len(ended)
            if len(rows) < _CHUNK:
                return

    async def _take_back(self, subject: str, kind: ConsentType, now: Instant) -> None:
        said = [(Statement(kind, False, Source.API, None, version="ended before the restore"), "")]
        done = await self._store.write(
            lambda connection: records.say(connection, self._ledger, subject, said, now, self._vault.salt)
        )
        await self._remember(subject, done)

    def _said(self, customer_id: str, future: asyncio.Future[list[Said]]) -> None:
        """What was committed counts, whoever still waits for it."""
        if future.cancelled() or future.exception() is not None:
            return
        self._changes += 1
        for each in future.result():
            if each.new is not None:
                self._apply(customer_id, each.new)

    def _apply(self, customer_id: str, new: Consent) -> None:
        if new.status is not Status.GRANTED:
            self._held[new.consent_type].pop(customer_id, None)
        elif (customer_id, new.consent_type) not in self._refusing and customer_id not in self._erasing:
            self._hold(customer_id, new)

    def _hold(self, customer_id: str, new: Consent) -> None:
        held = self._held[new.consent_type]
        held.pop(customer_id, None)
        held[customer_id] = _held(new.consent_id, new.expires_at, new.vendors)
        if len(held) > self._most:
            del held[next(iter(held))]
            self.complete = False

    async def _recall(self, customer_id: str) -> None:
        """Take one customer's grants into memory, unless anything was said while they were read: then try again."""
        for _ in range(_TRIES):
            seen = self._changes
            subject = await self._vault.subject(customer_id)
            if subject is None:
                return
            found = await self._store.read(partial(records.find, subject=subject))
            if seen == self._changes:
                for each in found.values():
                    self._apply(customer_id, each)
                return

    def _refuse_while_erasing(self, customer_id: str) -> None:
        if customer_id in self._erasing:
            raise Denied("CONFLICT", "this customer is being erased")


def _held(consent_id: str, expires_at: int | None, vendors: tuple[int, ...] | None) -> _Held:
    return _Held(
        f"consent:{consent_id}",
        _NEVER if expires_at is None else expires_at,
        None if vendors is None else frozenset(vendors),
    )


class Vendors:
    """Ids in the global vendor list: this client's own, and those of its platforms."""

    def __init__(self, own: int | None, platforms: Mapping[str, frozenset[int]]) -> None:
        mine = frozenset() if own is None else frozenset({own})
        self._platforms = {name: ids | mine for name, ids in platforms.items()}
        self._own = mine
        self.all = mine.union(*platforms.values())
        """Everybody a consent string is asked about."""

    def of(self, platform: str) -> frozenset[int]:
        """Who takes part in a bid on a platform."""
        return self._platforms.get(platform, self._own)
