"""How many requests one client may make in a minute, so that one that runs wild leaves room for the others (SHD-06)."""

from __future__ import annotations

from collections import OrderedDict

from kiki_agent.model import MINUTE, SECOND, Instant
from kiki_agent.shield import SlidingWindow
from kiki_agent.web.problem import Problem

MOST_CLIENTS = 256
"""So many are told apart; who was not heard of for longest is forgotten first."""


class Pace:
    """An exact window of a minute for each address that requests come from."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._clients: OrderedDict[str, SlidingWindow] = OrderedDict()

    def admit(self, client: str, now: Instant) -> None:
        """Count a request. Raises Problem 429 with the seconds to wait; such a request is not counted."""
        window = self._clients.get(client)
        if window is None:
            window = self._clients[client] = SlidingWindow(MINUTE)
            if len(self._clients) > MOST_CLIENTS:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(client)
        if window.try_spend(now, 1, self._most):
            return
        wait = max(1, -(-((window.oldest or now) + MINUTE - now) // SECOND))
        text = f"more than {self._most} requests in a minute (http.requests_per_minute); the next is taken in {wait} s"
        raise Problem(429, text, headers={"Retry-After": str(wait)})
