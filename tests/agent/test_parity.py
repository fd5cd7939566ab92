"""The live agent on a stepped clock, the simulated agent, and the same run in another process: one ledger (M17)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from . import world
from .world import MINUTE, SECOND, START, Ended

SPAN = 30
"""Simulated minutes of a run."""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The run all others are compared with."""
    return world.sync(world.run(tmp_path_factory.mktemp("simulated"), span=SPAN * MINUTE))


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The same under the live driver: tasks, deadlines of calls, real sleeping on a clock that is stepped."""
    return world.sync(world.run(tmp_path_factory.mktemp("stepped"), span=SPAN * MINUTE, stepped=True))


def test_the_script_holds_what_it_should(simulated: Ended) -> None:
    assert simulated.verified
    starts = {name for name, each in simulated.loops.items() if (each.next_due - START) % (60 * SECOND) == 0}
    assert {"poll:meta", "poll:tiktok", "optimizer"} <= starts, "loops that are due at one instant"
    assert simulated.faulted == ["poll:tiktok"], "a vendor that failed"
    assert simulated.loops["poll:tiktok"].failures > 0
    assert simulated.loops["poll:tiktok"].state == "ok", "tried again until it answered"
    histories = list(simulated.receipts.values())
    assert [("unknown", "NO_ANSWER", False), ("accepted", "", True)] in histories, "done, and its answer lost"
    assert [("unknown", "NO_ANSWER", False), ("rejected", "NOT_APPLIED", True)] in histories, "not done after all"
    assert [("rejected", "TRY_LATER", False)] in histories, "failed in a 200"
    assert simulated.unsettled == 0
    assert list(simulated.shifts.values()).count("done") >= 1
    assert simulated.kinds["decision"] > world.CAMPAIGNS


def test_the_live_driver_writes_the_same_ledger(simulated: Ended, stepped: Ended) -> None:
    assert stepped.rows("SELECT seq, at, kind, body FROM ledger_entries ORDER BY seq") == simulated.rows(
        "SELECT seq, at, kind, body FROM ledger_entries ORDER BY seq"
    )
    assert stepped.head == simulated.head
    assert stepped.effects == simulated.effects
    measured = {"last_tick_ms": 0.0}
    for name, each in simulated.loops.items():
        for part in each.__slots__:
            if part not in measured:
                assert getattr(stepped.loops[name], part) == getattr(each, part), f"{part} of {name}"


def test_another_seed_is_another_run(simulated: Ended, tmp_path: Path) -> None:
    other = world.sync(world.run(tmp_path, seed=2, span=SPAN * MINUTE))
    assert other.verified
    assert other.head[1] != simulated.head[1]


@pytest.mark.parametrize("environment", [{"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "4242"}])
def test_another_process_at_another_time_writes_the_same_ledger(
    simulated: Ended, tmp_path: Path, environment: Mapping[str, str]
) -> None:
    shift = "-200000000.25" if environment["PYTHONHASHSEED"] == "1" else "86400000"
    done = subprocess.run(
        [sys.executable, str(Path(world.__file__)), str(tmp_path), "1", str(SPAN), shift],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["head"] == list(simulated.head)
    assert said["kinds"] == dict(simulated.kinds)
