"""The options every command has, and the configuration they lead to."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from kiki_agent.config import Loaded

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for, before or after the name of the command."""

    file: Path | None = None
    flags: tuple[tuple[str, str], ...] = ()
    json: bool = False
    verbose: bool = False

    def load(self, **forced: str | None) -> Loaded:
        """The configuration; `forced` are flags of the command that stand for a setting, as `demo__speed="60"`."""
        from kiki_agent.config import load

        flags = dict(self.flags)
        flags |= {key.replace("__", "."): text for key, text in forced.items() if text is not None}
        return load(self.file, os.environ, flags)

    def joined(self, later: Options) -> Options:
        """These and those given after the command's name; the later ones win."""
        return Options(
            file=later.file or self.file,
            flags=self.flags + later.flags,
            json=self.json or later.json,
            verbose=self.verbose or later.verbose,
        )


def _key_and_text(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = []
    for pair in given:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"expected key=value such as http.port=9000, found {pair!r}", context, parameter)
        pairs.append((key.strip(), text))
    return pairs


def common(command: Callable[Concatenate[Options, P], R]) -> Callable[P, R]:
    """Adds --config, --set, --json and --verbose, and hands them over as `Options`."""

    @click.option("--config", "file", type=click.Path(path_type=Path), help="Configuration file.", metavar="FILE")
    @click.option(
        "--set",
        "pairs",
        multiple=True,
        callback=_key_and_text,
        metavar="KEY=VALUE",
        help="Set one setting; repeatable.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object; errors too.")
    @click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        pairs = kwargs.pop("pairs")
        given = Options(
            file=kwargs.pop("file"),  # type: ignore[arg-type]
            flags=tuple(pairs),  # type: ignore[arg-type]
            json=bool(kwargs.pop("as_json")),
            verbose=bool(kwargs.pop("verbose")),
        )
        outer = click.get_current_context().find_object(Options) or Options()
        kwargs["options"] = outer.joined(given)
        return command(*args, **kwargs)  # type: ignore[arg-type]

    return wrapped
