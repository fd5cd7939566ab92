"""Settings: what can be set, where values come from, and every finding at once when they are wrong.

`settings.py` holds the model, `load.py` puts config.toml, environment and flags together. Nothing here opens the
database, calls a plugin or knows what a setting is used for.
"""

from kiki_agent.config.checks import is_loopback
from kiki_agent.config.known_names import variables_of
from kiki_agent.config.load import Loaded, load
from kiki_agent.config.settings import (
    BiddingSettings,
    CircuitSettings,
    ConnectorSettings,
    DemoSettings,
    GovernorSettings,
    HttpSettings,
    InstanceSettings,
    LedgerSettings,
    LogSettings,
    Mode,
    MultiplierSettings,
    OptimizerSettings,
    PluginSettings,
    RateLimitSettings,
    ResilienceSettings,
    Section,
    Settings,
    ShieldSettings,
    StoreSettings,
    ValueSettings,
)
from kiki_agent.config.show import NOT_SET, ShownSetting, shown_settings, unset_keys
from kiki_agent.config.token import KeptToken, read_token, with_token

__all__ = [
    "NOT_SET",
    "BiddingSettings",
    "CircuitSettings",
    "ConnectorSettings",
    "DemoSettings",
    "GovernorSettings",
    "HttpSettings",
    "InstanceSettings",
    "KeptToken",
    "LedgerSettings",
    "Loaded",
    "LogSettings",
    "Mode",
    "MultiplierSettings",
    "OptimizerSettings",
    "PluginSettings",
    "RateLimitSettings",
    "ResilienceSettings",
    "Section",
    "Settings",
    "ShieldSettings",
    "ShownSetting",
    "StoreSettings",
    "ValueSettings",
    "is_loopback",
    "load",
    "read_token",
    "shown_settings",
    "unset_keys",
    "variables_of",
    "with_token",
]
