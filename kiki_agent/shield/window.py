"""The exact sliding window: what was spent in the last so many seconds."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kiki_agent.kernels.windows import spend_all

_WORTH_COMPACTING = 1024
_NEVER = 2**63 - 1
LONG_STEP = 10
"""A step forward of more than this part of the span may be a jump of the clock, and what it frees is remembered."""

MOST_LEFT = 4_096
"""So many of them at most."""


class SlidingWindow:
    """A log of spends with a running sum; a spend at t counts before t + span and is free at exactly t + span.

    Constant amortised cost however many records it holds, 16 bytes each. A clock that jumps, and perhaps jumps again,
    never frees a record early and never keeps one for good: records from beyond a new present are taken as spent at
    that present, and count as well wherever the clock comes to the time they were made at.
    """

    __slots__ = ("_amounts", "_first", "_left", "_now", "_settled_until", "_stranded", "_times", "span", "total")

    def __init__(self, span: int) -> None:
        if span <= 0:
            raise ValueError(f"a window spans a positive time, was {span}")
        self.span = span
        """Microseconds."""
        self.total = 0
        """Micros spent within the window as of the last `advance`."""
        self._times = array("q")
        self._amounts = array("q")
        self._first = 0
        self._now = 0
        self._stranded: list[tuple[int, int, int]] = []
        """(counts from, made at, micros) of records that the clock has jumped back over."""
        self._settled_until = _NEVER
        """Before it none of them can be forgotten and none of `_left` comes back, so nobody needs to look."""
        self._left: list[tuple[int, int]] = []
        """(made at, micros) of what long steps forward freed, should the clock come back or come to it."""

    def advance(self, now: int) -> int:
        """Forget what has become free by `now`; returns what still counts."""
        before, self._now = self._now, now
        if now < before:
            self._turn_back(now)
        if self._first < len(self._times) and self._times[self._first] <= now - self.span:
            self._forget(now - self.span, now - before > self.span // LONG_STEP)
        if now >= self._settled_until:
            self._look(now)
        return self.total

    def record(self, now: int, amount: int) -> None:
        """Count a spend at `now`. Raises ValueError on a negative amount."""
        if amount < 0:
            raise ValueError(f"a spend is not negative, was {amount}")
        if now != self._now:
            self.advance(now)
        self._times.append(now)
        self._amounts.append(amount)
        self.total += amount

    def try_spend(self, now: int, amount: int, limit: int) -> bool:
        """Check and record in one step: count a spend at `now` if the window then holds at most `limit`.

        Raises ValueError on a negative amount.
        """
        if now != self._now:
            before, self._now = self._now, now
            if now < before:
                self._turn_back(now)
            if now >= self._settled_until:
                self._look(now)
            first, times = self._first, self._times
            oldest = now - self.span
            if first < len(times) and times[first] <= oldest:
                if now - before > self.span // LONG_STEP:
                    self._forget(oldest, True)
                elif first < _WORTH_COMPACTING and (first + 1 == len(times) or times[first + 1] > oldest):
                    self.total -= self._amounts[first]
                    self._first = first + 1
                else:
                    self._forget(oldest, False)
        total = self.total + amount
        if total > limit:
            return False
        if amount < 0:
            raise ValueError(f"a spend is not negative, was {amount}")
        self._times.append(now)
        self._amounts.append(amount)
        self.total = total
        return True

    def try_spend_all(self, at: npt.NDArray[np.int64], amounts: npt.NDArray[np.int64], limit: int) -> list[bool]:
        """`try_spend` of n spends in their order, in one call of a kernel; which of them were counted.

        Instants that run back count as the latest one before them, as a batch is one look at the clock. Raises
        ValueError on a negative amount or instants and amounts of different length, and then nothing is counted.
        """
        if len(at) != len(amounts):
            raise ValueError(f"{len(at)} instants for {len(amounts)} amounts")
        if not len(at):
            return []
        if int(amounts.min()) < 0:
            raise ValueError(f"a spend is not negative, was {int(amounts.min())}")
        self.advance(int(at[0]))
        if self._settled_until != _NEVER or int(np.diff(at).max(initial=0)) > self.span // LONG_STEP:
            return self._one_by_one(at, amounts, limit)
        known = len(self._times)
        room = bytes(8 * len(at))
        self._times.frombytes(room)
        self._amounts.frombytes(room)
        state = np.array([self._first, known, self.total, self._now], dtype=np.int64)
        accepted = np.zeros(len(at), dtype=np.uint8)
        times, held = np.frombuffer(self._times, np.int64), np.frombuffer(self._amounts, np.int64)
        spend_all(times, held, state, at, amounts, limit, self.span, accepted)
        del times, held  # an array whose memory is looked at cannot change its length
        self._first, known, self.total, self._now = state.tolist()
        del self._times[known:]
        del self._amounts[known:]
        self._compact()
        return accepted.astype(bool).tolist()

    def _one_by_one(self, at: npt.NDArray[np.int64], amounts: npt.NDArray[np.int64], limit: int) -> list[bool]:
        """The same without the kernel, which knows nothing of jumps."""
        return [
            self.try_spend(max(self._now, instant), amount, limit)
            for instant, amount in zip(at.tolist(), amounts.tolist(), strict=True)
        ]

    def insert(self, at: int, amount: int) -> int:
        """Count a spend known only now, not later than the last `advance`; never before a record that already stands,
        so at most it counts too long. Returns the instant it counts from."""
        if amount < 0:
            raise ValueError(f"a spend is not negative, was {amount}")
        if at > self._now:  # written down before the clock jumped back
            self._strand([(self._now, at, amount)])
            self.total += amount
            return self._now
        if self._first < len(self._times):
            at = max(at, self._times[-1])
        if at > self._now - self.span:
            self._times.append(at)
            self._amounts.append(amount)
            self.total += amount
        return at

    @property
    def count(self) -> int:
        """Number of records that count."""
        return len(self._times) - self._first + len(self._stranded)

    @property
    def oldest(self) -> int | None:
        """Instant of the oldest record that counts."""
        return min((since for since, _ in self.records()), default=None) if self._stranded else self._first_time()

    def _first_time(self) -> int | None:
        return self._times[self._first] if self._first < len(self._times) else None

    def records(self) -> Iterator[tuple[int, int]]:
        """(instant from which it counts, micros) of all records that count, oldest first."""
        counting = range(self._first, len(self._times))
        plain = zip(map(self._times.__getitem__, counting), map(self._amounts.__getitem__, counting), strict=True)
        if not self._stranded:
            return plain
        return iter(sorted([*plain, *((since, amount) for since, _, amount in self._stranded)]))

    def _forget(self, limit: int, long_step: bool) -> None:
        times, amounts, first = self._times, self._amounts, self._first
        count = len(times)
        gone = 0
        while first < count and times[first] <= limit:
            gone += amounts[first]
            first += 1
        if long_step:
            self._left += zip(times[self._first : first], amounts[self._first : first], strict=True)
            del self._left[:-MOST_LEFT]
        self.total -= gone
        self._first = first
        self._compact()

    def _compact(self) -> None:
        """Give memory back once most of it holds what no longer counts."""
        first = self._first
        if first >= _WORTH_COMPACTING and 2 * first >= len(self._times):
            del self._times[:first]
            del self._amounts[:first]
            self._first = 0

    def _look(self, now: int) -> None:
        """Of records that the clock jumped back over: those stay that it has come to again, or has not aged enough.

        One that has aged enough at a time before its own is free, until the clock comes to that.
        """
        limit = now - self.span
        kept = []
        for since, made, amount in self._stranded:
            if since <= limit and limit < made <= now:
                kept.append((made, made, amount))
            elif since > limit:
                kept.append((since, made, amount))
            else:
                self.total -= amount
                self._left.append((made, amount))
        away = []
        for made, amount in self._left:
            if limit < made <= now:
                kept.append((made, made, amount))
                self.total += amount
            else:
                away.append((made, amount))
        self._left = away[-MOST_LEFT:]
        self._stranded = []
        self._settled_until = min((made for made, _ in self._left if made > now), default=_NEVER)
        self._strand(kept)

    def _strand(self, records: list[tuple[int, int, int]]) -> None:
        """Keep records that the clock jumped back over."""
        if not records:
            return
        self._settled_until = min(self._settled_until, min(since for since, _, _ in records) + self.span)
        self._stranded += records

    def _turn_back(self, now: int) -> None:
        times, amounts = self._times, self._amounts
        index = len(times)
        while index > self._first and times[index - 1] > now:
            index -= 1
        stranded = [(min(since, now), made, amount) for since, made, amount in self._stranded]
        stranded += [(now, made, amount) for made, amount in zip(times[index:], amounts[index:], strict=True)]
        del times[index:]
        del amounts[index:]
        freed, self._left = self._left, []
        for made, amount in freed:
            if now - self.span < made:  # freed by a step forward that was none
                stranded.append((min(made, now), made, amount))
                self.total += amount
            else:
                self._left.append((made, amount))
        self._stranded = []
        self._settled_until = _NEVER
        self._strand(stranded)
