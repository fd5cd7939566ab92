"""A second reading of TC strings, slow and plain, written apart from the decoder it judges.

It shares no code with `kiki_agent.consent`; both must say the same about every text.
"""

from __future__ import annotations

from tests.consent.encoder import ALPHABET

DAY = 86_400 * 10  # deciseconds
MARCH_2026 = 17_723_232_000  # 2026-03-01T00:00:00Z in deciseconds


class Wrong(Exception):
    """The text is no consent string."""


class Tape:
    """The text as a long word of 0 and 1."""

    def __init__(self, text: str) -> None:
        if not text or len(text) > 65_536 or any(each not in ALPHABET for each in text):
            raise Wrong
        self.word = "".join(format(ALPHABET.index(each), "06b") for each in text)

    def take(self, count: int) -> str:
        if len(self.word) < count:
            raise Wrong
        taken, self.word = self.word[:count], self.word[count:]
        return taken

    def whole(self, count: int) -> int:
        return int("0" + self.take(count), 2)

    def done(self) -> None:
        if len(self.word) >= 24 or "1" in self.word:
            raise Wrong


def entries(tape: Tape, last: int) -> set[int]:
    found: set[int] = set()
    for _ in range(tape.whole(12)):
        kind = tape.take(1)
        low = tape.whole(16)
        high = tape.whole(16) if kind == "1" else low
        if low == 0 or high < low or high > last:
            raise Wrong
        found.update(range(low, high + 1))
    return found


def listed(tape: Tape) -> set[int]:
    last = tape.whole(16)
    if tape.take(1) == "1":
        return entries(tape, last)
    return {place + 1 for place, each in enumerate(tape.take(last)) if each == "1"}


def says_yes(text: str, vendor: int, purposes: tuple[int, ...], now: int, interests: tuple[int, ...] = ()) -> bool:
    """Whether the text is a well-formed string that grants all of it; `now` in microseconds."""
    try:
        return _says_yes(text, vendor, purposes, now // 100_000, interests)
    except Wrong:
        return False


def _says_yes(text: str, vendor: int, purposes: tuple[int, ...], now: int, interests: tuple[int, ...]) -> bool:
    first, *others = text.split(".")
    core = Tape(first)
    if core.take(6) != "000010":
        raise Wrong
    made, changed = core.whole(36), core.whole(36)
    manager = core.whole(12)
    core.take(18)
    language = (core.whole(6), core.whole(6))
    listing, policy = core.whole(12), core.whole(6)
    own = core.take(1) == "1"
    core.take(13)
    agreed, claimed = core.take(24), core.take(24)
    hidden = core.take(1) == "1"
    country = (core.whole(6), core.whole(6))
    if manager < 2 or listing < 1 or max(language + country) > 25:
        raise Wrong
    consenting, claiming = listed(core), listed(core)
    limits: dict[int, set[int]] = {}
    for _ in range(core.whole(12)):
        purpose, kind = core.whole(6), core.whole(2)
        whom = entries(core, 65_535)
        if not 1 <= purpose <= 24 or kind == 3:
            raise Wrong
        if vendor in whom:
            limits.setdefault(purpose, set()).add(kind)
    core.done()
    shown: set[int] | None = None
    kinds = []
    if len(others) > 3:
        raise Wrong
    for each in others:
        tape = Tape(each)
        kind = tape.whole(3)
        kinds.append(kind)
        if kind in (1, 2):
            found = listed(tape)
            shown = found if kind == 1 else shown
        elif kind == 3:
            tape.take(48)
            tape.take(2 * tape.whole(6))
        else:
            raise Wrong
        tape.done()
    if len(set(kinds)) != len(kinds):
        raise Wrong
    if policy not in (4, 5) or not own or made > changed or changed > now + DAY or now - changed > 395 * DAY:
        return False
    if shown is None and (policy == 5 or changed >= MARCH_2026):
        return False
    if shown is not None and vendor not in shown:
        return False
    for purpose in purposes:
        consent = agreed[purpose - 1] == "1" and vendor in consenting and not (purpose == 1 and hidden)
        claim = (
            purpose in interests
            and purpose in (2, 7, 8, 9, 10, 11)
            and claimed[purpose - 1] == "1"
            and vendor in claiming
        )
        limit = limits.get(purpose, set())
        if len(limit) > 1 or 0 in limit:
            return False
        if not {(): consent or claim, (1,): consent, (2,): claim}[tuple(limit)]:
            return False
    return bool(purposes)
