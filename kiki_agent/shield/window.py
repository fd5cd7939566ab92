"""The exact sliding window: what was spent in the last so many seconds."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kiki_agent.kernels.windows import spend_all

_WORTH_COMPACTING = 1024


class SlidingWindow:
    """A log of spends with a running sum; a spend at t counts before t + span and is free at exactly t + span.

    Constant amortised cost however many records it holds, 16 bytes each. A clock that jumps back never frees a record
    early and never keeps one for good: records from beyond the new present are taken as spent at that present.
    """

    __slots__ = ("_amounts", "_first", "_now", "_times", "span", "total")

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

    def advance(self, now: int) -> int:
        """Forget what has become free by `now`; returns what still counts."""
        if now < self._now:
            self._turn_back(now)
        self._now = now
        if self._first < len(self._times) and self._times[self._first] <= now - self.span:
            self._forget(now - self.span)
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
            if now < self._now:
                self._turn_back(now)
            self._now = now
            first, times = self._first, self._times
            oldest = now - self.span
            if first < len(times) and times[first] <= oldest:
                if first < _WORTH_COMPACTING and (first + 1 == len(times) or times[first + 1] > oldest):
                    self.total -= self._amounts[first]
                    self._first = first + 1
                else:
                    self._forget(oldest)
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

    def insert(self, at: int, amount: int) -> int:
        """Count a spend known only now, not later than the last `advance`; never before a record that already stands,
        so at most it counts too long. Returns the instant it counts from."""
        if amount < 0:
            raise ValueError(f"a spend is not negative, was {amount}")
        at = min(at, self._now)
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
        return len(self._times) - self._first

    @property
    def oldest(self) -> int | None:
        """Instant of the oldest record that counts."""
        return self._times[self._first] if self._first < len(self._times) else None

    def records(self) -> Iterator[tuple[int, int]]:
        """(instant, micros) of all records that count, oldest first."""
        return zip(self._times[self._first :], self._amounts[self._first :], strict=True)

    def _forget(self, limit: int) -> None:
        times, amounts, first = self._times, self._amounts, self._first
        count = len(times)
        gone = 0
        while first < count and times[first] <= limit:
            gone += amounts[first]
            first += 1
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

    def _turn_back(self, now: int) -> None:
        index = len(self._times) - 1
        while index >= self._first and self._times[index] > now:
            self._times[index] = now
            index -= 1
