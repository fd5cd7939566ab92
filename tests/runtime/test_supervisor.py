"""Supervision: back-off, fault, freeze, recovery, and what is said about it."""

from __future__ import annotations

import pytest

from kiki_agent.model.time import MINUTE, SECOND, Instant
from kiki_agent.runtime.clock import SimClock
from kiki_agent.runtime.driver import SimDriver
from kiki_agent.runtime.supervisor import LoopHealth, LoopState, Supervisor

from .scripts import START, Scripted


def begun(journal: list[tuple[str, float, str]], name: str) -> list[float]:
    return [at for who, at, what in journal if who == name and what == "begin"]


async def simulate(loops: list[Scripted], seconds: float, **hooks: object) -> Supervisor:
    clock = SimClock(START)
    supervisor = Supervisor(loops, clock, **hooks)  # type: ignore[arg-type]
    await SimDriver().run(supervisor, clock, Instant(START + round(seconds * SECOND)))
    return supervisor


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        # after the n-th failure the next tick is the first due time 1, 2, 4, 8, 16, 32, 60, 60 s later
        (1, [0, 1, 3, 7, 15, 31, 63, 123, 183]),
        (2, [0, 2, 4, 8, 16, 32, 64, 124, 184]),
        (5, [0, 5, 10, 15, 25, 45, 80, 140, 200]),
        (300, [0, 300, 600]),
    ],
)
async def test_the_next_tick_is_the_first_due_time_after_the_back_off(period, expected):
    journal: list[tuple[str, float, str]] = []
    await simulate([Scripted("bad", journal, period, fails=lambda tick: True)], expected[-1] + 1)
    assert begun(journal, "bad") == expected


async def test_success_ends_the_back_off():
    journal: list[tuple[str, float, str]] = []
    await simulate([Scripted("shaky", journal, 2, fails=lambda tick: tick in {1, 2, 3, 5})], 21)
    assert begun(journal, "shaky") == [0, 2, 4, 8, 10, 12, 14, 16, 18, 20]


@pytest.mark.parametrize(("good_ticks", "failures"), [(0, 5), (10, 4)])
async def test_a_fault_is_five_failures_in_a_row_or_three_periods_without_success(good_ticks, failures):
    journal: list[tuple[str, float, str]] = []
    faults: list[tuple[str, int]] = []

    def on_fault(health: LoopHealth) -> None:
        faults.append((health.name, health.failures_in_a_row))

    def loop() -> Scripted:
        return Scripted("bad", journal, 60, fails=lambda tick: tick > good_ticks)

    before = await simulate([loop()], 60 * (good_ticks + failures - 1), on_fault=on_fault)
    assert (before.health["bad"].state, faults) == (LoopState.FAILING, [])
    await simulate([loop()], 60 * (good_ticks + failures), on_fault=on_fault)
    # the age is judged when the next tick begins, before that one fails too
    assert faults == [("bad", failures - 1)]


async def test_five_quick_failures_are_a_fault_before_time_has_passed():
    clock = SimClock(START)
    supervisor = Supervisor([Scripted("bad", [], 3600)], clock)
    health = supervisor.health["bad"]
    supervisor.first_due(supervisor.loops[0], START)
    for _ in range(4):
        supervisor.failed(health, START, ValueError("x"))
    assert health.state is LoopState.FAILING
    supervisor.failed(health, START, ValueError("x"))
    assert health.state is LoopState.FAULTED


async def test_no_success_for_three_periods_is_a_fault_even_while_backing_off():
    journal: list[tuple[str, float, str]] = []
    topics: list[tuple[str, float]] = []
    clock = SimClock(START)
    bad = Scripted("bad", journal, 2, essential=True, fails=lambda tick: tick > 5)
    other = Scripted("other", journal, 1)
    supervisor = Supervisor(
        [bad, other],
        clock,
        on_fault=lambda health: topics.append((health.name, (clock.now() - START) / SECOND)),
        on_freeze=lambda frozen: topics.append((f"frozen {frozen}", (clock.now() - START) / SECOND)),
    )
    await SimDriver().run(supervisor, clock, Instant(START + 40 * SECOND))
    # last success at 8 s; three periods later is 14 s, and the other loop's tick at 15 s is the first past it
    assert topics == [("bad", 15), ("frozen True", 15)]
    assert supervisor.frozen


