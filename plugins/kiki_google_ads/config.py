"""Settings of one Google Ads account."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, ValidationInfo, model_validator

from kiki_agent import PluginConfig

SUNSETS = {"v15": "2024-09-25"}
"""Day a version ended or ends, from Google's page of sunset dates. Versions live about a year, up to five of them
at a time; the end of one that is not here has not been announced."""

Address = Annotated[str, Field(pattern=r"^https?://[^\s?#]+[^\s?#/]$")]
CustomerId = Annotated[str, Field(pattern=r"^([0-9]{3}-?[0-9]{3}-?[0-9]{4})?$")]


class GoogleAdsConfig(PluginConfig):
    """Keys of a `[connector.<id>]` table with `plugin = "google_ads"`."""

    base_url: Address = "https://googleads.googleapis.com"
    token_url: Address = "https://oauth2.googleapis.com/token"
    api_version: Annotated[str, Field(pattern=r"^v[0-9]{1,3}$")] = "v26"
    api_sunset: Annotated[str, Field(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$")] = ""
    """The day Google ends that version, once it has said so; empty: as far as the plugin knows."""
    customer_id: CustomerId = ""
    """The account that spends, with or without dashes."""
    login_customer_id: CustomerId = ""
    """The manager account through which it is reached; empty when it is reached directly."""
    developer_token: SecretStr = SecretStr("")
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    refresh_token: SecretStr = SecretStr("")
    conversion_action: Annotated[str, Field(pattern=r"^[0-9]*$")] = ""
    """Number of the conversion action that uploaded values go to."""
    data_age_s: Annotated[float, Field(ge=0, le=86_400)] = 10_800.0
    """How far the cost of the running day may lag: Google says less than three hours."""
    restated_days: Annotated[int, Field(ge=1, le=90)] = 30
    """For so many days conversions still arrive at the day of their click."""
    timeout_s: Annotated[float, Field(gt=0, le=120)] = 20.0

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> GoogleAdsConfig:
        """Outside the simulation nothing may be missing; every missing key is named at once."""
        if (info.context or {}).get("mode") not in ("live", "dry-run"):
            return self
        given = {
            "customer_id": self.customer_id,
            "developer_token": self.developer_token.get_secret_value(),
            "client_id": self.client_id,
            "client_secret": self.client_secret.get_secret_value(),
            "refresh_token": self.refresh_token.get_secret_value(),
        }
        missing = [name for name, value in given.items() if not value]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be given to reach a real account")
        return self

    @property
    def customer(self) -> str:
        """The account's number without dashes."""
        return self.customer_id.replace("-", "")
