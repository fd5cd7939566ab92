"""The HTTP side: one aiohttp application with routes, guard, live events and the page people watch.

Reads the services and calls them. Never decides about money, never speaks SQL, never calls a vendor by itself.
"""

from kiki_agent.web.app import create_app
from kiki_agent.web.services import Services

__all__ = ["Services", "create_app"]
