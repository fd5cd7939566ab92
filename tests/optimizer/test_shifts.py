"""Moving budget between platforms that refuse, do not answer, or see the agent die half-way (M4, M5)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiki_agent.model import DAY, Instant, Intent
from kiki_agent.runtime import log

from .rig import CYCLE, NOON, SETTLE, UNIT, House, Platforms, keys, of

Open = Callable[..., Awaitable[House]]
RESTING = {"cooldown_s": 86_400}
"""A platform that gave rests for a day; without it the next cycle may take from it again."""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log._output, "rank", 100)


@pytest.fixture
def platforms() -> Platforms:
    return Platforms()


@pytest.fixture
async def start(tmp_path: Path, platforms: Platforms) -> AsyncIterator[Open]:
    """Opens the next process of the agent; the one before must be closed."""
    opened: list[House] = []

    async def start(now: Instant = NOON, **options: object) -> House:
        opened.append(await House.open(tmp_path, platforms, now, **options))
        return opened[-1]

    yield start
    for house in opened:
        await house.store.close()


def at(cycles: int) -> Instant:
    return Instant(NOON + cycles * CYCLE)


async def assert_on_record(house: House) -> None:
    """One ledger row for each closed shift; one log row, one alert and one delivery for each that moved money."""
    shifts = await house.shifts()
    closed = {shift.shift_id: shift.state.value for shift in shifts if not shift.is_open}
    bodies = [
        json.loads(body) for (body,) in await house.rows("SELECT body FROM ledger_entries WHERE kind = 'reallocation'")
    ]
    assert sorted((body["shift_id"], body["outcome"]) for body in bodies) == sorted(closed.items())
    moved = {f"shift-{shift.shift_id}": shift.moved_micros for shift in shifts if shift.moved_micros}
    logged = await house.rows("SELECT notification_id, amount_shifted_micros FROM budget_reallocation_log")
    assert sorted(logged) == sorted(moved.items())
    for table in ("notifications", "notification_deliveries"):
        assert sorted(await house.rows(f"SELECT notification_id FROM {table}")) == sorted((key,) for key in moved)
    alerts = await house.rows("SELECT count(*) FROM ledger_entries WHERE kind = 'alert'")
    assert alerts == [(len(moved),)]
    assert (await house.ledger.verify()).ok


def assert_no_money_made(platforms: Platforms) -> None:
    """Never more than at the start, at no single effect, and no effect twice."""
    total = sum(platforms.start.values())
    assert all(effect.total <= total for effect in platforms.effects)
    assert len(set(keys(platforms.effects))) == len(platforms.effects)


async def test_the_decrease_is_confirmed_before_the_increase_begins(start: Open, platforms: Platforms) -> None:
    house = await start()
    seen: list[tuple[str, list[str]]] = []

    def look(connector: str, intents: Sequence[Intent]) -> None:
        outside = sqlite3.connect(house.store.path)
        states = outside.execute("SELECT state FROM intents WHERE connector = 'tiktok'").fetchall()
        outside.close()
        seen.append((connector, [state for (state,) in states]))

    platforms.before_call = look
    assert await house.cycle(at(0)) is None
    assert seen == [("tiktok", ["pending", "pending"]), ("microsoft", ["accepted", "accepted"])]
    assert (of(platforms, "tiktok"), of(platforms, "microsoft"), of(platforms, "meta")) == (
        80 * UNIT,
        140 * UNIT,
        200 * UNIT,
    )
    (shift,) = await house.shifts()
    assert (shift.state, shift.moved_micros, shift.closed_at) == ("done", 20 * UNIT, at(0))
    assert [intent.cause for intent in (effect.intent for effect in platforms.effects)] == [shift.shift_id] * 5
    assert_no_money_made(platforms)
    await assert_on_record(house)
    assert house.optimizer.recent_shifts == (shift,)
    assert house.optimizer.shifts_done == 1


async def test_an_increase_refused_three_times_is_given_back(start: Open, platforms: Platforms) -> None:
    house = await start(**RESTING)
    platforms.script = ["ok"] * 2 + ["refuse"] * 9
    states = []
    for cycle in range(4):
        await house.cycle(at(cycle))
        states.append((await house.shifts())[0].state.value)
    assert states == ["increasing", "increasing", "increasing", "returned"]
    assert [call[0] for call in platforms.calls] == ["tiktok"] + ["microsoft"] * 3 + ["tiktok"]
    assert platforms.budgets == platforms.start
    assert len(await house.shifts()) == 1
    assert_no_money_made(platforms)
    await assert_on_record(house)
    assert await house.rows("SELECT count(*) FROM notifications") == [(0,)]


async def test_what_only_a_part_would_take_is_moved_in_part(start: Open, platforms: Platforms) -> None:
    """One campaign takes its share each time; the rest is offered again, and what is left goes back."""
    house = await start()
    platforms.script = ["ok", "ok"] + ["ok", "refuse", "refuse"] * 3
    for cycle in range(5):
        await house.cycle(at(cycle))
    shift, *_ = await house.shifts()
    assert shift.state == "done"
    given = of(platforms, "microsoft") - 120 * UNIT
    assert 0 < shift.moved_micros <= given
    assert platforms.total == sum(platforms.start.values())
    assert_no_money_made(platforms)
    await assert_on_record(house)


@pytest.mark.parametrize("refused", [1, 2])
async def test_a_refused_decrease_increases_nothing_it_did_not_take(
    start: Open, platforms: Platforms, refused: int
) -> None:
    house = await start()
    platforms.script = ["refuse"] * refused
    await house.cycle(at(0))
    (shift,) = await house.shifts()
    moved = sum(platforms.start[key] - budget for key, budget in platforms.budgets.items() if key[0] == "tiktok")
    assert (shift.state, shift.moved_micros) == (("failed", 0) if refused == 2 else ("done", moved))
    assert of(platforms, "microsoft") == 120 * UNIT + moved
    assert_no_money_made(platforms)
    await assert_on_record(house)


@pytest.mark.parametrize("happened", [True, False])
async def test_an_unknown_decrease_is_waited_for(start: Open, platforms: Platforms, happened: bool) -> None:
    house = await start()
    platforms.script = ["lost" if happened else "dropped"] * 2
    await house.cycle(at(0))
    for moment in (1, SETTLE // 2, SETTLE - 1):
        await house.cycle(Instant(at(0) + moment))
    assert platforms.calls == [("tiktok", "set_budget", 2)], "asked once, and nothing follows"
    assert [shift.state for shift in await house.shifts()] == ["decreasing"]
    platforms.script = ["ok"] * 3 if happened else ["refuse"] * 99
    await house.cycle(at(1))
    first, *others = await house.shifts()
    assert first.state == ("done" if happened else "failed")
    assert platforms.calls[1] == ("tiktok", "reconcile", 2)
    if happened:
        assert platforms.calls[2] == ("microsoft", "set_budget", 3)
    else:
        assert platforms.effects == []
        assert all(other.at == at(1) for other in others), "a later cycle may decide anew"
    assert_no_money_made(platforms)
    await assert_on_record(house)


@pytest.mark.parametrize("happened", [True, False])
async def test_an_unknown_increase_is_never_sent_again_before_it_is_read_back(
    start: Open, platforms: Platforms, happened: bool
) -> None:
    house = await start(**RESTING)
    platforms.script = ["ok"] * 2 + ["lost" if happened else "dropped"] * 3
    await house.cycle(at(0))
    for moment in (1, SETTLE - 1):
        await house.optimizer.tick(Instant(at(0) + moment))
    assert [call[:2] for call in platforms.calls] == [("tiktok", "set_budget"), ("microsoft", "set_budget")]
    await house.cycle(at(1))
    shift = (await house.shifts())[0]
    assert (shift.state, shift.moved_micros) == ("done", 20 * UNIT)
    assert sum(call[:2] == ("microsoft", "set_budget") for call in platforms.calls) == (1 if happened else 2)
    assert platforms.total == sum(platforms.start.values())
    assert_no_money_made(platforms)
    await assert_on_record(house)


@pytest.mark.parametrize("half", ["decrease", "increase"])
async def test_a_restart_in_the_middle_goes_on(start: Open, platforms: Platforms, half: str) -> None:
    """The process ends after the platform has done it and before the answer is written."""
    house = await start()
    platforms.script = ["ok", "die"] if half == "decrease" else ["ok", "ok", "ok", "ok", "die"]
    with pytest.raises(asyncio.CancelledError):
        await house.cycle(at(0))
    await house.close()
    house = await start(Instant(at(0) + SETTLE // 2))
    await house.cycle(Instant(at(0) + SETTLE // 2 + 1))
    assert [shift.is_open for shift in await house.shifts()] == [True], "it waits, and begins no other"
    await house.close()
    house = await start(at(1))
    await house.cycle(at(1))
    (shift,) = [each for each in await house.shifts() if each.at == at(0)]
    assert (shift.state, shift.moved_micros) == ("done", 20 * UNIT)
    assert platforms.total == sum(platforms.start.values())
    assert_no_money_made(platforms)
    await assert_on_record(house)


async def test_a_restart_after_refusals_counts_on(start: Open, platforms: Platforms) -> None:
    house = await start(**RESTING)
    platforms.script = ["ok"] * 2 + ["refuse"] * 9
    await house.cycle(at(0))
    await house.close()
    house = await start(at(1), **RESTING)
    await house.cycle(at(1))
    await house.close()
    house = await start(at(2), **RESTING)
    await house.cycle(at(2))
    await house.cycle(at(3))
    assert [(shift.state, shift.attempt) for shift in await house.shifts()] == [("returned", 4)]
    assert platforms.budgets == platforms.start
    await assert_on_record(house)
    await house.close()
    house = await start(at(4), **RESTING)
    assert await house.cycle(at(4)) == "held by guards: tiktok COOLDOWN", "what had to be given back rests as well"


async def test_the_cool_down_outlives_a_restart(start: Open, platforms: Platforms) -> None:
    house = await start(**RESTING)
    await house.cycle(at(0))
    await house.close()
    house = await start(at(1), **RESTING)
    assert await house.cycle(at(1)) == "held by guards: tiktok COOLDOWN"
    assert len(await house.shifts()) == 1
    await house.close()
    later = Instant(at(0) + DAY)
    house = await start(later, **RESTING)
    assert await house.cycle(later) is None
    assert len(await house.shifts()) == 2


@pytest.mark.parametrize("reason", ["KILL_SWITCH", "SAFE_HOLD", "MINIMUM", "UNSETTLED", "BUDGET_EXCEEDED"])
async def test_what_cannot_be_carried_out_is_not_begun(
    start: Open, platforms: Platforms, tmp_path: Path, reason: str
) -> None:
    """It is said, not written down cycle after cycle."""
    from kiki_agent.shield import Caps

    house = await start()
    match reason:
        case "KILL_SWITCH":
            await house.shield.kill(True, "lunch", at(0))
        case "SAFE_HOLD":
            house.shield.hold("a test")
        case "MINIMUM":
            for number in range(2):
                platforms.budgets["tiktok", f"tiktok-{number}"] = UNIT
            house.read(at(0))
        case "UNSETTLED":
            platforms.script = ["dropped"] * 2
            await house.cycle(at(0))
            await house.store.write(lambda connection: connection.execute("UPDATE shifts SET state = 'failed'"))
            house.optimizer._open.clear()
        case "BUDGET_EXCEEDED":
            await house.shield.set_caps("microsoft", Caps(30 * UNIT, None), at(0))
    before = (len(platforms.calls), len(await house.shifts()))
    for moment in range(3):
        assert await house.optimizer.tick(Instant(at(0) + 1 + moment)) == f"held by guards: tiktok {reason}"
    assert (len(platforms.calls), len(await house.shifts())) == before
    assert await house.rows("SELECT count(*) FROM ledger_entries WHERE kind = 'reallocation'") == [(0,)]
    assert house.optimizer.snapshot is not None
    assert {each.connector: each.note for each in house.optimizer.snapshot.details}["tiktok"] == reason


async def test_two_givers_in_one_cycle(start: Open, platforms: Platforms) -> None:
    house = await start(worth={"meta": 200, "tiktok": 100, "microsoft": 900})
    platforms.script = ["ok"] * 5 + ["ok", "lost"]
    await house.cycle(at(0))
    first, second = await house.shifts()
    assert {first.from_connector, second.from_connector} == {"tiktok", "meta"}
    assert first.shift_id != second.shift_id
    for cycle in range(1, 4):
        await house.cycle(at(cycle))
    assert all(not shift.is_open for shift in await house.shifts() if shift.at == at(0))
    assert_no_money_made(platforms)
    await assert_on_record(house)


ANSWERS = st.sampled_from(["ok", "ok", "ok", "refuse", "lost", "dropped", "die"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(ANSWERS, max_size=40), restarts=st.sets(st.integers(0, 7)))
def test_money_is_kept_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, script: list[str], restarts: set[int]
) -> None:
    """Any answers, any restarts, any deaths: never a micro too much, each shift on record once, and in the end the sum
    is what it was."""

    async def run() -> None:
        platforms = Platforms()
        platforms.script = list(script)
        folder = tmp_path_factory.mktemp("any")
        house = await House.open(folder, platforms)
        try:
            for cycle in range(16):
                if cycle == 10:
                    platforms.script.clear()  # the weather clears up
                died = False
                try:
                    await house.cycle(at(cycle))
                except asyncio.CancelledError:
                    died = True
                if died or cycle in restarts:
                    await house.close()
                    house = await House.open(folder, platforms, Instant(at(cycle) + 1))
            shifts = await house.shifts()
            assert not [shift for shift in shifts if shift.is_open]
            assert house.outbox.unsettled_count == 0
            assert platforms.total == sum(platforms.start.values())
            moved = sum(shift.moved_micros for shift in shifts)
            assert of(platforms, "tiktok") == 100 * UNIT - moved
            assert_no_money_made(platforms)
            await assert_on_record(house)
        finally:
            await house.store.close()

    asyncio.run(run())
