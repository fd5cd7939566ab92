"""What a reader of live events asks for."""

from __future__ import annotations

from pydantic import Field

from kiki_agent.web.shapes.base import Given


class EventsQuery(Given):
    """Which topics, and from where on."""

    topics: str | None = Field(default=None, max_length=400, description="Divided by commas; without it all facts.")
    since: str | None = Field(default=None, max_length=80, description="Id of the last event that is known.")
