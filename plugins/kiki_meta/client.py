"""Requests to the Graph API: token, proof, errors as types, usage headers; nothing about ad sets."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from kiki_agent import HttpAnswer, NoAnswer, PluginContext
from kiki_agent.errors import Rejected, Temporary, UnknownOutcome
from kiki_agent.model import Instant
from kiki_meta.config import MetaConfig
from kiki_meta.errors import error_of, meaning, usage_of

T = TypeVar("T")

GARBLED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Success(msgspec.Struct):
    success: bool


class MetaClient:
    """One account's way to the API; `context.http` underneath and nothing else."""

    def __init__(self, context: PluginContext[MetaConfig]) -> None:
        self._context = context
        self._config = context.config
        self._root = f"{self._config.base_url}/{self._config.api_version}"
        token = self._config.access_token.get_secret_value()
        self._headers = {"authorization": f"Bearer {token}"}
        secret = self._config.app_secret.get_secret_value()
        self._proof = hmac.new(secret.encode(), token.encode(), hashlib.sha256).hexdigest() if secret else ""

    async def read(self, path: str, shape: type[T], **params: str) -> T:
        """GET and decode. Raises Temporary, RateLimited, AuthExpired, Outdated, Rejected."""
        if self._proof:
            params["appsecret_proof"] = self._proof
        answer = await self._context.http.request(
            "GET", f"{self._root}/{path}", headers=self._headers, params=params, timeout_s=self._config.timeout_s
        )
        self._mind(answer)
        if answer.status != 200 or error_of(answer) is not None:
            raise meaning(answer, self._config.api_version, self._context.clock.now(), write=False)
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except GARBLED:
            raise Temporary(f"the answer of Meta is garbled ({len(answer.body)} bytes)") from None

    async def write(self, path: str, fields: Mapping[str, str]) -> None:
        """POST a form; returns when Meta says that it was done. UnknownOutcome whenever it may have been done.

        Raises Rejected NOT_SENT when the request certainly never left.
        """
        form = dict(fields)
        if self._context.dry_run:
            form["execution_options"] = '["validate_only"]'
        answer = await self._post(path, urlencode(form).encode(), "application/x-www-form-urlencoded")
        try:
            done = msgspec.json.decode(answer.body, type=_Success).success
        except GARBLED:
            raise UnknownOutcome(f"the answer of Meta is garbled ({len(answer.body)} bytes)") from None
        if not done:
            raise Rejected("Meta says that the change was not made", "NO_SUCCESS")

    async def post_json(self, path: str, body: object, shape: type[T]) -> T:
        """POST JSON and decode the answer; errors as `write`."""
        answer = await self._post(path, msgspec.json.encode(body), "application/json")
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except GARBLED:
            raise UnknownOutcome(f"the answer of Meta is garbled ({len(answer.body)} bytes)") from None

    async def _post(self, path: str, body: bytes, kind: str) -> HttpAnswer:
        params = {"appsecret_proof": self._proof} if self._proof else None
        try:
            answer = await self._context.http.request(
                "POST",
                f"{self._root}/{path}",
                headers={**self._headers, "content-type": kind},
                params=params,
                body=body,
                timeout_s=self._config.timeout_s,
            )
        except NoAnswer as error:
            if error.sent:
                raise UnknownOutcome(str(error)) from None
            raise Rejected(str(error), "NOT_SENT") from None
        self._mind(answer)
        if answer.status != 200 or error_of(answer) is not None:
            raise meaning(answer, self._config.api_version, self._context.clock.now(), write=True)
        return answer

    def _mind(self, answer: HttpAnswer) -> None:
        """Pass on how much of the quotas is in use."""
        usage, wait = usage_of(answer)
        if usage or wait:
            until = Instant(self._context.clock.now() + wait) if wait else None
            self._context.throttle(usage=usage, retry_at=until)
