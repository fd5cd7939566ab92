"""A process whose wall clock can be moved from outside while it runs: by what eight bytes of a file say."""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

_NANOSECONDS = struct.Struct("<q")


def write_shift(path: Path, seconds: float) -> None:
    """Move the clock of whoever installed this file, from now on."""
    data = _NANOSECONDS.pack(round(seconds * 1e9))
    if not path.exists():
        path.write_bytes(data)
        return
    with path.open("r+b") as file:
        file.write(data)


def install(path: str) -> None:
    """Let the wall clock of this process follow the file; to be called before anything of the agent reads a clock."""
    if "kiki_agent.runtime.clock" in sys.modules:
        raise RuntimeError("the clock of this process was read already")
    with Path(path).open("r+b") as file:
        shared = mmap.mmap(file.fileno(), _NANOSECONDS.size)
    wall_s, wall_ns = time.time, time.time_ns  # noqa: TID251 - what this module is about

    def shift() -> int:
        return int(_NANOSECONDS.unpack_from(shared)[0])

    setattr(time, "time_ns", lambda: wall_ns() + shift())  # noqa: B010
    setattr(time, "time", lambda: wall_s() + shift() / 1e9)  # noqa: B010


def command(path: Path) -> tuple[str, ...]:
    """The agent's command line, with a clock that follows the file."""
    text = (
        "import sys; from kiki_agent.testing import shifted; shifted.install(sys.argv.pop(1));"
        " from kiki_agent.cli import main; main()"
    )
    return (sys.executable, "-c", text, str(path))
