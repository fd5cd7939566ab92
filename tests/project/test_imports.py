"""Who imports whom: the contract holds, and each module imports alone (GBO-23) and late (numba)."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ONE_BY_ONE = """
import gc, importlib, json, os, sys
gc.disable()
for name in ("aiohttp.web", "aiosqlite", "click", "jinja2", "msgspec", "numpy", "pluggy", "prometheus_client",
             "pydantic_settings", "rich.console", "rich.progress"):
    importlib.import_module(name)  # not ours, and the same for all
failed = {}

def import_alone(module):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = ""
        try:
            importlib.import_module(module)
            if "numba" in sys.modules:
                said = "imports numba"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    if said:
        failed[module] = said

# Lower rooms never know higher ones (the contract of layers), so they may be there already when a room's turn comes.
for room in json.load(sys.stdin):
    for module in room:
        import_alone(module)
    for module in room:
        if module not in failed:
            importlib.import_module(module)
json.dump(failed, sys.stdout)
"""


def _modules(files: list[Path], root: Path) -> list[str]:
    names = []
    for file in files:
        parts = file.relative_to(root).with_suffix("").parts
        if file.suffix != ".py" or parts[0] not in ("kiki_agent", "plugins") or parts[-1] == "__main__":
            continue
        parts = parts[1:] if parts[0] == "plugins" else parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in names if ".tests" not in name]


def _layers(root: Path) -> list[str]:
    """Rooms from the lowest to the highest."""
    contract = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    return [name.strip(" ()") for layer in reversed(contract["layers"]) for name in layer.split("|")]


def test_each_module_imports_alone_and_none_imports_numba(project_files: list[Path], root: Path) -> None:
    modules = _modules(project_files, root)
    assert len(modules) > 50
    rooms = [[name for name in modules if name.split(".")[:2] == ["kiki_agent", room]] for room in _layers(root)]
    rooms = [[name for name in modules if name == "kiki_agent"], *rooms]
    rooms.append([name for name in modules if not name.startswith("kiki_agent")])
    assert sorted(name for room in rooms for name in room) == sorted(modules)
    command = [sys.executable, "-W", "error", "-c", ONE_BY_ONE]
    done = subprocess.run(command, input=json.dumps(rooms), capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


def test_help_needs_click_and_nothing_else() -> None:
    program = """
import sys
from kiki_agent.cli import invoke
code = invoke(["--help"])
heavy = {"pydantic", "aiohttp", "numpy", "rich", "asyncio", "sqlite3", "kiki_agent.config"} & set(sys.modules)
sys.exit(f"{code} {sorted(heavy)}" if code or heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "backtest" in done.stdout


def test_the_contract_of_layers_holds(root: Path) -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_contract_names_every_room_and_marks_the_absent(root: Path) -> None:
    contract = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    assert contract["exhaustive"] is True
    names = [name.strip() for layer in contract["layers"] for name in layer.split("|")]
    rooms = [*(root / "kiki_agent").glob("*.py"), *(init.parent for init in root.glob("kiki_agent/*/__init__.py"))]
    there = {path.stem for path in rooms}
    marked = {name.strip("()") for name in names if name.startswith("(")}
    assert marked & there == set()
    assert {name for name in names if not name.startswith("(")} <= there
