"""The settings model: one frozen class per table, with its bounds and defaults.

Amounts of money are decimal text or numbers in units of `currency`, kept as text here and turned into micros by
`model.money`. A new setting is documented in docs/configuration.md in the same change; a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from kiki_agent.model.money import micros_from_text
from kiki_agent.model.platform import Platform


class Mode(StrEnum):
    """What the agent may touch; see the table in docs/architecture.md."""

    DEMO = "demo"
    DRY_RUN = "dry-run"
    LIVE = "live"
    BACKTEST = "backtest"


@dataclass(frozen=True, slots=True)
class Expect:
    """What a finding says was expected, where the type and its bounds do not say it well."""

    text: str


def _amount(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise ValueError("not an amount")
    text = value if isinstance(value, str) else format(Decimal(str(value)), "f")
    if micros_from_text(text) < 0:
        raise ValueError("an amount is not negative")
    return text


def _positive(text: str) -> str:
    if micros_from_text(text) == 0:
        raise ValueError("an amount of nothing")
    return text


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except Exception as error:  # zoneinfo raises KeyError, ValueError, OSError and more, by the kind of nonsense
        raise ValueError("unknown time zone") from error
    return name


def _platform(text: str) -> str:
    return Platform.parse(text).value


Seconds = Annotated[float, Field(gt=0, le=86_400 * 366)]
Days = Annotated[float, Field(ge=0, le=36_600)]
Share = Annotated[float, Field(ge=0, le=1)]
Cap = Annotated[str, BeforeValidator(_amount), Expect('an amount such as "250.00", not negative')]
"""An amount in units of `currency`; 0 is allowed and permits nothing."""
Amount = Annotated[
    str, BeforeValidator(_amount), AfterValidator(_positive), Expect('an amount such as "12.34", above 0')
]
TimeZone = Annotated[str, AfterValidator(_timezone), Expect("an IANA time zone such as Europe/Berlin")]
PlatformName = Annotated[
    str, AfterValidator(_platform), Expect("one of " + ", ".join(platform.value for platform in Platform))
]
ClientId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$"), Expect("1 to 64 letters, digits, dots, dashes or underscores")
]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$"), Expect("an ISO 4217 currency code such as USD")]
Host = Annotated[str, Field(min_length=1, max_length=253), Expect("an address to listen on such as 127.0.0.1")]
PluginName = Annotated[str, Field(min_length=1), Expect("the name of a class that a plugin provides, such as sandbox")]
VendorId = Annotated[int, Field(ge=1, le=65_535)]
Folder = Annotated[str, Field(min_length=1), Expect("the path of a folder")]
File = Annotated[str, Field(min_length=1), Expect("the path of a file")]


class Section(BaseModel):
    """A table of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class HttpSettings(Section):
    """The one HTTP listener."""

    host: Host = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    token: SecretStr | None = None
    token_file: File | None = None
    """Holds the token when `token` is not set; made with a fresh one when it does not exist."""
    max_body: Annotated[int, Field(ge=1_024, le=64 * 1024 * 1024)] = 1024 * 1024
    requests_per_minute: Annotated[int, Field(ge=10, le=10_000_000)] = 6_000
    """From one address; more is answered with 429."""
    compat_ports: list[Annotated[int, Field(ge=1, le=65_535)]] = []


class StoreSettings(Section):
    """Where the database and its side files live."""

    folder: Folder = "data"
    readers: Annotated[int, Field(ge=1, le=16)] = 2
    backup_folder: Folder | None = None
    """Where backups are kept; None: `backups` in `folder`."""
    backup_interval_s: Seconds = 86_400.0
    backups_kept: Annotated[int, Field(ge=1, le=365)] = 7
    """Days of which a daily backup stays."""
    backups_weekly: Annotated[int, Field(ge=0, le=520)] = 4
    """Weeks of which a daily backup stays."""


class LedgerSettings(Section):
    """Bookkeeping of the hash-chained journal."""

    head_interval_s: Seconds = 1.0
    runs_flush_s: Seconds = 30.0
    verify_interval_s: Seconds = 86_400.0
    settle_s: Seconds = 30.0
    """After this long a request can no longer be travelling, and an unknown outcome may be read back."""
    hot_days: Days = 90.0
    """Older entries leave the table for sealed files; 0: never."""
    money_days: Days = 3_650.0
    """Sealed entries about money and orders keep their bodies for so long; 0: for ever. So do the next two."""
    decision_days: Days = 730.0
    personal_days: Days = 2_555.0


