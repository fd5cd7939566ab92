"""Where values come from: the file that is read, the order of the layers, and the source of each value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kiki_agent.config import Loaded, Mode, Settings, load
from kiki_agent.config.load import leaves

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        file = tmp_path / "test.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return written


def test_flags_win_over_environment_over_file(write: Write) -> None:
    file = write("[bidding]\ninterval_s = 3\ndeadline_s = 1\nvalue_share = 0.5\n")
    environ = {"KIKI__BIDDING__DEADLINE_S": "0.5", "KIKI__BIDDING__VALUE_SHARE": "0.4"}
    loaded = load(file, environ, {"bidding.value_share": "0.25"})
    bidding = loaded.settings.bidding
    assert (bidding.interval_s, bidding.deadline_s, bidding.value_share) == (3.0, 0.5, 0.25)
    assert loaded.sources["bidding.interval_s"] == f"{file}:2"
    assert loaded.sources["bidding.deadline_s"] == "environment KIKI__BIDDING__DEADLINE_S"
    assert loaded.sources["bidding.value_share"] == "command line"
    assert loaded.sources["bidding.max_bid"] == "default"


def test_every_value_has_a_source(write: Write) -> None:
    loaded = load(write('[connector.a]\nplugin = "x"\nplatform = "x"\nown = { b = 1 }\n'), {}, {})
    assert set(loaded.sources) == {".".join(path) for path, _ in leaves(loaded.settings)}
    assert loaded.sources["connector.a.own.b"].endswith(":4")


def test_settings_are_plain_settings(write: Write) -> None:
    assert type(load(write(""), {}, {}).settings) is Settings
    assert load(write(""), {}, {}).settings == Settings()


def test_environment_overrides_one_key_of_an_instance(write: Write) -> None:
    file = write('[connector.meta]\nplugin = "sandbox"\nplatform = "meta"\ndaily_cap = "10"\n')
    loaded = load(file, {"KIKI__CONNECTOR__META__DAILY_CAP": "20.5", "KIKI__CONNECTOR__META__ACCESS_TOKEN": "t"}, {})
    connector = loaded.settings.connector["meta"]
    assert (connector.daily_cap, connector.platform, connector.options) == ("20.5", "meta", {"access_token": "t"})


def test_environment_makes_an_instance_alone(write: Write) -> None:
    environ = {"KIKI__CONNECTOR__SECOND__PLUGIN": "sandbox", "KIKI__CONNECTOR__SECOND__PLATFORM": "PLATFORM_GOOGLE"}
    assert load(write(""), environ, {}).settings.connector["second"].platform == "google_ads"


def test_lists_are_json_and_replace_the_list_of_the_file(write: Write) -> None:
    file = write('[plugins]\nallow = ["a", "b"]\n')
    loaded = load(file, {"KIKI__PLUGINS__ALLOW": '["c"]'}, {"http.compat_ports": "[8082]"})
    assert loaded.settings.plugins.allow == ["c"]
    assert loaded.settings.http.compat_ports == [8082]


def test_a_plugin_key_from_outside_is_text_unless_it_is_json(write: Write) -> None:
    file = write('[crm.shop]\nplugin = "x"\n')
    loaded = load(file, {"KIKI__CRM__SHOP__ACCOUNT": "0012", "KIKI__CRM__SHOP__LISTS": "[1, 2]"}, {})
    assert loaded.settings.crm["shop"].options == {"account": "0012", "lists": [1, 2]}


@pytest.mark.parametrize(("written", "kept"), [("500", "500"), ("12.30", "12.30"), ('"0.000001"', "0.000001")])
def test_amounts_keep_every_digit(write: Write, written: str, kept: str) -> None:
    file = write(f'[connector.a]\nplugin = "x"\nplatform = "x"\ndaily_cap = {written}\n')
    assert load(file, {}, {}).settings.connector["a"].daily_cap == kept


def test_names_of_variables_are_found_in_any_case(write: Write) -> None:
    assert load(write(""), {"kiki__http__port": "9000"}, {}).settings.http.port == 9000


class TestFile:
    """Which file is read."""

    FLAG, VARIABLE, HERE = "from-flag", "from-variable", "from-here"

    def _files(self, tmp_path: Path) -> None:
        for name in (self.FLAG, self.VARIABLE):
            (tmp_path / f"{name}.toml").write_text(f'client_id = "{name}"')
        (tmp_path / "config.toml").write_text(f'client_id = "{self.HERE}"')

    def test_the_flag_before_the_variable_before_the_folder(self, tmp_path: Path) -> None:
        self._files(tmp_path)
        environ = {"KIKI_CONFIG": f"{self.VARIABLE}.toml"}
        assert load(Path(f"{self.FLAG}.toml"), environ, {}).settings.client_id == self.FLAG
        assert load(None, environ, {}).settings.client_id == self.VARIABLE
        here = load(None, {}, {})
        assert (here.settings.client_id, here.file) == (self.HERE, "config.toml")

    def test_without_any_file_the_packaged_one_serves(self) -> None:
        loaded = load(None, {}, {})
        assert loaded.file == "packaged config.toml"
        assert loaded.settings.mode is Mode.DEMO
        assert loaded.sources["mode"].startswith("packaged config.toml:")

    def test_a_byte_order_mark_is_no_obstacle(self, tmp_path: Path) -> None:
        (tmp_path / "config.toml").write_text("\ufeffclient_id = 'x'", encoding="utf-8")
        assert load(None, {}, {}).settings.client_id == "x"


def test_databases_of_modes_never_meet(write: Write) -> None:
    paths = {load(write(""), {}, {"mode": mode}).settings.database for mode in ("demo", "dry-run", "backtest")}
    assert paths == {Path("data/demo.db"), Path("data/dryrun.db"), Path("data/backtest.db")}
    assert load(write(""), {}, {"store.folder": "/x"}).settings.ledger_head == Path("/x/demo.head")


def test_loaded_is_what_a_command_gets(write: Write) -> None:
    assert isinstance(load(write(""), {}, {}), Loaded)


def test_a_table_is_located_by_its_first_given_key(write: Write) -> None:
    file = write('[connector.a]\nplatform = "x"\nplugin = "x"\n')
    loaded = load(file, {"KIKI__CONNECTOR__A__ACCOUNT": "1"}, {})
    assert loaded.locate("connector.a.platform") == f"{file}:2"
    assert loaded.locate("connector.a") == f"{file}:3"
    assert loaded.locate("connector.a.account") == "environment KIKI__CONNECTOR__A__ACCOUNT"
    assert loaded.locate("connector.a.daily_cap") == loaded.locate("nowhere") == str(file)
