"""Requests to the Graph API: token, proof, errors as types, usage headers, batches; nothing about ad sets."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from kiki_agent import HttpAnswer, NoAnswer, PluginContext
from kiki_agent.errors import PluginError, RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.model import Instant
from kiki_meta.config import MetaConfig
from kiki_meta.errors import USAGE_HEADERS, Speaker, error_of, meaning, usage_of

T = TypeVar("T")

GARBLED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
FORM = "application/x-www-form-urlencoded"
VALIDATE = '["validate_only"]'
"""`execution_options` of a change that Meta only checks."""
MAX_BATCH = 50
"""Requests Meta takes in one batch."""


class _Success(msgspec.Struct):
    success: bool


class _Part(msgspec.Struct):
    """The answer to one request of a batch."""

    code: int
    body: str | None = None


Change = tuple[str, Mapping[str, str]]
"""A node and the form that changes it."""


class MetaClient:
    """One account's way to the API; `context.http` underneath and nothing else."""

    def __init__(self, context: PluginContext[MetaConfig]) -> None:
        self._context = context
        config = context.config
        self._timeout = config.timeout_s
        self._root = f"{config.base_url}/{config.api_version}"
        token = config.access_token.get_secret_value()
        secret = config.app_secret.get_secret_value()
        self._headers = {"authorization": f"Bearer {token}"}
        self._proof = hmac.new(secret.encode(), token.encode(), hashlib.sha256).hexdigest() if secret else ""
        secrets = tuple(each for each in (token, self._proof, secret) if each)
        self._speaker = Speaker(context.instance_id, config.api_version, secrets)

    async def read(self, path: str, shape: type[T], **params: str) -> T:
        """GET and decode. Raises Temporary, RateLimited, AuthExpired, Outdated, Rejected."""
        if self._proof:
            params["appsecret_proof"] = self._proof
        answer = await self._context.http.request(
            "GET", f"{self._root}/{path}", headers=self._headers, params=params, timeout_s=self._timeout
        )
        return self._decoded(answer, shape)

    async def ask(self, path: str, shape: type[T], fields: Mapping[str, str]) -> T:
        """POST a form that changes nothing at Meta, such as the order of a report; errors as of a read."""
        return self._decoded(await self._post(path, urlencode(fields).encode(), FORM), shape)

    async def write(self, path: str, fields: Mapping[str, str]) -> None:
        """POST a form; returns when Meta says that it was done. UnknownOutcome whenever it may have been done.

        Raises Rejected NOT_SENT when the request certainly never left.
        """
        body = urlencode(self._checked(fields)).encode()
        answer = await self._sent(path, body, FORM)
        problem = self._refusal(answer)
        if problem is not None:
            raise problem

    async def write_many(self, changes: Sequence[Change]) -> list[PluginError | None]:
        """Up to 50 changes in one request, which Meta carries out one by one; what became of each, None = done.

        Raises as `write` when the batch as a whole was refused or lost.
        """
        items = [
            {"method": "POST", "relative_url": node, "body": urlencode(self._checked(fields))}
            for node, fields in changes
        ]
        form = {"batch": msgspec.json.encode(items).decode(), "include_headers": "false"}
        answer = await self._sent("", urlencode(form).encode(), FORM)
        try:
            parts = msgspec.json.decode(answer.body, type=list[_Part | None])
        except GARBLED:
            raise UnknownOutcome(f"the answer of Meta is garbled ({len(answer.body)} bytes)") from None
        if len(parts) != len(items):
            raise UnknownOutcome(f"Meta answered {len(parts)} of {len(items)} requests of a batch")
        return [self._part(part, answer.headers) for part in parts]

    async def post_json(self, path: str, body: object, shape: type[T]) -> T:
        """POST JSON and decode the answer; errors as `write`."""
        answer = await self._sent(path, msgspec.json.encode(body), "application/json")
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except GARBLED:
            raise UnknownOutcome(f"the answer of Meta is garbled ({len(answer.body)} bytes)") from None

    # -- one request --------------------------------------------------------------------------------------------------

    def _checked(self, fields: Mapping[str, str]) -> Mapping[str, str]:
        return {**fields, "execution_options": VALIDATE} if self._context.dry_run else fields

    async def _post(self, path: str, body: bytes, kind: str) -> HttpAnswer:
        return await self._context.http.request(
            "POST",
            f"{self._root}/{path}",
            headers={**self._headers, "content-type": kind},
            params={"appsecret_proof": self._proof} if self._proof else None,
            body=body,
            timeout_s=self._timeout,
        )

    async def _sent(self, path: str, body: bytes, kind: str) -> HttpAnswer:
        """A write's answer, a success as far as its status and envelope go."""
        try:
            answer = await self._post(path, body, kind)
        except NoAnswer as error:
            if error.sent:
                raise UnknownOutcome(str(error)) from None
            raise Rejected(str(error), "NOT_SENT") from None
        self._mind(answer)
        if answer.status != 200 or error_of(answer) is not None:
            raise self._problem(answer, write=True)
        return answer

    def _decoded(self, answer: HttpAnswer, shape: type[T]) -> T:
        self._mind(answer)
        if answer.status != 200 or error_of(answer) is not None:
            raise self._problem(answer, write=False)
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except GARBLED:
            raise Temporary(f"the answer of Meta is garbled ({len(answer.body)} bytes)") from None

    def _part(self, part: _Part | None, headers: Mapping[str, str]) -> PluginError | None:
        """What became of one request of a batch; Meta answers null for what it did not finish in time."""
        if part is None or part.body is None:
            return UnknownOutcome("Meta did not answer this request of a batch")
        answer = HttpAnswer(part.code, headers, part.body.encode())
        if answer.status != 200 or error_of(answer) is not None:
            return self._problem(answer, write=True)
        return self._refusal(answer)

    @staticmethod
    def _refusal(answer: HttpAnswer) -> PluginError | None:
        try:
            done = msgspec.json.decode(answer.body, type=_Success).success
        except GARBLED:
            return UnknownOutcome(f"the answer of Meta is garbled ({len(answer.body)} bytes)")
        return None if done else Rejected("Meta says that the change was not made", "NO_SUCCESS")

    def _problem(self, answer: HttpAnswer, *, write: bool) -> PluginError:
        problem = meaning(answer, self._speaker, self._context.clock.now(), write=write)
        if isinstance(problem, RateLimited):
            self._context.throttle(retry_at=Instant(problem.retry_at))
        return problem

    def _mind(self, answer: HttpAnswer) -> None:
        """Pass on how much of the quotas is in use."""
        if not USAGE_HEADERS.isdisjoint(answer.headers):
            usage, wait = usage_of(answer)
            until = Instant(self._context.clock.now() + wait) if wait else None
            self._context.throttle(usage=usage, retry_at=until)