class BiddingSettings(Section):
    """The two-second loop."""

    interval_s: Seconds = 2.0
    deadline_s: Seconds = 1.5
    value_share: Annotated[float, Field(gt=0, le=1)] = 0.60
    """Share of a customer's lifetime value that may be paid to win them."""
    bid_step_percent: Annotated[float, Field(gt=0, le=50)] = 0.5
    """Bids move on a geometric grid of this step, unless the platform's own step is coarser."""
    max_bid: Amount = "50"
    write_interval_s: Seconds = 10.0
    """How often waiting changes are sent to a platform."""
    min_write_gap_s: Seconds = 900.0
    """At most one bid change per campaign in this time reaches the platform; the last value wins."""
    min_change_percent: Annotated[float, Field(ge=0, le=100)] = 5.0
    poll_interval_s: Seconds = 60.0
    """How often spend is read from each platform."""
    report_interval_s: Seconds = 300.0
    """How often campaigns and performance are read from each platform."""


class OptimizerSettings(Section):
    """The five-minute loop."""

    enabled: bool = True
    interval_s: Seconds = 300.0
    run_at_start: bool = True
    policy: Literal["threshold"] = "threshold"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.15
    step_share: Annotated[float, Field(gt=0, le=1)] = 0.20
    lookback_days: Annotated[int, Field(ge=1, le=90)] = 7
    cooldown_s: Annotated[float, Field(ge=0, le=86_400 * 366)] = 86_400.0
    floor_share: Share = 0.30
    consume_evidence: bool = True
    min_conversions: Annotated[int, Field(ge=0)] = 10


class ShieldSettings(Section):
    """What money may do. A connector without a daily cap never spends."""

    window_s: Seconds = 600.0
    max_budget_ratio: Annotated[float, Field(gt=1, le=1_000)] = 10.0
    """A single change may not multiply a budget by more than this (slipped digits)."""
    max_budget: Amount = "1000000"
    client_daily_cap: Cap | None = None
    """Most that all connectors together may spend a day; None: their own caps are the only bounds."""
    client_window_cap: Cap | None = None
    min_ltv: Cap | None = None
    max_ltv: Amount | None = None
    """A bid by hand whose predicted value of the customer is outside is vetoed: the prediction is hardly right. None:
    10 and 10000 for a client in US dollars, no bound in other currencies."""
    reservation_s: Seconds = 600.0
    """A reservation asked for over HTTP is given back after so long, unless it is spent or released before."""


class GovernorSettings(Section):
    """When a sound change is made, suggested, or left alone."""

    outside_hold_s: Seconds = 86_400.0
    """For so long a lever that somebody else changed is left alone."""
    limit: Annotated[float, Field(gt=0, le=1)] = 0.20
    """Net change of 24 hours at the level act_limited, as a share of what stood before."""
    approval_above: Amount | None = None
    """A raise of daily budget above this needs a person's approval, also at the level act."""
    max_step: Annotated[float, Field(gt=0, le=100)] = 4.0
    """Largest change of a daily budget at once, as a share of what stands."""
    budget_rest_s: Annotated[float, Field(ge=0, le=86_400 * 366)] = 3_600.0
    """Between two changes of one daily budget."""
    learning_step: Share = 0.20
    """Larger changes wait while a campaign is learning."""
    fresh_s: Seconds = 21_600.0
    """Nothing is raised on figures that have not moved for this long."""
    noise_z: Annotated[float, Field(ge=0, le=10)] = 0.0
    """A change of budget must move more conversions than this many standard deviations of chance; 0: not asked."""
    suggestion_s: Seconds = 86_400.0
    """For so long a suggestion may be approved."""
    anomaly_stop: bool = True


class ConsentSettings(Section):
    """What people allow to be done with their data."""

    vendor_id: VendorId | None = None
    """This client's id in the global vendor list of the IAB framework."""
    most_in_memory: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000


class ValueSettings(Section):
    """What a customer is worth."""

    interval_s: Seconds = 3_600.0
    lookback_days: Annotated[int, Field(ge=1, le=730)] = 90
    default_ltv: Amount = "300"
    history: Annotated[int, Field(ge=1, le=10_000)] = 100
    min_samples: Annotated[int, Field(ge=1)] = 1


Multiplier = Annotated[float, Field(gt=0, le=100)]


class MultiplierSettings(Section):
    """What a platform's customers are worth against the client's median, for the fallback (RES-04)."""

    google_ads: Multiplier = 1.0
    meta: Multiplier = 1.0
    tradedesk: Multiplier = 1.0
    amazon: Multiplier = 1.0
    microsoft: Multiplier = 1.0
    x: Multiplier = 0.75
    linkedin: Multiplier = 1.2
    tiktok: Multiplier = 1.5


class ResilienceSettings(Section):
    """What happens when a platform fails; holds for every connector that says nothing else (RES-01 to RES-04)."""

    failure_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    slow_call_ms: Annotated[int, Field(ge=1, le=600_000)] = 500
    slow_batch_ms: Annotated[int, Field(ge=1, le=600_000)] = 30_000
    reset_timeout_s: Seconds = 30.0
    half_open_successes: Annotated[int, Field(ge=1, le=100)] = 2
    read_retries: Annotated[int, Field(ge=0, le=5)] = 2
    multipliers: MultiplierSettings = MultiplierSettings()


