"""`kiki-agent backtest`: the simulated market, or recorded auctions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import click

from kiki_agent.cli.failure import CommandError
from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json, emit_pairs, emit_table, progress

_MARKET = ("days", "seed", "report")
_REPLAY = ("policies", "train", "budget", "more")


@click.command()
@click.option("--days", type=click.IntRange(1, 3_660), default=30, show_default=True, help="Days of the market.")
@click.option("--seed", metavar="NUMBER", help="Another seed, another market (demo.seed).")
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html", help="Write the report."
)
@click.option(
    "--auctions", multiple=True, type=click.Path(path_type=Path), metavar="FILE...", help="Replay these logs instead."
)
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME[:B0]", help="truth, lin:75, const:5 or mcpc; default: all."
)
@click.option(
    "--train", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="What policies learned from."
)
@click.option("--budget", metavar="PRICE", help="Budget of the replay; default: a sixteenth of what the log costs.")
@click.argument("more", nargs=-1, type=click.Path(path_type=Path), metavar="")
@common
@click.pass_context
def backtest(
    context: click.Context,
    options: Options,
    days: int,
    seed: str | None,
    report: Path | None,
    auctions: tuple[Path, ...],
    policies: tuple[str, ...],
    train: tuple[Path, ...],
    budget: str | None,
    more: tuple[Path, ...],
) -> None:
    """Replay a market or recorded auctions, and report.

    Without --auctions the agent's own loops run on the simulated market under a simulated clock, and the same market
    without an agent beside it.
    """
    _refuse(context, _MARKET if auctions else _REPLAY, "with" if auctions else "without")
    if auctions:
        _replay(options, (*auctions, *more), policies, train, _price(budget))
    else:
        _market(options, days, seed, report)


def _market(options: Options, days: int, seed: str | None, report: Path | None) -> None:
    from kiki_agent.backtest import run_market

    loaded = options.load(mode="backtest", demo__seed=seed)
    if report is not None:
        _can_be_written(report)
    with progress(f"{days} days") as on_progress:
        result = run_market(
            loaded, days=days, seed=loaded.settings.demo.seed, report=report, on_progress=on_progress
        ).to_json()
    if options.json:
        emit_json(result)
        return
    emit_pairs(_single(result))
    for name, value in result.items():
        if isinstance(value, dict) and (inner := _single(value)):
            emit(f"\n{name}")
            emit_pairs({f"  {key}": item for key, item in inner.items()})
    if report is not None:
        emit(f"\nreport: {report}")


def _can_be_written(report: Path) -> None:
    """Raises CommandError before the work of minutes or hours, not after it."""
    folder = report.absolute().parent
    if not folder.is_dir() or not os.access(report if report.exists() else folder, os.W_OK):
        raise CommandError(f"the report cannot be written to {report}; name a file in a folder that is there")


def _replay(
    options: Options, files: Sequence[Path], names: Sequence[str], train: Sequence[Path], budget: Fraction | None
) -> None:
    from kiki_agent.flow.auctions import Policy, PolicyName, load, replay, statistics

    policies = [Policy.parse(name) for name in names or [name.value for name in PolicyName]]
    log = load(files)
    known = statistics(load(train) if train else log)
    results = [replay(log, policy, budget, known).as_dict() for policy in policies]
    if options.json:
        learned_from = [str(file) for file in train or files]
        emit_json({"files": [str(file) for file in files], "learned_from": learned_from, "results": results})
        return
    header = ("policy", "profit", "clicks", "bids", "impressions", "cost", "budget")
    emit_table(header, [[_short(result[column]) for column in header] for result in results])


def _single(values: Mapping[str, object]) -> dict[str, object]:
    """What fits on a line each; series are for the report and for JSON."""
    return {name: value for name, value in values.items() if not isinstance(value, (dict, list))}


def _price(text: str | None) -> Fraction | None:
    if text is None:
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise click.BadParameter(f"expected a number, found {text!r}", param_hint="--budget") from error


def _refuse(context: click.Context, names: Sequence[str], word: str) -> None:
    """Options of the other kind of backtest are a mistake, not silently ignored."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is click.core.ParameterSource.COMMANDLINE and context.params[name]:
            given = {"policies": "--policy", "more": "a file"}.get(name, f"--{name}")
            raise click.UsageError(f"{given} has no meaning {word} --auctions", context)


def _short(value: object) -> str:
    return "cannot say" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
