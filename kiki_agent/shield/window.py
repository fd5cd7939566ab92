"""The exact sliding window: what was spent in the last so many seconds."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kiki_agent.kernels.windows import spend_all

_FEWEST = 64
"""Records there is room for at least."""
_NEVER = 2**63 - 1
LONG_STEP = 10
"""A step forward of more than this part of the span may be a jump of the clock, and what it frees is remembered."""

MOST_LEFT = 4_096
"""So many of them at most."""


class SlidingWindow:
    """A log of spends with a running sum; a spend at t counts before t + span and is free at exactly t + span.

    Constant amortised cost however many records it holds, 16 to 32 bytes each. A clock that jumps, and perhaps jumps
    again, never frees a record early and never keeps one for good: records from beyond a new present are taken as spent
    at that present, and count as well wherever the clock comes to the time they were made at.
    """

    __slots__ = (
        "_amounts",
        "_due",
        "_first",
        "_last",
        "_left",
        "_long",
        "_now",
        "_plain",
        "_settled_until",
        "_stranded",
        "_times",
        "span",
        "total",
    )

    def __init__(self, span: int) -> None:
        if span <= 0:
            raise ValueError(f"a window spans a positive time, was {span}")
        self.span = span
        """Microseconds."""
        self.total = 0
        """Micros spent within the window as of the last `advance`."""
        self._times = _room(_FEWEST)
        self._amounts = _room(_FEWEST)
        self._first = 0
        self._last = 0
        """The records from `_first` up to it count."""
        self._now = 0
        self._long = span // LONG_STEP
        self._due = 0
        """Later than `_now`. Going forward to before it changes nothing: no record leaves, none comes back."""
        self._plain = False
        """Whether nothing happens at `_due` but that the oldest record leaves."""
        self._stranded: list[tuple[int, int, int]] = []
        """(counts from, made at, micros) of records that the clock has jumped back over."""
        self._settled_until = _NEVER
        """Before it none of them can be forgotten and none of `_left` comes back, so nobody needs to look."""
        self._left: list[tuple[int, int]] = []
        """(made at, micros) of what long steps forward freed, should the clock come back or come to it."""

    def advance(self, now: int) -> int:
        """Forget what has become free by `now`; returns what still counts."""
        if self._now <= now < self._due:
            self._now = now
        else:
            self._move(now)
        return self.total

    def record(self, now: int, amount: int) -> None:
        """Count a spend at `now`. Raises ValueError on a negative amount."""
        if amount < 0:
            raise ValueError(f"a spend is not negative, was {amount}")
        self.advance(now)
        self._append(now, amount)

    def try_spend(self, now: int, amount: int, limit: int) -> bool:
        """Check and record in one step: count a spend at `now` if the window then holds at most `limit`.

        Raises ValueError on a negative amount. Written out, as calls would cost more than the work.
        """
        if now >= self._due:
            first = self._first
            following = first + 1
            if (  # the common case: one record leaves
                self._plain
                and following < self._last
                and now - self._now <= self._long
                and now < (due := self._times[following] + self.span)
            ):
                self.total -= self._amounts[first]
                self._first = following
                self._due = due
                self._now = now
            else:
                self._move(now)
        elif now >= self._now:
            self._now = now
        else:
            self._move(now)
        total = self.total + amount
        if total > limit:
            return False
        if amount < 0:
            raise ValueError(f"a spend is not negative, was {amount}")
        last = self._last
        try:
            self._times[last] = now
        except IndexError:
            self._make_room(1)
            last = self._last
            self._times[last] = now
        self._amounts[last] = amount
        self._last = last + 1
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
        if self._settled_until != _NEVER or int(np.diff(at).max(initial=0)) > self._long:
            return self._one_by_one(at, amounts, limit)
        if self._last + len(at) > len(self._times):
            self._make_room(len(at))
        state = np.array([self._first, self._last, self.total, self._now], dtype=np.int64)
        accepted = np.zeros(len(at), dtype=np.uint8)
        times, held = np.frombuffer(self._times, np.int64), np.frombuffer(self._amounts, np.int64)
        spend_all(times, held, state, at, amounts, limit, self.span, accepted)
        self._first, self._last, self.total, self._now = state.tolist()
        self._look_ahead()
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
        if self._first < self._last:
            at = max(at, self._times[self._last - 1])
        if at > self._now - self.span:
            self._append(at, amount)
            self._look_ahead()
        return at

    @property
    def count(self) -> int:
        """Number of records that count."""
        return self._last - self._first + len(self._stranded)

    @property
    def oldest(self) -> int | None:
        """Instant of the oldest record that counts."""
        return next((since for since, _ in self.records()), None)

    def records(self) -> Iterator[tuple[int, int]]:
        """(instant from which it counts, micros) of all records that count, oldest first."""
        counting = range(self._first, self._last)
        plain = zip(map(self._times.__getitem__, counting), map(self._amounts.__getitem__, counting), strict=True)
        if not self._stranded:
            return plain
        return iter(sorted([*plain, *((since, amount) for since, _, amount in self._stranded)]))

    def _move(self, now: int) -> None:
        """Come to another present, forward or back."""
        before, self._now = self._now, now
        if now < before:
            self._turn_back(now)
        if self._first < self._last and self._times[self._first] <= now - self.span:
            self._forget(now - self.span, now - before > self._long)
        if now >= self._settled_until:
            self._look(now)
        self._look_ahead()

    def _look_ahead(self) -> None:
        some = self._first < self._last
        oldest = self._times[self._first] if some else self._now
        self._due = min(oldest + self.span, self._settled_until)
        self._plain = some and self._settled_until == _NEVER

    def _forget(self, limit: int, long_step: bool) -> None:
        times, amounts, first, last = self._times, self._amounts, self._first, self._last
        gone = 0
        while first < last and times[first] <= limit:
            gone += amounts[first]
            first += 1
        if long_step:
            self._left += zip(times[self._first : first], amounts[self._first : first], strict=True)
            del self._left[:-MOST_LEFT]
        self.total -= gone
        self._first = first

    def _append(self, at: int, amount: int) -> None:
        if self._last == len(self._times):
            self._make_room(1)
        self._times[self._last] = at
        self._amounts[self._last] = amount
        self._last += 1
        self.total += amount

    def _make_room(self, more: int) -> None:
        """Move what counts to the front of memory twice as large as is needed now, be that more or less than before."""
        first, last = self._first, self._last
        count = last - first
        times, amounts = _room(max(_FEWEST, 2 * (count + more))), _room(max(_FEWEST, 2 * (count + more)))
        times[:count] = self._times[first:last]
        amounts[:count] = self._amounts[first:last]
        self._times, self._amounts = times, amounts
        self._first, self._last = 0, count

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
        self._look_ahead()

    def _turn_back(self, now: int) -> None:
        times, amounts, last = self._times, self._amounts, self._last
        index = last
        while index > self._first and times[index - 1] > now:
            index -= 1
        stranded = [(min(since, now), made, amount) for since, made, amount in self._stranded]
        stranded += [(now, made, amount) for made, amount in zip(times[index:last], amounts[index:last], strict=True)]
        self._last = index
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


def _room(records: int) -> memoryview[int]:
    """Memory for so many numbers, quicker to read and write than an array is."""
    return memoryview(array("q", bytes(8 * records)))
