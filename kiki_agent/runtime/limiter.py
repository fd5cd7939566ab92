"""How many calls a vendor gets: an exact moving window, a guard against bursts, and what the vendor itself says.

Pure: whoever asks hands in the present instant in microseconds. A call made at t counts in [t, t + window); at exactly
t + window it is free again. So no half-open span of `window` ever holds more calls than allowed, whatever the order of
questions.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

SECOND: Final = 1_000_000
_NEVER: Final = -(1 << 62)
READ_SHARE: Final = 10
"""A tenth of the window is kept from reads, at least one call."""
CHANGE_SHARE: Final = 20
"""A twentieth of the window is kept from changes that raise spend, for stops and for single bids."""
ALARM_PERMILLE: Final = 900
REARM_PERMILLE: Final = 700
MOST_PAUSE_S: Final = 60
"""The longest pause after a refusal that names no instant."""
DAY: Final = 86_400 * SECOND
"""Nobody is left alone for longer at one asking, and what goes on being short is told again after it."""


class Priority(IntEnum):
    """Who goes first when calls are few."""

    READ = 0
    """Reports and lists: they can come a little later."""
    CHANGE = 1
    """Changes that may raise spend, and reading back what is unknown."""
    FIRST = 2
    """Cuts of spend, and bids a person or an exchange waits for: the whole window."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a vendor allows: data of its plugin, or of the configuration for another tier."""

    calls: int
    """Most calls within any `window_s`."""
    window_s: float
    burst: int | None = None
    """Most calls within any one second; None: as many as the window allows."""

    def __post_init__(self) -> None:
        if type(self.calls) is not int or not 1 <= self.calls <= 1_000_000:
            raise ValueError(f"calls must be 1 to 1000000, was {self.calls}")
        if not 0.001 <= self.window_s <= 31_622_400:
            raise ValueError(f"window_s must be 0.001 to 31622400 seconds, was {self.window_s}")
        if self.burst is not None and (type(self.burst) is not int or not 1 <= self.burst <= 1_000_000):
            raise ValueError(f"burst must be 1 to 1000000, was {self.burst}")


