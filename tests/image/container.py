"""An image of buildah's store, and a container of it that needs no engine: namespaces, a read-only root, one volume.

What is executed is what the image's configuration says: Entrypoint, Cmd, User, Env, WorkingDir. The container has its
own mounts and processes, no capability, no way to gain one, a /dev with nothing but null, zero, full and random
numbers, no /tmp to write to, and the machine's network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0
"""Generous: the machine may be busy."""
SHOWN = re.compile(
    r"^The access token of this agent is (\S+) - it is kept in (\S+) and not shown again\.$", re.MULTILINE
)

_SETUP = """
set -eu
root=$1 volume=$2 writable=$3; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind "$volume" "$root/data"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom; do : > "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
mount -o remount,ro "$root/dev"
[ "$writable" = yes ] || mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
"""


ROOM = 4 << 30
"""Bytes of disk that base, layers and the unpacked image take together, generously."""


def obstacle() -> str | None:
    """Why no image can be built and run here; None when it can."""
    if os.geteuid() != 0:
        return "images are built and run as root"
    missing = [name for name in ("buildah", "mmdebstrap", "unshare", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} missing; on Debian, as root: apt-get install buildah mmdebstrap util-linux"
    free = shutil.disk_usage("/var/lib").free
    if free < ROOM:
        return f"an image takes {ROOM >> 30} GB of disk while it is built, {free >> 20} MB are free"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "this machine does not let root make mounts and namespaces"


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def build(name: str) -> float:
    """`make image` under another name; the seconds it took."""
    begun = time.monotonic()
    done = subprocess.run(
        [ROOT / "deploy" / "build-image", name], capture_output=True, text=True, timeout=840, check=False
    )
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    return time.monotonic() - begun


@dataclass(frozen=True)
class Image:
    """An image, unpacked where it can be looked at."""

    config: dict[str, Any]
    """What `docker inspect` calls Config."""
    root: Path
    """Its files; whoever writes here changes a copy that is thrown away."""

    @property
    def owner(self) -> tuple[int, int]:
        """Numbers of the user and group that it runs as."""
        user, _, group = str(self.config["User"]).partition(":")
        return int(user), int(group)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(os.lstat(Path(folder, name)).st_size for folder, _, names in os.walk(self.root) for name in names)

    def files(self) -> dict[str, tuple[int, int, int, int]]:
        """Path -> mode, owner, size and date of everything but the volume and what the kernel shows."""
        found = {}
        for folder, folders, names in os.walk(self.root):
            if Path(folder) == self.root:
                folders[:] = [name for name in folders if name not in ("data", "proc", "dev", "sys")]
            for name in (*folders, *names):
                path = Path(folder, name)
                seen = path.lstat()
                dated = 0 if path.is_dir() and not path.is_symlink() else seen.st_mtime_ns
                found[str(path.relative_to(self.root))] = (seen.st_mode, seen.st_uid, seen.st_size, dated)
        return found


@contextmanager
def unpacked(name: str) -> Iterator[Image]:
    """The image under this name, until the block ends."""
    container = _buildah("from", name)
    try:
        config = json.loads(_buildah("inspect", "--type", "image", name))["Docker"]["config"]
        yield Image(config, Path(_buildah("mount", container)))
    finally:
        _buildah("umount", container)
        _buildah("rm", container)


def _buildah(*arguments: str) -> str:
    driver = {} if _overlays() else {"STORAGE_DRIVER": "vfs"}
    command = ["buildah", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | driver, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _overlays() -> bool:
    """Whether buildah gets along with this machine's file system; deploy/build-image asks the same."""
    return subprocess.run(["buildah", "info"], capture_output=True, check=False).returncode == 0


def owned_volume(folder: Path, image: Image) -> Path:
    """A folder as an engine makes a new volume: owner and mode are those of the folder in the image."""
    folder.mkdir()
    within = (image.root / "data").stat()
    folder.chmod(within.st_mode & 0o7777)
    os.chown(folder, within.st_uid, within.st_gid)
    return folder


@dataclass
class Container:
    """One volume, and a container on it that is started and ended any number of times."""

    image: Image
    volume: Path
    environ: dict[str, str] = field(default_factory=dict)
    """Given on top of the image's own."""
    writable: bool = False
    """Whether the root may be written to."""
    port: int = field(default_factory=free_port)
    token: str | None = None
    process: subprocess.Popen[bytes] | None = None
    _from: int = 0

    @property
    def log(self) -> Path:
        """What it said on both outputs, over all starts."""
        return self.volume.with_suffix(".log")

    @property
    def said(self) -> str:
        """What it said since its last start."""
        return self.log.read_bytes()[self._from :].decode()

    def start(self, *command: str) -> None:
        """Execute what the image says, with another command in the place of its own if one is given."""
        self._from = self.log.stat().st_size if self.log.exists() else 0
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        setup = ["sh", "-c", _SETUP, "sh", str(self.image.root), str(self.volume), "yes" if self.writable else "no"]
        config = self.image.config
        arguments = [*config["Entrypoint"], *(command or config["Cmd"])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*namespaces, *setup, *self._as_user(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )

    def _as_user(self) -> list[str]:
        user, group = self.image.owner
        rights = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
        given = [f"{name}={value}" for name, value in {"KIKI__HTTP__PORT": str(self.port), **self.environ}.items()]
        become = ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={group}", *rights]
        within = ["/usr/bin/env", "-i", "-C", str(self.image.config["WorkingDir"])]
        return [*become, *within, *self.image.config["Env"], *given]

    def execute(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one more program in the running container, as `docker exec` does."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root"]
        return subprocess.run(
            [*enter, *self._as_user(), *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    @property
    def pid(self) -> int:
        """The agent's number outside of the container; inside it is 1."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def processes(self) -> dict[int, dict[str, str]]:
        """All processes of the container, with what the kernel says of each."""
        found, waiting = {}, [self.pid]
        inside = os.readlink(f"/proc/{self.pid}/ns/pid")
        waiting += [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        for pid in waiting:
            try:
                if os.readlink(f"/proc/{pid}/ns/pid") == inside:
                    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                    found[pid] = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def get(self, path: str, token: str | None = None) -> tuple[int, Any]:
        """Status and JSON; (0, None) when nobody answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return 0, None

    def wait_ready(self) -> float:
        """Until `/ready` answers 200, asked with the token it printed at its first start; the seconds that took."""
        begun = time.monotonic()
        status, body = 0, None
        while time.monotonic() - begun < PATIENCE_S:
            assert self.process is not None
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.said[-2_000:]}"
            if self.token is None and (shown := SHOWN.search(self.said)):
                self.token = shown[1]
            status, body = self.get("/ready", self.token)
            if status == 200:
                return time.monotonic() - begun
            time.sleep(0.01)
        raise AssertionError(f"/ready was {status} {body}; {self.said[-2_000:]}")

    def status(self) -> dict[str, Any]:
        """What `/status` says to who has the token."""
        code, body = self.get("/status", self.token)
        assert code == 200, body
        return dict(body)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send the agent a signal, as an engine does, and wait for the end: exit code, seconds."""
        assert self.process is not None
        begun = time.monotonic()
        os.kill(self.pid, number)
        code = self.process.wait(timeout=PATIENCE_S)
        self.process = None
        return code, time.monotonic() - begun

    def wait(self) -> int:
        """The exit code of one that ends by itself."""
        assert self.process is not None
        code = self.process.wait(timeout=PATIENCE_S)
        self.process = None
        return code

    def clean_up(self) -> None:
        """End what still runs; with the first process of the container all others go."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.process.wait(timeout=PATIENCE_S)
