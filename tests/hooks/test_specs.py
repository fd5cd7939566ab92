"""The plugin API as a promise: its text may not change unless its version moves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kiki_agent.hooks.specs import API_VERSION, SPECS, VERBS, describe_api

HERE = Path(__file__).parent
CURRENT = HERE / f"api-{API_VERSION[0]}.{API_VERSION[1]}.txt"


def test_the_specifications_are_those_of_their_version() -> None:
    assert CURRENT.exists(), (
        f"API_VERSION is {API_VERSION} and {CURRENT.name} is missing: write describe_api() into it, keep the old ones"
    )
    assert describe_api() == CURRENT.read_text(), (
        "the hook specifications changed: move API_VERSION (minor for an addition, major for anything that breaks a "
        "plugin) and write describe_api() into a new snapshot; the old snapshot stays as it is"
    )


def test_a_minor_version_only_adds() -> None:
    """Every hook of an earlier minor version is still there and begins with the same arguments."""
    now = _hooks(CURRENT)
    for snapshot in HERE.glob(f"api-{API_VERSION[0]}.*.txt"):
        for name, arguments in _hooks(snapshot).items():
            assert name in now, f"{name} of {snapshot.name} is gone: that is a new major version"
            assert now[name][: len(arguments)] == arguments, f"{name} of {snapshot.name} changed its arguments"


def _hooks(snapshot: Path) -> dict[str, list[str]]:
    hooks: dict[str, list[str]] = {}
    kind = ""
    for line in snapshot.read_text().splitlines():
        if line.startswith("["):
            kind = line.strip("[]")
        found = re.match(r"(\w+)\((.*)\) -> ", line)
        if found:
            hooks[f"{kind}.{found[1]}"] = re.findall(r"(\w+):", found[2])
    return hooks


def test_the_snapshot_is_read_as_it_is_meant() -> None:
    hooks = _hooks(CURRENT)
    assert hooks["connector.fetch_performance"] == ["window", "cursor"]
    assert len(hooks) == sum(len(verbs) for verbs in VERBS.values())


@pytest.mark.parametrize("kind", SPECS)
def test_every_kind_can_be_checked_and_closed(kind: str) -> None:
    assert {"check", "close"} <= set(VERBS[kind])
    assert all(verb.summary for verb in VERBS[kind].values())


def test_what_moves_money_is_marked_as_writing() -> None:
    writes = {f"{kind}.{verb.name}" for kind, verbs in VERBS.items() for verb in verbs.values() if verb.writes}
    assert writes == {
        "connector.set_budget",
        "connector.place_bid",
        "connector.adjust_bid",
        "connector.set_status",
        "connector.upload_conversions",
        "notifier.notify",
    }
