"""IAB GPP strings: which sections they hold, and the European one handed to `tcf`. Pure and total.

The header is `type 3, version 1` and the ids of the sections in Fibonacci coding (IAB Tech Lab, "Global Privacy
Platform: consent string specification"); the sections follow, divided by `~`, in the order of the ids.
"""

from __future__ import annotations

from dataclasses import dataclass

from kiki_agent.consent.bits import MOST_CHARACTERS, Bits, Malformed
from kiki_agent.consent.tcf import Ask, Why, judge
from kiki_agent.model import Instant

TCF_EU = 2
SECTIONS = {
    2: "tcfeuv2",
    5: "tcfcav1",
    6: "uspv1",
    7: "usnat",
    8: "usca",
    9: "usva",
    10: "usco",
    11: "usut",
    12: "usct",
    13: "usfl",
    14: "usmt",
    15: "usor",
    16: "ustx",
    17: "usde",
    18: "usia",
    19: "usne",
    20: "usnh",
    21: "usnj",
    22: "ustn",
    23: "usmn",
    24: "usmd",
    25: "usin",
    26: "usky",
    27: "usri",
}
"""Ids of known sections. Only `tcfeuv2` is a basis here; the others are known by name and give none."""
MOST_SECTIONS = 64


@dataclass(frozen=True, slots=True)
class GppString:
    """The sections of a string, by id."""

    sections: dict[int, str]

    @property
    def names(self) -> list[str]:
        """Their names; `section <id>` for one that is not known."""
        return [SECTIONS.get(each, f"section {each}") for each in self.sections]


def decode(text: object) -> GppString | None:
    """The sections, or None for whatever is not exactly a GPP string. Never raises."""
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        return None
    header, *rest = text.split("~", MOST_SECTIONS)
    try:
        ids = _ids(Bits(header))
    except Malformed:
        return None
    if len(ids) != len(rest) or not all(rest):
        return None
    return GppString(dict(zip(ids, rest, strict=True)))


def judge_any(text: object, ask: Ask, now: Instant) -> Why:
    """Whether a TC string or a GPP string is a legal basis; never raises on any text.

    A GPP string without the European section is no basis, whatever its other sections say.
    """
    if not isinstance(text, str) or text[:1] != "D":
        return judge(text, ask, now)
    found = decode(text)
    if found is None:
        return Why.MALFORMED
    section = found.sections.get(TCF_EU)
    return Why.NO_SECTION if section is None else judge(section, ask, now)


def _ids(bits: Bits) -> list[int]:
    if bits.number(6) != 3 or bits.number(6) != 1:
        raise Malformed("not a GPP header of version 1")
    ids: list[int] = []
    last = 0
    for _ in range(bits.number(12)):
        ranged = bits.flag()
        first = last + bits.fibonacci()
        last = first + bits.fibonacci() if ranged else first
        if last - first >= MOST_SECTIONS or len(ids) >= MOST_SECTIONS:
            raise Malformed("more sections than there are")
        ids += range(first, last + 1)
    bits.end()
    return ids
