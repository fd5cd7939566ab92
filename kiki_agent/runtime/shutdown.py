"""Leaving in order: named stages with time budgets, whoever does not finish is named, and the process ends in time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from kiki_agent.runtime.clock import Stopwatch
from kiki_agent.runtime.log import describe, get_logger
from kiki_agent.runtime.tasks import cancel_all

LONGEST_SHUTDOWN_SECONDS = 10.0
_CANCEL_GRACE_SECONDS = 0.2
_log = get_logger("shutdown")


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the way out."""

    name: str
    budget_seconds: float
    run: Callable[[], Awaitable[object]]
    """May return a list of names of what would not end; they are reported as stragglers."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """How a stage went."""

    name: str
    seconds: float
    stragglers: tuple[str, ...] = ()
    """What would not end in time: names from the stage, or the stage itself when it was cut off."""
    error: str = ""

    @property
    def clean(self) -> bool:
        """Whether everything ended in time and without an error."""
        return not self.stragglers and not self.error


async def shut_down(
    stages: Sequence[Stage], total_seconds: float = LONGEST_SHUTDOWN_SECONDS
) -> tuple[StageResult, ...]:
    """Run all stages one after the other; one that fails or overruns its budget does not keep the next from running.

    The budgets must fit into `total_seconds`, so that the last stage, usually the one that makes money facts durable,
    always gets its time. Raises ValueError otherwise.
    """
    needed = sum(stage.budget_seconds + _CANCEL_GRACE_SECONDS for stage in stages)
    if needed > total_seconds:
        raise ValueError(f"the stages of the shutdown need {needed:.1f} s, allowed are {total_seconds:.1f} s")
    results = []
    for stage in stages:
        result = await _run(stage)
        results.append(result)
        if result.clean:
            _log.debug("stage_done", stage=stage.name, seconds=round(result.seconds, 3))
        else:
            _log.warning(
                "stage_unclean",
                f"Shutdown stage {stage.name!r} did not end cleanly",
                stage=stage.name,
                stragglers=list(result.stragglers),
                why=result.error,
            )
    return tuple(results)


async def _run(stage: Stage) -> StageResult:
    watch = Stopwatch()
    task = asyncio.create_task(_await(stage), name=f"shutdown:{stage.name}")
    await asyncio.wait({task}, timeout=stage.budget_seconds)
    if not task.done():
        await cancel_all({task}, _CANCEL_GRACE_SECONDS)
        return StageResult(stage.name, watch.seconds(), (stage.name,), f"cut off after {stage.budget_seconds:g} s")
    if task.cancelled():
        return StageResult(stage.name, watch.seconds(), (), "cancelled itself")
    error = task.exception()
    if error is not None:
        return StageResult(stage.name, watch.seconds(), (), str(describe(error)["error"]))
    left = task.result()
    names = tuple(str(name) for name in left) if isinstance(left, list | tuple) else ()
    return StageResult(stage.name, watch.seconds(), names)


async def _await(stage: Stage) -> object:
    return await stage.run()


class StopRequest:
    """Waits for SIGTERM or SIGINT. A second SIGINT leaves at once with exit code 130."""

    def __init__(self, leave: Callable[[int], object] | None = None) -> None:
        self._asked = asyncio.Event()
        self._leave = leave or leave_now
        self.reason = ""

    def install(self) -> None:
        """Take the signals over from the interpreter; call it on the running loop, in the main thread."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_signal, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGINT, self._on_signal, signal.SIGINT)

    def uninstall(self) -> None:
        """Give the signals back."""
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)

    def ask(self, reason: str) -> None:
        """Ask for the shutdown from inside; the first reason stays."""
        if not self._asked.is_set():
            self.reason = reason
            self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether the shutdown has been asked for."""
        return self._asked.is_set()

    async def wait(self) -> str:
        """Return the reason once the shutdown is asked for."""
        await self._asked.wait()
        return self.reason

    def _on_signal(self, number: signal.Signals) -> None:
        if number is signal.SIGINT and self._asked.is_set():
            _log.warning("leaving_at_once", "Interrupted twice: leaving without finishing")
            self._leave(130)
        self.ask(number.name)


def leave_now(code: int) -> NoReturn:
    """End the process at once: no task, thread or exit handler can hold it up. Everything must be durable before."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(code)
