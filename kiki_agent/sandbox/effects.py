"""The sandbox's own record of what was done to it: every effect, in order, doubles included.

With a path it is a file of JSON lines that outlives the process; a new process replays it and has the same market.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from kiki_agent.model import DAY, Instant
from kiki_agent.model.money import split_by_weight
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox.market import Market

KINDS = {"adjust_bid": at.BID, "set_budget": at.BUDGET, "set_status": at.ACTIVE}
"""Kinds of effects and the row of `layout` they set."""
PLACEMENT = "place_bid"
"""A direct buy: an effect of its own, outside the auctions and not part of any spend report."""
KEPT = 3 * DAY
"""How long an effect can be asked for by its key."""


class Effect(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change of one campaign, as applied."""

    n: int
    key: str
    platform: str
    campaign: int
    kind: str
    before: int
    after: int
    at: int
    members: tuple[int, ...] = ()
    """For a budget that several campaigns share: all of them; `before` and `after` are the whole of it."""

    @property
    def effect_id(self) -> str:
        """The vendor's own id of the effect."""
        return f"fx-{self.n}"


def apply(market: Market, kind: str, campaign: int, after: int, members: Sequence[int] = ()) -> int:
    """Move a lever of the market; what it stood at before. A shared budget is divided evenly among its campaigns."""
    if kind == PLACEMENT:
        return 0
    if not members:
        return market.set_level(KINDS[kind], campaign, after)
    parts = split_by_weight(after, [1] * len(members))
    return sum(market.set_level(KINDS[kind], member, part) for member, part in zip(members, parts, strict=True))


class EffectsLog:
    """Appends effects and finds recent ones by key. `path=None` keeps no file."""

    def __init__(self, path: Path | None = None) -> None:
        self.count = 0
        """Effects so far, replayed ones included."""
        self._recent: deque[Effect] = deque()
        self._by_key: dict[str, list[Effect]] = {}
        self._encoder = msgspec.json.Encoder()
        self._file: BinaryIO | None = None
        self._path = path

    def replay(self, market: Market) -> int:
        """Apply what the file holds to a market that has seen none of it, and open the file for more.

        A torn last line (the process was killed while writing it) is cut off. Returns the number of effects; raises
        ValueError when another line is damaged or the market answers differently from what was recorded.
        """
        if self._path is None:
            return 0
        self._path.touch()
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                effect = msgspec.json.decode(line, type=Effect)
                market.advance_to(Instant(effect.at))
                before = apply(market, effect.kind, effect.campaign, effect.after, effect.members)
            except (msgspec.MsgspecError, KeyError, IndexError) as error:
                raise ValueError(f"{self._path}: line {number} is not an effect ({type(error).__name__})") from error
            if before != effect.before:
                raise ValueError(f"{self._path}: line {number} does not fit this market (other seed or epoch?)")
            self._remember(effect)
        self._file = self._path.open("r+b", buffering=0)
        self._file.truncate(whole)
        self._file.seek(whole)
        return self.count

    def append(self, effects: Sequence[Effect]) -> None:
        """Record effects; they are with the operating system when this returns."""
        for effect in effects:
            self._remember(effect)
        if self._file is not None and effects:
            self._file.write(b"".join(self._encoder.encode(effect) + b"\n" for effect in effects))

    def find(self, key: str) -> Sequence[Effect]:
        """Effects of the last days with this key, oldest first; more than one is a double."""
        return self._by_key.get(key, ())

    def recent(self) -> Iterator[Effect]:
        """Effects still kept, oldest first."""
        return iter(self._recent)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remember(self, effect: Effect) -> None:
        self.count += 1
        self._recent.append(effect)
        self._by_key.setdefault(effect.key, []).append(effect)
        while self._recent and self._recent[0].at < effect.at - KEPT:
            old = self._recent.popleft()
            rest = self._by_key[old.key]
            rest.remove(old)
            if not rest:
                del self._by_key[old.key]
