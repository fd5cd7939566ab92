"""Tasks that cannot hurt the process: no task ends it, every background task has an owner, stubborn ones are named.

A `SystemExit` or `KeyboardInterrupt` raised in an asyncio task normally tears down the event loop. Under the factory
installed here it becomes a `Bug` of that task, also in tasks a plugin started by itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine, Generator
from types import CodeType, FrameType, TracebackType
from typing import Any, TypeVar

from kiki_agent.errors import Bug
from kiki_agent.runtime.clock import births, in_tick
from kiki_agent.runtime.log import get_logger

T = TypeVar("T")

_log = get_logger("tasks")


class GuardedCoroutine(Coroutine[Any, Any, T]):
    """A coroutine whose attempts to end the process become a `Bug` of its task.

    A class rather than an `async def` around it, because a task cancelled before its first step must still close the
    inner coroutine.
    """

    __slots__ = ("__name__", "__qualname__", "_inner")

    def __init__(self, inner: Coroutine[Any, Any, T]) -> None:
        self._inner = inner
        self.__name__ = getattr(inner, "__name__", type(inner).__name__)
        self.__qualname__ = getattr(inner, "__qualname__", self.__name__)

    def send(self, value: Any) -> Any:
        """One step."""
        try:
            return self._inner.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise self._bug(error) from error

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> Any:
        """One step that begins with an exception."""
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        try:
            return self._inner.throw(error)
        except (SystemExit, KeyboardInterrupt) as raised:
            raise self._bug(raised) from raised

    def close(self) -> None:
        """Close the inner coroutine."""
        self._inner.close()

    def __await__(self) -> Generator[Any, None, T]:
        return self._inner.__await__()

    @property
    def cr_frame(self) -> FrameType | None:
        """Frame of the inner coroutine, for stack listings."""
        return getattr(self._inner, "cr_frame", None)

    @property
    def cr_code(self) -> CodeType | None:
        """Code of the inner coroutine, for representations."""
        return getattr(self._inner, "cr_code", None)

    @property
    def cr_running(self) -> bool:
        """Whether the inner coroutine runs just now."""
        return bool(getattr(self._inner, "cr_running", False))

    @property
    def cr_await(self) -> object:
        """What the inner coroutine waits for."""
        return getattr(self._inner, "cr_await", None)

    def _bug(self, error: BaseException) -> Bug:
        task = asyncio.current_task()
        label = self.__qualname__ if task is None else task.get_name()
        _log.error("exit_attempt", f"{label} tried to end the process; only its task ends", error=error)
        return Bug(f"{label} tried to end the process: {type(error).__name__}({', '.join(map(repr, error.args))})")


def _make_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T] | Generator[Any, None, T], **options: Any
) -> asyncio.Task[T]:
    if not isinstance(coro, GuardedCoroutine | Generator):
        coro = GuardedCoroutine(coro)
    name = options.pop("name", None)
    task: asyncio.Task[T] = asyncio.Task(coro, loop=loop, **options)
    if name is not None:
        task.set_name(name)
    return task


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Guard every task the loop makes from now on, and log what nobody catches in place of printing it."""
    loop.set_task_factory(_make_task)
    loop.set_exception_handler(_uncaught)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where it is installed, else asyncio's own; with `install` done."""
    if sys.platform != "win32":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            install(loop)
            return loop
    loop = asyncio.new_event_loop()
    install(loop)
    return loop


def _uncaught(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    task = context.get("task") or context.get("future")
    who = task.get_name() if isinstance(task, asyncio.Task) else "the event loop"
    error = context.get("exception")
    _log.error(
        "uncaught",
        f"{who}: {context.get('message', 'uncaught error')}",
        error=error if isinstance(error, BaseException) else None,
    )


class OwnedTasks:
    """Background tasks of one owner: their failures are logged under its name, and closing ends them all."""

    def __init__(self, owner: str, on_error: Callable[[str, BaseException], None] | None = None) -> None:
        self.owner = owner
        self._on_error = on_error
        """Told (task name, error) when a task fails."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task; it is called `<owner>:<name>` in logs and may sleep on the clock also in simulations."""
        if self._closed:
            coroutine.close()
            raise RuntimeError(f"{self.owner} is closed and starts no more tasks")
        context = contextvars.copy_context()
        context.run(in_tick.set, False)
        births[0] += 1
        loop = asyncio.get_running_loop()
        task = loop.create_task(coroutine, name=f"{self.owner}:{name}", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self, grace_seconds: float = 1.0) -> list[str]:
        """Cancel all tasks and wait; names of those that stay, which are abandoned."""
        self._closed = True
        return await cancel_all(self._tasks, grace_seconds)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        _log.error("background_task_failed", f"{task.get_name()} failed", error=error)
        if self._on_error is not None:
            self._on_error(task.get_name(), error)


_abandoned: set[asyncio.Task[Any]] = set()


async def cancel_all(tasks: set[asyncio.Task[Any]], grace_seconds: float) -> list[str]:
    """Cancel tasks, once more half-way through the grace; sorted names of those that refuse to end."""
    pending = {task for task in tasks if not task.done() and task is not asyncio.current_task()}
    for _ in range(2):
        if not pending:
            return []
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=grace_seconds / 2)
    for task in pending:  # keep them referenced, or the garbage collector complains about each
        _abandoned.add(task)
        task.add_done_callback(_abandoned.discard)
    return sorted(task.get_name() for task in pending)
