"""Meta: ad sets, budgets, bids and insights of one ad account over the Marketing API, and a strict stand-in.

What the agent calls a campaign is an ad set here: bids, learning and reports live there. Its budget may be the
campaign's, shared by all its ad sets. No decision about money lives here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kiki_agent import PluginApi


def register(api: PluginApi) -> None:
    """Offer the `meta` connector, and Meta's API over the simulated market."""
    from kiki_agent import RateLimit
    from kiki_meta.config import MetaConfig
    from kiki_meta.connector import MetaConnector

    api.require(1, 0)
    # the classic 200 calls an hour of an app with one user; higher tiers bear more, and the table's rate_limit says so
    limit = RateLimit(calls=200, window_s=3_600, burst=20)
    api.connector("meta", MetaConnector, config=MetaConfig, rate_limit=limit)
    api.sandbox(
        "meta",
        platform="meta",
        target="kiki_meta.sandbox:MetaSandbox",
        options={
            "base_url": "{url}",
            "account_id": "1234567890",
            "access_token": "token-{secret}",
            "app_secret": "app-{secret}",
            "pixel_id": "880088008800",
        },
    )
