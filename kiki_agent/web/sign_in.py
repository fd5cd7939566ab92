"""The sign-in form of a deployment with a token: one field, no script, a cookie no script can read."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from html import escape
from urllib.parse import parse_qs

from aiohttp import web

from kiki_agent.model import MINUTE, Instant
from kiki_agent.web.auth import COOKIE
from kiki_agent.web.endpoint import Call
from kiki_agent.web.problem import Problem
from kiki_agent.web.shapes.base import Nothing

FAILURES_PER_MINUTE = 10
_MAX_FORM = 4_096
_WEEK_S = 7 * 24 * 3_600

_STYLE = """
:root{color-scheme:light dark;--paper:#faf9f7;--ink:#1c2024;--soft:#5c6670;--line:#dcd9d3;--accent:#0b6b5d}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#eceae6;--soft:#9aa4ad;--line:#343a40;--accent:#4fc3ae}}
body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--paper);color:var(--ink);
font:16px/1.5 -apple-system,"Segoe UI",Inter,Roboto,"Helvetica Neue","Liberation Sans",Arial,system-ui,sans-serif}
main{width:min(22rem,calc(100vw - 3rem))}h1{font-size:1.5rem;margin:0 0 .25rem;letter-spacing:-.01em}
p{color:var(--soft);margin:.25rem 0 1.25rem}label{display:block;font-weight:600;margin-bottom:.4rem}
input,button{box-sizing:border-box;width:100%;font:inherit;padding:.7rem .8rem;border-radius:.5rem}
input{border:1px solid var(--line);background:transparent;color:inherit}
button{margin-top:.9rem;border:0;background:var(--accent);color:var(--paper);font-weight:600;cursor:pointer}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}.wrong{color:#b3261e}
@media(prefers-color-scheme:dark){.wrong{color:#ff8f85}}
"""
POLICY = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; img-src data:; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)


class Attempts:
    """Counts failed sign-ins, so that tokens cannot be tried out in bulk."""

    def __init__(self) -> None:
        self._failures: deque[int] = deque(maxlen=FAILURES_PER_MINUTE)

    def exhausted(self, now: Instant) -> bool:
        """True while the last failures lie too close together."""
        full = len(self._failures) == FAILURES_PER_MINUTE
        return full and 0 <= now - self._failures[0] < MINUTE

    def failed(self, now: Instant) -> None:
        """Note one more."""
        self._failures.append(now)


def form(status: int, message: str = "") -> web.Response:
    """The form as a page of its own."""
    wrong = f'<p class="wrong" role="alert">{escape(message)}</p>' if message else ""
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in · kiki</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style></head><body><main><h1>kiki</h1>"
        "<p>Sign in with the access token of this agent.</p>"
        f'{wrong}<form method="post" action="/sign-in"><label for="token">Access token</label>'
        '<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>'
        "<button>Sign in</button></form></main></body></html>"
    )
    return web.Response(status=status, text=html, content_type="text/html", headers={"Content-Security-Policy": POLICY})


async def sign_in(call: Call, _: Nothing) -> web.Response:
    """Check the token of the form; set the cookie and go to the page, or show the form again."""
    house = call.house
    now = call.services.clock.now()
    if house.attempts.exhausted(now):
        raise Problem(429, "too many failed sign-ins; wait a minute", headers={"Retry-After": "60"})
    if not house.gate.needs_token:
        return _go_home()
    token = _field(await call.request.read())
    if not house.gate.token_fits(token):
        house.attempts.failed(now)
        return form(401, "That is not the token of this agent.")
    response = _go_home()
    response.set_cookie(
        COOKIE,
        house.gate.session,
        max_age=_WEEK_S,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=call.request.headers.get("X-Forwarded-Proto") == "https" or call.request.secure,
    )
    return response


async def sign_out(_: Call, __: Nothing) -> web.Response:
    """Forget the cookie."""
    response = _go_home()
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
    return response


def _field(raw: bytes) -> str:
    if len(raw) > _MAX_FORM:
        raise Problem(413, "the form is too large")
    try:
        return parse_qs(raw.decode("utf-8"), max_num_fields=4).get("token", [""])[0].strip()
    except ValueError:
        return ""


def _go_home() -> web.Response:
    return web.Response(status=303, headers={"Location": "/"})
