"""IAB TCF consent strings, versions 2.2 and 2.3 of the framework: decode strictly, then ask. Pure and total.

`decode` and `judge` never raise on any text; whatever is malformed, unknown or contradictory means no. Field layout:
IAB Tech Lab, "Consent string and vendor list formats v2". What is stricter here than the layout says is listed in
docs/privacy.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from kiki_agent.consent.bits import Bits, Malformed
from kiki_agent.model import DAY, HOUR, Instant, parse_iso

POLICIES = (4, 5)
"""`TcfPolicyVersion` of TCF 2.2 and 2.3; strings of other policies carry no basis."""
DISCLOSURE_POLICY = 5
"""TCF 2.3: from here on a string without the segment of disclosed vendors is invalid."""
DISCLOSURE_FROM = parse_iso("2026-03-01T00:00:00Z")
"""A string of TCF 2.2 that was made from this day on is invalid without it too (IAB Europe: after 2026-02-28)."""
MOST_AGE_DAYS = 395
"""People are asked again after 13 months at the latest."""
CLOCKS_APART = HOUR
"""So far ahead may the clock be that dated a string. Dates are whole days in UTC, so an honest one is never ahead."""
CONSENT_ONLY = frozenset({1, 3, 4, 5, 6})
"""Purposes for which TCF 2.2 and later know no legitimate interest."""
LAST_PURPOSE = 11
LEAST_CMP = 2
"""Ids 0 and 1 belong to no consent management platform."""
_DECISECOND = 100_000
_SEGMENTS = 4


class Limit(IntEnum):
    """What a publisher may restrict a purpose to."""

    NOT_ALLOWED = 0
    REQUIRE_CONSENT = 1
    REQUIRE_INTEREST = 2


class Why(StrEnum):
    """Why a string is, or is not, a legal basis."""

    YES = "YES"
    MALFORMED = "MALFORMED"
    POLICY = "POLICY_VERSION"
    GLOBAL_SCOPE = "GLOBAL_SCOPE"
    FUTURE = "FROM_THE_FUTURE"
    EXPIRED = "EXPIRED"
    NOT_DISCLOSED = "NOT_DISCLOSED"
    RESTRICTED = "PUBLISHER_RESTRICTION"
    NO_CONSENT = "NO_CONSENT"
    NOT_ASKED = "NOTHING_ASKED"
    NO_SECTION = "NO_BASIS_FROM_THIS_SECTION"


class Vendors:
    """A set of vendor ids as it was written: one bit each, or ranges."""

    __slots__ = ("_bits", "_ranges", "last")

    def __init__(self, last: int, bits: int = 0, ranges: tuple[tuple[int, int], ...] = ()) -> None:
        self.last = last
        self._bits = bits
        self._ranges = ranges

    def __contains__(self, vendor: object) -> bool:
        if not isinstance(vendor, int) or not 1 <= vendor <= self.last:
            return False
        if self._ranges:
            return any(first <= vendor <= last for first, last in self._ranges)
        return bool(self._bits >> (self.last - vendor) & 1)


@dataclass(frozen=True, slots=True)
class Restriction:
    """One purpose, limited for some vendors by the publisher."""

    purpose: int
    limit: Limit
    vendors: Vendors


@dataclass(frozen=True, slots=True)
class PublisherTc:
    """What the publisher holds for itself; never a basis for a vendor. Purposes as bits, 1 first (highest)."""

    consent: int
    interest: int
    custom_purposes: int
    custom_consent: int
    custom_interest: int


@dataclass(frozen=True, slots=True)
class TcString:
    """A decoded string. Masks of purposes hold 24 bits, purpose 1 in the highest."""

    created: Instant
    updated: Instant
    cmp_id: int
    cmp_version: int
    screen: int
    language: str
    vendor_list: int
    policy: int
    service_specific: bool
    special_features: int
    purposes_consent: int
    purposes_interest: int
    purpose_one_treatment: bool
    publisher_country: str
    vendor_consent: Vendors
    vendor_interest: Vendors
    restrictions: tuple[Restriction, ...]
    disclosed: Vendors | None
    publisher: PublisherTc | None


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of a string: one vendor, and every one of these purposes."""

    vendor: int
    purposes: tuple[int, ...]
    interests: Collection[int] = ()
    """Purposes for which the vendor also relies on legitimate interest."""
    most_age_days: int = MOST_AGE_DAYS


def decode(text: object) -> TcString | None:
    """The string's content, or None for whatever is not exactly one. Never raises."""
    if not isinstance(text, str):
        return None
    parts = text.split(".", _SEGMENTS)
    if len(parts) > _SEGMENTS:
        return None
    try:
        return _decode(parts)
    except Malformed:
        return None


def judge(text: object, ask: Ask, now: Instant) -> Why:
    """Whether a string is a legal basis for what is asked: `Why.YES`, or why not. Never raises on any text."""
    found = decode(text)
    return Why.MALFORMED if found is None else weigh(found, ask, now)


