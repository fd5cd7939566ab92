"""Writes consent strings, for tests alone: from plain facts to the text, field by field."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kiki_agent.model import Instant

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def text_of(bits: str) -> str:
    """Whole bytes, then URL-safe base64 without padding."""
    bits += "0" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def number(value: int, width: int) -> str:
    """An unsigned number in so many bits."""
    return format(value, f"0{width}b")


def mask(numbers: Iterable[int], width: int) -> str:
    """One bit for each of 1 to width."""
    chosen = set(numbers)
    return "".join("1" if each in chosen else "0" for each in range(1, width + 1))


def letters(two: str) -> str:
    """Two letters in twelve bits."""
    return "".join(number(ord(each) - 65, 6) for each in two)


def ranges(vendors: Iterable[int]) -> str:
    """The number of entries and the entries, runs as ranges."""
    entries: list[tuple[int, int]] = []
    for each in sorted(set(vendors)):
        if entries and each == entries[-1][1] + 1:
            entries[-1] = (entries[-1][0], each)
        else:
            entries.append((each, each))
    out = number(len(entries), 12)
    for first, last in entries:
        out += "0" + number(first, 16) if first == last else "1" + number(first, 16) + number(last, 16)
    return out


def vendors(chosen: Iterable[int], *, ranged: bool = False, last: int | None = None) -> str:
    """A set of vendors in either encoding."""
    chosen = list(chosen)
    last = max(chosen, default=0) if last is None else last
    return number(last, 16) + ("1" + ranges(chosen) if ranged else "0" + mask(chosen, last))


@dataclass
class Tc:
    """The facts of one string; the defaults grant purposes 1 to 4 to vendor 755 under TCF 2.3."""

    created: Instant
    updated: Instant
    version: int = 2
    cmp_id: int = 31
    language: str = "EN"
    vendor_list: int = 120
    policy: int = 5
    service_specific: bool = True
    purposes: Sequence[int] = (1, 2, 3, 4)
    interests: Sequence[int] = ()
    purpose_one_treatment: bool = False
    country: str = "DE"
    vendor_consent: Sequence[int] = (2, 10, 755)
    vendor_interest: Sequence[int] = ()
    ranged: bool = False
    restrictions: Sequence[tuple[int, int, Sequence[int]]] = ()
    """Purpose, kind, vendors."""
    disclosed: Sequence[int] | None = (2, 10, 755, 800)
    publisher: bool = False
    allowed: Sequence[int] | None = None
    tail: str = ""
    order: Sequence[int] = field(default=(1, 2, 3))

    def core(self) -> str:
        """The core segment's bits."""
        out = number(self.version, 6) + number(self.created // 100_000, 36) + number(self.updated // 100_000, 36)
        out += number(self.cmp_id, 12) + number(1, 12) + number(1, 6) + letters(self.language)
        out += number(self.vendor_list, 12) + number(self.policy, 6)
        out += number(self.service_specific, 1) + "0" + mask((), 12) + mask(self.purposes, 24)
        out += mask(self.interests, 24) + number(self.purpose_one_treatment, 1) + letters(self.country)
        out += vendors(self.vendor_consent, ranged=self.ranged) + vendors(self.vendor_interest, ranged=self.ranged)
        out += number(len(self.restrictions), 12)
        for purpose, kind, whom in self.restrictions:
            out += number(purpose, 6) + number(kind, 2) + ranges(whom)
        return out + self.tail

    def text(self) -> str:
        """The whole string."""
        parts = {}
        if self.disclosed is not None:
            parts[1] = number(1, 3) + vendors(self.disclosed, ranged=self.ranged)
        if self.allowed is not None:
            parts[2] = number(2, 3) + vendors(self.allowed)
        if self.publisher:
            parts[3] = number(3, 3) + mask((1, 2), 24) + mask((), 24) + number(2, 6) + "10" + "00"
        return ".".join([text_of(self.core()), *(text_of(parts[each]) for each in self.order if each in parts)])


def fibonacci(value: int) -> str:
    """Fibonacci coding of a number of at least 1."""
    terms = [1, 2]
    while terms[-1] <= value:
        terms.append(terms[-1] + terms[-2])
    bits = []
    for term in reversed(terms[:-1]):
        bits.append("1" if term <= value else "0")
        value -= term if term <= value else 0
    return "".join(reversed(bits)).rstrip("0") + "1"


def gpp(sections: dict[int, str]) -> str:
    """A GPP string of these sections."""
    out, last = number(3, 6) + number(1, 6) + number(len(sections), 12), 0
    for each in sorted(sections):
        out += "0" + fibonacci(each - last)
        last = each
    out += "0" * (-len(out) % 6)
    header = "".join(ALPHABET[int(out[at : at + 6], 2)] for at in range(0, len(out), 6))
    return "~".join([header, *(sections[each] for each in sorted(sections))])
