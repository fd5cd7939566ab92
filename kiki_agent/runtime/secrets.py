"""Keeping secrets out of everything that is written: logs, status answers, error texts.

Two nets: values registered as secret are replaced wherever they appear, and anything under a telling name (token,
password, authorization ...) is replaced whatever its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "***"
_SHORTEST = 6
"""Shorter values are not replaced in running text: they stand in plain words too, and protect nothing."""

_NAMES = r"password|passwd|secret|token|authorization|api[_-]?key|access[_-]?key|private[_-]?key|credential|cookie"
_secret_name = re.compile(_NAMES, re.IGNORECASE)
_counting_name = re.compile(r"^(?:max_|min_)?tokens(?:_\w+)?$", re.IGNORECASE)
_in_text = re.compile(
    rf"""(?P<name>[\w-]*(?:{_NAMES})[\w-]*["']?\s*[=:]\s*["']?)(?P<scheme>(?:bearer|basic)\s+)?(?P<value>[^\s"'&,;)}}\]]+)"""
    r"|(?P<bare>\b(?:bearer|basic)\s+)(?P<credential>[A-Za-z0-9._~+/=-]{8,})"
    r"|(?P<user>://[^\s/:@]*:)[^\s/@]+(?=@)",
    re.IGNORECASE,
)
_word = re.compile(r"[a-z]{1,14}")
_values: list[str] = []


def register_secret(value: str) -> None:
    """Replace this value from now on wherever it would be written. Values under six characters are ignored."""
    if len(value) >= _SHORTEST and value not in _values:
        _values.append(value)
        _values.sort(key=len, reverse=True)


def forget_secrets() -> None:
    """Empty the list of registered values; for tests."""
    _values.clear()


def is_secret_name(name: str) -> bool:
    """Whether what stands under this name is secret by its name alone."""
    return _secret_name.search(name) is not None and _counting_name.match(name) is None


def mask_text(text: str) -> str:
    """The text without registered secrets, `name=secret` pairs, bearer tokens and passwords in addresses."""
    for value in _values:
        if value in text:
            text = text.replace(value, MASK)
    return _in_text.sub(_masked, text)


def mask(value: object, depth: int = 6) -> object:
    """The value with every secret replaced, as plain data that JSON can carry; deeper levels become text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return mask_text(value)
    if depth == 0:
        return mask_text(str(value))
    if isinstance(value, Mapping):
        return {
            mask_text(str(key)): MASK if item and is_secret_name(str(key)) else mask(item, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [mask(item, depth - 1) for item in value]
    return mask_text(str(value))


def _is_prose(found: re.Match[str]) -> bool:
    """Whether a match is plain words: `/token: cannot connect` after an address, or `a basic connector`.

    Both only where the supposed secret is one short word of small letters, which no token of a vendor is.
    """
    if found["bare"]:
        return found["bare"].islower() and _word.fullmatch(found["credential"]) is not None
    if found["user"] or found["scheme"]:
        return False
    in_address = found.string[: found.start()].endswith("/") and found["name"].endswith(": ")
    return in_address and _word.fullmatch(found["value"]) is not None


def _masked(found: re.Match[str]) -> str:
    if _is_prose(found):
        return found[0]
    kept = found["name"] or found["bare"] or found["user"] or ""
    return f"{kept}{found['scheme'] or ''}{MASK}"
