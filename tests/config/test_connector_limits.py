"""Limits and kinds of connectors in the configuration: by file, variable and flag, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kiki_agent.config import RateLimitSettings, load
from kiki_agent.errors import ConfigError
from kiki_agent.hooks.options import merged_limit
from kiki_agent.runtime.limiter import RateLimit

FILE = """
[connector.meta]
plugin = "sandbox"
platform = "meta"
daily_cap = "100"
rate_limit = { calls = 600, window_s = 3600 }

[connector.meta.circuit]
failure_threshold = 5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_a_tier_is_one_line_and_every_part_can_be_overridden_con_47(tmp_path: Path) -> None:
    path = write(tmp_path, FILE)
    environment = {"KIKI__CONNECTOR__META__RATE_LIMIT__CALLS": "700"}
    loaded = load(path, environment, {"connector.meta.rate_limit.burst": "20"})
    meta = loaded.settings.connector["meta"]
    assert (meta.rate_limit.calls, meta.rate_limit.window_s, meta.rate_limit.burst) == (700, 3_600, 20)
    assert (meta.circuit.failure_threshold, meta.circuit.slow_call_ms) == (5, None)
    assert meta.options == {}, "none of it is handed to the plugin"


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("connector.meta.rate_limit.calls", "0", "a whole number from 1 to 1000000"),
        ("connector.meta.rate_limit.calls", "many", "a whole number from 1 to 1000000"),
        ("connector.meta.rate_limit.window_s", "-1", "a number above 0"),
        ("connector.meta.rate_limit.cals", "5", "unknown key"),
        ("connector.meta.circuit.failure_threshold", "0", "a whole number from 1 to 100"),
        ("connector.meta.kind", "clever", "one of smart, basic"),
        ("resilience.multipliers.meta", "0", "a number above 0"),
        ("resilience.multipliers.mars", "1", "unknown key"),
    ],
)
def test_nonsense_is_a_finding_with_its_place(tmp_path: Path, flag: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(write(tmp_path, FILE), {}, {flag: value})
    (finding,) = refused.value.findings
    assert finding.key == flag
    assert expected in finding.message


def test_a_basic_connector_has_no_window(tmp_path: Path) -> None:
    path = write(tmp_path, FILE)
    loaded = load(path, {}, {"connector.meta.kind": "basic"})
    assert loaded.settings.connector["meta"].kind == "basic"
    with pytest.raises(ConfigError, match="a basic connector has no window"):
        load(path, {}, {"connector.meta.kind": "basic", "connector.meta.window_cap": "50"})


STATED = RateLimit(100, 60, 25)


@pytest.mark.parametrize(
    ("stated", "given", "expected"),
    [
        (None, {}, None),
        (STATED, {}, STATED),
        (STATED, {"calls": 50}, RateLimit(50, 60, 25)),
        (STATED, {"burst": 3}, RateLimit(100, 60, 3)),
        (None, {"calls": 50, "window_s": 10}, RateLimit(50, 10)),
    ],
)
def test_what_is_left_out_is_as_the_plugin_says(
    stated: RateLimit | None, given: dict[str, float], expected: RateLimit | None
) -> None:
    assert merged_limit(stated, RateLimitSettings.model_validate(given)) == expected


@pytest.mark.parametrize("given", [{"calls": 5}, {"window_s": 5}, {"burst": 5}])
def test_half_a_limit_is_none(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected calls and window_s"):
        merged_limit(None, RateLimitSettings.model_validate(given))
