"""A killed process carries an order of a person out once or drops it: never twice, and none stays open."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.governor.orders import Order
from kiki_agent.model import Instant
from kiki_agent.sandbox import layout as at

from .conftest import Start
from .rig import House, only

POINTS = ("before the record", "on record", "journaled", "done, no answer", "answered, not closed")


class Killed:
    """Ends a process at a point: what its database holds there is all that the next one finds."""

    def __init__(self, house: House, point: str, number: int = 1) -> None:
        self.house = house
        self.point = point
        self.number = number
        """At which passing of the point."""
        self.photo = house.folder / f"photo-{point.replace(' ', '-').replace(',', '')}-{number}.db"
        self.reached, self.gone = asyncio.Event(), asyncio.Event()

    async def here(self, point: str) -> None:
        """A point is passed; the process stops at the wanted one."""
        if self.gone.is_set():
            raise ConnectionResetError("the process is gone")
        if point != self.point:
            return
        self.number -= 1
        if self.number:
            return
        await asyncio.to_thread(_copy, self.house.database, self.photo)
        self.reached.set()
        await self.gone.wait()
        raise ConnectionResetError("the process is gone")

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand at every point of this process."""
        orders = self.house.agent.governor.desk.orders
        make, close = orders.make, orders._close

        async def made(order: Order, *more: Any) -> None:
            await self.here("before the record")
            await make(order, *more)
            await self.here("on record")

        async def closed(order: Order, now: Instant) -> Order:
            await self.here("answered, not closed")
            return await close(order, now)

        monkeypatch.setattr(orders, "make", made)
        monkeypatch.setattr(orders, "_close", closed)
        for wire in self.house.wires:
            monkeypatch.setattr(wire, "request", self._cut(wire.request))

    def _cut(self, request: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        house = self.house

        async def carried(method: str, url: str, **named: Any) -> Any:
            if self.gone.is_set():
                raise ConnectionResetError("the process is gone")
            write = method != "GET" and house.agent.outbox.unsettled_count > 0
            if write:
                await self.here("journaled")
            answer = await request(method, url, **named)
            if write:
                await self.here("done, no answer")
            return answer

        return carried

    async def end(self, asked: asyncio.Task[Any]) -> House:
        """The process is gone; the next one begins on the photo."""
        await asyncio.wait_for(self.reached.wait(), 20)
        self.gone.set()
        await asyncio.gather(asked, return_exceptions=True)
        await self.house.client.close()
        await self.house.agent.close()
        self.house.database = self.photo
        return await self.house.open()


def _copy(source: Path, target: Path) -> None:
    """The database and the file with its known head, as a kill leaves them."""
    shutil.copy(source.with_suffix(".head"), target.with_suffix(".head"))
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)
    old.close()
    new.close()


async def settled(house: House, since: int) -> tuple[str, int, Counter[tuple[str, int, str]]]:
    """The one order after ten minutes: its state, how many changes it has, and the effects at the platforms since.

    Nothing but the order changes anything meanwhile: all platforms are at `suggest`.
    """
    await house.run(10)
    ((state, changes),) = house.rows("SELECT state, json_array_length(changes) FROM orders")
    entries = house.rows("SELECT json_extract(body, '$.state') FROM ledger_entries WHERE kind = 'order' ORDER BY seq")
    assert entries == [("open",), (state,)]  # on record once, closed once
    effects = house.effects.all[since:]
    return state, changes, Counter((each.platform, each.campaign, each.kind) for each in effects)


@pytest.mark.parametrize("point", POINTS)
async def test_an_approved_change_is_made_once_or_dropped(
    start: Start, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    house = await start(**only("tiktok"))
    await house.post("/api/v1/autonomy/tiktok", level="suggest", reason="test")
    await house.run(5)
    desk = house.agent.governor.desk
    one = next(each for each in desk.open.values() if each.changes[0].kind == "adjust_bid")
    killed = Killed(house, point)
    killed.watch(monkeypatch)
    asked = asyncio.create_task(desk.approve(one.suggestion_id, "test", "", house.clock.now()))
    house = await killed.end(asked)
    state_of_it = house.rows("SELECT state FROM suggestions WHERE suggestion_id = ?", one.suggestion_id)
    if point == "before the record":  # nothing of it is known, and it is still there to be decided
        assert (state_of_it, house.rows("SELECT count(*) FROM orders"), house.effects.all) == ([("open",)], [(0,)], [])
        assert one.suggestion_id in {each.suggestion_id for each in house.agent.governor.desk.open.values()}
        return
    assert state_of_it == [("approved",)]
    state, changes, done = await settled(house, 0)
    assert changes == 1
    assert (state, list(done.values())) in ([("done", [1]), ("failed", [])])
    if point != "journaled":  # there, nobody can know whether the request went out; it is looked up, never sent again
        assert state == "done"


@pytest.mark.parametrize(
    ("point", "number"),
    [("on record", 1), ("journaled", 1), ("done, no answer", 1), ("journaled", 2), ("done, no answer", 2),
     ("answered, not closed", 1)],
)  # fmt: skip
async def test_a_roll_back_is_carried_out_once_and_makes_no_money(
    start: Start, monkeypatch: pytest.MonkeyPatch, point: str, number: int
) -> None:
    house = await start()
    await house.run(12)
    ((shift, shift_state),) = house.rows("SELECT shift_id, state FROM shifts")
    assert shift_state == "done"
    for connector in house.agent.governor.connectors:
        await house.post(f"/api/v1/autonomy/{connector}", level="suggest", reason="nothing else moves budgets")
    killed = Killed(house, point, number)
    killed.watch(monkeypatch)
    desk = house.agent.governor.desk
    asked = asyncio.create_task(desk.roll_back("batch", (shift,), "test", house.clock.now()))
    since, total = len(house.effects.all), int(house.market.control[at.BUDGET].sum())
    house = await killed.end(asked)
    assert int(house.market.control[at.BUDGET].sum()) <= total
    state, changes, done = await settled(house, since)
    assert max(done.values(), default=0) <= 1
    assert int(house.market.control[at.BUDGET].sum()) <= total
    assert (state == "done") == (len(done) == changes)
    if point != "journaled":
        assert state == "done"
        assert int(house.market.control[at.BUDGET].sum()) == total