async def test_a_faulted_loop_recovers_by_itself_and_spend_thaws():
    journal: list[tuple[str, float, str]] = []
    freezes: list[bool] = []
    clock = SimClock(START)
    bad = Scripted("bad", journal, 2, essential=True, fails=lambda tick: 3 <= tick < 9)
    supervisor = Supervisor([bad], clock, on_freeze=freezes.append)
    told = supervisor.signals.subscribe()
    await SimDriver().run(supervisor, clock, Instant(START + 150 * SECOND))
    assert freezes == [True, False]
    assert [signal.topic for signal in told.drain()] == [
        *("loop.failing", "loop.faulted", "spend.frozen", "loop.recovered", "spend.thawed")
    ]
    health = supervisor.health["bad"]
    assert (health.state, health.failures_in_a_row, health.failures) == (LoopState.OK, 0, 6)
    assert supervisor.troubled == []


async def test_a_fault_of_a_loop_that_is_not_essential_freezes_nothing():
    journal: list[tuple[str, float, str]] = []
    supervisor = await simulate([Scripted("bad", journal, 2, fails=lambda tick: True)], 60)
    assert supervisor.health["bad"].state is LoopState.FAULTED
    assert not supervisor.frozen


async def test_one_line_when_it_fails_one_when_it_faults_one_when_it_is_back(capsys):
    journal: list[tuple[str, float, str]] = []
    await simulate([Scripted("bad", journal, 2, fails=lambda tick: 2 <= tick < 12)], 600)
    events = [line.split('"event":"')[1].split('"')[0] for line in capsys.readouterr().err.splitlines()]
    assert events == ["loop_failing", "loop_faulted", "loop_recovered"]


async def test_listeners_that_fail_do_not_stop_the_watch():
    def broken(_: object) -> None:
        raise RuntimeError("listener")

    journal: list[tuple[str, float, str]] = []
    bad = Scripted("bad", journal, 2, essential=True, fails=lambda tick: tick < 6)
    supervisor = await simulate([bad], 100, on_fault=broken, on_freeze=broken)
    assert supervisor.health["bad"].state is LoopState.OK
    assert not supervisor.frozen


async def test_the_report_tells_age_and_reason():
    journal: list[tuple[str, float, str]] = []
    clock = SimClock(START)
    idle = Scripted("idle", journal, 10)
    bad = Scripted("bad", journal, 10, fails=lambda tick: True)
    supervisor = Supervisor([idle, bad], clock)
    assert [(report.age_s, report.reason) for report in supervisor.report()] == [(None, None), (None, None)]
    await SimDriver().run(supervisor, clock, Instant(START + 15 * SECOND))
    first, second = supervisor.report()
    assert (first.name, first.state, first.age_s, first.reason) == ("idle", "ok", 5.0, "nothing to do on even ticks")
    assert (second.name, second.state, second.age_s) == ("bad", "failing", None)
    assert second.reason == second.last_error == "ValueError: scripted failure 2"
    assert second.next_due == START + 20 * SECOND


async def test_a_pause_does_not_age_and_a_hanging_tick_does():
    clock = SimClock(START)
    supervisor = Supervisor([Scripted("slow", [], 2, essential=True)], clock)
    health = supervisor.health["slow"]
    supervisor.first_due(supervisor.loops[0], START)
    supervisor.pause("slow")
    clock.instant = Instant(START + 10 * MINUTE)
    supervisor.hanging(health, clock.now())
    assert health.state is LoopState.PAUSED
    supervisor.resume("slow")
    supervisor.hanging(health, clock.now())
    assert health.state is LoopState.OK
    clock.instant = Instant(clock.instant + 7 * SECOND)
    supervisor.hanging(health, clock.now())
    assert health.state is LoopState.FAULTED
    assert supervisor.frozen
    assert health.last_error == "a tick has been running for 7 s"
    supervisor.succeeded(health, clock.now(), None)
    assert health.state is LoopState.OK
    assert not supervisor.frozen


def test_names_and_periods_are_checked():
    clock = SimClock(START)
    with pytest.raises(ValueError, match="two loops are called 'a'"):
        Supervisor([Scripted("a", []), Scripted("a", [])], clock)
    with pytest.raises(ValueError, match="must be positive, was 0"):
        Supervisor([Scripted("a", [], 0)], clock)
    with pytest.raises(KeyError):
        Supervisor([], clock).pause("nobody")
