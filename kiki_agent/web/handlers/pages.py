"""The page people watch, its files, its one snapshot, the live events, and the description of the interface."""

from __future__ import annotations

import re

from aiohttp import web

from kiki_agent.web import assets
from kiki_agent.web.edge import PAGE_POLICY
from kiki_agent.web.endpoint import JSON, Call
from kiki_agent.web.problem import FieldProblem, Problem
from kiki_agent.web.shapes.base import Nothing
from kiki_agent.web.shapes.events import EventsQuery

_TOPIC = re.compile(r"[a-z0-9_.-]{1,40}")


async def page(call: Call, _: Nothing) -> web.Response:
    """The page."""
    return assets.serve(call.request, call.house.assets["index.html"], PAGE_POLICY)


async def docs(call: Call, _: Nothing) -> web.Response:
    """The interface, described for people."""
    return assets.serve(call.request, call.house.assets["docs.html"], PAGE_POLICY)


async def asset(call: Call, _: Nothing) -> web.Response:
    """A file of the page."""
    found = call.house.assets.get(call.part("name"))
    if found is None or found.content_type == "text/html":
        raise Problem(404, "Not Found: there is no such file")
    return assets.serve(call.request, found, PAGE_POLICY)


async def openapi(call: Call, _: Nothing) -> web.Response:
    """The interface, described for programs (OpenAPI 3.1)."""
    return web.Response(body=call.house.openapi, content_type=JSON)


async def overview(call: Call, _: Nothing) -> web.Response:
    """Everything the page shows, at one moment."""
    return web.Response(body=await call.house.overview.body(), content_type=JSON)


async def events(call: Call, query: EventsQuery) -> web.StreamResponse:
    """Live events as a stream; `Last-Event-ID` or `since` resumes after a known one."""
    topics = None
    if query.topics is not None:
        topics = frozenset(query.topics.split(","))
        if not all(_TOPIC.fullmatch(topic) for topic in topics):
            message = "must be topic names divided by commas"
            raise Problem(422, f"topics: {message}", fields=[FieldProblem("topics", message)])
    request = call.request
    transport = request.transport
    last_id = request.headers.get("Last-Event-ID") or query.since
    hub = call.house.hub
    reader = hub.attach(topics, last_id, transport.abort if transport is not None else lambda: None)
    if reader is None:
        raise Problem(503, "too many pages are watching already", "TOO_MANY_READERS", headers={"Retry-After": "10"})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    try:
        await response.prepare(request)
        while chunk := await reader.next():
            await response.write(chunk)
    except ConnectionError:
        pass
    finally:
        hub.detach(reader)
    return response
