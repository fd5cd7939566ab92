"""An agent whose ledger is sealed under its feet decides what one decides whose ledger is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kiki_agent.config import Mode, Settings
from kiki_agent.ledger import export_file, verify_file
from kiki_agent.ledger import sealing as sealing_module

from . import world
from .world import DAY

SLOW = {
    "bidding.interval_s": "60",
    "bidding.write_interval_s": "300",
    "bidding.poll_interval_s": "600",
    "bidding.report_interval_s": "1800",
    "optimizer.interval_s": "1800",
    "ledger.head_interval_s": "30",
    "ledger.verify_interval_s": "21600",
}
SEALED = {"ledger.hot_days": "0.05", "ledger.decision_days": "0.15"}


@pytest.fixture
def as_a_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of a backtest is never sealed; everything else as in one."""
    plain = world.settings_for

    def settings_for(*arguments: Any, **options: Any) -> Settings:
        return plain(*arguments, **options).model_copy(update={"mode": Mode.DEMO})

    monkeypatch.setattr(world, "settings_for", settings_for)
    Sealer = sealing_module.Sealer
    monkeypatch.setattr("kiki_agent.agent.Sealer", lambda *a, **options: Sealer(*a, **options, rows=300, batch=40))


def exported(folder: Path) -> list[dict[str, Any]]:
    pieces: list[str] = []
    export_file(folder / "agent.db", "jsonl", pieces.append)
    return [json.loads(line) for line in "".join(pieces).splitlines()]


def test_sealing_changes_no_decision(tmp_path: Path, as_a_demo: None) -> None:
    span = DAY // 2
    kept, sealed = (
        world.sync(world.run(tmp_path / name, span=span, flags=SLOW | flags, hop=False))
        for name, flags in (("kept", {"ledger.hot_days": "0"}), ("sealed", SEALED))
    )
    assert kept.verified
    assert sealed.verified
    assert sealed.loops["seal"].failures == 0
    assert "seal" not in sealed.faulted
    found = verify_file(sealed.database)
    assert found.ok
    assert found.segments > 2
    assert found.dropped > 0
    assert not (tmp_path / "kept" / "agent.segments").exists()
    whole = [(row["at"], row["kind"], row["body"]) for row in exported(tmp_path / "kept")]
    parts = [
        (row["at"], row["kind"], row["body"])
        for row in exported(tmp_path / "sealed")
        if row["kind"] not in ("sealed", "dropped")
    ]
    assert len(whole) == len(parts) > 1_000
    for plain, part in zip(whole, parts, strict=True):
        assert part == plain or (part[2] is None and part[:2] == plain[:2] and part[1] in _DROPPED)
    assert sealed.budgets == kept.budgets
    assert [(each.kind, each.after) for each in sealed.effects] == [(each.kind, each.after) for each in kept.effects]


_DROPPED = ("decision", "suggestion", "would_have", "alert")
