"""All proofs one after the other, at full count, with one table at the end: `python -m kiki_agent.testing.chaos`.

Each is a process of its own; what one says on the way is shown as it says it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence

from kiki_agent.runtime.clock import Stopwatch
from kiki_agent.testing import report

FULL: dict[str, tuple[str, ...]] = {
    "powercut": ("--disks", "300"),
    "powercut --sealing": ("--disks", "300"),
    "powercut --synchronous OFF": ("--disks", "300"),
    "holds": ("--seconds", "60"),
    "demo_hour": (),
    "simulate": ("--seeds", "100", "--hours", "5"),
    "crash --break journal-late": ("--kills", "8", "--seed", "11"),
    "crash --break resend": ("--kills", "8", "--seed", "11"),
    "crash --break overspend": ("--kills", "20", "--seed", "11"),
    "forks": ("--kills", "10000"),
    "crash": ("--kills", "500"),
}
"""Proof, with its way or what is broken in it on purpose, and its full count."""
SMALL: dict[str, tuple[str, ...]] = {
    "powercut": ("--disks", "60"),
    "powercut --sealing": ("--disks", "40"),
    "powercut --synchronous OFF": ("--disks", "60"),
    "holds": ("--seconds", "4"),
    "demo_hour": ("--hours", "0.3"),
    "simulate": ("--seeds", "4", "--hours", "2"),
    "crash --break resend": ("--kills", "4", "--seed", "11"),
    "forks": ("--kills", "100"),
    "crash": ("--kills", "8"),
}
"""The same in a few minutes, to see that everything runs."""


_SEEN = (
    "lost effects",
    "double effects",
    "effects nobody meant",
    "micros permitted over a cap",
    "acknowledged facts lost",
    "disks that lost any",
)
"""Counts of which one must have risen where something was broken on purpose: a slow start alone shows nothing."""


def broken(proof: str) -> bool:
    """Whether a proof is run on something wrong, and must see it."""
    return bool({"--break", "--synchronous"} & set(proof.split(" ")))


def run(proof: str, counts: Sequence[str]) -> tuple[bool, list[report.Row]]:
    """Run one; whether it is as it must be, and its part of the table."""
    name, *ways = proof.split(" ")
    watch = Stopwatch()
    done = subprocess.run(
        [sys.executable, "-m", f"kiki_agent.testing.{name}", "--json", *counts, *ways],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return False, [(f"{proof}: ended with {done.returncode} and no result", "", False)]
    if broken(proof):
        good = done.returncode == 1 and any(found["counts"].get(name, 0) for name in _SEEN)
    else:
        good = done.returncode == 0 and found["sound"]
    words = "broken on purpose, and seen" if broken(proof) else "sound"
    rows: list[report.Row] = [(f"{proof} {' '.join(counts)}".strip(), words if good else "NOT AS IT MUST BE", good)]
    if not broken(proof):
        rows += [(f"  {key.strip()}", value, None) for key, value in found["counts"].items()]
        rows += [(f"  {problem[:160]}", "", False) for problem in found.get("problems", [])[:5]]
    return good, [*rows, ("  wall seconds", round(watch.seconds()), None)]


def main(arguments: Sequence[str]) -> int:
    """0 when every proof is as it must be; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m kiki_agent.testing.chaos", description=__doc__)
    parser.add_argument("--small", action="store_true", help="at counts that take minutes")
    parser.add_argument("--only", nargs="*", default=(), help="names of proofs, such as crash")
    options = parser.parse_args(arguments)
    rows: list[report.Row] = []
    fine = True
    for proof, counts in (SMALL if options.small else FULL).items():
        if options.only and proof.split(" ")[0] not in options.only:
            continue
        report.say(f"== {proof} {' '.join(counts)}")
        good, part = run(proof, counts)
        fine = fine and good
        rows += part
    report.write(report.table(f"Chaos on {report.machine()}", rows))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
