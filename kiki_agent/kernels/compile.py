"""Turning a plain Python function into a compiled kernel, late and without holding anybody up.

`import numba` costs half a second and some 60 MB, and a first compilation seconds of a busy interpreter. So a kernel
starts as its own Python twin; a child process compiles it into numba's on-disk cache, and a thread then loads the
machine code from there. The cache must be in a folder that can be written; what a read-only `NUMBA_CACHE_DIR` holds,
as that of an image does, is copied into one. Without a cache a kernel compiles in process, and where numba is missing
or broken the twin goes on serving.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_registry: dict[str, Kernel[Any, Any]] = {}


class Kernel(Generic[P, R]):
    """A function over columns that can be called at any time and becomes fast when its machine code is loaded."""

    __slots__ = ("calls", "compiled", "inline", "name", "signatures", "twin")

    def __init__(
        self, twin: Callable[P, R], signature: str | Sequence[str], inline: Sequence[Callable[..., Any]]
    ) -> None:
        self.twin = twin
        """The same function in plain Python: the test oracle, and the stand-in until `compiled` is true."""
        self.name = f"{twin.__module__}.{twin.__qualname__}"
        self.signatures = [signature] if isinstance(signature, str) else list(signature)
        self.inline = tuple(inline)
        """Plain functions the kernel calls; compiled along with it."""
        self.calls: Callable[P, R] = twin
        self.compiled = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.calls(*args, **kwargs)

    def compile(self, *, cache: bool = True) -> None:
        """Compile, or load from the cache, in the calling thread. Raises what numba raises."""
        if self.compiled:
            return
        settle_cache()
        import numba

        machine = _machine_code(numba, self, cache)
        self.calls = machine
        self.compiled = True


def _machine_code(numba: Any, made: Kernel[Any, Any], cache: bool) -> Any:
    """Compile copies of the twin and of what it calls in a scope of their own, so that the twin stays plain Python."""
    scope = dict(made.twin.__globals__)
    options: dict[str, Any] = {"fastmath": False, "error_model": "numpy", "nogil": True}
    for function in made.inline:
        scope[function.__name__] = numba.njit(**options)(_copy(function, scope))
    source = _copy(made.twin, scope)
    if cache:
        try:
            return numba.njit(made.signatures, cache=True, **options)(source)
        except RuntimeError as error:  # no place for the cache
            if "cache" not in str(error):
                raise
    return numba.njit(made.signatures, **options)(source)


def _copy(function: Any, scope: dict[str, Any]) -> Any:
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
    copy.__module__ = function.__module__
    copy.__qualname__ = function.__qualname__
    return copy


def kernel(
    signature: str | Sequence[str], *, inline: Sequence[Callable[..., Any]] = ()
) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Declare a kernel with its numba signature(s), for example `"void(int64[::1], int64[::1])"`.

    `inline` names plain functions of the same module that it calls. Integers only: results must not depend on
    whether the twin or the machine code ran, so mind that numba wraps at 64 bits where Python does not.
    """

    def declare(function: Callable[P, R]) -> Kernel[P, R]:
        made = Kernel(function, signature, inline)
        _registry[made.name] = made
        return made

    return declare


def kernels() -> list[Kernel[Any, Any]]:
    """All kernels declared by the modules imported so far."""
    return list(_registry.values())


def cache_folder() -> Path:
    """Where compiled code is kept: `NUMBA_CACHE_DIR`, else a folder of this user's cache, else a temporary one."""
    wanted = os.environ.get("NUMBA_CACHE_DIR")
    candidates = [Path(wanted)] if wanted else []
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    candidates.append(Path(base) / "kiki-agent" / "kernels")
    candidates.append(Path(tempfile.gettempdir()) / f"kiki-agent-kernels-{os.getuid()}")
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return candidates[-1]


def settle_cache() -> None:
    """Point numba at a cache it can use, before it is imported: it takes no folder that it may not write to."""
    folder = cache_folder()
    wanted = os.environ.get("NUMBA_CACHE_DIR")
    if wanted and Path(wanted) != folder and Path(wanted).is_dir():
        _copy_cache(Path(wanted), folder)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)


def _copy_cache(source: Path, target: Path) -> None:
    """Bring over what is missing or another: machine code before the indices that name it, each file whole or absent.

    Where that fails the kernels compile anew, as without a warm cache.
    """
    files = sorted(file for file in source.rglob("*.nb?") if file.is_file())
    for file in sorted(files, key=lambda each: each.suffix != ".nbc"):
        copy = target / file.relative_to(source)
        try:
            if not (copy.exists() and copy.read_bytes() == file.read_bytes()):
                copy.parent.mkdir(parents=True, exist_ok=True)
                beside = copy.with_name(f".{copy.name}.{os.getpid()}")
                shutil.copyfile(file, beside)
                beside.replace(copy)
        except OSError:
            return


def load_compiled(modules: Sequence[str] = ()) -> list[str]:
    """Import modules that declare kernels and compile them all in this thread; returns those that failed, with why."""
    settle_cache()
    for module in modules:
        importlib.import_module(module)
    failed = []
    for each in kernels():
        try:
            each.compile()
        except Exception as error:
            failed.append(f"{each.name}: {error}")
    return failed


async def compile_in_child(modules: Sequence[str]) -> bool:
    """Fill the on-disk cache from a child process, so that this one never compiles; False when the child failed."""
    settle_cache()
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kiki_agent.kernels",
        *modules,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        return await child.wait() == 0
    except asyncio.CancelledError:
        child.kill()
        await child.wait()
        raise
