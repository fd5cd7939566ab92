"""What a person said about one purpose, and which of two statements is in force. Pure.

A statement made here counts from now on, in the order of arrival. A consent string says only the day it was made on
(TCF 2.2 and later round to days), so its yes counts from the beginning of that day and its no until the end of it:
a yes that is not surely newer than a no does not undo it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from kiki_agent.consent.gpp import TCF_EU
from kiki_agent.consent.gpp import decode as decode_gpp
from kiki_agent.consent.tcf import MOST_AGE_DAYS, Ask, TcString, Why, weigh
from kiki_agent.consent.tcf import decode as decode_tcf
from kiki_agent.model import DAY, Instant


class ConsentType(StrEnum):
    """What a person may allow."""

    MARKETING = "marketing"
    ANALYTICS = "analytics"
    TARGETING = "targeting"
    PROFILING = "profiling"
    DATA_SHARING = "data_sharing"


class Status(StrEnum):
    """What the statement in force says."""

    GRANTED = "GRANTED"
    DENIED = "DENIED"
    """A consent string said no, and there was nothing to take back."""
    REVOKED = "REVOKED"


class Source(StrEnum):
    """Where a statement came from."""

    API = "api"
    TCF = "tcf"
    GPP = "gpp"


PURPOSES = {
    ConsentType.TARGETING: (1, 3, 4),
    ConsentType.PROFILING: (1, 3),
    ConsentType.ANALYTICS: (1, 7, 9),
}
"""Purposes of the framework that all must be allowed. 1 store and access information, 3 create profiles for ads, 4 use
them to select ads, 7 measure ads, 9 understand audiences. It knows no consent to messages or to sharing data."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One yes or no."""

    consent_type: ConsentType
    yes: bool
    source: Source
    said_at: Instant | None
    """None: now, which is later than all before."""
    expires_at: Instant | None = None
    """From this instant on a yes is none; None: until it is taken back."""
    vendors: tuple[int, ...] | None = None
    """Who a yes is for, by their ids in the global vendor list; None: everybody this client works with."""
    version: str = "1.0"
    legal_basis: str = "Consent"


@dataclass(frozen=True, slots=True)
class Consent:
    """The statement in force about one purpose."""

    subject: str
    consent_type: ConsentType
    status: Status
    source: Source
    consent_id: str
    generation: int
    """Grows with each statement that came into force."""
    said_at: Instant
    granted_at: Instant | None
    revoked_at: Instant | None
    expires_at: Instant | None
    vendors: tuple[int, ...] | None
    version: str
    legal_basis: str
    evidence: str

    def in_force(self, now: Instant) -> bool:
        """Whether it allows anything at `now`; exactly at `expires_at` it does not any more."""
        return self.status is Status.GRANTED and (self.expires_at is None or now < self.expires_at)


def follow(
    old: Consent | None, said: Statement, subject: str, evidence: str, now: Instant, salt: str
) -> Consent | None:
    """The consent after a statement; None when the statement is older than the one in force and changes nothing.

    `salt` differs from run to run, so that no two consents ever share an id, also when a backup was restored between.
    """
    if said.said_at is None:
        said_at = now if old is None else max(now, old.said_at)
    elif old is not None and not _newer(said, old):
        return None
    else:
        said_at = said.said_at
    if said.yes:
        status = Status.GRANTED
    else:
        status = Status.DENIED if old is None or old.status is Status.DENIED else Status.REVOKED
    generation = 1 if old is None else old.generation + 1
    granted_at = now if said.yes else (old.granted_at if old is not None else None)
    revoked_at = None if said.yes else now if status is Status.REVOKED else None
    return Consent(
        subject=subject,
        consent_type=said.consent_type,
        status=status,
        source=said.source,
        consent_id=_consent_id(subject, said.consent_type, generation, salt),
        generation=generation,
        said_at=said_at,
        granted_at=granted_at,
        revoked_at=revoked_at,
        expires_at=said.expires_at if said.yes else None,
        vendors=said.vendors if said.yes else None,
        version=said.version,
        legal_basis=said.legal_basis,
        evidence=evidence,
    )


def _newer(said: Statement, old: Consent) -> bool:
    """Whether a statement comes after the one in force; of a yes and a no of the same instant the no does."""
    assert said.said_at is not None
    if said.said_at == old.said_at:
        return not said.yes and old.status is Status.GRANTED
    return said.said_at > old.said_at


def _consent_id(subject: str, kind: ConsentType, generation: int, salt: str) -> str:
    """Names one yes or no and nobody: without the token it leads nowhere."""
    return hashlib.sha256(f"{subject}\x1f{kind.value}\x1f{generation}\x1f{salt}".encode()).hexdigest()[:24]


def read_string(text: str, vendors: frozenset[int], now: Instant) -> tuple[Why, list[Statement]]:
    """What a TC or GPP string says about each purpose it knows; why it says nothing usable otherwise. Never raises.

    A yes holds for those of `vendors` that all its purposes are allowed to; it is a no when that is nobody.
    """
    source = Source.TCF
    if text[:1] == "D":
        source = Source.GPP
        sections = decode_gpp(text)
        if sections is None:
            return Why.MALFORMED, []
        section = sections.sections.get(TCF_EU)
        if section is None:
            return Why.NO_SECTION, []
        text = section
    found = decode_tcf(text)
    if found is None:
        return Why.MALFORMED, []
    if not vendors:
        return Why.NOT_ASKED, []
    whole = _usable(found, vendors, now)
    if whole is not Why.YES:
        return whole, []
    return Why.YES, [_statement(found, kind, purposes, source, vendors, now) for kind, purposes in PURPOSES.items()]


def _usable(found: TcString, vendors: frozenset[int], now: Instant) -> Why:
    """Whether the string as a whole may be read; a no to one vendor or purpose is a statement, not a defect."""
    worst = Why.YES
    for vendor in sorted(vendors):
        why = weigh(found, Ask(vendor, (1,)), now)
        if why in (Why.POLICY, Why.GLOBAL_SCOPE, Why.FUTURE, Why.EXPIRED):
            return why
        if why is Why.NOT_DISCLOSED and found.disclosed is None:
            worst = why
    return worst


def _statement(
    found: TcString, kind: ConsentType, purposes: tuple[int, ...], source: Source, vendors: frozenset[int], now: Instant
) -> Statement:
    allowed = tuple(each for each in sorted(vendors) if weigh(found, Ask(each, purposes), now) is Why.YES)
    made = min(found.updated, now)  # a clock that was ahead makes no yes newer than what is said today
    day = Instant(made - made % DAY)
    return Statement(
        consent_type=kind,
        yes=bool(allowed),
        source=source,
        said_at=day if allowed else Instant(min(day + DAY, now)),
        expires_at=Instant(found.updated + MOST_AGE_DAYS * DAY) if allowed else None,
        vendors=allowed or None,
        version=f"policy {found.policy}",
    )
