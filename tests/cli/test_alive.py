"""`kiki-agent status --alive`: what a health check asks."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from .conftest import Kiki


class _Held(BaseHTTPRequestHandler):
    """An agent that is not ready: open routes answer, `/ready` says 503, the rest wants a token."""

    def do_GET(self) -> None:
        status, body = {"/healthz": (200, b'{"status":"ok"}'), "/ready": (503, b'{"reason":"safe hold"}')}.get(
            self.path, (401, b'{"detail":"a token is needed"}')
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # silence is what a test wants
        return


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Held) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_an_agent_that_holds_its_spending_is_alive(kiki: Kiki, port: int) -> None:
    flags = ("--set", "http.host=0.0.0.0", "--set", "http.token_file=none-yet", "--set", f"http.port={port}")
    ended = kiki("status", "--alive", *flags)
    assert (ended.code, ended.out) == (0, f"Alive at http://127.0.0.1:{port}.\n")
    assert kiki("status", "--alive", "--json", *flags).json == {"address": f"http://127.0.0.1:{port}", "alive": True}
    assert kiki("status", *flags).code == 1


def test_nobody_there_is_not_alive(kiki: Kiki, port: int, folder: Path) -> None:
    ended = kiki("status", "--alive", "--set", "http.port=1")
    assert ended.code == 1
    assert ended.err.startswith("kiki-agent: no agent answers at http://127.0.0.1:1")
    assert ended.out == ""
