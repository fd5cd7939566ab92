"""The small page behind a signed link: what is asked, and one button. It needs no script and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from aiohttp import web

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"


def render(title: str, lines: Sequence[str], verb: str, status: int = 200) -> web.Response:
    """A page with a title, lines, and a button named after the verb; without a verb there is nothing to press."""
    rows = "".join(f"<li>{escape(line)}</li>" for line in lines)
    button = (
        f'<form method="post"><button name="confirm" value="yes">{verb.capitalize()}</button></form>' if verb else ""
    )
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>kiki</title>'
        '<meta name="viewport" content="width=device-width">'
        "<style>body{font:16px/1.5 system-ui;max-width:40em;margin:3em auto;padding:0 1em}"
        "button{font:inherit;padding:.5em 2em}</style>"
        f"<h1>{escape(title)}</h1><ul>{rows}</ul>{button}</html>"
    )
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
    return web.Response(text=text, content_type="text/html", headers=headers, status=status)
