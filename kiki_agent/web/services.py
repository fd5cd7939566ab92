"""The one object that carries the services to the handlers, filled by the agent as its parts come up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields
from typing import TypeVar

from kiki_agent.config import Settings
from kiki_agent.consent import BID_PURPOSE, DENIED, NOT_PERSONAL, Consents, Privacy
from kiki_agent.errors import StoreError
from kiki_agent.governor import Governor
from kiki_agent.model import Instant
from kiki_agent.recovery import Backups, Restored
from kiki_agent.resilience import Resilience
from kiki_agent.runtime.clock import Clock, Stopwatch
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.runtime.supervisor import LoopState, Supervisor
from kiki_agent.shield import Refusal
from kiki_agent.value import Conversions
from kiki_agent.web.problem import Problem
from kiki_agent.web.protocols import (
    Accounts,
    Alerts,
    Decisions,
    Ledger,
    Optimizer,
    Outbox,
    Plugins,
    Records,
    Shield,
    Store,
    Value,
)

T = TypeVar("T")

_log = get_logger("web")


@dataclass(slots=True, kw_only=True)
class Services:
    """Everything handlers may call. Parts that are not up yet are None, and their endpoints answer 503."""

    settings: Settings
    clock: Clock
    version: str
    started_at: Instant
    """When the process started, on the agent's clock."""
    metrics: Metrics
    signals: Signals
    starting: str | None = "starting"
    """What the start is waiting for; None once everything runs."""
    stand_in: str | None = None
    """Why a stand-in takes the place of the database: what it is told is not kept, but a stop. None: the real one."""
    store: Store | None = None
    ledger: Ledger | None = None
    decisions: Decisions | None = None
    outbox: Outbox | None = None
    records: Records | None = None
    shield: Shield | None = None
    accounts: Accounts | None = None
    value: Value | None = None
    governor: Governor | None = None
    approval_key: bytes | None = None
    """Signs the links that decide one suggestion."""
    optimizer: Optimizer | None = None
    alerts: Alerts | None = None
    consents: Consents | None = None
    privacy: Privacy | None = None
    conversions: Conversions | None = None
    plugins: Plugins | None = None
    resilience: Resilience | None = None
    supervisor: Supervisor | None = None
    backups: Backups | None = field(default=None, metadata={"stays": True})
    """Works on files, also before and after the parts."""
    restorer: Callable[[str], Awaitable[Restored]] | None = field(default=None, metadata={"stays": True})
    """Puts a backup in place of a database that cannot be trusted, and starts again; raises Busy when it can be."""
    uptime: Stopwatch = field(default_factory=Stopwatch)
    """Real time since the process started."""

    def forget_parts(self, starting: str) -> None:
        """The parts are gone, to be made anew."""
        self.starting = starting
        for each in fields(self):
            if each.default is None and not each.metadata.get("stays"):
                setattr(self, each.name, None)

    def not_ready(self) -> str | None:
        """Why the agent is not ready to do its work, or None. The kill switch is a wish, not a defect."""
        if self.starting is not None:
            return self.starting
        if self.store is not None and self.store.failure:
            return f"safe hold: the database cannot be written: {self.store.failure}"
        if self.ledger is not None and self.ledger.hold_reason:
            return f"safe hold: {self.ledger.hold_reason}"
        if self.supervisor is not None and self.supervisor.frozen:
            names = [
                each.name
                for each in self.supervisor.health.values()
                if each.essential and each.state is LoopState.FAULTED
            ]
            return f"frozen: spending stopped because a loop that must run does not: {', '.join(sorted(names))}"
        if self.shield is not None and self.shield.hold_reason:
            return f"safe hold: {self.shield.hold_reason}"
        return None


async def basis_of(services: Services, customer_id: str | None, platform: str, now: Instant) -> str:
    """The legal basis of a bid (M12): about nobody, by a consent, or none. Nothing is awaited after it is known."""
    if customer_id is None:
        return NOT_PERSONAL
    if services.consents is None:
        return DENIED
    return await services.consents.look(customer_id, BID_PURPOSE, platform, now)


async def note_refusal(
    services: Services, customer_id: str | None, platform: str, campaign_id: str, reason: str | None, now: Instant
) -> None:
    """Put on record that a bid had no legal basis; when that cannot be written the answer is no all the same."""
    if reason != Refusal.CONSENT or services.privacy is None or customer_id is None:
        return
    try:
        await services.privacy.refused(customer_id, BID_PURPOSE.value, platform, campaign_id, now)
    except StoreError as error:
        _log.error(
            "refusal_not_noted", f"A bid without a basis was refused; no record tells of it: {error}", error=error
        )


def spent_today(services: Services, connector: str, now: Instant) -> int | None:
    """Micros spent in the account day: as the platform reports, and by bids placed through the agent, which platforms
    do not report before their next report. None before the first report."""
    accounts = services.accounts
    if accounts is None or accounts.spend_age(connector, now) is None:
        return None
    low, high = accounts.table.bounds[connector]
    placed = 0 if services.shield is None else services.shield.status(connector, now).placed_micros
    return int(accounts.table.spend_today_micros[low:high].sum()) + placed


def need(component: T | None, name: str) -> T:
    """The component, or a 503 that names it."""
    if component is None:
        raise Problem(503, f"{name} is off or not up yet", "COMPONENT_OFF", headers={"Retry-After": "2"})
    return component
