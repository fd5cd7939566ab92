"""Where cuts of spend are written down while the database cannot be written: a file whose room was taken beforehand.

A cut must not wait for a disk to be cured, and must not go unrecorded either. The file is as long from the start as it
will ever be, so writing into it needs no room; each line carries a checksum and is on the disk before its call begins.
What it holds enters the ledger, once, when the database takes writes again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from kiki_agent.errors import StoreError
from kiki_agent.model.intent import Intent
from kiki_agent.model.receipt import Outcome, Receipt
from kiki_agent.model.time import Instant
from kiki_agent.store.durable import sync_folder

SIZE = 4 * 1024 * 1024
"""Room for some 5,000 cuts and their outcomes."""


class Entry(msgspec.Struct, frozen=True):
    """One line: an intent about to be sent, or, with a receipt, how it ended."""

    at: int
    """Instant of the tick."""
    intent: Intent
    receipt: Receipt | None = None


class Fallback:
    """The file. Every method may block for a disk's sync; call them in a thread."""

    def __init__(self, path: Path, size: int = SIZE) -> None:
        self._path = path
        self._size = size
        self._descriptor: int | None = None
        self._end = 0
        self._known: dict[str, Receipt | None] = {}

    @property
    def pending(self) -> int:
        """Intents that wait to enter the ledger."""
        return len(self._known)

    def knows(self, key: str) -> bool:
        """Whether an intent waits here."""
        return key in self._known

    def prepare(self) -> None:
        """Take the room, and see what an earlier process left. Raises StoreError."""
        if self._descriptor is not None:
            return
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                missing = self._size - os.fstat(descriptor).st_size
                if missing > 0:  # zeros are written, not just promised: a promise may be broken on a full disk
                    os.pwrite(descriptor, bytes(missing), self._size - missing)
                    os.fsync(descriptor)
                    sync_folder(self._path.parent)
                if os.fstat(descriptor).st_size < self._size:
                    raise StoreError(f"{self._path} cannot be made {self._size} bytes long")
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise StoreError(f"the file for cuts {self._path} cannot be prepared: {error.strerror}") from error
        self._descriptor = descriptor
        entries = self.read()
        self._known = {each.intent.key: each.receipt for each in entries}

    def write_intents(self, now: Instant, intents: Sequence[Intent]) -> dict[str, Receipt]:
        """Write down cuts that are about to be sent; receipts of those that stand there already. Raises StoreError."""
        self.prepare()
        found = {}
        fresh = []
        for intent in intents:
            if intent.key in self._known:
                found[intent.key] = self._known[intent.key] or Receipt(intent.key, Outcome.UNKNOWN, "INTERRUPTED")
            else:
                fresh.append(intent)
        self._append([Entry(now, intent) for intent in fresh])
        return found

    def write_receipts(self, now: Instant, intents: Sequence[Intent], receipts: Sequence[Receipt]) -> None:
        """Write down how cuts ended. Raises StoreError."""
        self.prepare()
        self._append([Entry(now, *pair) for pair in zip(intents, receipts, strict=True)])

    def read(self) -> list[Entry]:
        """Every whole line; one that was cut off while it was written had not led to a call. Raises StoreError."""
        assert self._descriptor is not None
        try:
            data = os.pread(self._descriptor, self._size, 0)
        except OSError as error:
            raise StoreError(f"the file for cuts {self._path} cannot be read: {error.strerror}") from error
        entries: list[Entry] = []
        self._end = 0
        while (newline := data.find(b"\n", self._end)) > 0:
            checksum, _, body = data[self._end : newline].partition(b" ")
            if checksum != b"%08x" % zlib.crc32(body):
                break
            entries.append(msgspec.json.decode(body, type=Entry))
            self._end = newline + 1
        return entries

    def clear(self) -> None:
        """Forget everything, after it entered the ledger. Raises StoreError."""
        assert self._descriptor is not None
        try:
            os.pwrite(self._descriptor, bytes(self._end), 0)
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise StoreError(f"the file for cuts {self._path} cannot be emptied: {error.strerror}") from error
        self._end = 0
        self._known = {}

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, entries: Sequence[Entry]) -> None:
        assert self._descriptor is not None
        lines = []
        for each in entries:
            body = msgspec.json.encode(each)
            lines.append(b"%08x %b\n" % (zlib.crc32(body), body))
        data = b"".join(lines)
        if self._end + len(data) >= self._size:
            raise StoreError(f"the file for cuts {self._path} is full")
        try:
            os.pwrite(self._descriptor, data, self._end)
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise StoreError(f"the file for cuts {self._path} cannot be written: {error.strerror}") from error
        self._end += len(data)
        self._known |= {each.intent.key: each.receipt for each in entries}
