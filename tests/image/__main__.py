"""`python -m tests.image [NAME]`: build the image, and say how large it is and how soon a container of it is ready."""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
from pathlib import Path

from .container import Container, build, obstacle, owned_volume, unpacked

STARTS = 8


def main(name: str) -> None:
    """Print what docs/container.md says of the image."""
    if (why := obstacle()) is not None:
        sys.exit(f"no image here: {why}")
    print(f"built in {build(name):.0f} s")
    with unpacked(name) as image, tempfile.TemporaryDirectory() as folder:
        print(f"{image.size / 1e6:.0f} MB unpacked")
        container = Container(image, owned_volume(Path(folder) / "volume", image))
        ready = []
        try:
            for number in range(1 + STARTS):
                container.start()
                ready.append(container.wait_ready())
                container.end(signal.SIGKILL if number % 2 else signal.SIGTERM)
        finally:
            container.clean_up()
    first, *warm = ready
    print(f"ready after {first:.2f} s on a new volume")
    span = f"{min(warm):.2f} to {max(warm):.2f}, {STARTS} starts"
    print(f"ready after {statistics.median(warm):.2f} s on a used one (median; {span})")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost/kiki-agent-measured")
