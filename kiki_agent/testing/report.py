"""Tables of counts, for people and for programs, and progress while long proofs run."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence

Row = tuple[str, object, bool | None]
"""What was counted, the count, and whether it is as it must be (None: just a figure)."""


def say(line: str) -> None:
    """A line of progress, at once, on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def write(text: str) -> None:
    """A line of the result on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(title: str, rows: Sequence[Row]) -> str:
    """Counts under each other, with what is wrong marked."""
    width = max((len(name) for name, _, _ in rows), default=0)
    marks = {True: "ok", False: "WRONG", None: ""}
    lines = [
        title,
        *(f"  {name.ljust(width)}  {_text(value):>14}  {marks[good]}".rstrip() for name, value, good in rows),
    ]
    return "\n".join(lines)


def as_json(title: str, rows: Sequence[Row], more: Mapping[str, object] | None = None) -> str:
    """The same for programs."""
    counts = {name: value for name, value, _ in rows}
    return json.dumps({"proof": title, "sound": sound(rows), "counts": counts, **(more or {})})


def sound(rows: Sequence[Row]) -> bool:
    """Whether nothing is wrong."""
    return all(good is not False for _, _, good in rows)


def machine() -> str:
    """Where it ran, in one line."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def _text(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
