"""Settings of one Meta ad account."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, model_validator

from kiki_agent import PluginConfig

SUNSETS: dict[str, str] = {}
"""Day a version ends, where Meta has said so. A version lives at least 90 days after the next one appears; v20.0 and
older answered errors in early 2026."""


class MetaConfig(PluginConfig):
    """Keys of a `[connector.<id>]` table with `plugin = "meta"`."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+[^\s?#/]$")] = "https://graph.facebook.com"
    api_version: Annotated[str, Field(pattern=r"^v[0-9]{1,3}\.[0-9]$")] = "v26.0"
    account_id: Annotated[str, Field(pattern=r"^(act_)?[0-9]*$")] = ""
    """The ad account, with or without `act_`."""
    business_id: Annotated[str, Field(pattern=r"^[0-9]*$")] = ""
    """The business that owns it; shown, and not needed for any call."""
    access_token: SecretStr = SecretStr("")
    """Best of a system user: those do not expire."""
    app_secret: SecretStr = SecretStr("")
    """Signs every request (`appsecret_proof`) when it is given."""
    purchase_action: Annotated[str, Field(pattern=r"^[a-z0-9_.]{1,80}$")] = "omni_purchase"
    """The one name of a purchase that counts. Meta reports the same purchases under several names."""
    pixel_id: Annotated[str, Field(pattern=r"^[0-9]*$")] = ""
    """The data set that uploaded conversion values go to."""
    action_source: Literal[
        "system_generated",
        "website",
        "app",
        "phone_call",
        "chat",
        "physical_store",
        "email",
        "business_messaging",
        "other",
    ] = "system_generated"
    """Where uploaded conversions are said to come from. Meta wants the browser of a `website` event, which we lack."""
    data_age_s: Annotated[float, Field(ge=0, le=86_400)] = 1_800.0
    """How far the spend of the running day may lag; Meta says its reports are refreshed every quarter of an hour."""
    restated_days: Annotated[int, Field(ge=1, le=90)] = 28
    """For so many days conversions still arrive at the day of their click or view."""
    report_days: Annotated[int, Field(ge=1, le=1_000)] = 60
    """A performance read over more days than this is ordered as a report and fetched when it is made."""
    page_size: Annotated[int, Field(ge=1, le=1000)] = 500
    timeout_s: Annotated[float, Field(gt=0, le=120)] = 20.0

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> MetaConfig:
        """Outside the simulation nothing may be missing; every missing key is named at once."""
        if (info.context or {}).get("mode") not in ("live", "dry-run"):
            return self
        given = {"account_id": self.account, "access_token": self.access_token.get_secret_value()}
        missing = [name for name, value in given.items() if not value]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be given to reach a real account")
        return self

    @property
    def account(self) -> str:
        """The account's number without `act_`."""
        return self.account_id.removeprefix("act_")
