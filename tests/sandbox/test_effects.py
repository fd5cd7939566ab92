"""The log of effects: replayed it is the same market, torn it is still a log, damaged or foreign it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kiki_agent.model import DAY, HOUR, SECOND, Instant
from kiki_agent.sandbox import EffectsLog, Market

from .vendor import START, Vendor, small_market


def act(vendor: Vendor, rounds: int = 5) -> None:
    """Change bids, budgets and states at odd instants."""
    campaigns = list(vendor.bids("tiktok"))
    for number in range(rounds):
        vendor.now = Instant(vendor.now + 3 * HOUR + 17 * SECOND)
        vendor.log_in()
        vendor.bid(*((each, f"{number + 1}.50", f"{number}-{each}") for each in campaigns), platform="tiktok")
        budget = {"campaign": campaigns[0], "daily_budget": f"{10 + number}", "client_ref": f"b{number}"}
        assert vendor.post("/v1/tiktok/budgets", {"operations": [budget]}).status == 200
        state = {"campaign": campaigns[1], "state": ("PAUSED", "ENABLED")[number % 2], "client_ref": f"s{number}"}
        assert vendor.post("/v1/tiktok/status", {"operations": [state]}).status == 200
        place = {"campaign": campaigns[0], "amount": "3.21", "client_ref": f"p{number}"}
        assert vendor.post("/v1/tiktok/placements", {"operations": [place]}).status == 200


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "effects.jsonl"


@pytest.fixture
def lived(path: Path) -> Market:
    """A market somebody acted on, and its closed log."""
    effects = EffectsLog(path)
    vendor = Vendor(small_market(), effects)
    assert effects.replay(vendor.market) == 0
    act(vendor)
    effects.close()
    assert effects.count == 25
    return vendor.market


def replayed(path: Path, market: Market | None = None) -> tuple[Market, EffectsLog]:
    made = market or small_market()
    effects = EffectsLog(path)
    effects.replay(made)
    return made, effects


def test_a_replay_makes_the_same_market(path: Path, lived: Market) -> None:
    market, effects = replayed(path)
    end = Instant(lived.now + DAY)
    for each in (market, lived):
        each.advance_to(end)
    assert market.state_hash() == lived.state_hash()
    assert effects.count == 25
    assert [each.effect_id for each in effects.find("b3")] == ["fx-18"]
    idle = small_market()
    idle.advance_to(end)
    assert idle.state_hash() != lived.state_hash()
    effects.close()


def test_the_log_goes_on_after_a_replay(path: Path, lived: Market) -> None:
    market, effects = replayed(path)
    vendor = Vendor(market, effects)
    vendor.now = lived.now
    vendor.log_in()
    act(vendor, 2)
    effects.close()
    again, effects = replayed(path)
    assert effects.count == 35
    for each in (again, market):
        each.advance_to(Instant(START + 3 * DAY))
    assert again.state_hash() == market.state_hash()
    assert len({each.n for each in effects.recent()}) == 35
    effects.close()


@pytest.mark.parametrize("kept", [0, 1, -1])
def test_a_torn_last_line_is_cut_off(path: Path, lived: Market, kept: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    torn = {0: b"", 1: lines[-1][:1], -1: lines[-1][:-1]}[kept]
    path.write_bytes(b"".join(lines[:-1]) + torn)
    market, effects = replayed(path)
    assert effects.count == 24
    assert path.read_bytes() == b"".join(lines[:-1])
    vendor = Vendor(market, effects)
    vendor.now = lived.now
    vendor.log_in()
    vendor.bid(("100001", "1.00", "after the crash"))
    effects.close()
    _, effects = replayed(path)
    assert [each.effect_id for each in effects.find("after the crash")] == ["fx-25"]
    effects.close()


@pytest.mark.parametrize(
    "line",
    [b"{}\n", b"\n", b"not json\n", b'{"n":1,"key":"k","platform":"meta","campaign":999,"kind":"adjust_bid","before":0,'
     b'"after":1,"at":1767571200000000}\n'],
)  # fmt: skip
def test_a_damaged_line_is_named(path: Path, lived: Market, line: bytes) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + line + b"".join(lines[3:]))
    with pytest.raises(ValueError, match="line 4"):
        replayed(path)


def test_the_log_of_another_market_is_refused(path: Path, lived: Market) -> None:
    with pytest.raises(ValueError, match="line 1 does not fit this market"):
        replayed(path, small_market(seed=2))


def test_a_missing_log_is_an_empty_one(path: Path) -> None:
    market, effects = replayed(path)
    assert effects.count == 0
    assert path.read_bytes() == b""
    assert market.state_hash() == small_market().state_hash()
    effects.close()


def test_what_is_remembered_does_not_grow_with_time() -> None:
    effects = EffectsLog()
    vendor = Vendor(small_market(history_days=0), effects)
    kept = []
    for _ in range(12):
        act(vendor, 16)
        kept.append(len(list(effects.recent())))
    assert effects.count == 12 * 16 * 5
    assert max(kept) == kept[3] == kept[-1]
    assert sum(len(effects.find(each.key)) > 0 for each in effects.recent()) == kept[-1]
