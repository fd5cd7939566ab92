"""Credentials and budgets from the variables people know from the vendors (CON-45, CON-46)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kiki_agent.config import Loaded, load
from kiki_agent.config.known_names import KNOWN_NAMES
from kiki_agent.config.show import MASK, shown_settings
from kiki_agent.errors import ConfigError

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
TABLES = """
[connector.search]
plugin = "google_ads"
platform = "google_ads"
customer_id = "111-111-1111"
{more}
[connector.social]
plugin = "meta"
platform = "meta"
"""


def read(folder: Path, environ: dict[str, str], more: str = "") -> Loaded:
    file = folder / "mine.toml"
    file.write_text(TABLES.format(more=more))
    return load(file, environ, {})


def test_each_variable_reaches_its_table(tmp_path: Path) -> None:
    environ = {name: str(100 + number) for number, name in enumerate(KNOWN_NAMES)}
    loaded = read(tmp_path, environ)
    ids = {"google_ads": "search", "meta": "social"}
    for name, (plugin, key) in KNOWN_NAMES.items():
        table = loaded.settings.connector[ids[plugin]]
        assert (table.window_cap if key == "window_cap" else table.options[key]) == environ[name]
        assert loaded.sources[f"connector.{ids[plugin]}.{key}"] == f"environment {name}"
        assert f'| `{name}` | `{key}` with `"{plugin}"`' in PAGE


def test_what_is_said_in_our_own_words_wins(tmp_path: Path) -> None:
    environ = {"META_BUDGET": "70", "KIKI__CONNECTOR__SOCIAL__WINDOW_CAP": "60"}
    assert read(tmp_path, environ).settings.connector["social"].window_cap == "60"


def test_secrets_are_masked(tmp_path: Path) -> None:
    canary = "EAAB-canary-4711"
    loaded = read(tmp_path, {"META_ACCESS_TOKEN": canary, "GOOGLE_ADS_API_KEY": canary})
    shown = shown_settings(loaded)
    assert canary not in repr(shown)
    masked = {each.key for each in shown if each.value == MASK}
    assert masked >= {"connector.social.access_token", "connector.search.developer_token"}


@pytest.mark.parametrize(
    ("more", "google", "meta"),
    [
        ('kind = "basic"', None, "400"),
        ("", "500", "400"),
        ('daily_cap = "300"', "300", "400"),
        ('window_cap = "7"', "7", "400"),
    ],
)
def test_usual_budgets(tmp_path: Path, more: str, google: str | None, meta: str) -> None:
    connectors = read(tmp_path, {}, more).settings.connector
    assert (connectors["search"].window_cap, connectors["social"].window_cap) == (google, meta)


def test_two_tables_of_a_class_are_a_finding(tmp_path: Path) -> None:
    second = '[connector.brand]\nplugin = "google_ads"\nplatform = "google_ads"\n'
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, {"GOOGLE_ADS_API_KEY": "secret-canary"}, second)
    assert "search, brand" in str(raised.value)
    assert "KIKI__CONNECTOR__BRAND__DEVELOPER_TOKEN" in str(raised.value)
    assert "secret-canary" not in str(raised.value)
    off = second + "enabled = false\n"
    assert read(tmp_path, {"GOOGLE_ADS_API_KEY": "x"}, off).settings.connector["search"].options["developer_token"]


def test_nonsense_is_a_finding_and_strangers_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, {"META_BUDGET": "lots", "GOOGLE_ADS_BUDGET": ""})
    assert "META_BUDGET" in str(raised.value)
    assert "GOOGLE_ADS_BUDGET" in str(raised.value)
    file = tmp_path / "other.toml"
    file.write_text("")
    assert load(file, {"META_BUDGET": "lots"}, {}).settings.connector == {}
