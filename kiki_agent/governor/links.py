"""Signed one-use links: whoever holds one may decide one suggestion, until it expires or is decided."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kiki_agent.model import SECOND, Instant

Verb = Literal["approve", "decline"]
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Pass:
    """What a link allows."""

    suggestion_id: str
    verb: Verb
    expires_at: Instant


def sign(key: bytes, suggestion_id: str, verb: Verb, expires_at: Instant) -> str:
    """The token of a link: id, verb, expiry and their HMAC-SHA256."""
    text = f"{suggestion_id}.{verb}.{expires_at // SECOND}"
    return f"{text}.{_digest(key, text)}"


def read(key: bytes, token: str, now: Instant) -> Pass | None:
    """What a token allows, or None for one that was not signed here or has expired."""
    parts = token.split(".")
    if len(parts) != 4 or not token.isascii():
        return None
    text = ".".join(parts[:3])
    if not hmac.compare_digest(parts[3], _digest(key, text)):
        return None
    name, verb, seconds = parts[:3]
    expires = Instant(int(seconds) * SECOND)  # signed here, so it is a number
    if now >= expires:
        return None
    return Pass(name, "approve" if verb == "approve" else "decline", expires)


def load_key(path: Path, fresh: bytes) -> bytes:
    """The key in a file that only its owner reads; `fresh` becomes the key where there is none. Raises OSError."""
    import os

    if len(fresh) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        kept = path.read_bytes()
        if len(kept) != KEY_BYTES:
            raise OSError(f"{path} holds no key; remove it, and links given out before lose their use") from None
        return kept
    try:
        os.write(descriptor, fresh)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return fresh


def _digest(key: bytes, text: str) -> str:
    return hmac.new(key, f"kiki-agent approval\x1f{text}".encode(), hashlib.sha256).hexdigest()
