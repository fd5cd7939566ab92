"""In a simulation nobody may ask what time it really is, sleep, or throw dice: `simulated_world` makes it an error.

The net catches what a linter cannot see: plugins, and names reached through variables. The standard library and the
packages underneath the agent may go on (an event loop needs its clock); everything else gets a `Fault` that names it.
A name copied with `from time import time` before the simulation starts is not caught here but by the linter.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from kiki_agent.errors import Fault

_FORBIDDEN: dict[str, tuple[str, ...]] = {
    "time": (
        *("time", "time_ns", "sleep", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
        *("localtime", "gmtime"),
    ),
    "random": (
        *("random", "randint", "randrange", "choice", "choices", "shuffle", "sample", "uniform", "gauss"),
        *("normalvariate", "expovariate", "betavariate", "getrandbits", "triangular", "lognormvariate"),
    ),
    "uuid": ("uuid1", "uuid4"),
    "secrets": ("token_bytes", "token_hex", "token_urlsafe", "randbelow", "choice"),
    "numpy.random": ("random", "rand", "randn", "randint", "normal", "uniform", "choice", "shuffle", "permutation"),
}
_SLEEPERS = {"asyncio": ("sleep",)}
_ALLOWED_MODULES = frozenset({"kiki_agent.runtime.clock", "kiki_agent.runtime.driver"})
_INFRASTRUCTURE = frozenset(
    {
        *("aiohttp", "aiosqlite", "anyio", "multidict", "uvloop", "yarl"),
        *("llvmlite", "numba", "numpy", "prometheus_client", "rich"),
    }
)


@contextmanager
def simulated_world() -> Iterator[None]:
    """Let wall time, real sleep and unseeded randomness raise `Fault` while the block runs."""
    with ExitStack() as stack:
        for module_name, names in (*_FORBIDDEN.items(), *_SLEEPERS.items()):
            module = importlib.import_module(module_name)
            for name in names:
                original = getattr(module, name)
                stack.enter_context(mock.patch.object(module, name, _guard(f"{module_name}.{name}", original)))
        yield


def _guard(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*arguments: Any, **options: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "?")
        if not _may(str(caller)):
            raise Fault(f"{caller} called {name} in a simulation; take a Clock, or noise made from the seed")
        return original(*arguments, **options)

    return guarded


def _may(caller: str) -> bool:
    top = caller.partition(".")[0]
    return caller in _ALLOWED_MODULES or top in sys.stdlib_module_names or top in _INFRASTRUCTURE
