"""`kiki-agent run` and `kiki-agent demo`."""

from __future__ import annotations

import click

from kiki_agent.cli.failure import MISUSED, CommandError
from kiki_agent.cli.options import Options, common


@click.command()
@common
def run(options: Options) -> None:
    """Run the agent as config.toml says, until it is stopped.

    Ends with 0 after SIGTERM or Ctrl-C, with 75 when another agent works on the same database.
    """
    from kiki_agent.config import Mode
    from kiki_agent.live import main

    loaded = options.load()
    if loaded.settings.mode is Mode.BACKTEST:
        raise CommandError("mode is backtest, which has a command of its own: kiki-agent backtest", MISUSED)
    main(loaded)


@click.command()
@click.option("--speed", metavar="FACTOR", help="Simulated seconds per second (demo.speed).")
@click.option("--seed", metavar="NUMBER", help="Another seed, another market (demo.seed).")
@click.option("--port", metavar="PORT", help="Port of the page (http.port).")
@common
def demo(options: Options, speed: str | None, seed: str | None, port: str | None) -> None:
    """Run the agent on a simulated market of six ad platforms.

    Whatever the configuration says about the mode, no real platform is touched.
    """
    from kiki_agent.live import main

    main(options.load(mode="demo", demo__speed=speed, demo__seed=seed, http__port=port))
