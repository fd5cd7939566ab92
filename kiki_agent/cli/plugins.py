"""`kiki-agent plugins list`."""

from __future__ import annotations

import asyncio

import click

from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json, emit_table, silence_log


@click.group()
def plugins() -> None:
    """Look at the plugins."""


@plugins.command("list")
@common
def list_plugins(options: Options) -> int:
    """List the plugins that are installed, what each provides, and the tables of the configuration that use it.

    Allowed plugins are imported, none is started. Ends with 1 when one is quarantined.
    """
    from kiki_agent.hooks.manager import Plugins
    from kiki_agent.hooks.specs import API_VERSION

    loaded = options.load()
    silence_log()
    found = asyncio.run(Plugins.load(loaded.settings, make_context=None, locate=loaded.locate))
    packages = [
        {
            "name": plugin.name,
            "version": plugin.version,
            "source": plugin.source,
            "state": plugin.state,
            "error": plugin.error,
            "provides": [{"kind": offer.kind, "name": offer.name} for offer in plugin.offers],
        }
        for plugin in found.plugins
    ]
    instances = [instance.describe() for instance in found.instances.values()]
    states = [plugin.state for plugin in found.plugins] + [instance.state for instance in found.instances.values()]
    healthy = "quarantined" not in states
    if options.json:
        emit_json({"api_version": list(API_VERSION), "plugins": packages, "instances": instances})
        return 0 if healthy else 1
    rows = []
    for plugin in found.plugins:
        provides = ", ".join(f"{offer.kind} {offer.name}" for offer in plugin.offers) or "-"
        rows.append((plugin.name, plugin.version or "-", plugin.source, plugin.state, provides, plugin.error))
    emit_table(("plugin", "version", "source", "state", "provides", ""), rows)
    emit("")
    tables = [(f"{each.kind}.{each.id}", each.class_name, each.state, each.error) for each in found.instances.values()]
    emit_table(("table", "class", "state", ""), tables)
    return 0 if healthy else 1
