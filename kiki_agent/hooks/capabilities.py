"""What one account behind a connector can do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Facts of one ad account that the core plans with; a connector answers them from the vendor, not from hope."""

    currency: str = "USD"
    """ISO 4217 code all amounts of this account are in."""
    timezone: str = "UTC"
    """IANA name; the account's days begin and end here."""
    batch_size: int = 100
    """Most intents the connector takes in one call."""
    writes_per_hour: int | None = None
    """Most changes an hour the vendor accepts for the whole account; None when it states no such limit."""
    keeps_keys: bool = False
    """True when the vendor stores our key with a change, so that `reconcile` can settle by key."""
    validates: bool = False
    """True when the vendor can check a change without making it; a dry run then asks it to."""
    api_version: str = ""
    """Version of the vendor's API that is spoken; empty where it has none."""
    sunset: str = ""
    """Day, `YYYY-MM-DD`, on which the vendor ends that version; empty when it has not said."""
