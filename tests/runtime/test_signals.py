"""Signals: bounded mailboxes that never slow a publisher."""

from __future__ import annotations

import asyncio

import pytest

from kiki_agent.runtime.signals import Signals


def test_the_oldest_gives_way_and_is_counted():
    signals = Signals()
    small, large = signals.subscribe(maxsize=3), signals.subscribe(maxsize=100)
    for number in range(10):
        signals.publish("decision", {"n": number})
    assert [signal.data["n"] for signal in small.drain()] == [7, 8, 9]
    assert (small.dropped, large.dropped, signals.dropped, signals.published) == (7, 0, 7, 10)
    assert [signal.number for signal in large.drain()] == list(range(1, 11))


def test_topics_are_told_apart_and_closed_boxes_get_nothing():
    signals = Signals()
    alerts, everything = signals.subscribe(["alert", "budget"]), signals.subscribe()
    for topic in ("alert", "decision", "budget"):
        signals.publish(topic, {})
    assert [signal.topic for signal in alerts.drain()] == ["alert", "budget"]
    alerts.close()
    alerts.close()
    signals.publish("alert", {})
    assert alerts.drain() == []
    assert len(everything.drain()) == 4
    with pytest.raises(ValueError, match="at least one"):
        signals.subscribe(maxsize=0)


async def test_an_iteration_waits_for_signals_and_ends_when_closed():
    signals = Signals()
    seen: list[object] = []
    with signals.subscribe(["a"]) as subscription:

        async def listen() -> None:
            async for signal in subscription:
                seen.append(signal.data["n"])  # noqa: PERF401 - seen one by one

        task = asyncio.create_task(listen())
        await asyncio.sleep(0)
        signals.publish("a", {"n": 1})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert seen == [1]
        signals.publish("a", {"n": 2})
    await task
    assert seen == [1, 2]


async def test_two_tasks_on_one_mailbox_are_a_mistake():
    subscription = Signals().subscribe()
    first = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="subscribe twice"):
        await anext(subscription)
    subscription.close()
    with pytest.raises(StopAsyncIteration):
        await first
