"""Small files beside the database that must be whole or absent, also after a power cut, and who may read them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def replace_file(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Put `data` in place of the file: write beside it, fsync, rename, fsync the folder. Raises OSError."""
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data)
        while rest:  # a disk that is nearly full takes a part, and only the next try says why
            rest = rest[os.write(descriptor, rest) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(beside, path)
    if sync:
        sync_folder(path.parent)


def remove_files(paths: Iterable[Path], *, sync: bool = True) -> None:
    """Remove files of one folder; what is not there is gone already. Raises OSError."""
    folders = set()
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        folders.add(path.parent)
    if sync:
        for folder in folders:
            sync_folder(folder)


def make_private(path: Path) -> None:
    """Make an empty file that its owner alone may read, unless there is one. What SQLite makes beside it is as private.

    A file that is there is not opened: closing it again would drop SQLite's locks on it. Raises OSError.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
