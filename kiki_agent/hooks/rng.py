"""Chance that repeats: numbers that depend on a seed and on what they are about, never on who asked first."""

from __future__ import annotations

import hashlib
from typing import Final

_WORDS_PER_BLOCK: Final = 8
_TWO_53: Final = 1 << 53


class Rng:
    """An endless stream of numbers, a pure function of (seed, entity).

    SHA-512 in counter mode over the seed and the length-prefixed parts of the entity; the same on every machine, Python
    version and PYTHONHASHSEED. Not for secrets.
    """

    __slots__ = ("_block", "_counter", "_key", "_next")

    def __init__(self, seed: int, *entity: str | int) -> None:
        parts = [str(seed), *(f"{type(part).__name__}:{part}" for part in entity)]
        text = "".join(f"{len(part)}:{part}" for part in parts)
        self._key = hashlib.sha512(text.encode()).digest()
        self._counter = 0
        self._block = b""
        self._next = _WORDS_PER_BLOCK

    def word(self) -> int:
        """A uniform integer in [0, 2**64)."""
        if self._next == _WORDS_PER_BLOCK:
            self._block = hashlib.sha512(self._key + self._counter.to_bytes(8, "big")).digest()
            self._counter += 1
            self._next = 0
        start = 8 * self._next
        self._next += 1
        return int.from_bytes(self._block[start : start + 8], "big")

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound), 0 < bound <= 2**64, without bias. Raises ValueError outside of that."""
        if not 0 < bound <= 1 << 64:
            raise ValueError(f"bound must be between 1 and 2**64, not {bound}")
        limit = (1 << 64) - (1 << 64) % bound
        while True:
            word = self.word()
            if word < limit:
                return word % bound

    def uniform(self) -> float:
        """A uniform float in [0, 1) with 53 random bits."""
        return (self.word() >> 11) / _TWO_53
