"""`kiki-agent doctor`: everything a person would want looked at when something is wrong, each with what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from kiki_agent.cli.failure import FAILED
from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json, emit_table, progress, silence_log
from kiki_agent.config import Loaded
from kiki_agent.errors import ConfigError

if TYPE_CHECKING:
    from kiki_agent.cli.doctor_checks import Finding


@click.command()
@click.option("--online", is_flag=True, help="Also ask every platform (dry-run and live).")
@common
def doctor(options: Options, online: bool) -> int:
    """Look at everything that could be wrong, and say what to do.

    Works while an agent runs, and changes nothing. Ends with 0 when nothing is wrong, with 1 when something is; what
    is merely worth knowing is a warning.
    """
    from kiki_agent.cli.doctor_checks import OFFLINE, plugins
    from kiki_agent.cli.doctor_checks import Finding as Found

    silence_log()
    found: list[Finding] = []
    try:
        loaded = options.load()
    except ConfigError as error:
        found += [
            Found("configuration", "failed", str(each), "Correct it there; docs/configuration.md names every key.")
            for each in error.findings
        ]
    else:
        found.append(Found("configuration", "ok", f"Read from {loaded.file}."))
        with progress("looking") as on_progress:
            for number, look in enumerate(OFFLINE):
                on_progress(number / (len(OFFLINE) + 1))
                found += _guarded(look, loaded)
            found += asyncio.run(plugins(loaded, online=online))
    failed = [each for each in found if each.state == "failed"]
    if options.json:
        emit_json({"ok": not failed, "findings": [asdict(each) for each in found]})
        return FAILED if failed else 0
    emit_table(("check", "state", "finding"), [(each.check, each.state, each.finding) for each in found])
    todo = [each for each in found if each.state in ("failed", "warning") and each.remedy]
    if todo:
        emit("\nWhat to do:")
        for each in todo:
            emit(f"  {each.check}: {each.remedy}")
    warnings = sum(each.state == "warning" for each in found)
    emit("")
    emit(f"{len(failed)} of {len(found)} checks failed." if failed else f"Nothing is wrong; {warnings} warnings.")
    return FAILED if failed else 0


def _guarded(look: Callable[[Loaded], Iterator[Finding]], loaded: Loaded) -> list[Finding]:
    """A check that breaks is a finding, and does not keep the others from being made."""
    from kiki_agent.cli.doctor_checks import Finding as Found

    found: list[Finding] = []
    try:
        found.extend(look(loaded))
    except Exception as error:
        name = getattr(look, "__name__", "a check").replace("_", " ")
        said = f"The check broke: {type(error).__name__}: {error}"
        found.append(Found(name, "failed", said, "Run it again with -v, and report it if it stays."))
    return found
