"""Meta: ad sets, budgets, bids and insights of one ad account over the Marketing API, and a strict stand-in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kiki_agent import PluginApi


def register(api: PluginApi) -> None:
    """Nothing yet."""
    api.require(1, 0)
