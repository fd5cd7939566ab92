"""`kiki-agent migrate status` and `kiki-agent migrate up`."""

from __future__ import annotations

import click

from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json, emit_table


@click.group()
def migrate() -> None:
    """Look at the database schema, and bring it up to date.

    An agent brings its own database up to date when it starts; this is for doing it before, and for looking.
    """


@migrate.command()
@common
def status(options: Options) -> int:
    """List the migrations and whether the database of the configured mode has them.

    Ends with 0 when all are applied, with 1 otherwise.
    """
    from kiki_agent.model import iso
    from kiki_agent.store.schema import status as states_of

    path = options.load().settings.database
    states = states_of(path)
    complete = all(each.state == "applied" for each in states)
    if options.json:
        migrations = [
            {
                "version": each.version,
                "name": each.name,
                "state": each.state,
                "applied_at": None if each.applied_at is None else iso(each.applied_at),
            }
            for each in states
        ]
        emit_json({"database": str(path), "exists": path.exists(), "complete": complete, "migrations": migrations})
        return 0 if complete else 1
    emit(f"database: {path}" if path.exists() else f"database: {path} (does not exist yet)")
    rows = [
        (f"{each.version:04}", each.name, each.state, "-" if each.applied_at is None else iso(each.applied_at))
        for each in states
    ]
    emit_table(("migration", "name", "state", "applied at"), rows)
    return 0 if complete else 1


@migrate.command()
@common
def up(options: Options) -> None:
    """Apply what is pending, after a backup of the database; refused while an agent uses it."""
    from kiki_agent.recovery import keep_before_migration
    from kiki_agent.runtime.clock import SystemClock
    from kiki_agent.store.schema import up as apply_pending

    settings = options.load().settings
    path, now = settings.database, SystemClock().now()
    applied = apply_pending(path, now, keep=keep_before_migration(settings.backup_folder, settings.ledger_head, now))
    if options.json:
        emit_json({"database": str(path), "applied": applied})
    elif applied:
        emit(f"{path}: applied {', '.join(f'{version:04}' for version in applied)}")
    else:
        emit(f"{path}: nothing to do, all migrations are applied")
