"""Requests to the Google Ads REST API: access token, headers, errors as types; nothing about campaigns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from kiki_agent import HttpAnswer, NoAnswer, PluginContext
from kiki_agent.errors import AuthExpired, Rejected, Temporary, UnknownOutcome
from kiki_agent.model import SECOND, Instant
from kiki_google_ads.config import GoogleAdsConfig
from kiki_google_ads.errors import is_expired, meaning

T = TypeVar("T")

EARLY = 60 * SECOND
"""A token is renewed this long before it expires."""
GARBLED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Token(msgspec.Struct):
    access_token: str
    expires_in: int = 3_600


class _OAuthError(msgspec.Struct):
    error: str = ""


class GoogleAdsClient:
    """One account's way to the API; `context.http` underneath and nothing else."""

    def __init__(self, context: PluginContext[GoogleAdsConfig]) -> None:
        self._context = context
        self._config = context.config
        self._root = f"{self._config.base_url}/{self._config.api_version}/customers/{self._config.customer}"
        self._token = ""
        self._renew_at = Instant(0)
        self._renewing = asyncio.Lock()

    async def read(self, path: str, body: object, shape: type[T]) -> T:
        """POST a query and decode the answer. Raises Temporary, RateLimited, AuthExpired, Outdated, Rejected."""
        answer = await self._authorised(path, msgspec.json.encode(body))
        if answer.status != 200:
            raise meaning(answer, self._config.api_version, self._context.clock.now(), write=False)
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except GARBLED:
            raise Temporary(f"the answer of Google Ads is garbled ({len(answer.body)} bytes)") from None

    async def write(self, path: str, body: object, shape: type[T]) -> T:
        """POST a change and decode the answer; UnknownOutcome whenever the change may have been made.

        Raises Rejected NOT_SENT when the request certainly never left.
        """
        try:
            answer = await self._authorised(path, msgspec.json.encode(body))
        except NoAnswer as error:
            if error.sent:
                raise UnknownOutcome(str(error)) from None
            raise Rejected(str(error), "NOT_SENT") from None
        except Temporary as error:  # of the token: the change itself was never sent
            raise Rejected(str(error), "NOT_SENT") from None
        if answer.status != 200:
            raise meaning(answer, self._config.api_version, self._context.clock.now(), write=True)
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except GARBLED:
            raise UnknownOutcome(f"the answer of Google Ads is garbled ({len(answer.body)} bytes)") from None

    async def _authorised(self, path: str, body: bytes) -> HttpAnswer:
        token = await self._access()
        answer = await self._send(path, body, token)
        if answer.status != 401 or not is_expired(answer):
            return answer
        if self._token == token:
            self._token = ""
        return await self._send(path, body, await self._access())

    async def _send(self, path: str, body: bytes, token: str) -> HttpAnswer:
        headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
            "developer-token": self._config.developer_token.get_secret_value(),
        }
        if self._config.login_customer_id:
            headers["login-customer-id"] = self._config.login_customer_id.replace("-", "")
        return await self._context.http.request(
            "POST", self._root + path, headers=headers, body=body, timeout_s=self._config.timeout_s
        )

    async def _access(self) -> str:
        """A valid access token, fetched when there is none or it is about to expire; one request however many ask."""
        if self._token and self._context.clock.now() < self._renew_at:
            return self._token
        async with self._renewing:
            now = self._context.clock.now()
            if self._token and now < self._renew_at:
                return self._token
            issued = await self._refresh()
            self._token = issued.access_token
            self._renew_at = Instant(now + max(0, issued.expires_in * SECOND - EARLY))
            return self._token

    async def _refresh(self) -> _Token:
        form: Mapping[str, str] = {
            "client_id": self._config.client_id,
            "client_secret": self._config.client_secret.get_secret_value(),
            "refresh_token": self._config.refresh_token.get_secret_value(),
            "grant_type": "refresh_token",
        }
        try:
            answer = await self._context.http.request(
                "POST",
                self._config.token_url,
                headers={"content-type": "application/x-www-form-urlencoded"},
                body=urlencode(form).encode(),
                timeout_s=self._config.timeout_s,
            )
        except NoAnswer as error:  # asking for a token changes nothing: the real request was never sent
            raise NoAnswer(str(error), sent=False) from None
        if answer.status == 200:
            try:
                return msgspec.json.decode(answer.body, type=_Token)
            except GARBLED:
                raise Temporary(f"the answer of Google's token service is garbled ({len(answer.body)} bytes)") from None
        if answer.status in (400, 401):
            raise AuthExpired(f"Google's token service refuses the refresh token ({_oauth_error(answer)})")
        raise Temporary(f"Google's token service answered {answer.status}")


def _oauth_error(answer: HttpAnswer) -> str:
    try:
        return msgspec.json.decode(answer.body, type=_OAuthError).error[:60] or str(answer.status)
    except GARBLED:
        return str(answer.status)
