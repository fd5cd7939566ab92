"""Mutated consent strings: no crash, and no yes that the text does not say. `python -m tests.consent.fuzz 1000000`.

Two families of texts, half each. *Refusals* say no to our vendor by several facts at once (no purposes, not disclosed,
not in any list): not one mutation of one may be a yes. *Grants* say yes: after a mutation the decoder may say yes only
where a second, separate strict reading of the mutated text says yes too, and the other way round.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable

from kiki_agent.consent.gpp import judge_any
from kiki_agent.consent.tcf import Ask, Why
from kiki_agent.model import DAY, Instant, parse_iso
from tests.consent.encoder import ALPHABET, Tc, gpp
from tests.consent.reference import says_yes

NOW = parse_iso("2026-03-10T12:00:00Z")
MADE = Instant(NOW - 5 * DAY)
OLD = Instant(NOW - 20 * DAY)
VENDOR = 755
ASK = Ask(VENDOR, (1, 3, 4))
NOISE = ALPHABET + ".~=+/ %\x00\n\u00e9\u0661\U0001f600"


def grants() -> list[str]:
    """Strings that say yes, in all encodings."""
    return [
        Tc(MADE, MADE).text(),
        Tc(MADE, MADE, ranged=True).text(),
        Tc(MADE, MADE, vendor_consent=range(1, 900), disclosed=range(1, 900), publisher=True).text(),
        Tc(MADE, MADE, vendor_consent=range(2, 900, 3), disclosed=(754, 755), ranged=True).text(),
        Tc(OLD, OLD, policy=4, disclosed=None).text(),
        Tc(MADE, MADE, restrictions=((2, 0, (755,)), (3, 1, range(700, 800))), publisher=True).text(),
        Tc(MADE, MADE, allowed=(1, 2), publisher=True, order=(3, 2, 1)).text(),
    ]


def refusals() -> list[str]:
    """Strings that say no to our vendor by several facts at once."""
    base = {"purposes": (), "vendor_consent": (2, 10), "disclosed": (2, 10)}
    return [
        Tc(MADE, MADE, **base).text(),
        Tc(MADE, MADE, ranged=True, **base).text(),
        Tc(MADE, MADE, publisher=True, interests=(2, 7), vendor_interest=(2,), **base).text(),
        Tc(OLD, OLD, policy=4, purposes=(2,), vendor_consent=(9, 11), disclosed=(9,)).text(),
        Tc(MADE, MADE, purposes=(), vendor_consent=(1,), restrictions=((1, 0, (755,)), (3, 0, (755,)))).text(),
    ]


def mutate(text: str, dice: random.Random) -> str:
    """One to four changes: of a letter, a bit, a place, a length, a segment."""
    for _ in range(dice.choice((1, 1, 1, 2, 3, 4))):
        at = dice.randrange(len(text) + 1)
        kind = dice.randrange(9)
        if kind == 0:
            text = text[:at] + dice.choice(ALPHABET) + text[at + 1 :]
        elif kind == 1:
            text = text[:at] + dice.choice(NOISE) + text[at + 1 :]
        elif kind == 2:
            text = text[:at] + text[at + dice.randrange(1, 4) :]
        elif kind == 3:
            text = text[:at] + dice.choice(NOISE) + text[at:]
        elif kind == 4:
            text = text[:at] if dice.random() < 0.5 else text + dice.choice(("A", "AA", "AAAA", "AAAAA", ".", "B"))
        elif kind == 5 and text[at : at + 1] in ALPHABET and at < len(text):
            text = text[:at] + ALPHABET[ALPHABET.index(text[at]) ^ (1 << dice.randrange(6))] + text[at + 1 :]
        elif kind == 6:
            parts = text.split(".")
            parts.insert(dice.randrange(len(parts) + 1), dice.choice(parts))
            text = ".".join(parts)
        elif kind == 7:
            parts = text.split(".")
            dice.shuffle(parts)
            text = ".".join(parts[: dice.randrange(1, len(parts) + 1)])
        elif kind == 8 and at + 1 < len(text):
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text


def run(count: int, seed: int = 1, show: Callable[[int, Counter[str]], None] | None = None) -> Counter[str]:
    """Mutate `count` strings; what was said, by family. Raises AssertionError naming the text and the seed."""
    dice = random.Random(seed)
    yes, no = grants(), refusals()
    assert all(judge_any(each, ASK, NOW) is Why.YES and says_yes(each, VENDOR, ASK.purposes, NOW) for each in yes)
    assert not any(judge_any(each, ASK, NOW) is Why.YES for each in no)
    said: Counter[str] = Counter()
    for turn in range(count):
        family, texts = ("refusal", no) if turn % 2 else ("grant", yes)
        wrapped = turn % 16 > 13
        original = dice.choice(texts)
        text = mutate(gpp({2: original, 6: "1YNN"}) if wrapped else original, dice)
        why = judge_any(text, ASK, NOW)
        said[f"{family} {why.value}"] += 1
        if family == "refusal":
            assert why is not Why.YES, f"a refusal became a yes (seed {seed}, turn {turn}): {text!r}"
        elif not wrapped and not text.startswith("D"):
            expected = says_yes(text, VENDOR, ASK.purposes, NOW)
            assert (why is Why.YES) == expected, f"{why} against {expected} (seed {seed}, turn {turn}): {text!r}"
        elif why is Why.YES:
            assert any(says_yes(part, VENDOR, ASK.purposes, NOW) for part in text.split("~")), text
        if show is not None and turn % 10_000 == 9_999:
            show(turn + 1, said)
    return said


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    found = run(
        wanted,
        int(sys.argv[2]) if len(sys.argv) > 2 else 1,
        lambda done, said: print(f"\r{done:>9,} of {wanted:,}", end="", file=sys.stderr, flush=True),
    )
    print(file=sys.stderr)
    for name, times in sorted(found.items()):
        print(f"{name:<36}{times:>10,}")
    print(f"{wanted:,} mutations, no crash, no yes without consent")
