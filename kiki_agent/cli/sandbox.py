"""`kiki-agent sandbox`."""

from __future__ import annotations

from pathlib import Path

import click

from kiki_agent.cli.options import Options, common


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="State file and log of effects; default: store.folder.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Port on 127.0.0.1; 0 takes a free one.")
@click.option("--seed", metavar="NUMBER", help="Another seed, another market (demo.seed).")
@click.option("--speed", metavar="FACTOR", help="Simulated seconds per second (demo.speed).")
@click.option("--epoch", metavar="MICROSECONDS", type=int, help="Instant at which simulated and real time are equal.")
@click.option(
    "--idle-exit",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=0.0,
    help="End when nobody asked for so long.",
)
@common
def sandbox(
    options: Options,
    folder: Path | None,
    port: int,
    seed: str | None,
    speed: str | None,
    epoch: int | None,
    idle_exit: float,
) -> int:
    """Serve the simulated market by itself.

    The demo does the same with its own. A market that was served from the same folder before goes on where it was.
    """
    from kiki_agent.model import Instant
    from kiki_agent.sandbox.process import run_sandbox
    from kiki_agent.sandbox.wiring import vendor_offers

    settings = options.load(demo__seed=seed, demo__speed=speed).settings
    return run_sandbox(
        folder or Path(settings.store.folder),
        port=port,
        seed=settings.demo.seed,
        epoch=None if epoch is None else Instant(epoch),
        speed=settings.demo.speed,
        campaigns=settings.demo.campaigns,
        history_days=settings.demo.history_days,
        fault_rate=settings.demo.fault_rate,
        idle_exit_s=idle_exit,
        vendors=vendor_offers(settings),
    )
