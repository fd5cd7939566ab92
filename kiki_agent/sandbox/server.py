"""aiohttp around the service: real sockets on loopback, one route for everything."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from kiki_agent.model import Instant
from kiki_agent.sandbox.faults import AnswerLost
from kiki_agent.sandbox.service import SandboxService

MAX_BODY = 1024 * 1024


class SandboxServer:
    """A listener that answers from the first moment: 503 until `service` is there, then the vendor API."""

    def __init__(
        self,
        now: Callable[[], Instant],
        service: SandboxService | None = None,
        *,
        nonce: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.service = service
        self.requests = 0
        """Requests answered so far."""
        self.port = 0
        """Where it listens, once started."""
        self._now, self._nonce, self._host, self._wanted = now, nonce, host, port
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """Where clients find it."""
        return f"http://{self._host}:{self.port}"

    async def start(self) -> None:
        """Bind and listen. Raises OSError when the port is taken."""
        application = web.Application(client_max_size=MAX_BODY)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._wanted).start()
        self.port = int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests += 1
        if self.service is None:
            return self._not_yet(request.path)
        names = {name.lower(): value for name, value in request.headers.items()}
        try:
            status, headers, data = self.service.handle(request.method, request.path_qs, names, body, self._now())
        except AnswerLost:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        return web.Response(status=status, headers=dict(headers), body=data)

    def _not_yet(self, path: str) -> web.Response:
        if path == "/v1/health":
            return web.json_response({"status": "starting", "nonce": self._nonce})
        error = {"error": {"code": "STARTING", "message": "the market is being made"}}
        return web.json_response(error, status=503, headers={"retry-after": "1"})
