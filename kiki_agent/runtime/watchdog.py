"""A thread that notices a blocked event loop and says who blocks it; it measures the loop's lag on the way."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from kiki_agent.runtime.clock import Stopwatch
from kiki_agent.runtime.log import get_logger

_log = get_logger("watchdog")


@dataclass(frozen=True, slots=True)
class Block:
    """One time the event loop stood still."""

    label: str
    """Who was at work: what `blame` said, else the name of the running task."""
    seconds: float
    stack: str
    """Where the loop's thread was when the watchdog looked, innermost frame last."""


class Watchdog:
    """Knocks on the event loop's door; when nobody answers within `limit_seconds` it looks through the window."""

    def __init__(
        self,
        limit_seconds: float = 1.0,
        every_seconds: float = 0.25,
        on_lag: Callable[[float], None] | None = None,
        on_block: Callable[[Block], None] | None = None,
        blame: Callable[[], str | None] | None = None,
    ) -> None:
        self.limit_seconds, self.every_seconds = limit_seconds, every_seconds
        self._on_lag = on_lag
        """Told the lag in seconds of each knock, on the event loop's thread."""
        self._on_block = on_block
        """Told each block once it is over, on the event loop's thread."""
        self._blame = blame
        """Asked from the watchdog's thread who is at work, for example which plugin; None means the core."""
        self.blocks = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch the running event loop from now on. Call it on that loop."""
        if self._thread is not None:
            raise RuntimeError("the watchdog runs already")
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._watch, args=(loop, threading.get_ident()), name="watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns at once, the thread ends by itself."""
        self._stop.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        while not self._stop.wait(self.every_seconds):
            answered = threading.Event()
            watch = Stopwatch()
            try:
                loop.call_soon_threadsafe(self._answer, answered, watch)
                if not answered.wait(self.limit_seconds):
                    self._look(loop, thread_id, answered, watch)
            except RuntimeError:  # the loop is closed
                return

    def _answer(self, answered: threading.Event, watch: Stopwatch) -> None:
        answered.set()
        if self._on_lag is not None:
            self._on_lag(watch.seconds())

    def _look(
        self, loop: asyncio.AbstractEventLoop, thread_id: int, answered: threading.Event, watch: Stopwatch
    ) -> None:
        task = asyncio.current_task(loop)
        label = (self._blame() if self._blame is not None else None) or (
            "a callback of the event loop" if task is None else task.get_name()
        )
        frame = sys._current_frames().get(thread_id)
        stack = "".join(traceback.format_stack(frame, limit=None)[-12:]) if frame is not None else ""
        del frame
        if answered.is_set() or loop.is_closed():
            return
        self.blocks += 1
        _log.warning("loop_blocked", f"The event loop is blocked by {label}", blocked_by=label, stack=stack)
        while not answered.wait(self.every_seconds):
            if self._stop.is_set() or loop.is_closed():
                return
        block = Block(label, watch.seconds(), stack)
        _log.warning(
            "loop_unblocked", f"The event loop was blocked for {block.seconds:.1f} s by {label}", blocked_by=label
        )
        if self._on_block is not None:
            loop.call_soon_threadsafe(self._on_block, block)
