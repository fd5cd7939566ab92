"""What stands in the project's files, and what never may."""

from __future__ import annotations

import ast
import re
from pathlib import Path

BINARY = {".gz", ".png", ".ico", ".woff2"}
REGISTRY = re.compile(r"https?://[^\s/\"'<>)]*(?:py" r"pi|python" r"hosted|registry|npm" r"js|index\.)[^\s/\"'<>)]*")
"""Hosts that packages come from; put together so that this line is none."""
OUTSIDE = re.compile(r"(?<![\w.$}])/(?:work|root|home)/\w")
"""Paths of somebody's machine."""


def _texts(files: list[Path]) -> dict[Path, str]:
    return {file: file.read_text(encoding="utf-8") for file in files if file.suffix not in BINARY}


def test_no_address_of_a_package_registry_stands_anywhere(project_files: list[Path]) -> None:
    assert [
        f"{file.name}: {REGISTRY.findall(text)}"
        for file, text in _texts(project_files).items()
        if REGISTRY.search(text)
    ] == []


def test_lock_files_hold_hashes_and_no_address(root: Path) -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (root / name).read_text()
        assert "://" not in text
        assert "--index" not in text
        pins = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
        assert all("==" in pin and pin.endswith("\\") for pin in pins)
        assert text.count("--hash=sha256:") >= len(pins) > 20


def test_the_runtime_lock_is_part_of_the_developers(root: Path) -> None:
    runtime, developers = (
        {line.split(" \\")[0] for line in (root / name).read_text().splitlines() if "==" in line}
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    assert runtime < developers


def test_every_dependency_is_locked(root: Path) -> None:
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[><=;\[ ]", line)[0] for line in project["dependencies"]}
    locked = {line.split("==")[0] for line in (root / "requirements.lock").read_text().splitlines() if "==" in line}
    assert wanted <= locked


def test_no_path_of_a_machine_stands_anywhere(project_files: list[Path]) -> None:
    found = [f"{file}: {match[0]}" for file, text in _texts(project_files).items() if (match := OUTSIDE.search(text))]
    assert found == []


def _prints(tree: ast.AST) -> list[int]:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_nothing_prints(project_files: list[Path], root: Path) -> None:
    ours = [file for file in project_files if file.relative_to(root).parts[0] in ("kiki_agent", "plugins")]
    sources = [file for file in ours if file.suffix == ".py"]
    assert len(sources) > 50
    assert _prints(ast.parse("print(1)")) == [1]
    assert [
        f"{file.relative_to(root)}:{line}" for file in sources for line in _prints(ast.parse(file.read_text()))
    ] == []


def test_the_packaged_configuration_is_the_one_of_the_project(root: Path) -> None:
    assert (root / "kiki_agent/config/default.toml").read_text() == (root / "config.toml").read_text()


def test_every_package_says_what_lives_there(project_files: list[Path], root: Path) -> None:
    silent = [
        str(file.relative_to(root))
        for file in project_files
        if file.name == "__init__.py"
        and file.relative_to(root).parts[0] in ("kiki_agent", "plugins")
        and len(ast.get_docstring(ast.parse(file.read_text())) or "") < 80
    ]
    assert silent == []
