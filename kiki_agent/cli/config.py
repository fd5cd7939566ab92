"""`kiki-agent config show`."""

from __future__ import annotations

import click

from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json, emit_table


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@common
def show(options: Options) -> None:
    """Print every setting with its value and its source, secrets masked."""
    from kiki_agent.config import shown_settings

    loaded = options.load()
    rows = shown_settings(loaded)
    if options.json:
        settings = [{"key": row.key, "value": row.value, "source": row.source} for row in rows]
        emit_json({"file": loaded.file, "settings": settings})
        return
    emit(f"file: {loaded.file}")
    emit("")
    emit_table(("setting", "value", "source"), [(row.key, row.text, row.source) for row in rows])
