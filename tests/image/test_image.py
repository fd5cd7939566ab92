"""The container image, built as users build it and run as engines run it: started, killed, started again, stopped."""

from __future__ import annotations

import json
import re
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .container import SHOWN, Container, Image, build, obstacle, owned_volume, unpacked

NAME = "localhost/kiki-agent-tested"
MOST_BYTES = 600_000_000
SMALL = {"KIKI__DEMO__CAMPAIGNS": "24", "KIKI__DEMO__HISTORY_DAYS": "8"}
KERNELS = "opt/kiki-agent/kernels"

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(obstacle() is not None, reason=f"no image here: {obstacle()}"),
]


@pytest.fixture(scope="module")
def image(record_testsuite_property: Callable[[str, object], None]) -> Iterator[Image]:
    """Built from the files as they are now; the base of an earlier build serves."""
    record_testsuite_property("image build seconds", round(build(NAME), 1))
    with unpacked(NAME) as found:
        record_testsuite_property("image bytes", found.size)
        yield found


@dataclass
class Life:
    """What was seen of one container from its first start to its end."""

    container: Container
    said: list[str] = field(default_factory=list)
    """What each start said."""
    ready_s: list[float] = field(default_factory=list)
    status: list[dict[str, Any]] = field(default_factory=list)
    """Before each end."""
    processes: dict[int, dict[str, str]] = field(default_factory=dict)
    without_token: int = 0
    healthy: Any = None
    kernels: dict[str, bytes] = field(default_factory=dict)
    stopped: tuple[int, float] = (-1, 0.0)
    verified: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def life(
    image: Image,
    tmp_path_factory: pytest.TempPathFactory,
    record_testsuite_property: Callable[[str, object], None],
) -> Iterator[Life]:
    """On a root that may only be read: a first start, two kills, an end; then its ledger is verified."""
    container = Container(image, owned_volume(tmp_path_factory.mktemp("life") / "volume", image))
    seen = Life(container)
    try:
        for end in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
            container.start()
            seen.ready_s.append(container.wait_ready())
            if not seen.processes:
                seen.processes = container.processes()
                seen.without_token = container.get("/status")[0]
                seen.healthy = container.execute(*image.config["Healthcheck"]["Test"][1:])
            _live_on(seen)
            seen.said.append(container.said)
            seen.stopped = container.end(end)
        seen.kernels = _kernels(container.volume / ".cache" / "kiki-agent" / "kernels")
        container.start("ledger", "verify", "--json")
        assert container.wait() == 0, container.said
        seen.verified = json.loads(container.said)
        record_testsuite_property("image ready seconds", [round(seconds, 2) for seconds in seen.ready_s])
        yield seen
    finally:
        container.clean_up()


def _live_on(seen: Life) -> None:
    """Until something was done in the market, whose kernel runs then, and the ledger has grown since the last look."""
    known = seen.status[-1]["ledger"]["entries"] if seen.status else 0
    done = seen.container.volume / "sandbox" / "sandbox-effects.jsonl"
    due = time.monotonic() + 90
    while (status := seen.container.status())["ledger"]["entries"] <= known or not (done.exists() and done.read_text()):
        assert time.monotonic() < due, seen.container.said[-2_000:]
        time.sleep(0.05)
    seen.status.append(status)


