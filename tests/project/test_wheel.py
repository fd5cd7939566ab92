"""The wheel, built and installed somewhere else: what a user gets is complete and starts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def _run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed, without what a developer's environment adds."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("KIKI", "PYTHON"))}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, project_files: list[Path], root: Path) -> Path:
    """Built from a copy, so that the tree stays clean."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for file in project_files:
        target = source / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    _run(sys.executable, "-c", build, cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, and the dependencies of this one behind it."""
    folder = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    _run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    inside = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    behind = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(inside, "behind.pth").write_text("".join(f"{path}\n" for path in sorted(behind)))
    return folder


def test_every_file_of_the_packages_is_inside(wheel: Path, project_files: list[Path], root: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = []
    for file in project_files:
        parts = file.relative_to(root).parts
        if parts[0] == "kiki_agent":
            wanted.append("/".join(parts))
        elif parts[0] == "plugins" and len(parts) > 2 and "tests" not in parts:
            wanted.append("/".join(parts[1:]))
    assert {
        "kiki_agent/py.typed",
        "kiki_agent/config/default.toml",
        "kiki_agent/store/migrations/0001_core.sql",
    } <= set(wanted)
    assert [name for name in wanted if name not in inside] == []


def test_nothing_else_is_inside(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    strangers = {top for top in tops if not top.startswith("kiki_")}
    assert strangers == set()


def test_licence_and_notice_travel_along(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/NOTICE") for name in names)


def test_it_runs_where_nothing_else_of_the_project_is(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin" / "kiki-agent"
    where = _run(installed / "bin" / "python", "-c", "import kiki_agent; print(kiki_agent.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed))
    assert "backtest" in _run(command, "--help", cwd=tmp_path)
    shown = json.loads(_run(command, "config", "show", "--json", cwd=tmp_path))
    assert shown["file"] == "packaged config.toml"
    assert json.loads(_run(installed / "bin" / "kiki", "version", "--json", cwd=tmp_path))["version"]


def test_it_brings_its_schema_and_its_plugins(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin" / "kiki-agent"
    assert json.loads(_run(command, "migrate", "up", "--json", cwd=tmp_path))["applied"][:2] == [1, 2]
    assert json.loads(_run(command, "migrate", "status", "--json", cwd=tmp_path))["complete"] is True
    listed = json.loads(_run(command, "plugins", "list", "--json", cwd=tmp_path))
    assert [plugin["state"] for plugin in listed["plugins"] if plugin["name"] == "sandbox"] == ["ok"]
