"""The guards of all connectors, and every change a person makes to them while the agent runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from kiki_agent.config import ConnectorSettings, ResilienceSettings, Settings
from kiki_agent.hooks.guard import CircuitRule, Guard
from kiki_agent.hooks.instance import Instance
from kiki_agent.hooks.rng import Rng
from kiki_agent.ledger import Ledger
from kiki_agent.model import SECOND, DecisionSource, Instant, Platform
from kiki_agent.model.money import micros_from_text
from kiki_agent.resilience.changes import ConnectorChange, Parts, RulesChange, Unusable, changed, from_ints
from kiki_agent.resilience.overrides import EVERYWHERE, Overrides, Value, write
from kiki_agent.resilience.windows import CallWindows, read_windows
from kiki_agent.runtime.breaker import Circuit
from kiki_agent.runtime.clock import Clock
from kiki_agent.runtime.limiter import RateLimit
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.metrics import Metrics
from kiki_agent.runtime.signals import Signals
from kiki_agent.runtime.supervisor import Supervisor
from kiki_agent.shield import Caps, Shield
from kiki_agent.store import Store
from kiki_agent.value import Value as ValueService

_log = get_logger("resilience")

Worth = tuple[int, DecisionSource, str]


class Resilience:
    """Made before the plugins, tied to shield, value and supervisor when these are up."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        store: Store,
        ledger: Ledger,
        overrides: Overrides,
        windows: Mapping[str, list[int]],
        *,
        seed: int,
        metrics: Metrics,
        signals: Signals,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._store = store
        self._ledger = ledger
        self._overrides = overrides
        self._windows = windows
        self._seed = seed
        self._metrics = metrics
        self._signals = signals
        self.guards: dict[str, Guard] = {}
        """Connector -> its guard, for every connector that is enabled in the configuration."""
        self.windows = CallWindows(store, clock, self.guards)
        """The loop that keeps what was called over a restart."""
        self._stated: dict[str, RateLimit | None] = {}
        self._shield: Shield | None = None
        self._value: ValueService | None = None
        self._supervisor: Supervisor | None = None

    @classmethod
    async def open(
        cls,
        settings: Settings,
        clock: Clock,
        store: Store,
        ledger: Ledger,
        *,
        seed: int,
        metrics: Metrics,
        signals: Signals,
    ) -> Resilience:
        """Know again what was changed before the last stop. Raises StoreError."""
        overrides, windows = await store.read(lambda connection: (Overrides.read(connection), read_windows(connection)))
        return cls(settings, clock, store, ledger, overrides, windows, seed=seed, metrics=metrics, signals=signals)

    # -- putting together -----------------------------------------------------------------------------------------

    def make_guard(self, instance: Instance) -> Guard | None:
        """The guard of a connector; other kinds of plugins have none."""
        table = self._settings.connector.get(instance.id)
        if instance.kind != "connector" or table is None:
            return None
        self._stated[instance.id] = instance.rate_limit
        guard = Guard(
            instance.id,
            self._clock,
            limit=self._limit(instance.id),
            rule=self._rule(instance.id, table) if table.kind == "smart" else None,
            chance=lambda name: Rng(self._seed, instance.id, name).uniform,
            tell=self._signals.publish,
            observe=self._observe,
            read_retries=self.rules.read_retries,
        )
        if guard.limiter is not None:
            guard.limiter.restore(self._windows.get(instance.id, []), self._clock.now())
        guard.enabled = bool(self._overrides.of(instance.id).get("enabled", True))
        self.guards[instance.id] = guard
        return guard

    def caps(self, connector: str, caps: Caps) -> Caps:
        """The configured caps with what was changed at run time; never above the configured daily cap."""
        table = self._settings.connector[connector]
        if table.kind == "basic":
            return replace(caps, window_micros=None)
        changed = self._overrides.of(connector).get("max_budget_micros")
        if not isinstance(changed, int) or caps.daily_micros is None:
            return caps
        return replace(caps, window_micros=min(changed, caps.daily_micros))

    def tie(self, shield: Shield, value: ValueService, supervisor: Supervisor) -> None:
        """Meet those that changes reach, and do what earlier changes ask of them."""
        self._shield, self._value, self._supervisor = shield, value, supervisor
        self._tune_value()
        for name, guard in self.guards.items():
            if not guard.enabled:
                self._switch(name, on=False)

    # -- what is in force -----------------------------------------------------------------------------------------

    @property
    def rules(self) -> ResilienceSettings:
        """What holds for connectors that say nothing else."""
        configured = self._settings.resilience
        changed = self._overrides.of(EVERYWHERE).get("rules")
        return configured if not isinstance(changed, dict) else configured.model_copy(update=from_ints(changed))

    @property
    def multipliers(self) -> dict[str, float]:
        """Worth of each platform's customers against the median."""
        found: dict[str, float] = dict(self._settings.resilience.multipliers.model_dump())
        changed = self._overrides.of(EVERYWHERE).get("multipliers")
        if isinstance(changed, dict):
            found |= {name: permille / 1_000 for name, permille in changed.items()}
        return found

    @property
    def max_history(self) -> int:
        """Past values that make the fallback's median."""
        changed = self._overrides.of(EVERYWHERE).get("max_history")
        return changed if isinstance(changed, int) else self._settings.value.history

    @property
    def min_samples(self) -> int:
        """Past values below which the default serves."""
        changed = self._overrides.of(EVERYWHERE).get("min_samples")
        return changed if isinstance(changed, int) else self._settings.value.min_samples

    def fallback(self, connector: str, platform: str) -> Worth | None:
        """The fallback value while a circuit of the connector is not closed (RES-03); None while all is well."""
        guard = self.guards.get(connector)
        if guard is None or guard.closed or self._value is None:
            return None
        return self._value.fallback_micros(platform)

    def decided(self, connector: str) -> None:
        """A decision was made with the fallback value."""
        guard = self.guards.get(connector)
        if guard is not None and not guard.closed:
            guard.counts.fallbacks += 1

    def changes_from(self, connector: str, now: Instant) -> Instant:
        """The instant before which changes of a connector that raise spend would be held back."""
        guard = self.guards.get(connector)
        return now if guard is None else guard.changes_from(now)

    def worst(self, platform: Platform) -> float:
        """For the gauge: the worst circuit of a platform's connectors."""
        tables = self._settings.connector
        names = [name for name in self.guards if Platform.parse(tables[name].platform) is platform]
        return float(max((self.guards[name].circuit for name in names), default=Circuit.CLOSED))

    # -- changing -------------------------------------------------------------------------------------------------

    async def change_connector(self, connector: str, change: ConnectorChange, now: Instant) -> None:
        """Check, write down, then let it hold. Raises Unusable, and then nothing has changed; StoreError."""
        guard = self.guards[connector]
        table = self._settings.connector[connector]
        shield = self._shield
        wanted: dict[str, Value | None] = {}
        wanted |= self._checked_budget(connector, table, change)
        for value in change.enabled.values():
            wanted["enabled"] = None if value in (True, None) else False
        wanted |= self._checked_limit(connector, change)
        wanted |= self._checked_circuit(connector, table, change)
        if change.close_circuit and table.kind == "basic":
            raise Unusable("circuit", "a basic connector has none")
        if wanted:
            await self._store.write(partial(write, ledger=self._ledger, scope=connector, changes=wanted, now=now))
            self._overrides.take(connector, wanted)
        if "rate_limit" in wanted:
            guard.set_limit(self._limit(connector))
        if "circuit" in wanted:
            guard.set_rule(self._rule(connector, table))
        if change.close_circuit:
            for breaker in guard.breakers.values():
                breaker.close()
        if "enabled" in wanted:
            guard.enabled = wanted["enabled"] is None
            self._switch(connector, on=guard.enabled)
        if "max_budget_micros" in wanted and shield is not None:
            configured = Caps(_micros(table.daily_cap), _micros(table.window_cap))
            await shield.set_caps(connector, self.caps(connector, configured), now)
        _log.info("connector_tuned", f"{connector} was tuned: {', '.join(wanted) or 'circuit closed'}", set=wanted)

    async def change_rules(self, change: RulesChange, now: Instant) -> None:
        """The same for what holds everywhere. Raises Unusable, StoreError."""
        known = {each.value for each in Platform}
        unknown = sorted(set(change.multipliers or ()) - known)
        if unknown:
            raise Unusable("multipliers", f"{unknown[0]!r} is no platform; known are {', '.join(sorted(known))}")
        self._check_counts(change)
        wanted: dict[str, Value | None] = {**change.counts}
        mine = self._overrides.of(EVERYWHERE)
        if change.rules:
            wanted["rules"] = changed(_dict(mine.get("rules")), change.rules)
        if change.multipliers is None:
            wanted["multipliers"] = None
        elif change.multipliers:
            permille = {name: None if value is None else value * 1_000 for name, value in change.multipliers.items()}
            wanted["multipliers"] = changed(_dict(mine.get("multipliers")), permille)
        if not wanted:
            return
        await self._store.write(partial(write, ledger=self._ledger, scope=EVERYWHERE, changes=wanted, now=now))
        self._overrides.take(EVERYWHERE, wanted)
        for name, guard in self.guards.items():
            guard.set_rule(self._rule(name, self._settings.connector[name]))
            guard.read_retries = self.rules.read_retries
        self._tune_value()
        _log.info("resilience_tuned", f"Resilience was tuned: {', '.join(wanted)}", set=wanted)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _check_counts(self, change: RulesChange) -> None:
        configured, given = self._settings.value, change.counts
        least = given.get("min_samples", self.min_samples) or configured.min_samples
        most = given.get("max_history", self.max_history) or configured.history
        if least > most:
            raise Unusable("min_samples", f"must be at most max_history: {least} is more than {most}")

    def _limit(self, connector: str) -> RateLimit | None:
        changed = self._overrides.of(connector).get("rate_limit")
        if not isinstance(changed, dict):
            return self._stated.get(connector)
        return RateLimit(changed["calls"], changed["window_us"] / SECOND, changed.get("burst"))

    def _rule(self, connector: str, table: ConnectorSettings) -> CircuitRule:
        found: dict[str, float | int] = dict(self.rules.model_dump(exclude={"multipliers", "read_retries"}))
        found |= table.circuit.model_dump(exclude_none=True)
        found |= from_ints(_dict(self._overrides.of(connector).get("circuit")))
        return CircuitRule(
            failures=int(found["failure_threshold"]),
            slow_bid_s=found["slow_call_ms"] / 1_000,
            slow_call_s=found["slow_batch_ms"] / 1_000,
            reset_s=found["reset_timeout_s"],
            successes=int(found["half_open_successes"]),
        )

    def _checked_budget(
        self, connector: str, table: ConnectorSettings, change: ConnectorChange
    ) -> dict[str, Value | None]:
        for wanted in change.max_budget_micros.values():
            if table.kind == "basic":
                raise Unusable("max_budget", "a basic connector has no spending window")
            daily = _micros(table.daily_cap)
            if wanted is not None and daily is None:
                raise Unusable("max_budget", f"{connector} has no daily cap, so it never spends")
            if wanted is not None and daily is not None and wanted > daily:
                raise Unusable("max_budget", f"must be at most the daily cap of {table.daily_cap}")
            return {"max_budget_micros": wanted}
        return {}

    def _checked_limit(self, connector: str, change: ConnectorChange) -> dict[str, Value | None]:
        for wanted in change.rate_limit.values():
            if wanted is None:
                return {"rate_limit": None}
            calls, window_s, burst = (self._part(connector, name, wanted) for name in ("calls", "window_s", "burst"))
            if calls is None or window_s is None:
                raise Unusable("rate_limit", "calls and window_s are both needed, because no limit is in force")
            try:
                limit = RateLimit(int(calls), float(window_s), None if burst is None else int(burst))
            except ValueError as error:
                raise Unusable("rate_limit", str(error)) from None
            stored = {"calls": limit.calls, "window_us": round(limit.window_s * SECOND)}
            return {"rate_limit": stored if limit.burst is None else {**stored, "burst": limit.burst}}
        return {}

    def _part(self, connector: str, name: str, wanted: Parts) -> float | int | None:
        """A part of a limit of calls: as given, else as it is in force, or as stated where an earlier one goes back."""
        given = wanted.get(name)
        if given is not None:
            return given
        source = self._stated.get(connector) if name in wanted else self._limit(connector)
        found: float | int | None = None if source is None else getattr(source, name)
        return found

    def _checked_circuit(
        self, connector: str, table: ConnectorSettings, change: ConnectorChange
    ) -> dict[str, Value | None]:
        for wanted in change.circuit.values():
            if table.kind == "basic":
                raise Unusable("circuit", "a basic connector has none")
            if wanted is None:
                return {"circuit": None}
            if not wanted:
                return {}
            return {"circuit": changed(_dict(self._overrides.of(connector).get("circuit")), wanted)}
        return {}

    def _switch(self, connector: str, *, on: bool) -> None:
        """Let a connector's own loops tick or not."""
        if self._supervisor is None:
            return
        order: Callable[[str], None] = self._supervisor.resume if on else self._supervisor.pause
        for name in (f"poll:{connector}", f"write:{connector}"):
            if name in self._supervisor.health:
                order(name)

    def _tune_value(self) -> None:
        if self._value is not None:
            permille = {name: round(value * 1_000) for name, value in self.multipliers.items()}
            self._value.tune(permille, self.max_history, self.min_samples)

    def _observe(self, connector: str, event: str) -> None:
        platform = Platform.parse(self._settings.connector[connector].platform).value
        match event:
            case "rate_limited":
                self._metrics.rate_limited(platform).inc()
            case "retry":
                self._metrics.read_retries(platform).inc()
            case "circuit":
                self._metrics.circuit_transitions(platform).inc()
                state = self.guards[connector].circuit
                text = f"The circuit of {connector} is {state.word.replace('_', ' ')}"
                (_log.warning if state is Circuit.OPEN else _log.info)("circuit", text, connector=connector)
                self._signals.publish("circuit", {"connector": connector, "state": state.word})
                if state is Circuit.OPEN:
                    self._signals.publish("news", _opened(connector))


def _opened(connector: str) -> dict[str, object]:
    return {
        "severity": "WARNING",
        "title": f"{connector} fails again and again",
        "message": "It is left alone for a while, then tried again; its bids are made with the fallback value.",
        "subject": connector,
    }


def _micros(text: str | None) -> int | None:
    return None if text is None else micros_from_text(text)


def _dict(value: Value | None) -> dict[str, int]:
    return value if isinstance(value, dict) else {}
