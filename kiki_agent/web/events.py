"""Live events by SSE: facts are numbered, kept in a bounded ring and can be resumed; a slow reader is dropped.

Facts come from the signals of the process. The state of the page (`overview`) is pushed beside them, unnumbered: it is
the present, not history. Nothing here ever waits for a reader.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec
from aiohttp import web

from kiki_agent.model import SECOND, Instant
from kiki_agent.runtime.log import get_logger
from kiki_agent.runtime.signals import Signal
from kiki_agent.web.overview import Overview
from kiki_agent.web.services import Services

RING = 256
"""Facts kept for readers that come back."""
QUEUE = 256
"""Messages a reader may lag behind before it is dropped."""
READERS = 64
FREQUENT = frozenset({"decision"})
"""Facts that come so often that the page waits for its next turn; any other makes a new snapshot at once."""
STATE_INTERVAL_S = 2
HEARTBEAT_S = 15

_log = get_logger("web")


class Reader:
    """One connected page: a bounded queue that the hub fills and the connection empties."""

    def __init__(self, topics: frozenset[str] | None, drop: Callable[[], None]) -> None:
        self.topics = topics
        self._drop = drop
        self._waiting: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self.closed = False

    def offer(self, message: bytes) -> None:
        """Queue a message; a reader that is too far behind loses its connection, and can resume."""
        if self.closed:
            return
        if len(self._waiting) >= QUEUE:
            self.close()
            self._drop()
            return
        self._waiting.append(message)
        self._arrived.set()

    def close(self) -> None:
        """End the stream after what was taken already."""
        self.closed = True
        self._waiting.clear()
        self._arrived.set()

    @property
    def follows_state(self) -> bool:
        """True for a page: it asked for the present state by name."""
        return self.topics is not None and "overview" in self.topics

    def wants(self, topic: str) -> bool:
        """True when this reader asked for the topic."""
        return self.topics is None or topic in self.topics

    async def next(self) -> bytes:
        """Everything that waits, as one chunk; empty at the end."""
        await self._arrived.wait()
        chunk = b"".join(self._waiting)
        self._waiting.clear()
        if not self.closed:
            self._arrived.clear()
        return chunk


class EventHub:
    """Between the signals of the process and the pages that watch."""

    def __init__(self, services: Services, origin: str, overview: Overview) -> None:
        self._services = services
        self._origin = origin
        """Distinguishes this process's numbers from those of the one before it."""
        self._overview = overview
        self._ring: deque[Signal] = deque(maxlen=RING)
        self.last = 0
        """Number of the newest fact."""
        self.readers: list[Reader] = []
        self.dropped = 0

    async def running(self, _: web.Application) -> AsyncIterator[None]:
        """Cleanup context of the application: listens while it runs."""
        with self._services.signals.subscribe(None, maxsize=RING) as subscription:
            pump = asyncio.create_task(self._pump(subscription), name="web events")
            state = asyncio.create_task(self._push_state(), name="web state")
            yield
            for task in (pump, state):
                task.cancel()
            await asyncio.gather(pump, state, return_exceptions=True)

    async def close(self, _: web.Application) -> None:
        """End all streams, so that a stop does not wait for pages."""
        for reader in self.readers:
            reader.close()

    def attach(self, topics: frozenset[str] | None, last_id: str | None, drop: Callable[[], None]) -> Reader | None:
        """A new reader, with what it missed queued; None when there are too many."""
        if len(self.readers) >= READERS:
            return None

        def dropped() -> None:
            self.dropped += 1
            _log.warning(
                "slow_reader_dropped",
                "A page read too slowly and was disconnected; it may resume",
                readers=len(self.readers),
            )
            drop()

        reader = Reader(topics, dropped)
        for message in self._missed(topics, last_id):
            reader.offer(message)
        self.readers.append(reader)
        return reader

    def detach(self, reader: Reader) -> None:
        """Forget a reader."""
        if reader in self.readers:
            self.readers.remove(reader)

    def take(self, signal: Signal) -> None:
        """Keep one fact and hand it on; it is encoded once, and only when somebody wants it."""
        self._ring.append(signal)
        if signal.topic not in FREQUENT:
            self._overview.note_cycle()
            self._overview.forget()
        self.last = signal.number
        message: bytes | None = None
        for reader in list(self.readers):
            if reader.wants(signal.topic):
                message = message or self._encode(signal)
                reader.offer(message)

    def _encode(self, signal: Signal) -> bytes:
        data = msgspec.json.encode({"topic": signal.topic, **signal.data}, enc_hook=str)
        return b"id: %s-%d\n" % (self._origin.encode(), signal.number) + _message(signal.topic, data)

    def _missed(self, topics: frozenset[str] | None, last_id: str | None) -> list[bytes]:
        opening = [b"retry: 2000\n\n"]
        if last_id is None:
            return opening
        origin, _, number = last_id.rpartition("-")
        if origin != self._origin or not number.isascii() or not number.isdigit() or len(number) > 18:
            return [*opening, _message("reset", b'{"reason":"another process answers now"}')]
        known = int(number)
        oldest = self._ring[0].number if self._ring else self.last + 1
        kept = [each for each in self._ring if each.number > known and (topics is None or each.topic in topics)]
        if known + 1 < oldest or len(kept) > QUEUE // 2:
            opening.append(_message("reset", b'{"reason":"too much happened since"}'))
        return opening + [self._encode(each) for each in kept[-QUEUE // 2 :]]

    async def _pump(self, subscription: AsyncIterator[Signal]) -> None:
        async for signal in subscription:
            try:
                self.take(signal)
            except Exception as error:
                _log.error("event_not_sent", "An event could not be encoded", error=error, topic=signal.topic)

    async def _push_state(self) -> None:
        """Every two real seconds the present state, every 15 a comment that keeps proxies from closing the stream."""
        beats = 0
        failing = False
        while True:
            clock = self._services.clock
            step = max(1, round(STATE_INTERVAL_S * (clock.speed or 1) * SECOND))
            await clock.sleep_until(Instant(clock.now() + step))
            beats += 1
            if not self.readers:
                continue
            state: bytes | None = None
            try:
                if any(reader.follows_state for reader in self.readers):
                    state = await self._overview.body()
            except Exception as error:
                if not failing:
                    _log.error("overview_failed", "The state of the page could not be built", error=error)
                failing = True
            else:
                failing = False
            beat = b": still here\n\n" if beats * STATE_INTERVAL_S % HEARTBEAT_S < STATE_INTERVAL_S else None
            for reader in list(self.readers):
                if state is not None and reader.follows_state:
                    reader.offer(_message("overview", state))
                elif beat is not None:
                    reader.offer(beat)


def _message(event: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode(), data)
