"""How answers are written to standard output: one JSON object, or a table a person can read."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import click


def emit_json(answer: object) -> None:
    """One JSON document on one line."""
    click.echo(json.dumps(answer, ensure_ascii=False, default=str))


def emit(text: str) -> None:
    """One line or paragraph for people."""
    click.echo(text)


def emit_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their content: plain text, the same in a terminal, a pipe and a log."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(header), *cells]) for column in range(len(header))]
    for line in [list(header), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def emit_pairs(pairs: Mapping[str, object]) -> None:
    """Names and values, one a line."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        click.echo(f"{name.ljust(width)}  {value}")


def silence_log() -> None:
    """Keeps log lines off the terminal for a command whose answer says the same."""
    from kiki_agent.runtime import log

    log.configure("error", "text", stream=io.StringIO())


@contextmanager
def progress(words: str) -> Iterator[Callable[[float], None]]:
    """A bar on standard error while long work runs; call what it yields with the share done, from 0 to 1.

    Silent where standard error is no terminal.
    """
    if not sys.stderr.isatty():
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn(words), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(words, total=1.0)

        def show(share: float) -> None:
            bar.update(task, completed=min(max(share, 0.0), 1.0))

        yield show
