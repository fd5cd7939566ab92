"""Requests to the vendor API: token, errors as types, nothing about campaigns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from kiki_agent import HttpAnswer, NoAnswer, PluginContext
from kiki_agent.errors import AuthExpired, PluginError, RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.model import SECOND, Instant
from kiki_sandbox.config import SandboxConfig
from kiki_sandbox.mapping import ErrorBody, TokenBody

T = TypeVar("T")

EARLY = 60 * SECOND
"""A token is renewed this long before it expires."""
PATIENCE = 30 * SECOND
"""Wait after a 429 that does not say how long."""
GARBLED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not what they should be."""

STATUS_ERRORS: Mapping[int, type[PluginError]] = {
    400: Rejected,
    403: AuthExpired,
    404: Rejected,
    405: Rejected,
    413: Rejected,
}
"""What a status means when the request was certainly refused; see also `_judge`."""


class SandboxClient:
    """One instance's way to the API; `ctx.http` underneath and nothing else."""

    def __init__(self, context: PluginContext[SandboxConfig]) -> None:
        self._context = context
        self._config = context.config
        self._token = ""
        self._renew_at = Instant(0)
        self._renewing = asyncio.Lock()

    async def read(self, path: str, shape: type[T], **params: str) -> T:
        """GET and decode. Raises Temporary, RateLimited, AuthExpired, Rejected."""
        answer = await self._authorised("GET", path, params, None)
        self._judge(answer, write=False)
        return self._decoded(answer, shape)

    async def write(self, path: str, body: bytes, shape: type[T], keys: tuple[str, ...]) -> T:
        """POST and decode. Raises UnknownOutcome with the keys whenever the change may have been made."""
        try:
            answer = await self._authorised("POST", path, {}, body)
            self._judge(answer, write=True)
        except UnknownOutcome as error:
            raise UnknownOutcome(str(error), keys) from None
        except NoAnswer as error:
            if not error.sent:
                raise
            raise UnknownOutcome(str(error), keys) from None
        try:
            return self._decoded(answer, shape)
        except (RateLimited, AuthExpired, Rejected):
            raise
        except Temporary as error:
            raise UnknownOutcome(str(error), keys) from None

    async def authorise(self) -> str:
        """A valid access token, fetched when there is none or it is about to expire."""
        if self._token and self._context.clock.now() < self._renew_at:
            return self._token
        async with self._renewing:
            now = self._context.clock.now()
            if self._token and now < self._renew_at:
                return self._token
            answer = await self._ask_for_token()
            if answer.status == 401:
                raise AuthExpired("the sandbox refuses client_id and client_secret")
            self._judge(answer, write=False)
            body = self._decoded(answer, TokenBody)
            self._token = body.access_token
            self._renew_at = Instant(now + max(0, body.expires_in * SECOND - EARLY))
            return self._token

    async def _ask_for_token(self) -> HttpAnswer:
        grant = {
            "grant_type": "client_credentials",
            "client_id": self._config.client_id,
            "client_secret": self._config.client_secret.get_secret_value(),
        }
        try:
            return await self._send("POST", "/token", {}, msgspec.json.encode(grant), {})
        except NoAnswer as error:
            # asking for a token changes nothing, so for the caller the real request was never sent
            raise NoAnswer(str(error), sent=False) from None

    async def _authorised(self, method: str, path: str, params: Mapping[str, str], body: bytes | None) -> HttpAnswer:
        token = await self.authorise()
        answer = await self._send(method, path, params, body, {"authorization": f"Bearer {token}"})
        if answer.status != 401:
            return answer
        if self._token == token:
            self._token = ""
        token = await self.authorise()
        answer = await self._send(method, path, params, body, {"authorization": f"Bearer {token}"})
        if answer.status == 401:
            raise AuthExpired("the sandbox refuses a token it has just issued")
        return answer

    async def _send(
        self, method: str, path: str, params: Mapping[str, str], body: bytes | None, headers: Mapping[str, str]
    ) -> HttpAnswer:
        if body is not None:
            headers = {**headers, "content-type": "application/json"}
        return await self._context.http.request(
            method,
            self._config.base_url + path,
            headers=headers,
            params=params or None,
            body=body,
            timeout_s=self._config.timeout_s,
        )

    def _judge(self, answer: HttpAnswer, *, write: bool) -> None:
        """Raise what a status other than 200 means."""
        status = answer.status
        if status == 200:
            return
        code, message = _error_of(answer)
        text = f"sandbox answered {status} {code}: {message}"
        now = self._context.clock.now()
        retry_at = answer.retry_at(now)
        if status == 429 or (status == 503 and retry_at is not None):
            raise RateLimited(text, retry_at if retry_at is not None else now + PATIENCE)
        kind = STATUS_ERRORS.get(status)
        if kind is Rejected:
            raise Rejected(text, code)
        if kind is not None:
            raise kind(text)
        if write:
            raise UnknownOutcome(text)
        raise Temporary(text)

    def _decoded(self, answer: HttpAnswer, shape: type[T]) -> T:
        """The body as this shape, unless it says inside that it failed."""
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except GARBLED:
            code, message = _error_of(answer)
        if code:
            raise Temporary(f"sandbox answered 200, but failed with {code}: {message}")
        raise Temporary(f"the sandbox's answer is garbled ({len(answer.body)} bytes)")


def _error_of(answer: HttpAnswer) -> tuple[str, str]:
    """Code and message of an error body; empty when it is none."""
    try:
        error = msgspec.json.decode(answer.body, type=ErrorBody).error
    except GARBLED:
        return "", ""
    return error.code, error.message
