"""`kiki-agent version`."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed_version

import click

from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json


@click.command()
@common
def version(options: Options) -> None:
    """Print the version."""
    ours, python = installed_version("kiki-agent"), platform.python_version()
    if options.json:
        emit_json({"version": ours, "python": python})
    else:
        emit(f"kiki-agent {ours} (Python {python})")
