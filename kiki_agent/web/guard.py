"""What stands before every handler: the Host and Origin checks, the token, and `not up yet`."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from aiohttp import web

from kiki_agent.web.auth import Gate, is_loopback
from kiki_agent.web.endpoint import Permission
from kiki_agent.web.problem import Problem

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


def check_host(request: web.Request, gate: Gate) -> None:
    """On a loopback listener refuse names that are not this machine's: a web page may have pointed its name here."""
    if not gate.loopback:
        return
    match = _HOST.fullmatch(request.headers.get("Host", ""))
    if match is None or not is_loopback(match.group(1)):
        raise Problem(403, "the Host header names another machine than this one", "HOST_NOT_ALLOWED")


def check_origin(request: web.Request) -> None:
    """Requests that change something must come from our own page when they come from a browser."""
    if request.method in ("GET", "HEAD"):
        return
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise Problem(403, "requests of other sites may not change anything", "ORIGIN_NOT_ALLOWED")
    origin = request.headers.get("Origin")
    if origin is not None and _netloc(origin) != request.headers.get("Host", "").lower():
        raise Problem(403, "requests of other sites may not change anything", "ORIGIN_NOT_ALLOWED")


def check_token(request: web.Request, gate: Gate, permission: Permission) -> None:
    """401 unless the route is open or the token fits."""
    if permission is Permission.OPEN or gate.admits(request):
        return
    raise Problem(
        401,
        "a token is needed: Authorization: Bearer <token> or X-API-Key: <token> (http.token of the configuration)",
        headers={"WWW-Authenticate": 'Bearer realm="kiki-agent"'},
    )


def _netloc(origin: str) -> str | None:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None
