"""`Idempotency-Key`: a repeated request gets the first one's answer and does nothing again.

Kept in memory, the newest thousand; what reaches a platform is guarded beyond a restart by the key of its intent.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from pydantic import BaseModel

from kiki_agent.web.problem import FieldProblem, Problem

HEADER = "Idempotency-Key"
KEPT = 1_000
_KEY = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(slots=True)
class _Kept:
    fingerprint: bytes
    status: int = 0
    """0 while the first request is under way."""
    body: bytes = b""
    content_type: str = ""


class Once:
    """The answers of requests that carried a key."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def answer(
        self, request: web.Request, given: BaseModel, make: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """The first answer of this key, or a new one. 409 when the key came with another body, or is under way."""
        key = request.headers.get(HEADER)
        if key is None:
            return await make()
        if not _KEY.fullmatch(key):
            message = "must be 1 to 128 printable characters"
            raise Problem(422, f"{HEADER}: {message}", fields=[FieldProblem(HEADER, message)])
        fingerprint = hashlib.sha256(given.model_dump_json().encode("utf-8", "replace")).digest()
        place = (request.path, key)
        known = self._kept.get(place)
        if known is not None:
            return _again(known, fingerprint)
        kept = self._kept[place] = _Kept(fingerprint)
        try:
            response = await make()
        except BaseException:
            del self._kept[place]
            raise
        if isinstance(response, web.Response) and isinstance(response.body, bytes):
            kept.status, kept.body, kept.content_type = response.status, response.body, response.content_type
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return response


def _again(known: _Kept, fingerprint: bytes) -> web.Response:
    if known.fingerprint != fingerprint:
        raise Problem(409, f"this {HEADER} came with another body before", "IDEMPOTENCY_KEY_REUSED")
    if known.status == 0:
        raise Problem(409, "the first request with this key is still under way", "STILL_UNDER_WAY")
    return web.Response(status=known.status, body=known.body, content_type=known.content_type)