class RateLimitSettings(Section):
    """Calls a vendor takes from one account; what is left out is as its plugin says (CON-47)."""

    calls: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    window_s: Seconds | None = None
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class CircuitSettings(Section):
    """A connector's own thresholds; what is left out is as `[resilience]` says."""

    failure_threshold: Annotated[int, Field(ge=1, le=100)] | None = None
    slow_call_ms: Annotated[int, Field(ge=1, le=600_000)] | None = None
    slow_batch_ms: Annotated[int, Field(ge=1, le=600_000)] | None = None
    reset_timeout_s: Seconds | None = None
    half_open_successes: Annotated[int, Field(ge=1, le=100)] | None = None


class DemoSettings(Section):
    """The simulated market of demo and backtest."""

    speed: Annotated[float, Field(ge=0.01, le=3_600)] = 1.0
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1
    campaigns: Annotated[int, Field(ge=6, le=6_000)] = 120
    history_days: Annotated[int, Field(ge=1, le=365)] = 30
    fault_rate: Share = 0.001


class LogSettings(Section):
    """One JSON object a line on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class PluginSettings(Section):
    """Which plugins may run. Live mode runs only what `allow` names."""

    allow: list[str] = ["sandbox"]
    folder: Folder | None = None


class InstanceSettings(BaseModel):
    """One `[connector.<id>]`, `[crm.<id>]` or `[notifier.<id>]` table; further keys belong to the plugin's model."""

    model_config = ConfigDict(extra="allow", frozen=True)

    plugin: PluginName
    """Name of the class a plugin registered, for example `sandbox`."""
    enabled: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """The keys the plugin's own config model validates."""
        return dict(self.model_extra or {})


USUAL_WINDOW_CAPS: Final = {"google_ads": "500", "meta": "400"}
"""Window caps of connector classes that have one from the start, in units of the account's currency."""


class ConnectorSettings(InstanceSettings):
    """A connector, with the caps the shield holds it to. Caps are amounts in units of `currency`."""

    platform: PlatformName
    timezone: TimeZone | None = None
    """Where the account's days begin at midnight; None: as the agent's own."""
    daily_cap: Cap | None = None
    window_cap: Cap | None = None
    kind: Literal["smart", "basic"] = "smart"
    """A basic connector has no spending window and no circuit of its own."""
    rate_limit: RateLimitSettings = RateLimitSettings()
    circuit: CircuitSettings = CircuitSettings()
    vendor_id: VendorId | None = None
    """The platform's id in the global vendor list of the IAB framework."""

    @model_validator(mode="before")
    @classmethod
    def _usual_window(cls, table: Any) -> Any:
        """A table of a class with a usual window cap gets it unless it names its own; never more than its daily cap."""
        usual = USUAL_WINDOW_CAPS.get(str(table.get("plugin"))) if isinstance(table, dict) else None
        if usual is None or "window_cap" in table or table.get("kind") == "basic":
            return table
        try:
            most = min(Decimal(usual), Decimal(str(table["daily_cap"])))
        except (KeyError, InvalidOperation):  # none given, or one that is reported as it is
            most = Decimal(usual)
        return {**table, "window_cap": str(most)}


class Settings(Section):
    """Everything that can be set."""

    client_id: ClientId = "demo"
    mode: Mode = Mode.DEMO
    currency: Currency = "USD"
    timezone: TimeZone = "UTC"
    http: HttpSettings = HttpSettings()
    store: StoreSettings = StoreSettings()
    ledger: LedgerSettings = LedgerSettings()
    bidding: BiddingSettings = BiddingSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    shield: ShieldSettings = ShieldSettings()
    governor: GovernorSettings = GovernorSettings()
    consent: ConsentSettings = ConsentSettings()
    value: ValueSettings = ValueSettings()
    resilience: ResilienceSettings = ResilienceSettings()
    demo: DemoSettings = DemoSettings()
    log: LogSettings = LogSettings()
    plugins: PluginSettings = PluginSettings()
    connector: dict[str, ConnectorSettings] = {}
    crm: dict[str, InstanceSettings] = {}
    notifier: dict[str, InstanceSettings] = {}

    @property
    def database(self) -> Path:
        """The database of the mode: one file each, so that a rehearsal never touches the books of the real thing."""
        return Path(self.store.folder) / _DATABASES[self.mode]

    @property
    def backup_folder(self) -> Path:
        """Where the backups of all modes are."""
        own = self.store.backup_folder
        return Path(self.store.folder) / "backups" if own is None else Path(own)

    @property
    def ledger_head(self) -> Path:
        """The file beside the database that holds the last known head of the ledger."""
        return self.database.with_suffix(".head")


_DATABASES = {
    Mode.DEMO: "demo.db",
    Mode.DRY_RUN: "dryrun.db",
    Mode.LIVE: "live.db",
    Mode.BACKTEST: "backtest.db",
}
