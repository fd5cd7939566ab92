"""A small vendor to talk to: one market, its API, and a client that knows nothing but bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kiki_agent.model import Instant, parse_iso
from kiki_agent.sandbox import EffectsLog, Faults, Market, SandboxService

START = parse_iso("2026-01-05T00:00:00Z")
"""A Monday, midnight."""
SMALL = 12


@dataclass
class Said:
    """One answer, decoded when it is JSON."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Error code of an error body."""
        return str(self.json["error"]["code"])


class Vendor:
    """A service and someone who is logged in to it."""

    def __init__(
        self,
        market: Market,
        effects: EffectsLog | None = None,
        faults: Faults | None = None,
        *,
        requests_per_minute: int = 10_000,
    ) -> None:
        self.market = market
        self.faults = faults or Faults()
        self.service = SandboxService(market, effects, self.faults, requests_per_minute=requests_per_minute)
        self.now = market.start
        self.headers: dict[str, str] = {}
        self.log_in()

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Said:
        """One request at `now`."""
        given = self.headers if headers is None else headers
        return Said(*self.service.handle(method, path, given, body, self.now))

    def get(self, path: str) -> Said:
        return self.ask("GET", path)

    def post(self, path: str, value: object) -> Said:
        return self.ask("POST", path, json.dumps(value).encode())

    def log_in(self, **grant: object) -> Said:
        """Ask for a token and use it when there is one."""
        wanted = {"grant_type": "client_credentials", "client_id": "sandbox", "client_secret": "sandbox"} | grant
        said = self.post("/token", wanted)
        if said.status == 200:
            self.headers = {"authorization": f"Bearer {said.json['access_token']}"}
        return said

    def bid(self, *operations: tuple[str, str, str], platform: str = "meta") -> Said:
        """Set bids: (campaign, amount, reference)."""
        items = [{"campaign": campaign, "max_cpc": price, "client_ref": ref} for campaign, price, ref in operations]
        return self.post(f"/v1/{platform}/bids", {"operations": items})

    def bids(self, platform: str = "meta") -> dict[str, str]:
        """Bids in force."""
        listed = self.get(f"/v1/{platform}/campaigns").json["campaigns"]
        return {item["id"]: item["max_cpc"] for item in listed}


def small_market(seed: int = 1, campaigns: int = SMALL, history_days: int = 2, start: Instant = START) -> Market:
    """A market that is made in milliseconds."""
    return Market(seed, start, campaigns, history_days)