class Limiter:
    """The last `calls` instants in a ring. The n-th newest tells at once whether n more fit, however many there are.

    A clock that is put back never frees a call early: what it shows as made in the future counts as made now.
    """

    __slots__ = (
        "_alarm_at",
        "_burst",
        "_head",
        "_newest",
        "_rearm_at",
        "_rooms",
        "_size",
        "_times",
        "_told_at",
        "_window",
        "limit",
    )

    def __init__(self, limit: RateLimit) -> None:
        self._times = array("q", [_NEVER])
        self._head = 0
        self._newest = _NEVER
        self._told_at = _NEVER
        self.configure(limit)

    def configure(self, limit: RateLimit) -> None:
        """Put another limit in force; calls already made go on counting."""
        kept = self._in_order()[-limit.calls :]
        self.limit = limit
        self._size = limit.calls
        self._window = round(limit.window_s * SECOND)
        self._burst = 0 if limit.burst is None or limit.burst >= limit.calls else limit.burst
        self._times = array("q", [_NEVER] * (limit.calls - len(kept)) + kept)
        self._head = 0
        calls = limit.calls
        self._rooms = (
            max(1, calls - max(1, calls // READ_SHARE)),
            max(1, calls - calls // CHANGE_SHARE),
            calls,
        )
        self._alarm_at = max(1, -(-calls * ALARM_PERMILLE // 1000))
        self._rearm_at = max(1, -(-calls * REARM_PERMILLE // 1000))

    def take(self, now: int, priority: int = Priority.FIRST, *, burst: bool = True) -> int:
        """Count a call at `now` if it may go out: 0. Else the instant from which it might, and nothing is counted.

        `burst` False leaves the guard of the single second out, for clocks that stand still while a tick runs.
        """
        if now < self._newest:
            self._turn_back(now)
        times, head = self._times, self._head
        free_at = times[head - self._rooms[priority]] + self._window
        if burst and self._burst:
            at = times[head - self._burst] + SECOND
            if at > free_at:
                free_at = at
        if free_at > now:
            return free_at
        times[head] = self._newest = now
        head += 1
        self._head = head if head < self._size else 0
        return 0

    def window_free_at(self, now: int, priority: int = Priority.FIRST) -> int:
        """The instant from which the window has room for one more call; at most `now` when it has. Counts nothing."""
        if now < self._newest:
            self._turn_back(now)
        return self._times[self._head - self._rooms[priority]] + self._window

    def crossed(self, now: int) -> bool:
        """Whether nine tenths of the window are used, and nobody was told since it was last below seven tenths, nor
        within a day."""
        times, head, oldest = self._times, self._head, now - self._window
        if times[head - self._alarm_at] > oldest:
            if now - self._told_at < DAY:
                return False
            self._told_at = now
            return True
        if self._told_at != _NEVER and times[head - self._rearm_at] <= oldest:
            self._told_at = _NEVER
        return False

    def used(self, now: int) -> int:
        """Calls that count at `now`."""
        oldest = now - self._window
        times, head, size = self._times, self._head, self._size
        if times[head - 1] <= oldest:
            return 0
        if times[head - size] > oldest:
            return size
        if not head or times[0] > oldest:  # the boundary lies in the older part, behind the head
            gone = bisect_right(times, oldest, head, size)
            return size - gone + head
        return head - bisect_right(times, oldest, 0, head)

    def instants(self, now: int) -> list[int]:
        """When the calls were made that count at `now`, oldest first."""
        oldest = now - self._window
        return [at for at in self._in_order() if at > oldest]

    def restore(self, instants: Sequence[int], now: int) -> None:
        """Count calls an earlier process made, before the first of this one; what lies ahead counts as made now."""
        for at in sorted(min(each, now) for each in instants[-self._size :]):
            self._times[self._head] = self._newest = at
            self._head = (self._head + 1) % self._size

    def room(self, priority: int) -> int:
        """Most calls of the window that a priority may use up."""
        return self._rooms[priority]

    @property
    def window(self) -> int:
        """Length of the window in microseconds."""
        return self._window

    def _in_order(self) -> list[int]:
        """Instants of the calls, oldest first."""
        times, head = self._times, self._head
        return [at for at in (*times[head:], *times[:head]) if at != _NEVER]

    def _turn_back(self, now: int) -> None:
        times = self._times
        index = self._head - 1
        for _ in range(self._size):
            if times[index] <= now:
                break
            times[index] = now
            index -= 1
        self._newest = now


class Patience:
    """An instant before which the vendor wants no call: at most a day after it asked, however far ahead it spoke.

    A clock that is put back takes it along, so that nobody waits longer than was asked.
    """

    __slots__ = ("_asked_at", "_refusals", "retry_at")

    def __init__(self) -> None:
        self._asked_at = 0
        self._refusals = 0
        self.retry_at = 0

    def ask(self, now: int, until: int) -> None:
        """The vendor asks at `now` to be left alone until then; what it asked before goes on holding."""
        self.retry_at = max(self.left_alone_until(now), min(until, now + DAY))
        self._asked_at = now

    def refuse(self, now: int, until: int) -> None:
        """A call was refused for its number. An instant that is not ahead names none: then it is 1, 2, 4 ... 60 s."""
        if until <= now:
            until = now + min(2**self._refusals, MOST_PAUSE_S) * SECOND
            self._refusals = min(self._refusals + 1, 6)
        self.ask(now, until)

    def welcome(self) -> None:
        """A call was not refused for its number."""
        self._refusals = 0

    def left_alone_until(self, now: int) -> int:
        """The instant; at most `now` when nothing is asked."""
        if now < self._asked_at:
            self.retry_at = max(0, self.retry_at - self._asked_at + now)
            self._asked_at = now
        return self.retry_at


class VendorWord(Patience):
    """What the vendor says of its own patience: an instant before which it wants nothing, and how much of a quota is
    in use. The latter is believed less and less with age, because without a call there is no newer word."""

    __slots__ = ("_told_at", "span", "stop", "threshold", "usage", "usage_at")

    def __init__(self, *, span: int = 3_600 * SECOND, threshold: float = 0.75, stop: float = 0.95) -> None:
        """`span` microseconds after it was said a usage says nothing any more. From the share `threshold` on calls are
        spaced out, at `stop` they end."""
        super().__init__()
        self.span = span
        self.threshold = threshold
        self.stop = stop
        self.usage = 0.0
        self.usage_at = 0
        self._told_at = _NEVER

    def take(self, now: int, usage: float | None, retry_at: int | None) -> None:
        """Note what was said; nonsense is left out."""
        if usage is not None and 0 <= usage < 1_000:
            self.usage, self.usage_at = usage, now
        if retry_at is not None:
            self.ask(now, retry_at)

    def crossed(self, now: int) -> bool:
        """As `Limiter.crossed`, of the quota the vendor speaks of."""
        if self.usage * 1000 < REARM_PERMILLE and self._told_at == _NEVER:
            return False
        share = self.share(now) * 1000
        if share >= ALARM_PERMILLE:
            if now - self._told_at < DAY:
                return False
            self._told_at = now
            return True
        if share < REARM_PERMILLE:
            self._told_at = _NEVER
        return False

    def share(self, now: int) -> float:
        """The share of the quota that is taken as used at `now`."""
        age = now - self.usage_at
        if age <= 0:
            self.usage_at = now  # a clock that was put back makes no word last longer
            return self.usage
        return max(0.0, min(self.usage, 1.0) * (1 - age / self.span))

    def free_at(self, now: int, last: int, gap: int) -> int:
        """The instant from which a call may go out when the last one was at `last` and `gap` microseconds are the
        usual pace; at most `now` when it may."""
        free_at = self.left_alone_until(now)
        if self.usage < self.threshold:
            return free_at
        share = self.share(now)
        if share >= self.stop:
            until = self.usage_at + round(self.span * (1 - self.stop / min(self.usage, 1.0)))
            return max(free_at, until, now + 1)
        return max(free_at, min(last, now) + spacing(gap, share, self.threshold, self.stop))


def spacing(gap: int, share: float, threshold: float, stop: float) -> int:
    """The pause between two calls when a share of what is allowed is used: nothing up to the threshold, the usual pace
    halfway between threshold and stop, growing without bound towards the stop (at most a thousand usual gaps)."""
    if share <= threshold:
        return 0
    left = max(stop - share, 1e-3)
    return round(gap * min((share - threshold) / left, 1_000.0))
