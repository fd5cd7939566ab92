"""What `config show` may show."""

from __future__ import annotations

from pathlib import Path

from kiki_agent.config import load, shown_settings

SECRET = "canary-77aa-and-longer"


def test_secrets_are_masked_by_type_and_by_name(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        f"""[http]
token = "{SECRET}"
[connector.a]
plugin = "x"
platform = "meta"
access_token = "{SECRET}"
account = "visible"
nested = {{ client_secret = "{SECRET}", keys = [{{ private_key = "{SECRET}" }}] }}
"""
    )
    rows = {row.key: row for row in shown_settings(load(file, {}, {}))}
    assert SECRET not in repr(rows)
    assert rows["http.token"].value == "***"
    assert rows["connector.a.access_token"].value == "***"
    assert rows["connector.a.nested.client_secret"].value == "***"
    assert rows["connector.a.account"].text == "visible"
    assert rows["http.token"].source == f"{file}:2"


def test_values_read_as_a_person_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("")
    rows = {row.key: row.text for row in shown_settings(load(file, {}, {}))}
    assert rows["http.token"] == "-"
    assert rows["http.compat_ports"] == "[]"
    assert rows["optimizer.enabled"] == "true"
    assert rows["mode"] == "demo"
