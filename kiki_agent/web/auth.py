"""Who may call: one token until accounts exist, as Bearer, as X-API-Key, or as the cookie the sign-in form set.

The cookie holds a digest of the token, so that it opens this page and nothing else, and dies with the token.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress

from aiohttp import web

from kiki_agent.config import HttpSettings
from kiki_agent.errors import ConfigError, Finding

COOKIE = "kiki_session"


def is_loopback(host: str) -> bool:
    """True when nobody but this machine can reach a listener on this host."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Gate:
    """Checks the token; open on loopback when none is set."""

    def __init__(self, http: HttpSettings) -> None:
        token = http.token.get_secret_value() if http.token is not None else ""
        self.loopback = is_loopback(http.host)
        self.needs_token = bool(token)
        if not token and not self.loopback:
            raise ConfigError(
                [
                    Finding(
                        "web",
                        "http.token",
                        f"must be set when http.host is {http.host}: others than this machine can reach that address",
                    )
                ]
            )
        self._token = hashlib.sha256(token.encode()).digest()
        self.session = hmac.new(token.encode(), b"kiki-agent page session", hashlib.sha256).hexdigest()
        """What the page's cookie must hold."""

    def token_fits(self, given: str) -> bool:
        """Compare in constant time, whatever the length."""
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        return self.needs_token and hmac.compare_digest(digest, self._token)

    def admits(self, request: web.Request) -> bool:
        """True when the request carries the token in one of its three places, or none is needed."""
        if not self.needs_token:
            return True
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.token_fits(bearer.strip()):
            return True
        if self.token_fits(request.headers.get("X-API-Key", "")):
            return True
        cookie = request.cookies.get(COOKIE, "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(cookie, self.session.encode())
