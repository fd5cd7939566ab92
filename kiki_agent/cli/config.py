"""`kiki-agent config show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json, emit_table, silence_log

if TYPE_CHECKING:
    from kiki_agent.config import Loaded, ShownSetting


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@common
def show(options: Options) -> None:
    """Print every setting with its value and its source, secrets masked.

    Of the tables of plugins also the keys that nobody gave, with the variables that would set them.
    """
    loaded = options.load()
    silence_log()
    rows = _all_settings(loaded)
    if options.json:
        settings = [
            {"key": row.key, "value": row.value, "source": row.source, "variables": list(row.variables)} for row in rows
        ]
        emit_json({"file": loaded.file, "settings": settings})
        return
    emit(f"file: {loaded.file}")
    emit("")
    emit_table(("setting", "value", "source"), [(row.key, row.text, _source(row)) for row in rows])


def _all_settings(loaded: Loaded) -> list[ShownSetting]:
    """What is set, and behind what is set of a plugin's table the rest of its keys."""
    from kiki_agent.config import shown_settings, unset_keys
    from kiki_agent.hooks import discovery

    settings = loaded.settings
    folder = Path(settings.plugins.folder) if settings.plugins.folder is not None else None
    plugins = discovery.find(discovery.installed(), folder)
    discovery.load(plugins, settings.plugins.allow)
    models = {(offer.kind, offer.name): offer.config for plugin in plugins for offer in plugin.offers}
    rows = shown_settings(loaded)
    for kind in ("connector", "crm", "notifier"):
        for name, table in getattr(settings, kind).items():
            model = models.get((kind, table.plugin))
            if model is None:  # not allowed, or not to be loaded: `kiki-agent check` says so
                continue
            defaults = {
                key: None if field.is_required() else field.get_default(call_default_factory=True)
                for key, field in model.model_fields.items()
            }
            behind = max(at for at, row in enumerate(rows) if row.key.startswith(f"{kind}.{name}.")) + 1
            rows[behind:behind] = unset_keys(loaded, (kind, name), defaults)
    return rows


def _source(row: ShownSetting) -> str:
    from kiki_agent.config import NOT_SET

    return f"{row.source}: {' or '.join(row.variables)}" if row.source == NOT_SET else row.source
