"""One configured account, source or channel: which class serves it, what it offers, and whether it may be called."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from kiki_agent.hooks.specs import Verb
from kiki_agent.hooks.tasks import InstanceTasks
from kiki_agent.runtime.log import Log, get_logger

if TYPE_CHECKING:
    from kiki_agent.hooks.context import PluginContext
    from kiki_agent.hooks.guard import Guard
    from kiki_agent.runtime.limiter import RateLimit


class Quarantine(StrEnum):
    """Why a plugin or an instance is set aside; docs/plugins.md says what to do about each."""

    IMPORT = "import"
    """The module raised while it was imported."""
    REGISTER = "register"
    """`register(api)` is absent, raised, or offered a name that is taken."""
    MISSING = "missing"
    """No loaded plugin offers the class the table names, and a plugin that may offer it did not load."""
    CONSTRUCT = "construct"
    """The class or its config model raised while the instance was made."""
    SIGNATURE = "signature"
    """A hook is unknown, asks for unknown arguments, is no `async def`, or there is no hook at all."""
    STUCK = "stuck"
    """A call ignored its cancellation and was abandoned."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One verb as one instance implements it."""

    verb: Verb
    function: Callable[..., Coroutine[Any, Any, object]]
    positions: tuple[int, ...] | None
    """Which of the verb's arguments the method takes, in its own order; None = all of them, as they come."""
    keywords: tuple[tuple[str, int], ...]
    """Arguments the method takes by keyword, with their position in the verb."""
    label: str
    """`<instance id>.<verb>`, in error texts, task names and the watchdog."""

    def bind(self, args: tuple[object, ...]) -> Coroutine[Any, Any, object]:
        """The coroutine of a call; a plugin that takes fewer arguments does not see the others."""
        if self.positions is None:
            return self.function(*args)
        return self.function(
            *(args[position] for position in self.positions), **{name: args[at] for name, at in self.keywords}
        )


@dataclass(slots=True)
class Instance:
    """One `[connector.<id>]`, `[crm.<id>]` or `[notifier.<id>]` table, made real or set aside."""

    id: str
    kind: str
    class_name: str
    """The name the table gives with `plugin = "..."`."""
    plugin: str = ""
    """The plugin that offers the class, as `plugins.allow` names it; empty when none does."""
    version: str = ""
    platform: str = ""
    state: str = "ok"
    """`ok`, `quarantined`, or `off` when the table says `enabled = false`."""
    quarantine: Quarantine | None = None
    error: str = ""
    """Why it is set aside; empty while it is not."""
    hooks: Mapping[str, Hook] = field(default_factory=dict)
    declared: tuple[str, ...] = ()
    """Verbs its class marks as hooks; known before an instance is made."""
    context: PluginContext[Any] | None = None
    credentials: str = ""
    """The keys of its secrets with the variables that set them; empty where no person gives it any."""
    rate_limit: RateLimit | None = None
    """What the plugin says its vendor allows."""
    guard: Guard | None = None
    """Limits and breakers in force; None for what has none."""
    log: Log = field(init=False)
    tasks: InstanceTasks = field(init=False)
    bugs: int = 0
    """Calls that broke the contract since the start."""
    last_bug: str = ""
    """What the last of them did."""
    running: int = 0
    """Calls under way."""
    waiting: deque[Any] = field(default_factory=deque)
    """Calls that wait for their turn; the caller's."""

    def __post_init__(self) -> None:
        self.log = get_logger(f"plugin.{self.id}")
        self.tasks = InstanceTasks(self.id, self.log)

    def set_aside(self, why: Quarantine, error: str) -> None:
        """Quarantine the instance; nothing calls it any more."""
        self.log.error("plugin_quarantined", error, plugin=self.plugin, state=why.value)
        self.state = "quarantined"
        self.quarantine = why
        self.error = error

    def describe(self) -> dict[str, object]:
        """One entry of `GET /api/v1/plugins`."""
        return {
            "name": self.id,
            "kind": self.kind,
            "class": self.class_name,
            "plugin": self.plugin,
            "version": self.version,
            "platform": self.platform,
            "state": self.state,
            "quarantine": self.quarantine.value if self.quarantine else None,
            "error": self.error,
            "hooks": list(self.hooks or self.declared),
            "bugs": self.bugs,
            "last_bug": self.last_bug,
            "leaked_tasks": self.tasks.leaks,
        }
