"""Requests to the Google Ads REST API: access token, headers, errors as types; nothing about campaigns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from kiki_agent import HttpAnswer, NoAnswer, PluginContext
from kiki_agent.errors import AuthExpired, PluginError, RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.model import SECOND, Instant
from kiki_google_ads.config import GoogleAdsConfig
from kiki_google_ads.errors import PATIENCE, Asked, failed, is_expired, meaning
from kiki_google_ads.wire import Mutated, Page

T = TypeVar("T")

EARLY = 60 * SECOND
"""A token is renewed this long before it expires."""
LONGEST = 86_400
"""No token is trusted for longer, in seconds; Google's live an hour."""
LONGEST_TEXT = 300
"""Characters of an error, cut after secrets are taken out, for half a secret is still one."""
GARBLED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
SHORTEST_SECRET = 6
"""Anything shorter is found in plain words too, and protects nothing."""

_PAGE = msgspec.json.Decoder(Page)
_STREAM = msgspec.json.Decoder(list[Page])
_MUTATED = msgspec.json.Decoder(Mutated)


class _Token(msgspec.Struct):
    access_token: str
    expires_in: int | str = 3_600

    @property
    def seconds(self) -> int:
        """How long it is good for, a minute when that cannot be read: then Google says when it is over."""
        text = str(self.expires_in)
        return min(int(text), LONGEST) if text.isascii() and text.isdecimal() and len(text) < 10 else 60

    def __repr__(self) -> str:
        return "_Token(***)"


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

    async def search(self, query: str, page_token: str = "") -> Page:
        """One page of a query's rows. Raises Temporary, RateLimited, AuthExpired, Outdated, Rejected."""
        body = {"query": query, "pageToken": page_token} if page_token else {"query": query}
        answer = await self._authorised("/googleAds:search", msgspec.json.encode(body))
        page = self._decoded(answer, _PAGE, write=False)
        if not page.results and not page.field_mask and answer.body.strip() != b"{}":
            raise self._garbled(answer, write=False)
        return page

    async def stream(self, query: str) -> list[Page]:
        """All rows of a query, in parts. Raises as `search` does, also when the stream broke off on the way."""
        answer = await self._authorised("/googleAds:searchStream", msgspec.json.encode({"query": query}))
        chunks = self._decoded(answer, _STREAM, write=False)
        for chunk in chunks:
            if chunk.error is not None:
                raise self._told(failed(chunk.error, answer, self._asked(write=False)))
            if not chunk.results and not chunk.field_mask:
                raise self._garbled(answer, write=False)
        return chunks

    async def write(self, path: str, body: object) -> Mutated:
        """POST a change and decode the answer; UnknownOutcome whenever the change may have been made.

        Raises Rejected NOT_SENT when the request certainly never left.
        """
        try:
            answer = await self._authorised(path, msgspec.json.encode(body))
        except NoAnswer as error:
            if error.sent:
                raise UnknownOutcome(str(error)) from None
            raise Rejected(str(error), "NOT_SENT") from None
        except RateLimited:
            raise
        except Temporary as error:  # of the token: the change itself was never sent
            raise Rejected(str(error), "NOT_SENT") from None
        return self._decoded(answer, _MUTATED, write=True)

    # -- judging --------------------------------------------------------------------------------------------------

    def _decoded(self, answer: HttpAnswer, decoder: msgspec.json.Decoder[T], *, write: bool) -> T:
        if answer.status != 200:
            raise self._told(meaning(answer, self._asked(write=write)))
        if not answer.headers.get("content-type", "application/json").lower().startswith("application/json"):
            raise self._garbled(answer, write=write)
        try:
            found = decoder.decode(answer.body)
        except GARBLED:
            raise self._garbled(answer, write=write) from None
        error = getattr(found, "error", None)
        if error is not None:
            raise self._told(failed(error, answer, self._asked(write=write)))
        return found

    def _asked(self, *, write: bool) -> Asked:
        context = self._context
        return Asked(self._config.api_version, context.instance_id, context.clock.now(), write)

    def _told(self, error: PluginError) -> PluginError:
        """An error as it goes up: patience passed on, and no secret in it, should Google have repeated one."""
        if isinstance(error, RateLimited):
            self._context.throttle(retry_at=Instant(error.retry_at))
        error.args = tuple(self._without_secrets(each)[:LONGEST_TEXT] for each in error.args if isinstance(each, str))
        return error

    def _without_secrets(self, text: str) -> str:
        config = self._config
        known = (config.developer_token, config.client_secret, config.refresh_token)
        for secret in (self._token, *(each.get_secret_value() for each in known)):
            if len(secret) >= SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text

    @staticmethod
    def _garbled(answer: HttpAnswer, *, write: bool) -> PluginError:
        text = f"the answer of Google Ads is garbled ({len(answer.body)} bytes)"
        return UnknownOutcome(text) if write else Temporary(text)

    # -- sending --------------------------------------------------------------------------------------------------

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
            self._renew_at = Instant(now + max(0, issued.seconds * SECOND - EARLY))
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
                issued = msgspec.json.decode(answer.body, type=_Token)
            except GARBLED:
                issued = _Token("")
            if issued.access_token.isascii() and issued.access_token.isprintable() and issued.access_token:
                return issued
            raise Temporary(f"the answer of Google's token service is garbled ({len(answer.body)} bytes)")
        if answer.status == 429 or (answer.status == 503 and "retry-after" in answer.headers):
            now = self._context.clock.now()
            text = "Google's token service asks for patience"
            raise self._told(RateLimited(text, answer.retry_at(now) or Instant(now + PATIENCE)))
        if answer.status in (400, 401, 403):
            told = self._without_secrets(_oauth_error(answer))
            raise AuthExpired(f"Google's token service refuses the refresh token ({told})")
        raise Temporary(f"Google's token service answered {answer.status}")


def _oauth_error(answer: HttpAnswer) -> str:
    try:
        return msgspec.json.decode(answer.body, type=_OAuthError).error[:60] or str(answer.status)
    except GARBLED:
        return str(answer.status)
