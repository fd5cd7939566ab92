"""The root command, its list of commands, and what a process ends with."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from kiki_agent.cli.failure import MISUSED, report
from kiki_agent.cli.options import Options, common

COMMANDS = {
    "run": ("kiki_agent.cli.run", "run", "Run the agent as config.toml says, until it is stopped."),
    "demo": ("kiki_agent.cli.run", "demo", "Run the agent on a simulated market of six ad platforms."),
    "backtest": ("kiki_agent.cli.backtest", "backtest", "Replay a market or recorded auctions, and report."),
    "status": ("kiki_agent.cli.status", "status", "Ask the running agent how it is."),
    "kill-switch": ("kiki_agent.cli.status", "kill_switch", "Stop all spending of the running agent, or allow it."),
    "autonomy": ("kiki_agent.cli.governor", "autonomy", "See and set how far the agent may act at each platform."),
    "approvals": ("kiki_agent.cli.governor", "approvals", "See, approve and decline what the agent suggests."),
    "levers": (
        "kiki_agent.cli.governor",
        "levers",
        "See and say which budgets, bids and campaigns the agent leaves alone.",
    ),
    "rollback": (
        "kiki_agent.cli.governor",
        "rollback",
        "Put back a change, a batch or a day, where nobody has moved it since.",
    ),
    "check": ("kiki_agent.cli.check", "check", "Say whether an agent could start, and everything that is in the way."),
    "doctor": ("kiki_agent.cli.doctor", "doctor", "Look at everything that could be wrong, and say what to do."),
    "config": ("kiki_agent.cli.config", "config", "Look at the configuration."),
    "plugins": ("kiki_agent.cli.plugins", "plugins", "Look at the plugins."),
    "consent": ("kiki_agent.cli.consent", "consent", "Look at what a person allows, and note what they say."),
    "privacy": ("kiki_agent.cli.consent", "privacy", "Give a person everything that is known of them, or forget them."),
    "ledger": ("kiki_agent.cli.ledger", "ledger", "Verify and export the record of all decisions."),
    "backup": ("kiki_agent.cli.backup", "backup", "Copy the record, prove the copy, and say where it is."),
    "restore": (
        "kiki_agent.cli.backup",
        "restore",
        "Put a backup back in place; refused while an agent runs.",
    ),
    "migrate": ("kiki_agent.cli.migrate", "migrate", "Look at the database schema, and bring it up to date."),
    "sandbox": ("kiki_agent.cli.sandbox", "sandbox", "Serve the simulated market by itself."),
    "version": ("kiki_agent.cli.version", "version", "Print the version."),
}
"""Name -> module, attribute, and the line `--help` shows without importing the module."""

INTERRUPTED = 130


class LazyCommands(click.Group):
    """A group that imports a command when it is called and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order a reader needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, _, words) in COMMANDS.items()])


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@common
@click.pass_context
def root(context: click.Context, options: Options) -> None:
    """Bids by customer value, moves budget between ad platforms, and proves every cent.

    Begin with `kiki-agent demo`. Every command answers --help and --json.
    """
    context.obj = options


def invoke(arguments: Sequence[str]) -> int:
    """Runs one command line and returns the exit code; says on standard error what went wrong."""
    as_json, traceback = _asked(arguments)
    try:
        result = root.main(args=list(arguments), prog_name="kiki-agent", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return MISUSED
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing may be written any more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return report(error, as_json=as_json, with_traceback=traceback)
    return result if isinstance(result, int) else 0


def main() -> None:
    """Entry point of `kiki-agent` and `kiki`."""
    sys.exit(invoke(sys.argv[1:]))


def _asked(arguments: Sequence[str]) -> tuple[bool, bool]:
    """Whether errors are wanted as JSON, and with a traceback: known even when parsing failed."""
    ours = list(arguments)
    if "--" in ours:
        ours = ours[: ours.index("--")]
    short = [word for word in ours if word.startswith("-") and not word.startswith("--")]
    return "--json" in ours, "--verbose" in ours or any("v" in word for word in short)
