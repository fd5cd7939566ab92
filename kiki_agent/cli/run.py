"""`kiki-agent run` and `kiki-agent demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import click

from kiki_agent.cli.failure import MISUSED, CommandError
from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json

if TYPE_CHECKING:
    from kiki_agent.config import Loaded


@click.command()
@common
def run(options: Options) -> None:
    """Run the agent as config.toml says, until it is stopped.

    Ends with 0 after SIGTERM or Ctrl-C, with 75 when another agent works on the same database.
    """
    from kiki_agent.config import Mode

    loaded = options.load()
    if loaded.settings.mode is Mode.BACKTEST:
        raise CommandError("mode is backtest, which has a command of its own: kiki-agent backtest", MISUSED)
    _start(loaded, as_json=options.json)


@click.command()
@click.option("--speed", metavar="FACTOR", help="Simulated seconds per second (demo.speed).")
@click.option("--seed", metavar="NUMBER", help="Another seed, another market (demo.seed).")
@click.option("--port", metavar="PORT", help="Port of the page (http.port).")
@common
def demo(options: Options, speed: str | None, seed: str | None, port: str | None) -> None:
    """Run the agent on a simulated market of six ad platforms.

    Whatever the configuration says about the mode, no real platform is touched.
    """
    _start(options.load(mode="demo", demo__speed=speed, demo__seed=seed, http__port=port), as_json=options.json)


def _start(loaded: Loaded, *, as_json: bool) -> NoReturn:
    """Run the agent; a token that is kept in a file is made first where there is none, and shown that one time."""
    from kiki_agent.config import with_token
    from kiki_agent.live import main

    loaded, kept = with_token(loaded)
    token = loaded.settings.http.token
    if kept is not None and token is not None:
        shown = token.get_secret_value() if kept.made else None
        if as_json:
            emit_json({"token": shown, "token_file": str(kept.file)})
        elif shown is not None:
            emit(f"The access token of this agent is {shown} - it is kept in {kept.file} and not shown again.")
        else:
            emit(f"The access token of this agent is kept in {kept.file}.")
    main(loaded)
