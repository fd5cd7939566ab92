"""Accounts and their credentials, as `check` and `config show` speak of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Kiki

PLUGIN = """
from pydantic import SecretStr

from kiki_agent import Capabilities, PluginConfig, hookimpl
from kiki_agent.errors import AuthExpired, Temporary


class Config(PluginConfig):
    access_token: SecretStr = SecretStr("")
    app_secret: SecretStr = SecretStr("{canary}")
    token_url: str = "https://login.example/token"
    account: str = ""
    size: int = 20


class Account:
    def __init__(self, context):
        self.name = context.instance_id

    @hookimpl
    async def check(self):
        if self.name == "expired":
            raise AuthExpired("the platform refuses the token")

    @hookimpl
    async def capabilities(self):
        if self.name == "mute":
            raise Temporary("the platform answered 500")
        assert self.name != "expired", "nobody who does not answer is asked again"
        kept = {{"yen": ("JPY", "UTC"), "east": ("USD", "Asia/Tokyo")}}
        return Capabilities(*kept.get(self.name, ("USD", "Etc/UTC")))


class Silent:
    def __init__(self, context):
        pass

    @hookimpl
    async def check(self):
        return None


def register(api):
    api.connector("meta", Account, config=Config)
    api.connector("silent", Silent)
"""
CANARY = "canary-4711"


def configured(folder: Path, names: tuple[str, ...], *, mode: str = "dry-run", more: str = "") -> None:
    (folder / "own").mkdir()
    (folder / "own" / "accounts.py").write_text(PLUGIN.format(canary=CANARY))
    tables = "".join(
        f'[connector.{name}]\nplugin = "{"silent" if name == "silent" else "meta"}"\nplatform = "meta"\n'
        for name in names
    )
    (folder / "config.toml").write_text(
        f'mode = "{mode}"\n[http]\nport = 0\n[plugins]\nallow = ["accounts"]\nfolder = "own"\n{tables}{more}'
    )


def test_check_tells_an_account_that_is_not_the_configured_one(kiki: Kiki, folder: Path) -> None:
    configured(folder, ("good", "yen", "east", "mute", "expired", "silent"))
    ended = kiki("check", "--json")
    rows = {row["check"]: (row["state"], row["detail"]) for row in ended.json["checks"]}
    assert ended.code == 1
    assert rows["connector good"] == ("ok", "answers; the account is in USD, its days are those of Etc/UTC")
    assert rows["connector yen"] == ("failed", "the account is in JPY, the agent counts in USD (currency)")
    assert rows["connector east"][0] == "failed"
    assert 'set connector.east.timezone = "Asia/Tokyo"' in rows["connector east"][1]
    assert rows["connector mute"] == ("failed", "answers, but its account cannot be read: the platform answered 500")
    assert rows["connector silent"] == ("ok", "answers")
    assert rows["connector expired"][0] == "failed"


def test_refused_credentials_are_told_with_the_variables_that_set_them(kiki: Kiki, folder: Path) -> None:
    configured(folder, ("expired",))
    (row,) = [row for row in kiki("check", "--json").json["checks"] if row["check"] == "connector expired"]
    assert row["detail"] == (
        "the platform refuses the token; set what is no longer valid of access_token (META_ACCESS_TOKEN or "
        "KIKI__CONNECTOR__EXPIRED__ACCESS_TOKEN), app_secret (KIKI__CONNECTOR__EXPIRED__APP_SECRET), and restart"
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            "google_ads",
            (
                "developer_token (GOOGLE_ADS_API_KEY or KIKI__CONNECTOR__MINE__DEVELOPER_TOKEN)",
                "refresh_token (KIKI__CONNECTOR__MINE__REFRESH_TOKEN)",
            ),
        ),
        ("meta", ("access_token (META_ACCESS_TOKEN or KIKI__CONNECTOR__MINE__ACCESS_TOKEN)",)),
    ],
)
def test_missing_credentials_are_told_with_the_variables_that_set_them(
    kiki: Kiki, folder: Path, table: str, said: tuple[str, ...]
) -> None:
    (folder / "config.toml").write_text(
        f'mode = "dry-run"\n[plugins]\nallow = ["google_ads", "meta"]\n'
        f'[connector.mine]\nplugin = "{table}"\nplatform = "{table}"\n'
    )
    ended = kiki("check")
    assert ended.code == 2
    assert "Value error" not in ended.out
    assert "must be given to reach a real account; in the environment " in ended.out
    assert all(each in ended.out for each in said)


def test_live_mode_names_the_variable_of_the_vendor(kiki: Kiki, folder: Path) -> None:
    (folder / "config.toml").write_text(
        'mode = "live"\n[plugins]\nallow = ["meta"]\n[connector.mine]\nplugin = "meta"\nplatform = "meta"\n'
        'daily_cap = "1"\n'
    )
    assert "META_ACCESS_TOKEN and KIKI__CONNECTOR__MINE__..." in kiki("check").out


def test_config_show_knows_the_keys_that_nobody_gave(kiki: Kiki, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(folder, ("a", "b"), mode="demo", more='account = "7"\n')
    monkeypatch.setenv("KIKI__CONNECTOR__B__ACCESS_TOKEN", CANARY)
    ended = kiki("config", "show", "--json")
    rows = {row["key"]: row for row in ended.json["settings"]}
    assert len(rows) == len(ended.json["settings"]), "each key once"
    assert CANARY not in ended.out
    assert rows["connector.a.access_token"] == {
        "key": "connector.a.access_token",
        "value": None,
        "source": "not set",
        "variables": ["META_ACCESS_TOKEN", "KIKI__CONNECTOR__A__ACCESS_TOKEN"],
    }
    assert (rows["connector.b.access_token"]["value"], rows["connector.b.access_token"]["source"]) == (
        "***",
        "environment KIKI__CONNECTOR__B__ACCESS_TOKEN",
    )
    assert (rows["connector.a.app_secret"]["value"], rows["connector.a.app_secret"]["source"]) == ("***", "default")
    assert (rows["connector.a.size"]["value"], rows["connector.a.size"]["source"]) == (20, "default")
    assert rows["connector.a.token_url"]["value"] == "https://login.example/token"
    assert rows["connector.b.account"]["value"] == "7"
    assert rows["connector.a.account"]["source"] == "not set"
    text = kiki("config", "show").out
    assert "not set: META_ACCESS_TOKEN or KIKI__CONNECTOR__A__ACCESS_TOKEN" in text
    assert CANARY not in text
    keys = [row["key"] for row in ended.json["settings"]]
    assert keys.index("connector.a.size") < keys.index("connector.b.plugin"), "each table in one piece"


def test_config_show_of_a_plugin_that_is_not_allowed_or_breaks(kiki: Kiki, folder: Path) -> None:
    configured(folder, ("a",), mode="demo")
    (folder / "own" / "accounts.py").write_text("raise RuntimeError")
    ended = kiki("config", "show")
    assert ended.code == 0
    assert "connector.a.plugin" in ended.out
    assert "connector.a.access_token" not in ended.out
    assert not ended.err
