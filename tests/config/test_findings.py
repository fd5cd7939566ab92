"""Wrong configurations: what is said, where, and that everything is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kiki_agent.config import load
from kiki_agent.config.schema import settings
from kiki_agent.errors import ConfigError

SECRET = "canary-3c51"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def findings(text: str = "", environ: dict[str, str] | None = None, flags: dict[str, str] | None = None) -> list[str]:
    """The findings of a config.toml in the current folder, as a user reads them."""
    Path("config.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(None, environ or {}, flags or {})
    return str(caught.value).splitlines()


LIVE = """mode = "live"
[plugins]
allow = ["x"]
[connector.meta]
plugin = "x"
platform = "meta"
daily_cap = "100"
window_cap = "10"
access_token = "t"
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[http]\nport = 'abc'", "config.toml:2: http.port: found 'abc', expected a whole number from 0 to 65535"),
        ("[http]\nport = 70000", "config.toml:2: http.port: found 70000, expected a whole number from 0 to 65535"),
        ("[http]\nport = true", "config.toml:2: http.port: found 'true', expected a whole number from 0 to 65535"),
        ("[http]\nport = {a = 1}", "config.toml:2: http.port: found a table, expected a whole number from 0 to 65535"),
        ("http = 5", "config.toml:1: http: found 5, expected a table of settings such as KIKI__HTTP__HOST"),
        ("[http]\nprot = 1", "config.toml:2: http.prot: unknown key; did you mean http.port?"),
        ("[htpp]\nport = 1", "config.toml:1: htpp: unknown key; did you mean http?"),
        ("zzz = 1", "config.toml:1: zzz: unknown key"),
        ("port = 1", "config.toml:1: port: unknown key; did you mean http.port?"),
        ("mode = 'life'", "config.toml:1: mode: found 'life', expected one of demo, dry-run, live, backtest"),
        (
            "timezone = 'Mars/Base'",
            "config.toml:1: timezone: found 'Mars/Base', expected an IANA time zone such as Europe/Berlin",
        ),
        (
            "timezone = '../etc/passwd'",
            "config.toml:1: timezone: found '../etc/passwd', expected an IANA time zone such as Europe/Berlin",
        ),
        ("currency = 'usd'", "config.toml:1: currency: found 'usd', expected an ISO 4217 currency code such as USD"),
        (
            "[shield]\nmin_ltv = 20\nmax_ltv = 19",
            "config.toml:2: shield.min_ltv: found 20, expected at most shield.max_ltv (19)",
        ),
        (
            "[bidding]\nmax_bid = '1e3'",
            "config.toml:2: bidding.max_bid: found '1e3', expected an amount such as \"12.34\", above 0",
        ),
        (
            "[bidding]\nmax_bid = 0",
            'config.toml:2: bidding.max_bid: found 0, expected an amount such as "12.34", above 0',
        ),
        (
            "[bidding]\nmax_bid = 0.0000001",
            'config.toml:2: bidding.max_bid: found 1E-7, expected an amount such as "12.34", above 0',
        ),
        (
            "[optimizer]\ncooldown_s = nan",
            "config.toml:2: optimizer.cooldown_s: found nan, expected a number from 0 to 31622400",
        ),
        (
            "[optimizer]\ncooldown_s = inf",
            "config.toml:2: optimizer.cooldown_s: found inf, expected a number from 0 to 31622400",
        ),
        (
            "[optimizer]\nthreshold = 1",
            "config.toml:2: optimizer.threshold: found 1, expected a number above 0 and below 1",
        ),
        (
            "[http]\ncompat_ports = [8081, 0]",
            "config.toml:2: http.compat_ports.1: found 0, expected a list, each a whole number from 1 to 65535",
        ),
        ("[plugins]\nallow = 'x'", "config.toml:2: plugins.allow: found 'x', expected a list, each a text"),
        (
            "[connector.a]\nplugin = 'x'\nplatform = 'metta'",
            "config.toml:3: connector.a.platform: found 'metta', expected one of meta, google_ads, tiktok, linkedin, "
            "amazon, microsoft, tradedesk, x",
        ),
        (
            "[connector.a]\nplatform = 'meta'",
            "config.toml:1: connector.a.plugin: missing, expected the name of a class that a plugin provides, such as "
            "sandbox (looked in [connector.a] of config.toml and in KIKI__CONNECTOR__A__PLUGIN)",
        ),
        (
            "[connector.a]\nplugin = 'x'\nplatform = 'meta'\ndaily_cap = -1",
            'config.toml:4: connector.a.daily_cap: found -1, expected an amount such as "250.00", not negative',
        ),
        (
            "[crm.Shop]\nplugin = 'x'",
            "config.toml:1: crm.Shop: expected an id of lower-case letters, digits and underscores",
        ),
        (
            "[crm.a__b]\nplugin = 'x'",
            "config.toml:1: crm.a__b: expected an id without double, leading or trailing underscores, "
            "which variables need",
        ),
        (
            "[crm.a]\nplugin = 'x'\n[notifier.a]\nplugin = 'x'",
            "config.toml:3: notifier.a: found an id that [crm.a] has already; ids are unique over all kinds",
        ),
        (
            "[bidding]\ninterval_s = 1",
            "config.toml: bidding.deadline_s: found 1.5, expected at most bidding.interval_s (1)",
        ),
        (
            "[http]\ncompat_ports = [8080]",
            "config.toml:2: http.compat_ports: expected ports that differ from each other and from http.port",
        ),
        (
            "[http]\nhost = '0.0.0.0'",
            "config.toml:2: http.host: found '0.0.0.0', which other machines can reach, without http.token; expected "
            "127.0.0.1, or a token (looked for http.token in the file and in KIKI__HTTP__TOKEN)",
        ),
        (
            "[http]\ntoken = 'short'",
            "config.toml:2: http.token: found 5 characters, expected a secret text of at least 16",
        ),
        (
            "[connector.a]\nplugin = 'x'\nplatform = 'meta'\ndaily_cap = 5\nwindow_cap = 6",
            "config.toml:5: connector.a.window_cap: found 6, expected at most daily_cap (5)",
        ),
        ("a = \n", "config.toml:1: (syntax): not valid TOML at column 5: invalid value"),
        ("a = 1\na = 2\n", "config.toml:2: (syntax): not valid TOML at column 6: cannot overwrite a value"),
        (
            "[a",
            "config.toml: (syntax): not valid TOML at the end of the file: "
            "expected ']' at the end of a table declaration",
        ),
    ],
)
def test_one_thing_wrong_in_the_file(text: str, expected: str) -> None:
    assert findings(text) == [expected]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"KIKI__HTTP__PROT": "1"}, "environment KIKI__HTTP__PROT: http.prot: unknown key; did you mean http.port?"),
        ({"KIKI__HTPP__PORT": "1"}, "environment KIKI__HTPP__PORT: htpp.port: unknown key; did you mean http.port?"),
        (
            {"KIKI__HTTP": "1"},
            "environment KIKI__HTTP: http: is a table of settings; give its keys, as in KIKI__HTTP__KEY",
        ),
        (
            {"KIKI__CONNECTOR__META": "1"},
            "environment KIKI__CONNECTOR__META: connector.meta: is a table of settings; give its keys, as in "
            "KIKI__CONNECTOR__ID__KEY",
        ),
        (
            {"KIKI__CONNECTOR__METTA__DAILY_CAP": "1"},
            "environment KIKI__CONNECTOR__METTA__DAILY_CAP: connector.metta: is not configured; did you mean "
            "connector.meta?",
        ),
        (
            {"KIKI__HTTP__PORT": ""},
            "environment KIKI__HTTP__PORT: http.port: found nothing, expected a whole number from 0 to 65535; "
            "or remove it",
        ),
        (
            {"KIKI__PLUGINS__ALLOW": "sandbox"},
            "environment KIKI__PLUGINS__ALLOW: plugins.allow: found 'sandbox', expected a list, each a text, as JSON "
            'such as ["a", "b"]',
        ),
        ({"KIKI_HTTP_PORT": "1"}, "environment KIKI_HTTP_PORT: http.port: is not read; did you mean KIKI__HTTP__PORT?"),
        (
            {"KIKI_HTTP__PORT": "1"},
            "environment KIKI_HTTP__PORT: http.port: is not read; did you mean KIKI__HTTP__PORT?",
        ),
        (
            {"KIKI_CONNECTOR_META_DAILY_CAP": "1"},
            "environment KIKI_CONNECTOR_META_DAILY_CAP: connector.meta.daily_cap: is not read; did you mean "
            "KIKI__CONNECTOR__META__DAILY_CAP?",
        ),
        (
            {"KIKI__MODE__": "1"},
            "environment KIKI__MODE__: KIKI__MODE__: expected a name such as KIKI__HTTP__PORT",
        ),
        (
            {"KIKI__MODE": "demo", "kiki__mode": "demo"},
            "environment kiki__mode: mode: given twice, also as environment KIKI__MODE",
        ),
    ],
)
def test_one_thing_wrong_in_the_environment(environ: dict[str, str], expected: str) -> None:
    text = "[connector.meta]\nplugin = 'x'\nplatform = 'meta'\n"
    assert findings(text, environ) == [expected]


