"""The page's files: read once from the package, served by name with an ETag, never from a path a caller gives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import web

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    body: bytes
    content_type: str
    etag: str


def load() -> dict[str, Asset]:
    """All files of the page, by name."""
    found = {}
    for entry in files("kiki_agent.web").joinpath("page").iterdir():
        suffix = entry.name[entry.name.rfind(".") :]
        if suffix in _TYPES:
            body = entry.read_bytes()
            found[entry.name] = Asset(body, _TYPES[suffix], hashlib.sha256(body).hexdigest()[:24])
    return found


def serve(request: web.Request, asset: Asset, policy: str) -> web.Response:
    """The file, or 304 when the browser has it."""
    headers = {"ETag": f'"{asset.etag}"', "Cache-Control": "no-cache", "Content-Security-Policy": policy}
    known = request.if_none_match or ()
    if any(each.value == asset.etag for each in known):
        return web.Response(status=304, headers=headers)
    return web.Response(body=asset.body, content_type=asset.content_type, charset="utf-8", headers=headers)
