"""Where compiled code is kept: a folder that may only be read, as in an image, serves through a copy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kiki_agent.kernels import compile as compiling
from kiki_agent.kernels.compile import cache_folder, settle_cache


@pytest.fixture
def warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that was filled elsewhere and cannot be written, also not by root."""
    folder = tmp_path / "warm"
    (folder / "bids_1").mkdir(parents=True)
    (folder / "bids_1" / "bids.nbi").write_bytes(b"index")
    (folder / "bids_1" / "bids.1.nbc").write_bytes(b"code")
    (folder / "bids_1" / "notes.txt").write_bytes(b"no part of it")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and real(path, mode))
    return folder


def _inside(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_may_only_be_read_is_copied_to_where_it_may_be_written(warm: Path, tmp_path: Path) -> None:
    settle_cache()
    own = tmp_path / "own" / "kiki-agent" / "kernels"
    assert os.environ["NUMBA_CACHE_DIR"] == str(own)
    assert _inside(own) == {"bids_1/bids.nbi": b"index", "bids_1/bids.1.nbc": b"code"}


def test_a_newer_image_replaces_what_an_older_one_left(warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle_cache()
    own = cache_folder()
    (own / "bids_1" / "own.nbi").write_bytes(b"compiled here")
    (warm / "bids_1" / "bids.1.nbc").write_bytes(b"later")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(warm))
    settle_cache()
    assert _inside(own) == {
        "bids_1/bids.nbi": b"index",
        "bids_1/bids.1.nbc": b"later",
        "bids_1/own.nbi": b"compiled here",
    }


def test_code_comes_before_the_index_that_names_it(warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []
    real = compiling.shutil.copyfile
    monkeypatch.setattr(
        compiling.shutil, "copyfile", lambda source, target: copied.append(source.suffix) or real(source, target)
    )
    settle_cache()
    assert copied == [".nbc", ".nbi"]


def test_a_copy_that_fails_is_no_reason_to_stop(warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiling.shutil, "copyfile", refuse)
    settle_cache()
    assert _inside(cache_folder()) == {}


def test_one_that_may_be_written_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    settle_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "mine")


KERNEL = """
import sys
from kiki_agent.kernels import kernel, kernels, load_compiled

@kernel("int64(int64)")
def double(number):
    return number * 2

assert load_compiled() == []
(made,) = kernels()
print(made.compiled, made(21), sum(made.calls.stats.cache_hits.values()), sum(made.calls.stats.cache_misses.values()))
"""


def test_machine_code_is_found_in_a_cache_that_may_only_be_read(tmp_path: Path) -> None:
    """With real numba: compiled once into a folder, which is then taken away from writing (`chmod` binds without
    CAP_DAC_OVERRIDE), and found again through the copy."""
    script, warm = tmp_path / "script.py", tmp_path / "warm"
    script.write_text(KERNEL)
    drop = (
        "import ctypes, os, sys\n"
        "for number in (1, 2): ctypes.CDLL(None).prctl(24, number, 0, 0, 0)\n"
        "os.execv(sys.executable, [sys.executable, sys.argv[1]])"
    )
    environ = os.environ | {"NUMBA_CACHE_DIR": str(warm), "XDG_CACHE_HOME": str(tmp_path / "own")}

    def run() -> str:
        command = [sys.executable, "-c", drop, str(script)] if os.geteuid() == 0 else [sys.executable, str(script)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run() == "True 42 0 1"
    folders = [warm, *(folder for folder in warm.rglob("*") if folder.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        before = _inside(warm)
        assert run() == "True 42 1 0"
        assert _inside(warm) == before
        assert _inside(tmp_path / "own" / "kiki-agent" / "kernels") == before
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_every_module_that_declares_kernels_is_found() -> None:
    """What an image compiles while it is built; what is missing there, every agent would compile at its first use."""
    from kiki_agent.kernels.__main__ import declaring

    found = declaring()
    assert {"kiki_agent.kernels.bids", "kiki_agent.kernels.permits", "kiki_agent.sandbox.kernel"} <= set(found)
    names = (
        "import sys\n"
        "from importlib import import_module\n"
        "from kiki_agent.kernels import kernels\n"
        "for module in sys.argv[1:]:\n"
        "    import_module(module)\n"
        "print(*sorted({each.twin.__module__ for each in kernels()}))\n"
    )
    imported = subprocess.run(
        [sys.executable, "-c", names, *found, "kiki_agent.agent", "kiki_agent.backtest", "kiki_agent.sandbox.service"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert imported.stdout.split() == found
