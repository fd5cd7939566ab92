"""All a plugin gets: its settings, time, HTTP, a log, counters, repeatable chance, a memory and background tasks.

Never the database, the gate that permits spending, or another plugin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic

from pydantic import BaseModel
from typing_extensions import TypeVar

from kiki_agent.hooks.http import HttpClient
from kiki_agent.hooks.http_guarded import GuardedHttp
from kiki_agent.hooks.rng import Rng
from kiki_agent.hooks.state import PluginState
from kiki_agent.hooks.tasks import InstanceTasks
from kiki_agent.model.time import Instant
from kiki_agent.runtime.limiter import VendorWord

if TYPE_CHECKING:
    from kiki_agent.hooks.instance import Instance
    from kiki_agent.runtime.clock import Clock
    from kiki_agent.runtime.log import Log
    from kiki_agent.store import Store

MAX_METRICS: Final = 32

ConfigT = TypeVar("ConfigT", bound=BaseModel, default=BaseModel)


class PluginMetrics:
    """Counters and levels of one instance; names are few and without labels, so they can never flood anything."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def count(self, name: str, amount: float = 1) -> None:
        """Add to a counter. Raises ValueError for the 33rd name."""
        self.values[name] = self.values.get(self._checked(name), 0) + amount

    def level(self, name: str, value: float) -> None:
        """State the present value of something. Raises ValueError for the 33rd name."""
        self.values[self._checked(name)] = value

    def _checked(self, name: str) -> str:
        if name not in self.values:
            if len(self.values) >= MAX_METRICS:
                raise ValueError(f"a plugin instance has at most {MAX_METRICS} metrics")
            if not name.isidentifier() or not name.isascii() or len(name) > 60:
                raise ValueError("the name of a metric is an ASCII identifier of at most 60 characters")
        return name


@dataclass(frozen=True, slots=True, eq=False)
class PluginContext(Generic[ConfigT]):
    """Handed to the class of a plugin when its instance is made: `Connector(context)`."""

    instance_id: str
    """The `<id>` of the configuration table; `Campaign.connector` of a connector's campaigns is this id."""
    kind: str
    config: ConfigT
    """The table's own keys, validated by the model the plugin offered."""
    clock: Clock
    """The agent's time: real, scaled or simulated. Nothing else may be asked what time it is."""
    http: HttpClient
    """Belongs to this instance and is closed after it."""
    log: Log
    state: PluginState
    seed: int
    tasks: InstanceTasks
    """Bookkeeping of the caller; plugins use `spawn`."""
    platform: str = ""
    """Canonical platform id of a connector, else empty."""
    dry_run: bool = False
    """True when writes may only be checked by the vendor (`Capabilities.validates`), not made."""
    hints: VendorWord = field(default_factory=VendorWord)
    """What the vendor said about its patience; see `throttle`."""
    metrics: PluginMetrics = field(default_factory=PluginMetrics)

    def throttle(self, *, usage: float | None = None, retry_at: Instant | None = None) -> None:
        """Pass on what the vendor says of its patience: the share of a quota in use (0 to 1, above 1 when over it),
        or the instant before which it wants no call. The agent spaces its calls out accordingly."""
        self.hints.take(self.clock.now(), usage, retry_at)

    def rng(self, *entity: str | int) -> Rng:
        """Repeatable chance about something: a function of (seed, instance, entity), whoever asks and when."""
        return Rng(self.seed, self.instance_id, *entity)

    def spawn(self, coroutine: Coroutine[Any, Any, object], *, name: str = "background") -> asyncio.Task[None]:
        """Start a background task that is watched, named and ended with the instance.

        What it raises is logged and ends only itself. Raises RuntimeError beyond 64 tasks at a time.
        """
        return self.tasks.spawn(coroutine, name)


@dataclass(frozen=True, slots=True)
class ContextFactory:
    """Makes the context of each instance out of what the agent shares."""

    clock: Clock
    make_http: Callable[[str], HttpClient]
    """Instance id -> a client of its own."""
    seed: int = 0
    dry_run: bool = False
    store: Store | None = None
    """Where instances remember things; None = in memory, for checks and tests."""

    def __call__(self, instance: Instance, config: BaseModel) -> PluginContext[Any]:
        http, guard = self.make_http(instance.id), instance.guard
        return PluginContext(
            instance_id=instance.id,
            kind=instance.kind,
            config=config,
            clock=self.clock,
            http=http if guard is None else GuardedHttp(http, guard),
            log=instance.log,
            state=PluginState(instance.id, self.store, self.clock),
            seed=self.seed,
            tasks=instance.tasks,
            platform=instance.platform,
            dry_run=self.dry_run,
            hints=VendorWord() if guard is None else guard.hints,
        )
