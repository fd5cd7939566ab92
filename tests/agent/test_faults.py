"""A bad day at the platforms: whatever they answer, no loop dies and nothing is booked as done that is not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from kiki_agent.model import HOUR
from kiki_agent.sandbox.faults import Fault, Faults

from . import world
from .matching import budgets_set
from .world import DAY, MINUTE, Ended

EAGER = {
    "bidding.interval_s": "60",
    "ledger.head_interval_s": "600",
    "ledger.verify_interval_s": "14400",
    "optimizer.cooldown_s": "0",
    "optimizer.consume_evidence": "false",
    "optimizer.floor_share": "0.05",
    "optimizer.threshold": "0.1",
}
"""The literal rule without its guards, so that a day holds many shifts."""


def assert_record_is_what_happened(ended: Ended) -> None:
    """Each effect once, under the key of an accepted intent; each accepted intent has its effect (M3)."""
    effects = Counter(each.key for each in ended.effects)
    assert effects.most_common(1)[0][1] == 1
    assert not [key for key in effects if key.startswith("?")], "effects that no intent explains"
    final = {key: history[-1][0] for key, history in ended.receipts.items()}
    intents = {json.loads(str(body))["key"] for (body,) in ended.rows(_BODIES.format("intent"))}
    assert effects.keys() <= intents
    assert {key for key, outcome in final.items() if outcome == "accepted"} <= effects.keys()
    refused = {key for key, outcome in final.items() if outcome == "rejected"}
    assert not refused & effects.keys()
    assert len(intents - final.keys() | {key for key, outcome in final.items() if outcome == "unknown"}) == (
        ended.unsettled
    )


_BODIES = "SELECT body FROM ledger_entries WHERE kind = '{}' ORDER BY seq"


def assert_budgets_never_grew(ended: Ended) -> None:
    """The sum of all daily budgets never passed what it was at the start, at any single effect (M4)."""
    budgets = list(ended.start_budgets)
    total = most = sum(budgets)
    for each in ended.effects:
        if each.kind == "set_budget":
            parts = budgets_set(each)
            assert sum(budgets[row] for row in parts) == each.before
            for row, micros in parts.items():
                budgets[row] = micros
            most = max(most, sum(budgets))
    assert budgets == ended.budgets
    assert most == total


def assert_shifts_recorded_once(ended: Ended) -> None:
    """A closed shift has one ledger row, and one that moved money one log row and one notification (M5)."""
    rows = [json.loads(str(body)) for (body,) in ended.rows(_BODIES.format("reallocation"))]
    assert {row["shift_id"]: row["outcome"] for row in rows} == {
        key: state for key, state in ended.shifts.items() if state in ("done", "returned", "failed")
    }
    assert len(rows) == len({row["shift_id"] for row in rows})
    moved = sorted(f"shift-{row['shift_id']}" for row in rows if row["moved_micros"])
    assert [
        each
        for (each,) in ended.rows(
            "SELECT notification_id FROM notifications WHERE notification_id LIKE 'shift-%' ORDER BY 1"
        )
    ] == moved
    logged = ended.rows("SELECT notification_id, amount_shifted_micros FROM budget_reallocation_log ORDER BY 1")
    amounts = {f"shift-{row['shift_id']}": row["moved_micros"] for row in rows}
    assert logged == [(key, amounts[key]) for key in moved]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "rate"), [(1, 0.2), (2, 0.5)])
async def test_a_day_on_which_much_fails(tmp_path: Path, seed: int, rate: float) -> None:
    span = DAY if seed == 1 else 8 * HOUR
    ended = await world.run(tmp_path, seed=seed, span=span, script=world.fair, flags=EAGER, hop=False, fault_rate=rate)
    assert ended.verified
    assert ended.faults.injected > rate * 0.8 * ended.faults.requests > 200
    for each in ended.loops.values():
        assert each.ticks >= (span // round(each.interval_s * 1e6)) * 0.5, f"{each.name} stopped ticking"
        if each.ticks:
            assert each.age_s is not None
            assert each.age_s <= max(HOUR / 1e6, 3 * each.interval_s), f"{each.name} never recovered"
    essential = [each for each in ended.loops.values() if each.essential]
    assert [each.failures for each in essential] == [0, 0]
    outcomes = Counter(history[-1][0] for history in ended.receipts.values())
    assert outcomes["accepted"] > 50
    assert outcomes["rejected"] > 10
    assert any(len(history) > 1 for history in ended.receipts.values()), "outcomes that had to be read back"
    assert_record_is_what_happened(ended)
    assert_budgets_never_grew(ended)
    assert_shifts_recorded_once(ended)
    assert list(ended.shifts.values()).count("done") >= 3


@pytest.mark.parametrize("fault", list(Fault))
async def test_one_platform_answers_with_nothing_but(tmp_path: Path, fault: Fault) -> None:
    """Its own loop says so and comes back, the others never notice."""

    def script(faults: Faults) -> None:
        faults.order(fault, path="/meta/", times=60)
        faults.order(fault, path="/v1/customers", times=2)

    flags = {"bidding.interval_s": "10", "ledger.head_interval_s": "60", "bidding.report_interval_s": "60"}
    ended = await world.run(tmp_path, span=2 * HOUR, script=script, flags=flags, hop=False)
    assert ended.verified
    if fault is Fault.THROTTLED:  # Meta says how long it wants to be left alone, and is
        assert 3 <= ended.faults.injected < 62
    else:
        assert ended.faults.injected == 62
    others = [each for name, each in ended.loops.items() if "meta" not in name and name != "value"]
    assert [each.failures for each in others] == [0] * len(others)
    poll = ended.loops["poll:meta"]
    if fault is not Fault.THROTTLED:  # a platform that asks for patience has not failed
        assert poll.failures > 3
        assert poll.state == "ok", "well again"
        assert "poll:meta" in ended.faulted
        assert poll.last_error.partition(":")[0] in ("Temporary", "NoAnswer"), poll.last_error
    assert set(ended.faulted) <= {"poll:meta", "value"}
    assert_record_is_what_happened(ended)
    assert_budgets_never_grew(ended)
    assert_shifts_recorded_once(ended)


async def test_the_checks_would_see_a_lie(tmp_path: Path) -> None:
    one = await world.run(tmp_path / "one", span=15 * MINUTE, script=world.weather, hop=False)
    assert_record_is_what_happened(one)
    one.effects.append(one.effects[0])
    with pytest.raises(AssertionError):
        assert_record_is_what_happened(one)
    one.effects.pop()
    one.effects.pop()
    with pytest.raises(AssertionError):
        assert_record_is_what_happened(one)
    one.start_budgets[0] += 1
    with pytest.raises(AssertionError):
        assert_budgets_never_grew(one)
    one.shifts["another"] = "done"
    with pytest.raises(AssertionError):
        assert_shifts_recorded_once(one)
