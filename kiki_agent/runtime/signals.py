"""Facts told to whoever listens: in process, bounded, never the record (that is the ledger).

All calls belong on the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signal:
    """One fact."""

    number: int
    """Grows by one with each published signal; live pages resume from it."""
    topic: str
    data: Mapping[str, object]


class Subscription:
    """A bounded mailbox. When it is full the oldest signal gives way and is counted in `dropped`."""

    def __init__(self, signals: Signals, topics: frozenset[str] | None, maxsize: int) -> None:
        self._signals = signals
        self.topics = topics
        self._box: deque[Signal] = deque(maxlen=maxsize)
        self._waiter: asyncio.Future[None] | None = None
        self.dropped = 0
        self.closed = False

    def offer(self, signal: Signal) -> None:
        """Put a signal in; called by `Signals.publish`."""
        if len(self._box) == self._box.maxlen:
            self.dropped += 1
            self._signals.dropped += 1
        self._box.append(signal)
        self._wake()

    def drain(self) -> list[Signal]:
        """Everything that waits, without waiting for more."""
        waiting = list(self._box)
        self._box.clear()
        return waiting

    def close(self) -> None:
        """Stop listening; an iteration under way ends after what still waits."""
        if not self.closed:
            self.closed = True
            self._signals.forget(self)
            self._wake()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Signal:
        while not self._box:
            if self.closed:
                raise StopAsyncIteration
            if self._waiter is not None and not self._waiter.done():
                raise RuntimeError("two tasks wait on one subscription; subscribe twice instead")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._box.popleft()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Signals:
    """The switchboard: publishers do not know who listens, listeners never slow a publisher."""

    def __init__(self) -> None:
        self._everything: list[Subscription] = []
        self._by_topic: dict[str, list[Subscription]] = {}
        self.published = 0
        self.dropped = 0
        """Signals lost in all mailboxes so far."""

    def publish(self, topic: str, data: Mapping[str, object]) -> None:
        """Tell everyone who listens to `topic`; nearly free when nobody does. `data` must not change later."""
        self.published += 1
        listeners = self._by_topic.get(topic)
        if not listeners and not self._everything:
            return
        signal = Signal(self.published, topic, data)
        for subscription in (*(listeners or ()), *self._everything):
            subscription.offer(signal)

    def subscribe(self, topics: Iterable[str] | None = None, maxsize: int = 256) -> Subscription:
        """Listen to these topics, or to all. Close the subscription (it is a context manager) when done."""
        if maxsize < 1:
            raise ValueError(f"a mailbox holds at least one signal, was {maxsize}")
        wanted = None if topics is None else frozenset(topics)
        subscription = Subscription(self, wanted, maxsize)
        if wanted is None:
            self._everything.append(subscription)
        else:
            for topic in sorted(wanted):
                self._by_topic.setdefault(topic, []).append(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Take a closed subscription off the lists."""
        if subscription.topics is None:
            self._everything.remove(subscription)
            return
        for topic in subscription.topics:
            self._by_topic[topic].remove(subscription)
