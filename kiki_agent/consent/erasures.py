"""The list of who was erased: a file beside the database that is only ever added to, and that no restore replaces.

An older backup brings erased people's rows back, an older copy of the personal keys brings their keys back; the list
says at every start what must go again. It names nobody: a line holds a token and a keyed hash.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kiki_agent.errors import StoreError
from kiki_agent.model import Instant
from kiki_agent.store.durable import replace_file, sync_folder


@dataclass(frozen=True, slots=True)
class Erased:
    """One line."""

    mark: str
    """Keyed hash of the customer's id, see `Vault.mark`."""
    subject: str
    """The token the customer had; empty when nothing was known of them."""
    at: Instant
    lifted: bool = False
    """The person has come back by themselves: sources may state them again. What was erased stays erased."""


class ErasureList:
    """The file, and what it says."""

    def __init__(self, path: Path, lines: list[Erased], *, sync: bool) -> None:
        self._path = path
        self._sync = sync
        self.lines = lines

    @classmethod
    def load(cls, path: Path, *, sync: bool = True) -> ErasureList:
        """Read the file; a last line that was cut off by a crash was never acknowledged and is dropped.

        Raises StoreError for a file that cannot be read or is not such a list.
        """
        try:
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                replace_file(path, whole, sync=sync)
        except OSError as error:
            raise StoreError(f"the list of erasures {path} cannot be read: {error.strerror}") from error
        lines = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                lines.append(msgspec.json.decode(line, type=Erased))
            except msgspec.DecodeError as error:
                raise StoreError(f"{path}:{number} is no erasure ({error}); restore the file from a copy") from error
        return cls(path, lines, sync=sync)

    def add(self, lines: Iterable[Erased]) -> None:
        """Add lines, durably. Raises StoreError."""
        new = list(lines)
        if not new:
            return
        text = b"".join(msgspec.json.encode(each, order="sorted") + b"\n" for each in new)
        made = not self._path.exists()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                _append(descriptor, text, sync=self._sync)
            finally:
                os.close(descriptor)
            if made and self._sync:
                sync_folder(self._path.parent)
        except OSError as error:
            raise StoreError(f"the list of erasures {self._path} cannot be written: {error.strerror}") from error
        self.lines += new

    @property
    def refused(self) -> set[str]:
        """Marks of people no source may bring back."""
        marks: set[str] = set()
        for each in self.lines:
            (marks.discard if each.lifted else marks.add)(each.mark)
        return marks

    @property
    def subjects(self) -> list[str]:
        """Tokens that must stand for nobody."""
        return [each.subject for each in self.lines if each.subject]


def _append(descriptor: int, text: bytes, *, sync: bool) -> None:
    """All of it or nothing: on a full disk half a line would spoil the next one, too. Raises OSError."""
    before = os.fstat(descriptor).st_size
    try:
        while text:
            text = text[os.write(descriptor, text) :]
        if sync:
            os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before)
        raise
