"""The last known entry, kept outside the database: what a forger of the whole file would also have to forge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from kiki_agent.ledger.canonical import canonical
from kiki_agent.store.durable import replace_file


@dataclass(frozen=True, slots=True)
class KnownHead:
    """An entry that was committed once and must be found in the chain for ever."""

    client_id: str
    seq: int
    hash: str
    """Hexadecimal."""
    reallocation_id: int = 0
    """The last row of the reallocation log, 0 when it had none."""
    reallocation_hash: str = ""


class UnreadableHead(Exception):
    """The file is there and says nothing that can be understood."""


def read_head(path: Path) -> KnownHead | None:
    """The known head, or None when there is no file. Raises UnreadableHead."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableHead(f"{path} cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(data, type=KnownHead)
    except msgspec.DecodeError as error:
        raise UnreadableHead(f"{path} does not name a ledger entry: {error}") from error


def write_head(path: Path, head: KnownHead, *, sync: bool) -> None:
    """Replace the known head. Raises OSError."""
    body = {name: getattr(head, name) for name in KnownHead.__slots__}
    replace_file(path, canonical(body) + b"\n", sync=sync)