def _kernels(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.nb?")}


# -- what it is -------------------------------------------------------------------------------------------------


def test_it_is_not_larger_than_allowed(image: Image) -> None:
    assert 100_000_000 < image.size <= MOST_BYTES


def test_its_configuration_is_that_of_a_good_citizen(image: Image) -> None:
    config = image.config
    user, group = image.owner
    assert (user, group) == (10001, 10001)
    assert config["Entrypoint"] == ["/opt/kiki-agent/bin/kiki-agent"]
    assert config["Cmd"] == ["run"]
    assert list(config["Volumes"]) == ["/data"]
    assert (config["WorkingDir"], config["StopSignal"]) == ("/data", "SIGTERM")
    kind, *check = config["Healthcheck"]["Test"]
    assert kind == "CMD", "executed, with no shell in between"
    assert (image.root / check[0].lstrip("/")).exists()
    assert not any("curl" in word for word in check)
    data = (image.root / "data").stat()
    assert (data.st_uid, data.st_gid) == (user, group)


def test_only_the_volume_belongs_to_its_user(image: Image) -> None:
    files = image.files()
    assert [path for path, (_, owner, _, _) in files.items() if owner == image.owner[0]] == []
    anyone = [
        path
        for path, (mode, *_) in files.items()
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and not stat.S_ISLNK(mode)
    ]
    assert anyone == []


def test_nothing_is_inside_that_is_not_needed_to_run(image: Image) -> None:
    paths = list(image.files())
    assert any(path.endswith("site-packages/kiki_agent/agent.py") for path in paths)
    programs = {path.rpartition("/")[2] for path in paths if "/bin/" in path}
    assert (
        programs & {"gcc", "cc", "g++", "clang", "ld", "make", "pip", "pip3", "uv", "curl", "git", "apt-get"} == set()
    )
    ours = [path for path in paths if path.startswith("opt/")]
    assert [path for path in ours if re.search(r"site-packages/(pip|setuptools|pytest|mypy)(/|-)", path)] == []
    assert [path for path in ours if re.search(r"/(numba|numpy|llvmlite|kiki_\w+)/(.*/)?tests/", path)] == []
    assert [path for path in ours if path.endswith((".pyi", ".a", ".whl"))] == []
    assert [path for path in paths if path.startswith(("src", "mnt/", "root/.cache", "tmp/", "data/"))] == []


def test_it_is_installed_and_not_linked_to_sources(image: Image) -> None:
    (packages,) = image.root.glob("opt/kiki-agent/lib/python3.*/site-packages")
    assert list(packages.glob("__editable__*")) == []
    assert (packages / "kiki_meta" / "__init__.py").is_file()
    assert (packages / "kiki_agent" / "config" / "default.toml").is_file()


def test_no_address_of_where_it_was_built_is_inside(image: Image) -> None:
    listed = [path for path in (image.root / "etc" / "apt").rglob("*") if path.suffix in (".list", ".sources")]
    assert listed == []
    for name in ("resolv.conf", "hostname"):
        found = image.root / "etc" / name
        assert not found.exists() or found.read_bytes() == b""
    shown = json.dumps(image.config)
    assert "://" not in shown


# -- how it lives -----------------------------------------------------------------------------------------------


def test_the_first_start_shows_the_token_and_no_later_one_does(life: Life) -> None:
    token = life.container.token
    assert token is not None
    (shown,) = SHOWN.finditer(life.said[0])
    assert shown[2] == "/data/token"
    assert life.said[0].count(token) == 1
    for later in life.said[1:]:
        assert token not in later
        assert "The access token of this agent is kept in /data/token.\n" in later
    kept = life.container.volume / "token"
    assert kept.read_text() == token + "\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_who_has_no_token_is_told_nothing(life: Life) -> None:
    assert life.without_token == 401


def test_everything_in_it_runs_without_any_right(life: Life) -> None:
    assert len(life.processes) >= 2, "the agent and its market"
    for said in life.processes.values():
        assert said["Uid"].split() == said["Gid"].split() == ["10001"] * 4
        assert int(said["CapEff"], 16) == int(said["CapBnd"], 16) == 0


def test_its_health_check_finds_it_alive(life: Life) -> None:
    assert (life.healthy.returncode, life.healthy.stderr) == (0, "")
    assert life.healthy.stdout.startswith("Alive at http://127.0.0.1:")


def test_killed_and_started_again_it_goes_on_where_it_was(life: Life) -> None:
    epochs = [status["database"]["epoch"] for status in life.status]
    assert epochs == [1, 2, 3]
    entries = [status["ledger"]["entries"] for status in life.status]
    assert entries == sorted(set(entries))
    assert all(status["ready"] for status in life.status)
    assert life.verified["ok"] is True
    assert life.verified["entries"] >= entries[-1]


def test_it_ends_in_time(life: Life) -> None:
    code, seconds = life.stopped
    assert code == 0
    assert seconds < 10


def test_it_ran_on_the_machine_code_it_brought(life: Life, image: Image) -> None:
    brought = _kernels(image.root / KERNELS)
    assert len(brought) >= 10
    assert life.kernels == brought, "a kernel that was compiled again would have left another index"


# -- how it can be used -----------------------------------------------------------------------------------------


def test_it_writes_nothing_outside_its_volume_where_it_could(image: Image, tmp_path: Path) -> None:
    before = image.files()
    container = Container(image, owned_volume(tmp_path / "volume", image), dict(SMALL), writable=True)
    try:
        container.start()
        container.wait_ready()
        assert container.end()[0] == 0
    finally:
        container.clean_up()
    assert image.files() == before
    assert (container.volume / "demo.db").exists()


def test_a_configuration_on_the_volume_is_followed(image: Image, tmp_path: Path) -> None:
    volume = owned_volume(tmp_path / "volume", image)
    (volume / "config.toml").write_text('client_id = "acme"\n[store]\nfolder = "elsewhere"\n')
    container = Container(image, volume, SMALL | {"KIKI__HTTP__TOKEN": "given-by-the-environment"})
    container.token = "given-by-the-environment"
    try:
        container.start()
        container.wait_ready()
        assert container.status()["client_id"] == "acme"
        shown = container.execute("kiki-agent", "config", "show", "--json")
        settings = {row["key"]: row for row in json.loads(shown.stdout)["settings"]}
        assert settings["client_id"]["source"] == "config.toml:1"
        assert settings["store.folder"]["value"] == "/data", "the image's environment wins"
        assert container.end()[0] == 0
    finally:
        container.clean_up()
    assert "access token" not in container.said
    assert not (volume / "token").exists()
    assert not (volume / "elsewhere").exists()


def test_a_volume_of_somebody_else_is_said_in_one_sentence(image: Image, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o755)
    container = Container(image, volume)
    container.start()
    assert container.wait() == 2
    assert "/data/token: http.token_file: cannot be made: Permission denied" in container.said
    assert "Traceback" not in container.said
    assert list(volume.iterdir()) == []