def weigh(found: TcString, ask: Ask, now: Instant) -> Why:
    """The same of a decoded string."""
    if found.policy not in POLICIES:
        return Why.POLICY
    if not found.service_specific:
        return Why.GLOBAL_SCOPE
    if found.updated > now + CLOCKS_APART or found.created > found.updated:
        return Why.FUTURE
    if now - found.updated > ask.most_age_days * DAY:
        return Why.EXPIRED
    if found.disclosed is None:
        if found.policy >= DISCLOSURE_POLICY or found.updated >= DISCLOSURE_FROM:
            return Why.NOT_DISCLOSED
    elif ask.vendor not in found.disclosed:
        return Why.NOT_DISCLOSED
    if not ask.purposes:
        return Why.NOT_ASKED
    for purpose in ask.purposes:
        why = _purpose(found, ask, purpose)
        if why is not Why.YES:
            return why
    return Why.YES


def _purpose(found: TcString, ask: Ask, purpose: int) -> Why:
    if not 1 <= purpose <= LAST_PURPOSE:
        return Why.NO_CONSENT
    limits = {each.limit for each in found.restrictions if each.purpose == purpose and ask.vendor in each.vendors}
    if Limit.NOT_ALLOWED in limits or len(limits) > 1:
        return Why.RESTRICTED
    if purpose == 1 and found.purpose_one_treatment:
        return Why.NO_CONSENT  # purpose 1 was never shown to the person
    consent = _has(found.purposes_consent, purpose) and ask.vendor in found.vendor_consent
    interest = (
        purpose in ask.interests
        and purpose not in CONSENT_ONLY
        and _has(found.purposes_interest, purpose)
        and ask.vendor in found.vendor_interest
    )
    if Limit.REQUIRE_CONSENT in limits:
        return Why.YES if consent else Why.RESTRICTED
    if Limit.REQUIRE_INTEREST in limits:
        return Why.YES if interest else Why.RESTRICTED
    return Why.YES if consent or interest else Why.NO_CONSENT


def _has(mask: int, purpose: int) -> bool:
    return bool(mask >> (24 - purpose) & 1)


def _decode(parts: list[str]) -> TcString:
    bits = Bits(parts[0])
    number, flag = bits.number, bits.flag
    if number(6) != 2:
        raise Malformed("not version 2")
    created, updated = number(36), number(36)
    cmp_id, cmp_version, screen = number(12), number(12), number(6)
    language = bits.letters()
    vendor_list, policy = number(12), number(6)
    service_specific, _own_texts = flag(), flag()
    special, consent, interest = number(12), number(24), number(24)
    one_treatment = flag()
    country = bits.letters()
    if cmp_id < LEAST_CMP or vendor_list == 0:
        raise Malformed("no consent management platform, or no vendor list")
    vendor_consent, vendor_interest = _vendors(bits), _vendors(bits)
    restrictions = tuple(each for _ in range(number(12)) for each in (_restriction(bits),))
    bits.end()
    disclosed, publisher = _segments(parts[1:])
    return TcString(
        created=Instant(created * _DECISECOND),
        updated=Instant(updated * _DECISECOND),
        cmp_id=cmp_id,
        cmp_version=cmp_version,
        screen=screen,
        language=language,
        vendor_list=vendor_list,
        policy=policy,
        service_specific=service_specific,
        special_features=special,
        purposes_consent=consent,
        purposes_interest=interest,
        purpose_one_treatment=one_treatment,
        publisher_country=country,
        vendor_consent=vendor_consent,
        vendor_interest=vendor_interest,
        restrictions=restrictions,
        disclosed=disclosed,
        publisher=publisher,
    )


def _vendors(bits: Bits) -> Vendors:
    last = bits.number(16)
    if not bits.flag():
        return Vendors(last, bits=bits.number(last))
    return Vendors(last, ranges=_ranges(bits, last))


def _ranges(bits: Bits, last: int) -> tuple[tuple[int, int], ...]:
    found = []
    for _ in range(bits.number(12)):
        ranged = bits.flag()
        first = bits.number(16)
        end = bits.number(16) if ranged else first
        if not 1 <= first <= end <= last:
            raise Malformed("a range of vendors that is none")
        found.append((first, end))
    return tuple(found)


def _restriction(bits: Bits) -> Restriction:
    purpose, limit = bits.number(6), bits.number(2)
    if not 1 <= purpose <= 24 or limit > Limit.REQUIRE_INTEREST:
        raise Malformed("a restriction of nothing known")
    return Restriction(purpose, Limit(limit), Vendors(0xFFFF, ranges=_ranges(bits, 0xFFFF)))


def _segments(parts: list[str]) -> tuple[Vendors | None, PublisherTc | None]:
    """Segments after the core, in any order, each kind once: 1 disclosed vendors, 2 allowed vendors, 3 publisher."""
    disclosed: Vendors | None = None
    publisher: PublisherTc | None = None
    seen = set()
    for part in parts:
        bits = Bits(part)
        kind = bits.number(3)
        if kind in seen:
            raise Malformed("a segment twice")
        seen.add(kind)
        if kind == 1:
            disclosed = _vendors(bits)
        elif kind == 2:
            _vendors(bits)  # out-of-band consent, which the framework has given up: read and not used
        elif kind == 3:
            publisher = _publisher(bits)
        else:
            raise Malformed("a segment of an unknown kind")
        bits.end()
    return disclosed, publisher


def _publisher(bits: Bits) -> PublisherTc:
    consent, interest, custom = bits.number(24), bits.number(24), bits.number(6)
    return PublisherTc(consent, interest, custom, bits.number(custom), bits.number(custom))
