"""Conversions and what they are worth, on their way back to the platform that brought the click.

A platform bids by the values it is told: this is how worth reaches its own bidding. A conversion is kept until the
platform has taken it. It is about a person, so it is sent only while they allow it, and what identifies the click is
encrypted with their key. Sending one again is safe: vendors drop, or restate, a conversion whose order they know.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from kiki_agent.consent import DENIED, Consents, ConsentType, Vault
from kiki_agent.errors import Denied, PluginError, RateLimited, Rejected, Unsupported
from kiki_agent.hooks.conversion import Conversion
from kiki_agent.hooks.guard import NOT_SENT
from kiki_agent.ledger import Ledger
from kiki_agent.model import DAY, HOUR, SECOND, Instant, Outcome, Receipt
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.loop import Loop
from kiki_agent.store import Store

PURPOSE: Final = ConsentType.DATA_SHARING
"""What a person must allow before a platform is told of their purchase."""
BATCH: Final = 500
FIRST_WAIT: Final = 30 * SECOND
LONGEST_WAIT: Final = 6 * HOUR
GIVE_UP: Final = 7 * DAY
"""After so long without a clear answer a conversion is given up; platforms take them for some weeks at most."""
KEPT: Final = 90 * DAY
"""Settled conversions are forgotten after this time; the ledger keeps that they were sent, nothing of the person."""

AGAIN: Final = NOT_SENT | {"AUTH_EXPIRED", "BUSY", "CIRCUIT_OPEN", "QUARANTINED", "RATE_LIMITED"}
"""Reasons of refusals that say nothing about the conversion; it is sent again."""
State = Literal["queued", "accepted", "rejected"]
Call = Callable[[str, str, tuple[object, ...]], Awaitable[object]]
_log = get_logger("syncvalue")


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a shop says of one conversion."""

    connector: str
    customer_id: str
    click_id: str
    at: Instant
    currency: str
    order_id: str = ""
    name: str = ""
    """The vendor's name of the conversion action, where it is not the configured one."""
    value_micros: int | None = None
    """None: what the customer is predicted to be worth."""


@dataclass(frozen=True, slots=True)
class ConversionState:
    """Where a conversion stands. Nothing here says who it is about."""

    conversion_id: str
    connector: str
    at: Instant
    value_micros: int
    currency: str
    state: State
    reason: str
    attempts: int
    reported_at: Instant
    settled_at: Instant | None


@dataclass(frozen=True, slots=True)
class _Queued:
    conversion_id: str
    subject: str
    sealed: str
    at: int
    value_micros: int
    ltv_micros: int
    confidence_permille: int
    currency: str
    attempts: int
    reported_at: int


