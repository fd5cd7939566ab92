"""Records what SQLite and the head's writer do to files, in order: writes, syncs, truncations, names.

Python's sqlite3 offers no way to a file system of one's own, but SQLite itself does (https://www.sqlite.org/vfs.html),
and ctypes reaches the library that is loaded already. The recorder registers a copy of the default file system in which
four methods of each file are replaced: they note what is asked for and pass it on. Syncs are noted and not passed on,
which makes a recording quick; nothing else changes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kiki_agent.store import durable

_int, _int64, _pointer, _text = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at a place in a file."""

    path: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file has this size from now on."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """What was written to a file before is on the disk, and so is its name."""

    path: str


@dataclass(frozen=True, slots=True)
class Create:
    """A file that was not there, empty."""

    path: str


@dataclass(frozen=True, slots=True)
class Rename:
    """A file takes the name of another."""

    path: str
    to: str


@dataclass(frozen=True, slots=True)
class Remove:
    """A name is gone."""

    path: str


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """All names of a folder are on the disk."""

    path: str


@dataclass(frozen=True, slots=True)
class Told:
    """Something was acknowledged to the outside: from now on it must not be lost."""

    what: str
    fact: str


Operation = Write | Truncate | Sync | Create | Rename | Remove | SyncFolder | Told

# -- SQLite's own structures (sqlite3.h) ----------------------------------------------------------------------------

# The name is passed on as the pointer it is: SQLite goes on using it as long as the file is open.
_XOPEN = ctypes.CFUNCTYPE(_int, _pointer, _pointer, _pointer, _int, _pointer)
_XDELETE = ctypes.CFUNCTYPE(_int, _pointer, _text, _int)
_XCLOSE = ctypes.CFUNCTYPE(_int, _pointer)
_XWRITE = ctypes.CFUNCTYPE(_int, _pointer, _pointer, _int, _int64)
_XTRUNCATE = ctypes.CFUNCTYPE(_int, _pointer, _int64)
_XSYNC = ctypes.CFUNCTYPE(_int, _pointer, _int)


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("iVersion", _int),
        ("szOsFile", _int),
        ("mxPathname", _int),
        ("pNext", _pointer),
        ("zName", _text),
        ("pAppData", _pointer),
        ("xOpen", _XOPEN),
        ("xDelete", _XDELETE),
        *((name, _pointer) for name in ("xAccess", "xFullPathname", "xDlOpen", "xDlError", "xDlSym", "xDlClose")),
        *((name, _pointer) for name in ("xRandomness", "xSleep", "xCurrentTime", "xGetLastError")),
        *((name, _pointer) for name in ("xCurrentTimeInt64", "xSetSystemCall", "xGetSystemCall", "xNextSystemCall")),
    ]


class _Methods(ctypes.Structure):
    _fields_ = [
        ("iVersion", _int),
        ("xClose", _XCLOSE),
        ("xRead", _pointer),
        ("xWrite", _XWRITE),
        ("xTruncate", _XTRUNCATE),
        ("xSync", _XSYNC),
        *((name, _pointer) for name in ("xFileSize", "xLock", "xUnlock", "xCheckReservedLock", "xFileControl")),
        *((name, _pointer) for name in ("xSectorSize", "xDeviceCharacteristics", "xShmMap", "xShmLock")),
        *((name, _pointer) for name in ("xShmBarrier", "xShmUnmap", "xFetch", "xUnfetch")),
    ]


class NoSqlite(Exception):
    """This Python hides the SQLite it was built with."""


def _library() -> ctypes.CDLL:
    import _sqlite3

    try:
        library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = [_text]
        library.sqlite3_vfs_register.argtypes = [ctypes.POINTER(_Vfs), _int]
        library.sqlite3_vfs_unregister.argtypes = [ctypes.POINTER(_Vfs)]
    except (OSError, AttributeError) as error:
        raise NoSqlite(str(error)) from error
    return library


class Recorder:
    """Everything that happens to files of one folder while `recording` lasts, in one list."""

    def __init__(self, folder: Path) -> None:
        self.operations: list[Operation] = []
        self._folder = str(folder.absolute()) + os.sep
        self._paths: dict[int, str] = {}
        self._real: dict[int, _Methods] = {}
        self._methods: dict[int, _Methods] = {}
        self._keep: list[Any] = []

    def tell(self, what: str, fact: str) -> None:
        """Note an acknowledgement."""
        self.operations.append(Told(what, fact))

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Record every database opened meanwhile. Raises NoSqlite. One at a time in a process."""
        library = _library()
        default = library.sqlite3_vfs_find(None)
        real = default.contents
        mine = _Vfs.from_buffer_copy(real)
        mine.pNext, mine.zName = None, b"kiki-recorder"
        mine.xOpen = _XOPEN(lambda _vfs, name, file, flags, out: self._open(real, default, name, file, flags, out))
        mine.xDelete = _XDELETE(lambda _vfs, name, sync: self._delete(real, default, name, sync))
        library.sqlite3_vfs_register(ctypes.byref(mine), 1)
        before = vars(durable)["os"]
        setattr(durable, "os", _RecordingOs(self))  # noqa: B010
        try:
            yield self
        finally:
            setattr(durable, "os", before)  # noqa: B010
            library.sqlite3_vfs_unregister(ctypes.byref(mine))
            library.sqlite3_vfs_register(default, 1)
            self._keep.append(mine)  # connections that are still open go on using it

    def ours(self, path: str) -> bool:
        """Whether a file is one of the folder's."""
        return path.startswith(self._folder)

    # -- called by SQLite ---------------------------------------------------------------------------------------

    def _open(self, real: _Vfs, vfs: Any, name: int | None, file: int, flags: int, out: int) -> int:
        path = "" if name is None else os.fsdecode(ctypes.string_at(name))
        fresh = bool(path) and not os.path.exists(path)
        code: int = real.xOpen(ctypes.cast(vfs, _pointer), name, file, flags, out)
        if code == 0 and self.ours(path):
            if fresh:
                self.operations.append(Create(path))
            slot = ctypes.cast(file, ctypes.POINTER(_pointer))
            self._paths[file] = path
            slot[0] = ctypes.cast(ctypes.byref(self._replaced(slot[0])), _pointer).value
        return code

    def _replaced(self, address: int | None) -> _Methods:
        assert address is not None, "an open file has methods"
        known = self._methods.get(address)
        if known is not None:
            return known
        real = ctypes.cast(address, ctypes.POINTER(_Methods)).contents
        methods = _Methods.from_buffer_copy(real)
        methods.xWrite = _XWRITE(lambda file, data, size, at: self._write(real, file, data, size, at))
        methods.xTruncate = _XTRUNCATE(lambda file, size: self._truncate(real, file, size))
        methods.xSync = _XSYNC(self._sync)
        self._methods[address] = methods
        self._keep.append(real)
        return methods

    def _write(self, real: _Methods, file: int, data: int, size: int, at: int) -> int:
        self.operations.append(Write(self._paths[file], at, ctypes.string_at(data, size)))
        return int(real.xWrite(file, data, size, at))

    def _truncate(self, real: _Methods, file: int, size: int) -> int:
        self.operations.append(Truncate(self._paths[file], size))
        return int(real.xTruncate(file, size))

    def _sync(self, file: int, _flags: int) -> int:
        self.operations.append(Sync(self._paths[file]))
        return 0

    def _delete(self, real: _Vfs, vfs: Any, name: bytes, sync: int) -> int:
        path = os.fsdecode(name)
        code = int(real.xDelete(ctypes.cast(vfs, _pointer), name, 0))
        if code == 0 and self.ours(path):
            self.operations.append(Remove(path))
            if sync:
                self.operations.append(SyncFolder(os.path.dirname(path)))
        return code


class _RecordingOs:
    """Stands in for `os` where small files are replaced."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._open: dict[int, tuple[str, int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str | Path, flags: int, mode: int = 0o777) -> int:
        fresh = not os.path.exists(path)
        descriptor = os.open(path, flags, mode)
        if self._recorder.ours(str(path)) or os.path.isdir(path):
            self._open[descriptor] = (str(path), 0)
            if fresh:
                self._recorder.operations.append(Create(str(path)))
            elif flags & os.O_TRUNC:
                self._recorder.operations.append(Truncate(str(path), 0))
        return descriptor

    def write(self, descriptor: int, data: bytes) -> int:
        path, at = self._open[descriptor]
        self._recorder.operations.append(Write(path, at, bytes(data)))
        self._open[descriptor] = (path, at + len(data))
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        path = self._open[descriptor][0]
        self._recorder.operations.append(SyncFolder(path) if os.path.isdir(path) else Sync(path))

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        os.close(descriptor)

    def unlink(self, path: str | Path) -> None:
        os.unlink(path)
        self._recorder.operations.append(Remove(str(path)))

    def replace(self, path: str | Path, to: str | Path) -> None:
        os.replace(path, to)
        self._recorder.operations.append(Rename(str(path), str(to)))
