"""Reading bits of the text form that consent strings have. A text that is none raises `Malformed`, nothing else."""

from __future__ import annotations

import base64
import re

MOST_CHARACTERS = 65_536
"""A longer string is refused unread: the largest lists of vendors need less than a third of it."""
_ALPHABET = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_PADDING = 24
"""Encoders fill up to whole characters, bytes, or groups of four characters; never more zero bits than this."""


class Malformed(Exception):
    """The text is not what it must be. Never leaves this package."""


class Bits:
    """A text of URL-safe base64 without padding, read from its first bit to its last."""

    __slots__ = ("_data", "_end", "_place")

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS or _ALPHABET.fullmatch(text) is None:
            raise Malformed("not URL-safe base64")
        self._data = base64.urlsafe_b64decode(text + "A" * (-len(text) % 4))
        self._end = 6 * len(text)
        self._place = 0

    def number(self, width: int) -> int:
        """The next `width` bits as an unsigned number. Raises Malformed past the end."""
        first = self._place
        last = first + width
        if last > self._end:
            raise Malformed("ends too early")
        self._place = last
        after = (last + 7) >> 3
        found = int.from_bytes(self._data[first >> 3 : after], "big") >> ((after << 3) - last)
        return found & ((1 << width) - 1)

    def flag(self) -> bool:
        """The next bit."""
        return self.number(1) == 1

    def letters(self) -> str:
        """Two letters of six bits each, A to Z. Raises Malformed."""
        first, second = self.number(6), self.number(6)
        if first > 25 or second > 25:
            raise Malformed("not two letters")
        return chr(65 + first) + chr(65 + second)

    def fibonacci(self) -> int:
        """A number of at least 1 in Fibonacci coding: terms 1, 2, 3, 5 ... by rising place, ended by two ones."""
        total, term, following, before = 0, 1, 2, False
        for _ in range(24):  # 2^16 identifiers need 23 bits
            one = self.flag()
            if one and before:
                return total
            if one:
                total += term
            before = one
            term, following = following, term + following
        raise Malformed("a Fibonacci number without an end")

    def end(self) -> None:
        """After the last field: nothing but a little padding of zeros may follow. Raises Malformed."""
        left = self._end - self._place
        if left >= _PADDING or (left and self.number(left)):
            raise Malformed("more than its fields")
