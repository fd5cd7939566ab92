"""One form of text and one hash for every row that is chained. Neither ever changes: old rows must still verify."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

GENESIS = bytes(32)
"""What the first row's hash is chained to."""
KINDS = frozenset(
    {
        "genesis",
        "epoch",
        "decision",
        "intent",
        "receipt",
        "reallocation",
        "spend",
        "lease",
        "permit",
        "control",
        "consent",
        "conversion",
        "privacy",
        "external",
        "suggestion",
        "order",
        "would_have",
        "alert",
        "sealed",
        "dropped",
    }
)
"""Kinds of ledger entries."""

JsonValue = None | bool | int | str | list["JsonValue"] | tuple["JsonValue", ...] | Mapping[str, "JsonValue"]
"""What a hashed body may hold. No floats: their text is not the same everywhere, and money is not a float."""

_encode = msgspec.json.Encoder(order="sorted").encode


def canonical(body: Mapping[str, object]) -> bytes:
    """The canonical JSON of a body: sorted keys, no blanks, UTF-8. Raises ValueError naming a value it may not hold."""
    for key, value in body.items():
        kind = type(value)
        if kind is str or kind is int or kind is bool or value is None:
            continue
        _refuse_floats(value, key)
    return _encode(body)


def encode_checked(body: Mapping[str, str | int]) -> bytes:
    """The canonical JSON of a body whose type already says that it is flat and free of floats."""
    return _encode(body)


def _refuse_floats(value: object, place: str) -> None:
    if isinstance(value, str | int | None):
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{place}: keys of a ledger body are text, was {key!r}")
            _refuse_floats(inner, f"{place}.{key}")
        return
    if isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            _refuse_floats(inner, f"{place}[{position}]")
        return
    hint = "; give ratios as integer micros or decimal text" if isinstance(value, float) else ""
    raise ValueError(f"{place}: a ledger body cannot hold {type(value).__name__} {value!r}{hint}")


def entry_hash(previous: bytes, seq: int, at: int, kind: bytes, body: bytes) -> bytes:
    """SHA-256 of the previous hash and the row as it is stored: `seq|at|kind|body`.

    The first two are decimal numbers and the kind is of lower-case letters, so the text can be read in one way only.
    """
    return hashlib.sha256(previous + b"%d|%d|%b|%b" % (seq, at, kind, body)).digest()
