"""Questions to a running agent over its own HTTP interface."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from kiki_agent.cli.failure import CommandError
from kiki_agent.config import Settings, read_token

_DEADLINE_S = 10.0
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and decoded JSON body."""

    status: int
    body: dict[str, Any]


class AgentClient:
    """Speaks to the agent these settings describe, on the port they name."""

    def __init__(self, settings: Settings) -> None:
        host = _EVERY_ADDRESS.get(settings.http.host, settings.http.host).strip("[]")
        self.address = f"http://[{host}]:{settings.http.port}" if ":" in host else f"http://{host}:{settings.http.port}"
        token = read_token(settings.http)
        self._token = None if token is None else token.get_secret_value()
        self._open = build_opener(ProxyHandler({})).open  # a proxy has no business between us and ourselves

    def get(self, path: str) -> Answer:
        """The answer to a GET, also when the agent says it is not well (503)."""
        return self._ask(Request(self.address + path))

    def post(self, path: str, body: dict[str, object]) -> Answer:
        """The answer to a POST of JSON that was done; raises CommandError when it was refused, also with 503."""
        headers = {"Content-Type": "application/json"}
        answer = self._ask(Request(self.address + path, json.dumps(body).encode(), headers, method="POST"))
        if answer.status >= 400:
            raise self._refusal(answer.status, answer.body)
        return answer

    def _ask(self, request: Request) -> Answer:
        request.add_header("Accept", "application/json")
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._open(request, timeout=_DEADLINE_S) as response:
                return Answer(response.status, self._decoded(response.read()))
        except HTTPError as error:
            with error:
                return self._refused(error.code, error.read())
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise CommandError(
                f"no agent answers at {self.address} ({reason}); start one with kiki-agent run"
            ) from error

    def _refused(self, status: int, raw: bytes) -> Answer:
        body = self._decoded(raw)
        if status == 503:
            return Answer(status, body)
        raise self._refusal(status, body)

    def _refusal(self, status: int, body: dict[str, Any]) -> CommandError:
        said = body.get("detail") or body.get("title") or "no reason given"
        return CommandError(f"the agent at {self.address} refused with {status}: {said}")

    def _decoded(self, raw: bytes) -> dict[str, Any]:
        try:
            body = json.loads(raw)
        except ValueError as error:
            raise CommandError(f"what answers at {self.address} is not a kiki-agent: its answer is no JSON") from error
        if not isinstance(body, dict):
            raise CommandError(f"what answers at {self.address} is not a kiki-agent: its answer is no JSON object")
        return body