class Conversions:
    """Takes reports, keeps them, sends them.

    `platforms` is connector -> platform; `may_send` says why nothing may be written at a connector now, or None.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        vault: Vault,
        consents: Consents,
        call: Call,
        platforms: Mapping[str, str],
        may_send: Callable[[str], str | None],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._vault = vault
        self._consents = consents
        self._call = call
        self._platforms = platforms
        self._may_send = may_send
        self.sent = 0
        """Conversions platforms have taken since the start."""

    async def report(self, told: ConversionReport, now: Instant) -> ConversionState:
        """Take a conversion in, durably. The same one again changes nothing, or its value where that differs.

        Raises Denied: CONSENT without the person's consent, NOT_FOUND for an unknown connector, UNKNOWN_VALUE when no
        value is given and none is predicted; StoreError.
        """
        platform = self._platforms.get(told.connector)
        if platform is None:
            raise Denied("NOT_FOUND", f"there is no connector {told.connector[:60]!r}")
        basis = await self._consents.look(told.customer_id, PURPOSE, platform, now)
        if basis == DENIED:
            raise Denied("CONSENT", f"this customer has not allowed {PURPOSE.value} with {platform}")
        subject = await self._vault.subject(told.customer_id)
        if subject is None:
            raise Denied("CONSENT", "this customer has said nothing")
        facts = {"click_id": told.click_id, "name": told.name, "order_id": told.order_id}
        sealed = await self._vault.seal(subject, facts)
        key = _key(told, subject)
        try:
            return await self._store.write(partial(_take, key=key, told=told, subject=subject, sealed=sealed, now=now))
        except sqlite3.IntegrityError as error:
            raise Denied("CONFLICT", "this customer is being erased") from error

    async def find(self, conversion_id: str) -> ConversionState | None:
        """One conversion, if it is still kept. Raises StoreError."""
        return await self._store.read(partial(_find, conversion_id=conversion_id))

    async def counts(self) -> dict[str, int]:
        """Kept conversions by state. Raises StoreError."""
        return await self._store.read(_counts)

    async def send(self, now: Instant) -> int:
        """Send what is due, one batch for each connector; how many were settled. Raises StoreError."""
        settled = 0
        for connector in self._platforms:
            if self._may_send(connector) is not None:
                continue
            due = await self._store.read(partial(_due, connector=connector, now=now))
            if due:
                settled += await self._send(connector, due, now)
        return settled

    async def forget(self, now: Instant) -> None:
        """Drop what was settled long ago. Raises StoreError."""
        limit = now - KEPT
        await self._store.write(
            lambda connection: connection.execute(
                "DELETE FROM conversions WHERE state <> 'queued' AND reported_at < ?", (limit,)
            )
        )

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _send(self, connector: str, due: Sequence[_Queued], now: Instant) -> int:
        ready: list[Conversion] = []
        settled: dict[str, tuple[str, str]] = {}
        names = await self._vault.customers({each.subject for each in due})
        for each in due:
            (facts,) = await self._vault.reveal(each.subject, [each.sealed])
            customer_id = names.get(each.subject)
            basis = DENIED
            if customer_id is not None and facts:
                basis = await self._consents.look(customer_id, PURPOSE, self._platforms[connector], now)
            if basis == DENIED or not facts:
                settled[each.conversion_id] = ("rejected", "CONSENT")
                continue
            ready.append(
                Conversion(
                    key=each.conversion_id,
                    click_id=facts["click_id"],
                    name=facts["name"],
                    at=Instant(each.at),
                    value_micros=each.value_micros,
                    currency=each.currency,
                    basis=basis,
                    order_id=facts["order_id"] or each.conversion_id,
                    confidence_permille=each.confidence_permille,
                    ltv_micros=each.ltv_micros,
                )
            )
        later = Instant(0)
        if ready:
            answers, later = await self._ask(connector, ready)
            settled |= answers
        await self._store.write(partial(self._settle, connector, due, settled, now, later))
        accepted = sum(state == "accepted" for state, _ in settled.values())
        self.sent += accepted
        return len(settled)

    async def _ask(self, connector: str, ready: Sequence[Conversion]) -> tuple[dict[str, tuple[str, str]], Instant]:
        """How each conversion ended, those without a clear answer left out; and when the vendor wants the next call."""
        try:
            receipts = await self._call(connector, "upload_conversions", (tuple(ready),))
        except Rejected as error:
            if error.reason in AGAIN:
                return {}, Instant(0)
            return {each.key: ("rejected", error.reason) for each in ready}, Instant(0)
        except Unsupported:
            return {each.key: ("rejected", "UNSUPPORTED") for each in ready}, Instant(0)
        except RateLimited as error:
            return {}, Instant(error.retry_at)
        except PluginError as error:
            _log.warning("conversions_wait", f"{connector} did not take conversions: {error}", connector=connector)
            return {}, Instant(0)
        assert isinstance(receipts, Sequence)
        clear: dict[str, tuple[str, str]] = {}
        for receipt in receipts:
            assert isinstance(receipt, Receipt)
            if receipt.outcome is not Outcome.UNKNOWN and receipt.reason not in AGAIN:
                clear[receipt.key] = (receipt.outcome.value, receipt.reason)
        return clear, Instant(0)

    def _settle(
        self,
        connector: str,
        due: Sequence[_Queued],
        settled: Mapping[str, tuple[str, str]],
        now: Instant,
        later: Instant,
        connection: sqlite3.Connection,
    ) -> None:
        for each in due:
            state, reason = settled.get(each.conversion_id, ("queued", "NO_ANSWER"))
            if state == "queued" and now >= each.reported_at + GIVE_UP:
                state, reason = "rejected", "GAVE_UP"
            wait = min(LONGEST_WAIT, FIRST_WAIT << min(each.attempts, 20))
            connection.execute(
                "UPDATE conversions SET state = ?, reason = ?, attempts = attempts + 1, due_at = ?, settled_at = ?"
                " WHERE conversion_id = ? AND state = 'queued' AND value_micros = ?",
                (
                    state,
                    reason,
                    max(now + wait, later),
                    None if state == "queued" else now,
                    each.conversion_id,
                    each.value_micros,
                ),
            )
            if state != "queued":
                body = {
                    "connector": connector,
                    "conversion_id": each.conversion_id,
                    "currency": each.currency,
                    "outcome": state,
                    "reason": reason,
                    "value": each.value_micros,
                }
                self._ledger.append(connection, now, "conversion", body)


class ConversionsLoop(Loop):
    """Sends waiting conversions twice a minute."""

    name = "conversions"
    period = 30 * SECOND

    def __init__(self, conversions: Conversions) -> None:
        self._conversions = conversions
        self._forgotten_at = 0

    async def tick(self, now: Instant) -> str | None:
        """One batch for each connector; why nothing was sent."""
        if now >= self._forgotten_at + DAY:
            self._forgotten_at = now
            await self._conversions.forget(now)
        return None if await self._conversions.send(now) else "nothing to send"


def _key(told: ConversionReport, subject: str) -> str:
    """The same for the same conversion: by its order, or by click and instant where the shop has no orders."""
    fact = (told.order_id,) if told.order_id else (told.click_id, str(told.at))
    return hashlib.sha256("\x1f".join(("conversion", told.connector, subject, *fact)).encode()).hexdigest()[:32]


def _take(
    connection: sqlite3.Connection, key: str, told: ConversionReport, subject: str, sealed: str, now: Instant
) -> ConversionState:
    predicted = connection.execute(
        "SELECT predicted_ltv_micros, confidence_score FROM ltv_predictions WHERE customer_id = ?"
        " ORDER BY predicted_at DESC LIMIT 1",
        (subject,),
    ).fetchone()
    ltv, confidence = (0, 0.0) if predicted is None else predicted
    value = ltv if told.value_micros is None else told.value_micros
    if told.value_micros is None and predicted is None:
        raise Denied("UNKNOWN_VALUE", "nothing is predicted for this customer yet; give the value")
    connection.execute(
        "INSERT INTO conversions (conversion_id, connector, subject, sealed, at, value_micros, ltv_micros,"
        " confidence_permille, currency, state, due_at, reported_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)"
        " ON CONFLICT (conversion_id) DO UPDATE SET value_micros = excluded.value_micros,"
        " ltv_micros = excluded.ltv_micros, confidence_permille = excluded.confidence_permille,"
        " sealed = excluded.sealed, state = 'queued', reason = '', attempts = 0, due_at = excluded.due_at,"
        " reported_at = excluded.reported_at, settled_at = NULL WHERE value_micros <> excluded.value_micros",
        (
            key,
            told.connector,
            subject,
            sealed,
            told.at,
            value,
            ltv,
            min(1000, max(0, round(1000 * confidence))),
            told.currency,
            now,
            now,
        ),
    )
    found = _find(connection, key)
    assert found is not None
    return found


def _find(connection: sqlite3.Connection, conversion_id: str) -> ConversionState | None:
    row = connection.execute(
        "SELECT conversion_id, connector, at, value_micros, currency, state, reason, attempts, reported_at, settled_at"
        " FROM conversions WHERE conversion_id = ?",
        (conversion_id,),
    ).fetchone()
    return None if row is None else ConversionState(*row)


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT state, count(*) FROM conversions GROUP BY state").fetchall())


def _due(connection: sqlite3.Connection, connector: str, now: Instant) -> list[_Queued]:
    rows = connection.execute(
        "SELECT conversion_id, subject, sealed, at, value_micros, ltv_micros, confidence_permille, currency, attempts,"
        " reported_at FROM conversions WHERE state = 'queued' AND connector = ? AND due_at <= ? ORDER BY due_at,"
        " conversion_id LIMIT ?",
        (connector, now, BATCH),
    )
    return [_Queued(*row) for row in rows]


__all__ = ["ConversionReport", "ConversionState", "Conversions", "ConversionsLoop"]
