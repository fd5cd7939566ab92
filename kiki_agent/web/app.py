"""Puts the application together: table of routes, guard, events, page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count

from aiohttp import web
from aiohttp.typedefs import Middleware

from kiki_agent.model import SECOND
from kiki_agent.web import assets, openapi, sign_in
from kiki_agent.web.auth import Gate
from kiki_agent.web.edge import PAGE_POLICY, REQUEST_ID, Edge
from kiki_agent.web.endpoint import Call, Endpoint, Permission
from kiki_agent.web.events import EventHub
from kiki_agent.web.guard import check_host, check_origin, check_token
from kiki_agent.web.handlers.efficiency import EfficiencyBodies
from kiki_agent.web.handlers.health import unavailable
from kiki_agent.web.once import Once
from kiki_agent.web.overview import Overview
from kiki_agent.web.pace import Pace
from kiki_agent.web.problem import Problem
from kiki_agent.web.routes import ENDPOINTS
from kiki_agent.web.services import Services

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]

_WHILE_STARTING = frozenset(
    {
        "/",
        "/dashboard",
        "/page/{name}",
        "/api/v1/overview",
        "/events",
        "/status",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/admin/backup",
        "/admin/backups",
        "/admin/backups/{id}/restore",
        "/admin/backups/{id}/verify",
        "/api/v1/ledger/export",
    }
)
"""Routes that answer before everything is up, besides the open ones."""

KILL_SWITCH = "/admin/kill-switch"
"""Answers however many requests there were; so do the open routes that tell of the agent's health."""


class House:
    """What the handlers share: the services and the little state the HTTP side has of its own."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.endpoints: tuple[Endpoint, ...] = ENDPOINTS
        self.gate = Gate(services.settings.http)
        self.origin = f"{services.started_at // SECOND:x}"
        self.assets = assets.load()
        self.openapi = openapi.encode(openapi.describe(ENDPOINTS, services.version))
        self.efficiency = EfficiencyBodies()
        self.attempts = sign_in.Attempts()
        self.once = Once()
        self.pace = Pace(services.settings.http.requests_per_minute)
        self.bid_numbers = count(1)
        """Tells bids of one instant apart."""
        self.overview = Overview(services)
        self.hub = EventHub(services, self.origin, self.overview)


HOUSE: web.AppKey[House] = web.AppKey("house", House)


def create_app(services: Services) -> web.Application:
    """The application. Raises ConfigError when it would be open to other machines without a token."""
    house = House(services)
    edge = Edge(services.metrics, house.origin)
    app = web.Application(
        middlewares=[edge.middleware, _guard(house)],
        client_max_size=services.settings.http.max_body,
    )
    app[HOUSE] = house
    for endpoint in ENDPOINTS:
        _add(app, house, endpoint)
    app.on_response_prepare.append(edge.add_headers)
    app.on_shutdown.append(house.hub.close)
    app.cleanup_ctx.append(house.hub.running)
    return app


def _add(app: web.Application, house: House, endpoint: Endpoint) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await endpoint.serve(Call(request, house, request[REQUEST_ID]))

    if endpoint.method == "GET":
        app.router.add_get(endpoint.path, handle, allow_head=endpoint.path != "/events")
    else:
        app.router.add_route(endpoint.method, endpoint.path, handle)


def _guard(house: House) -> Middleware:
    permissions = {endpoint.path: endpoint.permission for endpoint in ENDPOINTS}
    by_method = {(endpoint.method, endpoint.path): endpoint.permission for endpoint in ENDPOINTS}

    @web.middleware
    async def guard(request: web.Request, handler: Next) -> web.StreamResponse:
        check_host(request, house.gate)
        resource = request.match_info.route.resource
        path = "" if resource is None else resource.canonical
        method = "GET" if request.method == "HEAD" else request.method
        permission = by_method.get((method, path), permissions.get(path, Permission.VIEW))
        if path != KILL_SWITCH and not (method == "GET" and permission is Permission.OPEN):
            house.pace.admit(request.remote or "", house.services.clock.now())
        try:
            check_token(request, house.gate, permission)
        except Problem:
            if path in ("/", "/dashboard") and "text/html" in request.headers.get("Accept", ""):
                return sign_in.form(401)
            raise
        check_origin(request)
        starting = house.services.starting
        if starting is not None and permission is not Permission.OPEN and path and path not in _WHILE_STARTING:
            raise unavailable(starting)
        return await handler(request)

    return guard


__all__ = ["HOUSE", "PAGE_POLICY", "House", "create_app"]
