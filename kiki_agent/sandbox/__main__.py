"""`python -m kiki_agent.sandbox FOLDER ...`: serve the market of a folder; what the agent starts in demo mode."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from kiki_agent.hooks.api import SandboxOffer


def main(arguments: list[str]) -> NoReturn:
    """Parse, leave the starter's side if asked to, and serve."""
    parser = argparse.ArgumentParser(prog="python -m kiki_agent.sandbox")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epoch", type=int, help="microseconds since 1970; default: now")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--campaigns", type=int, default=120)
    parser.add_argument("--history-days", type=int, default=30)
    parser.add_argument("--fault-rate", type=float, default=0.0)
    parser.add_argument("--idle-exit", type=float, default=0.0, help="seconds without a request; 0: never")
    parser.add_argument("--vendor", action="append", default=[], metavar="NAME=PLATFORM=MODULE:CLASS")
    parser.add_argument("--detach", action="store_true", help="go on as a process of its own and say when it listens")
    options = parser.parse_args(arguments)
    if options.detach and os.fork() > 0:
        os._exit(0)  # the starter waits for this one; the other belongs to nobody
    from kiki_agent.model import Instant
    from kiki_agent.runtime.shutdown import leave_now
    from kiki_agent.sandbox.process import run_sandbox

    code = run_sandbox(
        options.folder,
        options.port,
        options.seed,
        None if options.epoch is None else Instant(options.epoch),
        options.speed,
        options.campaigns,
        options.history_days,
        options.fault_rate,
        options.idle_exit,
        [_offer(text) for text in options.vendor],
        announce=options.detach,
    )
    leave_now(code)  # everything is on disk, and taking a compiler apart again would only keep the agent waiting


def _offer(text: str) -> SandboxOffer:
    """What `state.mounted` wrote."""
    from kiki_agent.hooks.api import SandboxOffer

    name, platform, target = text.split("=", 2)
    return SandboxOffer(name, platform, target, {})


if __name__ == "__main__":
    main(sys.argv[1:])
