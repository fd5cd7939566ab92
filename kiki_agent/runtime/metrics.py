"""Prometheus metrics: one registry of its own, every metric by name, and children that are cheap to count.

Labelled metrics are looked up through a plain dictionary, so a count in a hot loop costs well under a microsecond:

    metrics.bid_executions("meta", "ACCEPTED", "ai").inc(17)

Label values must come from small closed sets (platforms, reasons, routes as registered), never from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from kiki_agent.model.time import SECOND
from kiki_agent.runtime.supervisor import LoopHealth

M = TypeVar("M", Counter, Gauge, Histogram)

CONTENT_TYPE = CONTENT_TYPE_LATEST
_CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TICKS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
_DELAYS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_REQUESTS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Labelled(Generic[M]):
    """A metric with labels; calling it with label values gives the child that counts them."""

    __slots__ = ("_children", "_metric", "labels")

    def __init__(self, metric: M, labels: tuple[str, ...]) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}
        self.labels = labels

    def __call__(self, *values: str) -> M:
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child


class _LoopCollector:
    """Reads what the supervisor counts anyway, when somebody scrapes; a tick pays nothing for it."""

    def __init__(self) -> None:
        self.read: Callable[[], Iterable[LoopHealth]] = tuple

    def collect(self) -> Iterator[Metric]:
        late = CounterMetricFamily("syncflow_ticks_late", "Ticks that ended after their deadline.", labels=["loop"])
        skipped = CounterMetricFamily("syncflow_ticks_skipped", "Due times that passed unticked.", labels=["loop"])
        failed = CounterMetricFamily("kiki_loop_failures", "Ticks that failed.", labels=["loop"])
        last = GaugeMetricFamily(
            "kiki_loop_last_success_timestamp_seconds", "Due time of the last successful tick.", labels=["loop"]
        )
        for health in list(self.read()):
            late.add_metric([health.name], health.late)
            skipped.add_metric([health.name], health.skipped)
            failed.add_metric([health.name], health.failures)
            if health.last_success is not None:
                last.add_metric([health.name], health.last_success / SECOND)
        yield from (late, skipped, failed, last)


class Metrics:
    """Everything the agent measures. One object per agent; tests make as many as they like."""

    def __init__(self, *, process: bool = True) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time stamp per counter, which nobody asks for
        self.registry = CollectorRegistry()
        if process:
            ProcessCollector(registry=self.registry)
        self._loops = _LoopCollector()
        self.registry.register(self._loops)
        self._flow()
        self._services()
        self._agent()

    def _flow(self) -> None:
        self.budget_shifts = self._counter(
            "syncflow_budget_shifts_total", "Budget shifts confirmed by both platforms.", "from_platform", "to_platform"
        )
        self.platform_efficiency = self._gauge(
            "syncflow_platform_efficiency", "Lifetime value per acquisition cost, at the last cycle.", "platform"
        )
        self.platform_daily_budget = self._gauge(
            "syncflow_platform_daily_budget", "Daily budget in units of the account's currency.", "platform"
        )
        self.bid_executions = self._counter(
            "syncflow_bid_executions_total", "Changed bidding decisions.", "platform", "outcome", "source"
        )
        self.bid_rejections = self._counter(
            "syncflow_bid_rejections_total", "Bids that were refused or lowered.", "platform", "reason"
        )
        self.platform_latency = self._histogram(
            "syncflow_platform_latency_seconds", "Duration of calls to a platform.", _CALLS, "platform"
        )
        self.tick_duration = self._histogram("syncflow_tick_duration_seconds", "Duration of a tick.", _TICKS, "loop")
        self.tick_delay = self._histogram(
            "kiki_loop_delay_seconds", "How long after it was due a tick began.", _DELAYS, "loop"
        )
        self.circuit_state = self._gauge(
            "syncflow_circuit_breaker_state", "Worst circuit of a platform: 0 closed, 1 half-open, 2 open.", "platform"
        )
        self.circuit_transitions = self._counter(
            "syncflow_circuit_breaker_transitions_total", "Changes of state of circuits.", "platform"
        )
        self.fallbacks = self._counter(
            "syncflow_fallback_total", "Changed decisions made with the fallback value.", "platform"
        )
        self.rate_limited = self._counter(
            "syncflow_rate_limited_total", "Calls held back before they were sent, to keep to a limit.", "platform"
        )
        self.read_retries = self._counter(
            "syncflow_read_retries_total", "Failed reads that were asked again.", "platform"
        )
        self.budget_spent = self._gauge(
            "syncflow_budget_spent", "Spend of the account's day in units of its currency.", "platform"
        )
        self.budget_limit = self._gauge(
            "syncflow_budget_limit", "Daily cap in units of the account's currency.", "platform"
        )
        self.budget_utilization = self._gauge(
            "syncflow_budget_utilization", "Share of the daily cap that is spent or reserved.", "platform"
        )

    def _services(self) -> None:
        self.predictions = self._counter(
            "syncvalue_predictions_total", "Customer values predicted.", "model_version", "source"
        )
        self.checks = self._counter("syncshield_checks_total", "Permits asked for one by one.", "outcome", "reason")
        self.changes = self._counter(
            "syncshield_changes_total",
            "Changes sent or held back.",
            "platform",
            "outcome",
            "reason",
        )
        self.outside_edits = self._counter(
            "syncshield_outside_edits_total", "Levers that somebody else changed.", "platform", "lever"
        )
        self.autonomy_level = self._gauge(
            "syncshield_autonomy_level", "0 watch, 1 suggest, 2 act within a limit, 3 act.", "connector"
        )
        self.platform_frozen = self._gauge(
            "syncshield_platform_frozen", "1 while an anomaly keeps a connector from spending.", "connector"
        )
        self.suggestions_open = Gauge(
            "syncshield_suggestions_open", "Suggestions that wait for a person.", registry=self.registry
        )
        self.kill_switch = Gauge("syncshield_kill_switch", "1 while the kill switch is on.", registry=self.registry)
        self.consents = self._counter(
            "syncshield_consents_total",
            "Statements of people that came into force.",
            "consent_type",
            "status",
            "source",
        )
        self.consent_strings = self._counter(
            "syncshield_consent_strings_total", "Consent strings taken, and why others were not.", "result"
        )
        self.consents_held = Gauge(
            "syncshield_consents_in_memory", "Grants that decisions find in memory.", registry=self.registry
        )
        self.privacy_requests = self._counter(
            "syncshield_privacy_requests_total", "Requests of people about their data.", "request_type"
        )
        self.http_requests = self._counter(
            "kiki_http_requests_total", "HTTP requests answered.", "method", "route", "status"
        )
        self.http_seconds = self._histogram(
            "kiki_http_request_seconds", "Duration of HTTP requests.", _REQUESTS, "method", "route"
        )

    def _agent(self) -> None:
        registry = self.registry
        self.task_restarts = self._counter("kiki_task_restarts_total", "Loops that had to be restarted.", "task")
        self.loop_lag = Gauge(
            "kiki_event_loop_lag_seconds", "How late the event loop answered the watchdog last.", registry=registry
        )
        self.loop_blocks = Counter(
            "kiki_event_loop_blocks_total", "Times the event loop stood still for a second or more.", registry=registry
        )
        self.signals_dropped = Gauge(
            "kiki_signals_dropped", "Signals lost because a listener was too slow.", registry=registry
        )
        self.db_queue_depth = Gauge("kiki_db_queue_depth", "Functions waiting for the writer.", registry=registry)
        self.db_bytes = self._gauge("kiki_db_size_bytes", "Size of the database and its write-ahead log.", "file")
        self.ledger_entries = Gauge("kiki_ledger_entries", "Entries in the ledger.", registry=registry)
        self.safe_hold = Gauge("kiki_safe_hold", "1 while nothing may be spent, else 0.", registry=registry)
        self.backup_age = Gauge(
            "kiki_backup_age_seconds", "Age of the newest whole backup; NaN when there is none.", registry=registry
        )
        self.backup_failed = Gauge(
            "kiki_backup_failed", "1 when the last backup was not made or is not whole, else 0.", registry=registry
        )
        self.plugin_failures = self._counter(
            "kiki_plugin_failures_total", "Calls to plugins that failed.", "instance", "error"
        )
        self.frozen = Gauge("kiki_spend_frozen", "1 while an essential loop is faulted, else 0.", registry=registry)
        self._build_info = self._gauge("kiki_build_info", "Always 1; the labels say what runs.", "version", "mode")

    def set_build(self, version: str, mode: str) -> None:
        """Say which version runs in which mode."""
        self._build_info(version, mode).set(1)

    def ticked(self, loop: str, seconds: float, delay: float) -> None:
        """A loop ticked: how long that took, and how late it began."""
        self.tick_duration(loop).observe(seconds)
        self.tick_delay(loop).observe(delay)

    def read_on_scrape(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Let a gauge read its value when it is scraped instead of being set on every change."""
        gauge.set_function(read)

    def read_loops(self, read: Callable[[], Iterable[LoopHealth]]) -> None:
        """Let the counts of late, skipped and failed ticks come from here, usually `supervisor.health.values`."""
        self._loops.read = read

    def render(self) -> bytes:
        """The text of `/metrics`; its content type is `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Labelled[Counter]:
        return Labelled(Counter(name, text, labels, registry=self.registry), labels)

    def _gauge(self, name: str, text: str, *labels: str) -> Labelled[Gauge]:
        return Labelled(Gauge(name, text, labels, registry=self.registry), labels)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Labelled[Histogram]:
        return Labelled(Histogram(name, text, labels, buckets=buckets, registry=self.registry), labels)
