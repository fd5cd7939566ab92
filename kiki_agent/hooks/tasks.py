"""Whose task is it? Every task that begins inside plugin code is booked to its instance, named, bounded and ended.

A context variable says for whom code runs; tasks inherit it, so the task factory sees each task a plugin starts, also
behind our back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from kiki_agent.errors import Bug, RateLimited
from kiki_agent.runtime import tasks as runtime_tasks

if TYPE_CHECKING:
    from kiki_agent.runtime.log import Log

MAX_STRAYS: Final = 16
"""Tasks an instance may leave running after its calls; the oldest beyond that are cancelled."""
MAX_SPAWNED: Final = 64
"""Background tasks an instance may own at a time."""


class Work:
    """One call or background task of an instance, and the tasks that began inside of it."""

    __slots__ = ("held", "label", "priority", "sent", "slowest_s", "started", "tasks")

    def __init__(self, tasks: InstanceTasks, label: str, priority: int = 0) -> None:
        self.tasks = tasks
        self.label = label
        self.priority = priority
        """`runtime.limiter.Priority` of its requests."""
        self.sent = 0
        """Requests that left so far."""
        self.held: RateLimited | None = None
        """Why a request of it was held back."""
        self.slowest_s = 0.0
        """Wall seconds of its slowest exchange, not counting the wait for a connection; 0 before the first."""
        self.started: list[asyncio.Task[Any]] | None = None

    def finish(self) -> None:
        """It is over: say what it left running."""
        if self.started is not None:
            self.tasks.look_for_leaks(self)


work: ContextVar[Work | None] = ContextVar("plugin_work", default=None)
"""For whom the present code runs; None is the core."""


@contextmanager
def unowned() -> Iterator[None]:
    """Tasks that begin in this block are the core's own, though a plugin called: connection pools, resolvers."""
    token = work.set(None)
    try:
        yield
    finally:
        work.reset(token)


class InstanceTasks:
    """All tasks of one instance besides its calls."""

    def __init__(self, instance_id: str, log: Log) -> None:
        self.instance_id = instance_id
        self._log = log
        self._spawned = runtime_tasks.OwnedTasks(f"plugin {instance_id}")
        self._strays: dict[asyncio.Task[Any], str] = {}
        self.leaks = 0
        """Tasks found still running when the call they began in was over."""
        self._warned: set[str] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, object], name: str) -> asyncio.Task[None]:
        """Start a background task owned by the instance. Raises RuntimeError when there are too many already."""
        if len(self._spawned) >= MAX_SPAWNED:
            coroutine.close()
            raise RuntimeError(f"{self.instance_id} already runs {MAX_SPAWNED} background tasks")
        with unowned():
            return self._spawned.spawn(self._background(coroutine, name), name)

    async def _background(self, coroutine: Coroutine[Any, Any, object], name: str) -> None:
        mine = Work(self, f"{self.instance_id}:{name}")
        work.set(mine)
        try:
            await coroutine
        except SystemExit as error:
            raise Bug(f"{mine.label} called sys.exit({error.code!r})") from error
        finally:
            mine.finish()

    def adopt(self, task: asyncio.Task[Any], mine: Work) -> None:
        """Book a task that began in plugin code without us; too many, and the oldest go."""
        if mine.started is None:
            mine.started = []
        mine.started.append(task)
        self._strays[task] = mine.label
        task.add_done_callback(self._gone)
        if len(self._strays) > MAX_STRAYS:
            oldest = next(iter(self._strays))
            del self._strays[oldest]
            oldest.cancel()
            text = f"{self.instance_id} leaves too many tasks running; cancelled the oldest, {oldest.get_name()}"
            self._log.error("plugin_task_cancelled", text)

    def look_for_leaks(self, mine: Work) -> None:
        """Count what a call left running, and say it once for each place that does so."""
        left = [task.get_name() for task in mine.started or () if not task.done()]
        if not left:
            return
        self.leaks += len(left)
        if mine.label not in self._warned:
            self._warned.add(mine.label)
            text = f"{mine.label} left {', '.join(left[:5])} running; background work belongs in context.spawn"
            self._log.warning("plugin_task_leaked", text)

    def blame(self, task: asyncio.Task[Any] | None) -> str | None:
        """Where a task began that this instance started by itself; for a watchdog's thread."""
        label = self._strays.get(task) if task is not None else None
        return f"plugin {label}: {task.get_name()}" if label is not None and task is not None else None

    async def close(self, grace_seconds: float) -> list[str]:
        """End everything; names of what refuses. Tasks that were never handed to us are named in the log."""
        strays = {task for task in self._strays if not task.done()}
        if strays:
            names = ", ".join(sorted(task.get_name() for task in strays)[:10])
            self._log.warning("plugin_task_cancelled", f"{self.instance_id} left tasks running, now cancelled: {names}")
        stubborn = await asyncio.gather(
            self._spawned.close(grace_seconds), runtime_tasks.cancel_all(strays, grace_seconds)
        )
        return [name for names in stubborn for name in names]

    def _gone(self, task: asyncio.Task[Any]) -> None:
        self._strays.pop(task, None)


TaskFactory = Callable[..., "asyncio.Future[Any]"]


def install(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Book the tasks plugins start from now on, on top of the runtime's guard against sys.exit; returns what undoes it.

    Tasks of the core pass untouched.
    """
    if loop.get_task_factory() is None:
        runtime_tasks.install(loop)
    below: Any = loop.get_task_factory()

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Future[Any]:
        task: asyncio.Future[Any] = below(loop, coroutine, **options)
        mine = work.get()
        if mine is not None and isinstance(task, asyncio.Task):
            if options.get("name") is None:
                name = getattr(coroutine, "__qualname__", type(coroutine).__name__)
                task.set_name(f"plugin {mine.label}: {name}")
            mine.tasks.adopt(task, mine)
        return task

    loop.set_task_factory(factory)

    def undo() -> None:
        if loop.get_task_factory() is factory:
            loop.set_task_factory(below)

    return undo
