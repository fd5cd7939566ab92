"""Access tokens that need no memory: an expiry and a signature, valid across restarts of the sandbox."""

from __future__ import annotations

import hashlib
import hmac

from kiki_agent.model import HOUR, SECOND, Instant

LIFETIME = HOUR


class Tokens:
    """Issues and checks bearer tokens for one pair of client credentials."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        self._client_id, self._secret = client_id, client_secret
        self._known: tuple[str, int] = ("", 0)

    def issue(self, client_id: str, client_secret: str, now: Instant) -> tuple[str, int] | None:
        """A token and its life in seconds; None for wrong credentials."""
        right_id = hmac.compare_digest(client_id.encode(), self._client_id.encode())
        right_secret = hmac.compare_digest(client_secret.encode(), self._secret.encode())
        if not (right_id and right_secret):
            return None
        expires = now + LIFETIME
        return f"sbx.{expires}.{self._sign(expires)}", LIFETIME // SECOND

    def valid(self, header: str, now: Instant) -> bool:
        """True when an Authorization header carries a token that has not expired."""
        known, expires = self._known
        if header != known or not known:
            scheme, _, token = header.partition(" ")
            parts = token.split(".")
            if scheme.lower() != "bearer" or len(parts) != 3 or parts[0] != "sbx" or not parts[1].isdecimal():
                return False
            if not parts[1].isascii() or len(parts[1]) > 18:
                return False
            expires = int(parts[1])
            if not hmac.compare_digest(parts[2].encode("utf-8", "surrogateescape"), self._sign(expires).encode()):
                return False
            self._known = (header, expires)
        return now < expires

    def _sign(self, expires: int) -> str:
        return hashlib.blake2b(str(expires).encode(), key=self._secret.encode()[:64], digest_size=12).hexdigest()
