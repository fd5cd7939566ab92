"""One agent per database: a lock file beside it.

`fcntl.lockf` and not `flock`, because a forked worker would inherit the latter; and a file of its own, because closing
any descriptor of the database file would drop SQLite's own locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from kiki_agent.errors import StoreError

_held: dict[Path, int] = {}
"""Lock files held by this process, with its pid: these locks do not exclude within one process, and a forked child
inherits this table but not the locks."""


class AlreadyRunning(StoreError):
    """Another agent owns this database. Exit code 75."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is in use by another agent ({holder})")
        self.holder = holder
        """Who holds it, for example `pid 4711 on host-1`."""


class LockFile:
    """An exclusive lock, held until `release` or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> LockFile:
        """Take the lock at once or raise AlreadyRunning with the name of the holder; StoreError when it cannot be.

        On a disk that is read-only the lock is shared, which is enough to see a holder from before it was.
        """
        path = path.absolute()
        if _held.get(path) == os.getpid():
            raise AlreadyRunning(path, _me())
        shared = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            shared = error.errno == errno.EROFS and path.exists()
            if not shared:
                raise StoreError(f"the lock file {path} cannot be opened: {error.strerror}") from error
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "an unnamed process"
            os.close(descriptor)
            raise AlreadyRunning(path, holder) from error
        if not shared:
            os.ftruncate(descriptor, 0)
            with suppress(OSError):  # a full disk has no room for the name, and the lock is held without it
                os.write(descriptor, _me().encode() + b"\n")
        _held[path] = os.getpid()
        return cls(path, descriptor)

    def release(self) -> None:
        """Give the lock back; the file stays, so that nobody can lock a file that is already unlinked."""
        if _held.pop(self._path, None) is not None:
            os.close(self._descriptor)


def _me() -> str:
    return f"pid {os.getpid()} on {socket.gethostname()}"
