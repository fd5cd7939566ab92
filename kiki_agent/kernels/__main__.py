"""`python -m kiki_agent.kernels [MODULE...]`: compile the kernels of these modules into the on-disk cache.

Without a module those of the whole package, which is what an image brings along.
"""

import os
import sys
from pathlib import Path

from kiki_agent.kernels.compile import load_compiled


def declaring() -> list[str]:
    """Names of the package's modules that declare kernels, found by their text: importing all would be a long way."""
    folder = Path(__file__).parents[1]
    found = [file for file in sorted(folder.rglob("*.py")) if "\n@kernel(" in file.read_text(encoding="utf-8")]
    return [".".join((folder.name, *file.relative_to(folder).with_suffix("").parts)) for file in found]


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(10)
    failed = load_compiled(sys.argv[1:] or declaring())
    sys.stderr.writelines(f"{line}\n" for line in failed)
    sys.exit(1 if failed else 0)
