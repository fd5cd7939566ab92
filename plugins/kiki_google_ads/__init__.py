"""Google Ads: campaigns, budgets, bids and reports of one customer account over the REST API, and a strict stand-in.

Thin: one HTTP client, Google's words in `mapping.py`, its errors in `errors.py`. No decision about money lives here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kiki_agent import PluginApi


def register(api: PluginApi) -> None:
    """Offer the `google_ads` connector, and Google's API over the simulated market."""
    from kiki_agent import RateLimit
    from kiki_google_ads.config import GoogleAdsConfig
    from kiki_google_ads.connector import GoogleAdsConnector

    api.require(1, 0)
    # Google meters by token bucket and names no number of calls; 100 a minute keeps well below what standard access
    # bears, and the burst is a quarter of it, so that one second never uses up a minute
    limit = RateLimit(calls=100, window_s=60, burst=25)
    api.connector("google_ads", GoogleAdsConnector, config=GoogleAdsConfig, rate_limit=limit)
    api.sandbox(
        "google_ads",
        platform="google_ads",
        target="kiki_google_ads.sandbox:GoogleAdsSandbox",
        options={
            "base_url": "{url}",
            "token_url": "{url}/token",
            "customer_id": "1234567890",
            "login_customer_id": "",
            "client_id": "{id}",
            "client_secret": "{secret}",
            "refresh_token": "refresh-{secret}",
            "developer_token": "developer-{secret}",
            "conversion_action": "600000001",
        },
    )
