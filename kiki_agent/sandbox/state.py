"""Which sandbox serves a folder: the state file, and asking the process it names whether it is the one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kiki_agent.hooks.api import SandboxOffer

STATE_FILE, EFFECTS_FILE, LOG_FILE, LOCK_FILE = (
    "sandbox.json",
    "sandbox-effects.jsonl",
    "sandbox.log",
    "sandbox.lock",
)
CLIENT_ID = "kiki-agent"


@dataclass(frozen=True, slots=True)
class SandboxState:
    """Who serves which market; after the process ended (`pid` 0) which market the log of effects belongs to."""

    pid: int
    port: int
    nonce: str
    """Changes with every start; /v1/health repeats it, so a foreign process on the same port is not taken for ours."""
    secret: str
    """Client secret of the vendor API; only the owner can read the file."""
    seed: int
    epoch: int
    """Instant at which simulated and real time are equal; the market's history ends there."""
    speed: float
    campaigns: int
    history_days: int
    vendors: str = ""
    """What is mounted, as one text; a sandbox that mounts something else is not adopted."""

    @property
    def market(self) -> tuple[int, float, int, int]:
        """What two states must share to mean one market that can go on."""
        return (self.seed, self.speed, self.campaigns, self.history_days)


def mounted(vendors: Sequence[SandboxOffer]) -> str:
    """`SandboxState.vendors` of what is mounted."""
    return " ".join(sorted(f"{offer.name}={offer.platform}={offer.target}" for offer in vendors))


def read_state(folder: Path) -> SandboxState | None:
    """What the state file says; None when there is none or it cannot be read."""
    try:
        fields = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        state = SandboxState(**fields)
        whole = (state.pid, state.port, state.seed, state.epoch, state.campaigns, state.history_days)
        texts = (state.nonce, state.secret, state.vendors)
    except (OSError, ValueError, TypeError):
        return None
    fits = all(type(each) is int for each in whole) and all(type(each) is str for each in texts)
    return state if fits and isinstance(state.speed, int | float) else None


def write_state(folder: Path, state: SandboxState) -> None:
    """Replace the state file in one step."""
    beside = folder / f"{STATE_FILE}.{os.getpid()}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(state), file)
    beside.replace(folder / STATE_FILE)