def test_names_that_only_look_alike_are_left_alone() -> None:
    Path("config.toml").write_text("")
    environ = {"KIKI_SERVICE_HOST": "10.0.0.1", "KIKI_PORT_8080_TCP": "x", "KIKIHTTP": "1", "PATH": "/bin"}
    assert load(None, environ, {}).settings.http.port == 8080


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"http.prt": "1"}, "command line: http.prt: unknown key; did you mean http.port?"),
        ({"http..port": "1"}, "command line: http..port: expected a key such as http.port"),
        ({"http": "1"}, "command line: http: is a table of settings; give its keys, as in KIKI__HTTP__KEY"),
    ],
)
def test_one_thing_wrong_in_the_flags(flags: dict[str, str], expected: str) -> None:
    assert findings("", {}, flags) == [expected]


def test_everything_is_said_at_once_in_reading_order() -> None:
    text = "timezone = 'x'\n[http]\nport = 'a'\nhost = '0.0.0.0'\n[optimizer]\nenabled = 3\nthreshhold = 1\n"
    environ = {"KIKI__OPTIMIZER__ENABLED": "perhaps", "KIKI__BIDDING__DEADLINE_S": "9"}
    places = [line.partition(": ")[0] for line in findings(text, environ, {"demo.sed": "1"})]
    assert places == [
        "config.toml:1",
        "config.toml:3",
        "config.toml:4",
        "config.toml:6",
        "config.toml:7",
        "environment KIKI__BIDDING__DEADLINE_S",
        "environment KIKI__OPTIMIZER__ENABLED",
        "command line",
    ]


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        ('[plugins]\nallow = ["x"]\n', "plugins.allow: missing: live mode runs only plugins named there"),
        ('daily_cap = "100"\n', "connector.meta.daily_cap: missing: in live mode no connector acts without a cap"),
        ('window_cap = "10"\n', "connector.meta.window_cap: missing: in live mode no connector acts without a cap"),
        ('access_token = "t"\n', "connector.meta: no credentials for live mode"),
    ],
)
def test_live_mode_needs(removed: str, expected: str) -> None:
    assert removed in LIVE
    (only,) = findings(LIVE.replace(removed, ""))
    assert expected in only
    assert "looked in the file and in KIKI__" in only


