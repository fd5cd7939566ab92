"""What an endpoint is: a row of the route table that the router, the guard, the metrics and /openapi.json all read."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar, cast

from aiohttp import web
from pydantic import BaseModel

from kiki_agent.web.body import read_body, read_query
from kiki_agent.web.problem import FieldProblem, Problem
from kiki_agent.web.shapes.base import Nothing

if TYPE_CHECKING:
    from kiki_agent.web.app import House
    from kiki_agent.web.services import Services

G = TypeVar("G", bound=BaseModel)

JSON = "application/json"
WITHOUT_RECORD = frozenset(
    {
        "/admin/kill-switch",
        "/admin/backup",
        "/admin/backups/{id}/verify",
        "/admin/backups/{id}/restore",
        "/api/v1/check",
        "/platform-ltv",
        "/sign-in",
        "/sign-out",
    }
)
"""Paths whose orders stay open while a stand-in takes the place of the database: they stop, cure, or write nothing."""
_SAFE_PART = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


class Permission(StrEnum):
    """What a caller must be allowed; until accounts exist the token holds all of them."""

    OPEN = "open"
    """Anyone who reaches the listener; never carries data."""
    VIEW = "view"
    OPERATE = "operate"
    """Moves money within its limits, or stops it."""
    ADMIN = "admin"
    """Changes how the agent runs."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way to a handler."""

    request: web.Request
    house: House
    request_id: str

    @property
    def services(self) -> Services:
        """The services behind the handlers."""
        return self.house.services

    def part(self, name: str) -> str:
        """A part of the path, checked: 1 to 128 characters, no control characters."""
        text = self.request.match_info[name]
        if not _SAFE_PART.fullmatch(text) or "\ufffd" in text or any("\ud800" <= char <= "\udfff" for char in text):
            message = "must be 1 to 128 characters without control characters"
            raise Problem(422, f"{name}: {message}", fields=[FieldProblem(name, message)])
        return text


Handler = Callable[[Call, BaseModel], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method on one path."""

    method: str
    path: str
    permission: Permission
    tag: str
    summary: str
    handler: Handler
    given: type[BaseModel] = Nothing
    """Model of the query (GET) or the JSON body (POST)."""
    answers: Mapping[int, type[BaseModel] | str] = field(default_factory=dict)
    """Status to answer model, or to a media type where the answer is not JSON."""
    problems: tuple[int, ...] = ()
    """Problem statuses beyond those every endpoint can answer."""
    form: tuple[str, ...] = ()
    """Fields of an HTML form, where the endpoint takes one in place of JSON; the handler reads it."""

    async def serve(self, call: Call) -> web.StreamResponse:
        """Validate what was given and hand it to the handler. Nothing is promised that could not be kept on record."""
        damage = call.services.stand_in
        if damage is not None and self.method != "GET" and self.path not in WITHOUT_RECORD:
            raise Problem(
                503,
                f"nothing can be recorded until the disk is cured or until a backup is restored: {damage}",
                "SAFE_HOLD",
            )
        given: BaseModel
        if self.form:
            given = Nothing()
        elif self.method == "GET":
            given = read_query(call.request, self.given)
        else:
            given = await read_body(call.request, self.given)
        if self.permission is Permission.OPERATE and not self.form:
            return await call.house.once.answer(call.request, given, lambda: self.handler(call, given))
        return await self.handler(call, given)


def _endpoint(
    method: str,
    path: str,
    permission: Permission,
    tag: str,
    summary: str,
    handler: Callable[[Call, G], Awaitable[web.StreamResponse]],
    given: type[G],
    answers: Mapping[int, type[BaseModel] | str],
    problems: tuple[int, ...],
    form: tuple[str, ...] = (),
) -> Endpoint:
    return Endpoint(method, path, permission, tag, summary, cast(Handler, handler), given, answers, problems, form)


def get(
    path: str,
    permission: Permission,
    tag: str,
    summary: str,
    handler: Callable[[Call, G], Awaitable[web.StreamResponse]],
    given: type[G],
    answer: type[BaseModel] | str,
    *,
    problems: tuple[int, ...] = (),
) -> Endpoint:
    """An endpoint that reads."""
    return _endpoint("GET", path, permission, tag, summary, handler, given, {200: answer}, problems)


def post(
    path: str,
    permission: Permission,
    tag: str,
    summary: str,
    handler: Callable[[Call, G], Awaitable[web.StreamResponse]],
    given: type[G],
    answers: Mapping[int, type[BaseModel] | str],
    *,
    problems: tuple[int, ...] = (),
    form: tuple[str, ...] = (),
) -> Endpoint:
    """An endpoint that changes something."""
    return _endpoint("POST", path, permission, tag, summary, handler, given, answers, problems, form)


def put(
    path: str,
    permission: Permission,
    tag: str,
    summary: str,
    handler: Callable[[Call, G], Awaitable[web.StreamResponse]],
    given: type[G],
    answers: Mapping[int, type[BaseModel] | str],
    *,
    problems: tuple[int, ...] = (),
) -> Endpoint:
    """An endpoint that puts values in place of others."""
    return _endpoint("PUT", path, permission, tag, summary, handler, given, answers, problems)


def answer(model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer from its model."""
    body = model.model_dump_json().encode("utf-8", "replace")
    return web.Response(status=status, body=body, content_type=JSON, headers=headers)
