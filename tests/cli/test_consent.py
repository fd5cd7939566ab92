"""The commands about people, against a listener that answers like an agent."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from .conftest import Kiki

SAID = {"in_force": True, "status": "GRANTED", "source": "api", "expires_at": None, "consent_id": "abc"}


class _Agent(BaseHTTPRequestHandler):
    asked: list[tuple[str, str, Any]]
    port: int
    down = False

    def _answer(self, body: object) -> None:
        raw = json.dumps({"detail": "safe hold: the disk is full"} if self.down else body).encode()
        self.send_response(503 if self.down else 200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self) -> None:
        self.asked.append(("GET", self.path, None))
        if self.path.startswith("/consent/"):
            self._answer({"targeting": SAID, "marketing": None})
        else:
            self._answer({"export": {"customer_id": "änn a"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(("POST", self.path, body))
        status = "granted" if "grant" in self.path else "revoked"
        self._answer({"status": status, "consent_id": "abc", "request_id": "r1", "notes": "3 rows deleted"})

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def agent() -> Iterator[type[_Agent]]:
    handler = type("Handler", (_Agent,), {"asked": [], "port": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler
        server.shutdown()
        thread.join()


def at(agent: type[_Agent]) -> tuple[str, str]:
    return "--set", f"http.port={agent.port}"


def test_what_a_person_said_is_a_table_or_json(kiki: Kiki, agent: type[_Agent]) -> None:
    lines = kiki("consent", "status", "ann&a /?", *at(agent)).out.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith(("targeting", "marketing"))] == [
        ["marketing", "no", "nothing"],
        ["targeting", "yes", "GRANTED"],
    ]
    assert agent.asked[0][1] == "/consent/status?customer_id=ann%26a%20%2F%3F"
    assert kiki("consent", "status", "anna", "--json", *at(agent)).json["targeting"] == SAID


def test_grants_and_revocations_are_told(kiki: Kiki, agent: type[_Agent]) -> None:
    made = kiki("consent", "grant", "anna", "targeting", "--expires-at", "2027-01-01T00:00:00Z", *at(agent))
    assert made.out == "targeting is granted: abc\n"
    assert kiki("consent", "revoke", "anna", "targeting", "--json", *at(agent)).json["status"] == "revoked"
    who = {"customer_id": "anna", "consent_type": "targeting"}
    assert agent.asked == [
        ("POST", "/consent/grant", {**who, "expires_at": "2027-01-01T00:00:00Z"}),
        ("POST", "/consent/revoke", who),
    ]
    assert kiki("consent", "grant", "anna", "everything", *at(agent)).code == 2


def test_an_export_goes_to_a_new_file_of_its_owner(kiki: Kiki, agent: type[_Agent], folder: Path) -> None:
    assert json.loads(kiki("privacy", "export", "anna", *at(agent)).out) == {"customer_id": "änn a"}
    made = kiki("privacy", "export", "anna", "--output", "anna.json", "--json", *at(agent))
    assert made.json == {"request_id": "r1", "output": "anna.json"}
    path = folder / "anna.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {"customer_id": "änn a"}
    again = kiki("privacy", "export", "anna", "--output", "anna.json", *at(agent))
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert "never overwrites" in again.err


def test_erasing_asks_first(kiki: Kiki, agent: type[_Agent]) -> None:
    refused = kiki("privacy", "erase", "anna", "--json", *at(agent))
    assert (refused.code, "--yes" in refused.error["message"]) == (1, True)
    assert agent.asked == []
    done = kiki("privacy", "erase", "anna", "--yes", *at(agent))
    assert done.out == "Erased: 3 rows deleted (request r1).\n"
    assert agent.asked[-1][2] == {"customer_id": "anna", "request_type": "DELETION"}


@pytest.mark.parametrize(
    "command",
    [("consent", "status", "a"), ("consent", "grant", "a", "targeting"), ("privacy", "export", "a"),
     ("privacy", "erase", "a", "--yes")],
)  # fmt: skip
def test_an_agent_that_cannot_now_is_one_sentence(kiki: Kiki, agent: type[_Agent], command: tuple[str, ...]) -> None:
    agent.down = True
    ended = kiki(*command, *at(agent))
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "safe hold: the disk is full" in ended.err
