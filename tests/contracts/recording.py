"""A way to a vendor that writes down what was asked and what was answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kiki_agent.hooks.http import HttpAnswer, HttpClient


@dataclass(frozen=True)
class Exchange:
    """One request and its answer; status 0 where none came."""

    method: str
    url: str
    headers: Mapping[str, str]
    params: Mapping[str, str]
    body: bytes
    status: int
    answer_headers: Mapping[str, str]
    answer: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def asked(self) -> Any:
        """The request's body as JSON."""
        return json.loads(self.body)

    @property
    def told(self) -> Any:
        """The answer's body as JSON."""
        return json.loads(self.answer)

    @property
    def is_json(self) -> bool:
        return self.answer_headers.get("content-type", "").startswith("application/json")


@dataclass
class Recorder:
    """An `HttpClient` in front of another one."""

    inner: HttpClient
    exchanges: list[Exchange] = field(default_factory=list)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10,
    ) -> HttpAnswer:
        made = (
            method,
            url,
            {name.lower(): value for name, value in (headers or {}).items()},
            params or {},
            body or b"",
        )
        try:
            answer = await self.inner.request(
                method, url, headers=headers, params=params, body=body, timeout_s=timeout_s
            )
        except BaseException:
            self.exchanges.append(Exchange(*made, 0, {}, b""))
            raise
        self.exchanges.append(Exchange(*made, answer.status, answer.headers, answer.body))
        return answer

    async def close(self) -> None:
        await self.inner.close()


def paths(value: object, prefix: str = "") -> Iterator[str]:
    """The fields of a JSON value, array positions left out: what makes two bodies the same kind of request."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{prefix}.{name}"
            yield from paths(inner, f"{prefix}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{prefix}[]")
