"""`kiki-agent ledger verify` and `kiki-agent ledger export`: offline, also while an agent runs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from kiki_agent.cli.failure import CommandError
from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json

_DATABASE = click.option(
    "--database", type=click.Path(path_type=Path), help="Another database, such as a backup; default: of the mode."
)


@click.group()
def ledger() -> None:
    """Verify and export the record of all decisions."""


@ledger.command()
@_DATABASE
@click.option("--head", type=click.Path(path_type=Path), help="The known head; default: the file beside the database.")
@common
def verify(options: Options, database: Path | None, head: Path | None) -> int:
    """Hash the whole chain again and compare it with the head known outside the database.

    Ends with 0 when the record is whole, with 1 when it is not.
    """
    from kiki_agent.ledger.verify import verify_file

    path = database or options.load().settings.database
    if head is not None and not head.exists():
        raise CommandError(f"there is no known head at {head}")
    if database is not None and not path.is_file():
        raise CommandError(f"there is no database at {path}")
    known = head or path.with_suffix(".head")
    found = verify_file(path, known if known.exists() else None)
    if options.json:
        emit_json({"database": str(path), "head": str(known) if known.exists() else None, **asdict(found)})
    elif found.ok:
        against = f", as {known} knows it" if known.exists() else f"; no known head at {known} to compare with"
        emit(f"{path}: the ledger is whole, {found.entries} entries, head {found.head_hash}{against}")
        if found.segments:
            emit(f"{found.segments} sealed segments up to entry {found.sealed}, {found.dropped} bodies dropped by age")
    else:
        emit(f"{path}: the ledger is damaged: {found.problem}")
    return 0 if found.ok else 1


@ledger.command()
@_DATABASE
@click.option("--format", "fmt", type=click.Choice(["csv", "jsonl"]), default="jsonl", show_default=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A new file; default: standard output.")
@common
def export(options: Options, database: Path | None, fmt: Literal["csv", "jsonl"], output: Path | None) -> None:
    """Write every entry as CSV or as one JSON object a line."""
    from kiki_agent.ledger import export_file

    path = database or options.load().settings.database
    if output is None:
        export_file(path, fmt, sys.stdout.write)
        return
    try:
        with output.open("x", encoding="utf-8", newline="") as file:
            entries = export_file(path, fmt, file.write)
    except FileExistsError as error:
        raise CommandError(f"{output} exists; an export never overwrites a file") from error
    except Exception:
        output.unlink(missing_ok=True)
        raise
    if options.json:
        emit_json({"database": str(path), "output": str(output), "format": fmt, "entries": entries})
    else:
        emit(f"{output}: {entries} entries")