def test_live_mode_with_everything_loads() -> None:
    Path("config.toml").write_text(LIVE)
    assert load(None, {}, {}).settings.connector["meta"].daily_cap == "100"
    without = LIVE.replace('access_token = "t"\n', "")
    Path("config.toml").write_text(without)
    assert load(None, {"KIKI__CONNECTOR__META__ACCESS_TOKEN": "t"}, {}).settings.mode.value == "live"


def test_live_mode_needs_a_connector() -> None:
    (only,) = findings("mode = 'live'\n[plugins]\nallow = []\n")
    assert "connector: missing: live mode needs at least one [connector.<id>] table" in only


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml: .file.: does not exist .named by the command line."):
        load(Path("nowhere.toml"), {}, {})
    with pytest.raises(ConfigError, match="named by KIKI_CONFIG"):
        load(None, {"KIKI_CONFIG": "nowhere.toml"}, {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {}, {})
    (tmp_path / "latin.toml").write_bytes(b"client_id = '\xe9'")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text .byte 13."):
        load(tmp_path / "latin.toml", {}, {})


def test_secrets_are_never_shown() -> None:
    said = findings(
        f"[http]\ntoken = ['{SECRET}']\n[connector.a]\nplugin = 'x'\nplatform = 'meta'\n",
        {"KIKI__CONNECTOR__A__API_KEY": "[" + SECRET},
    )
    assert len(said) == 2
    assert SECRET not in "\n".join(said)


@hypothesis_settings(deadline=None)
@given(st.sampled_from([setting for setting in settings() if setting.kind in (int, float)]), st.text(min_size=1))
def test_no_text_passes_for_a_number(setting: object, text: str) -> None:
    path = getattr(setting, "path", ())
    try:
        float(text)
    except ValueError:
        with pytest.raises(ConfigError) as caught:
            load(None, {}, {".".join(path): text})
        assert any(finding.key == ".".join(path) for finding in caught.value.findings)
