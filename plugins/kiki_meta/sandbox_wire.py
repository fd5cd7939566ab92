"""What comes over the wire to the stand-in, and its refusals: parameters, forms, JSON, numbers, the error envelope."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec

LARGEST_MINOR = 10**11


class Problem(Exception):
    """A request that gets an error."""

    def __init__(
        self, code: int, message: str, *, status: int = 400, subcode: int = 0, transient: bool = False
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.subcode, self.transient = code, message, status, subcode, transient

    def body(self, number: int) -> bytes:
        """The envelope every error of the Graph API comes in."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": "OAuthException",
            "code": self.code,
            "fbtrace_id": f"trace{number}",
        }
        if self.subcode:
            error["error_subcode"] = self.subcode
        if self.transient:
            error["is_transient"] = True
        return msgspec.json.encode({"error": error})


@lru_cache(maxsize=256)
def _pairs(query: str) -> tuple[tuple[str, str], ...]:
    return tuple(parse_qsl(query, keep_blank_values=True))


def parameters(query: str) -> dict[str, str]:
    """Query or form by name. Raises Problem for a name that comes twice."""
    pairs = _pairs(query)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Problem(100, "A parameter is given twice")
    return found


def only(given: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raises Problem for a name that is not known."""
    for name in given:
        if name not in known:
            raise Problem(100, f"Unknown parameter: {name[:60]}")


def body_of(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The fields of a form or a JSON object."""
    kind = headers.get("content-type", "").split(";")[0].strip()
    if kind == "application/json":
        found = decoded(body, "The body")
        if not isinstance(found, dict):
            raise Problem(100, "The body is no JSON object.")
        return found
    if kind != "application/x-www-form-urlencoded":
        raise Problem(100, "The content type must be a form or JSON.")
    try:
        return dict(parameters(body.decode("ascii")))
    except UnicodeDecodeError:
        raise Problem(100, "The body is no form.") from None


def decoded(given: bytes | str, name: str) -> Any:
    """JSON inside a request."""
    try:
        return msgspec.json.decode(given)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Problem(100, f"(#100) {name} is no JSON") from None


def number(text: str, name: str, least: int, most: int) -> int:
    """A whole number in a query."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 12 or not least <= int(text) <= most:
        raise Problem(100, f"(#100) Param {name} must be a number from {least} to {most}")
    return int(text)


def whole(given: Any, name: str) -> int:
    """An unsigned integer; in a form it is text, in JSON a number."""
    text = str(given)
    if isinstance(given, bool) or not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise Problem(100, f"(#100) Param {name} must be an integer")
    if int(text) > LARGEST_MINOR:
        raise Problem(100, f"(#100) Param {name} is too large")
    return int(text)


def word(given: Any, known: tuple[str, ...] | frozenset[str], name: str) -> str:
    """One word of an enumeration."""
    if not isinstance(given, str) or given not in known:
        raise Problem(100, f"(#100) Param {name} must be one of {{{', '.join(sorted(known))}}}")
    return given
