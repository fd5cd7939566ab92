"""What stands between the agent and one vendor: breakers, the count of its calls, and the pace of reads.

A call is held back in two places that share one count. `enter` looks before a plugin is called at all; `GuardedHttp`
counts every request that really leaves, for one call may make several. What is held back was not sent: writes get
RateLimited or Rejected, reads get RateLimited or Temporary, never an unknown outcome.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from kiki_agent.errors import Bug, PluginError, RateLimited, Rejected, Temporary, UnknownOutcome, Unsupported
from kiki_agent.hooks.specs import Verb
from kiki_agent.hooks.tasks import Work, work
from kiki_agent.model import SECOND, Instant, Intent, IntentKind, Outcome, Receipt
from kiki_agent.runtime.breaker import Breaker, BreakerRule, Circuit
from kiki_agent.runtime.clock import Clock
from kiki_agent.runtime.limiter import Limiter, Patience, Priority, RateLimit, VendorWord, spacing

NOT_SENT: Final = frozenset({"NOT_SENT"})
"""Reasons of refusals that came from the way, not from the vendor."""
LATENCIES: Final = 256
"""So many of the newest durations make the quantiles."""
BURST_PATIENCE: Final = 5 * SECOND
"""A request waits at most this long, in the agent's time, for its turn within a burst."""
USUAL_GAP: Final = 18 * SECOND
"""Pace of reads at a vendor that speaks of usage but has no limit of its own here."""
READS_PACED_FROM: Final = 0.5
"""From this share of their part of the window on, reads are spaced out."""
READ, WRITE = "read", "write"


class Held(RateLimited):
    """Held back here, before anything was sent."""


@dataclass(frozen=True, slots=True)
class CircuitRule:
    """When calls to one connector are given up for a while."""

    failures: int = 3
    slow_bid_s: float = 0.5
    """A bid for which a request took longer counts as failed."""
    slow_call_s: float = 30.0
    """The same for all other calls: reports and batches of changes take their time."""
    reset_s: float = 30.0
    successes: int = 2

    def breaker(self) -> BreakerRule:
        """What the breaker itself needs of it."""
        return BreakerRule(self.failures, round(self.reset_s * SECOND), self.successes)


@dataclass(slots=True)
class Counts:
    """What a guard did since the start."""

    rate_limited: int = 0
    """Calls and requests held back by the limit or at the vendor's wish."""
    broken: int = 0
    """Calls held back by an open circuit."""
    requests: int = 0
    retries: int = 0
    fallbacks: int = 0
    """Decisions made with the fallback value while a circuit was open."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One call that was let in."""

    breaker: Breaker | None
    generation: int
    now: int


Tell = Callable[[str, Mapping[str, object]], None]
Observe = Callable[[str, str], None]
"""(connector, what happened): `rate_limited`, `retry`, `circuit`. For metrics."""


class Guard:
    """One connector's limits in force. All of it is tunable while the agent runs."""

    def __init__(
        self,
        connector: str,
        clock: Clock,
        *,
        limit: RateLimit | None = None,
        rule: CircuitRule | None = None,
        chance: Callable[[str], Callable[[], float]] = lambda name: lambda: 0.0,
        tell: Tell = lambda topic, data: None,
        observe: Observe = lambda connector, event: None,
        read_retries: int = 0,
    ) -> None:
        """`limit` None: the vendor states none. `rule` None: no breaker of its own (a basic connector).

        `chance(name)` makes a repeatable source of numbers in [0, 1); `tell(topic, data)` publishes.
        """
        self.connector = connector
        self.clock = clock
        self.enabled = True
        self.hints = VendorWord()
        self.counts = Counts()
        self.read_retries = read_retries
        self.limiter: Limiter | None = None
        self.rule = rule
        self.breakers: dict[str, Breaker] = {}
        self.closed = True
        """Whether all circuits are closed; kept, because every bidding tick asks."""
        self.chance = chance("retry")
        self._tell = tell
        self._observe = observe
        self._waits = {READ: Patience(), WRITE: Patience()}
        """Instants named by RateLimited answers, by class of operation."""
        self._last_read = 0
        self._last_failure = {READ: "", WRITE: ""}
        self._durations = array("d")
        self._next_duration = 0
        self.set_limit(limit)
        if rule is not None:
            for name in (READ, WRITE):
                breaker = self.breakers[name] = Breaker(rule.breaker(), chance(name))
                breaker.on_change = self._on_change

    # -- tuning -------------------------------------------------------------------------------------------------

    def set_limit(self, limit: RateLimit | None) -> None:
        """Put another limit in force; calls already made go on counting."""
        if limit is None:
            self.limiter = None
        elif self.limiter is None:
            self.limiter = Limiter(limit)
        else:
            self.limiter.configure(limit)
        if limit is not None:
            self.hints.span = max(round(limit.window_s * SECOND), 60 * SECOND)

    def set_rule(self, rule: CircuitRule) -> None:
        """Put other thresholds in force; nothing for a connector without breakers. States stay."""
        if self.rule is None:
            return
        self.rule = rule
        for breaker in self.breakers.values():
            breaker.rule = rule.breaker()

    # -- calls --------------------------------------------------------------------------------------------------

    def enter(self, verb: Verb, args: tuple[object, ...]) -> Pass | None:
        """Let a call begin; None for `close`, which nothing holds back. Raises what the module's text says."""
        if verb.name == "close":
            return None
        now = self.clock.now()
        priority, is_cut = rank(verb, args)
        self._check_enabled(verb)
        self._check_waits(now, verb, priority, is_cut)
        breaker = self.breakers.get(WRITE if verb.writes else READ)
        if breaker is None:
            return Pass(None, 0, now)
        if breaker.state is not Circuit.CLOSED:
            if is_cut:  # a stop of spending goes out whatever state the vendor is in
                return Pass(None, 0, now)
            free_at = breaker.enter(now)
            if free_at:
                raise self._broken(verb, free_at - now)
        return Pass(breaker, breaker.generation, now)

    def leave(self, let_in: Pass | None, verb: Verb, answer: object, seconds: float, slowest_s: float) -> None:
        """A call has ended with an answer or an error, after `seconds` of wall time; its slowest request took
        `slowest_s`, 0 when there was none."""
        if let_in is None:
            return
        now = self.clock.now()
        if seconds:
            self._note_duration(seconds)
        if self.hints.crossed(now):
            self._tell("quota", {"connector": self.connector, "usage": self.hints.usage})
        patience = self._waits[WRITE if verb.writes else READ]
        if isinstance(answer, RateLimited):
            if not isinstance(answer, Held):
                patience.refuse(now, answer.retry_at)
            self.withdraw(let_in)
            return
        patience.welcome()
        if let_in.breaker is None or self.rule is None:
            return
        ok = not is_failure(verb, answer)
        if isinstance(answer, PluginError) and not ok:
            self._last_failure[WRITE if verb.writes else READ] = f"{type(answer).__name__}: {answer}"[:300]
        if ok and self.clock.speed > 0:
            took = slowest_s or seconds
            ok = took <= (self.rule.slow_bid_s if verb.name == "place_bid" else self.rule.slow_call_s)
        let_in.breaker.leave(now, ok, let_in.generation)

    def withdraw(self, let_in: Pass | None) -> None:
        """A call that was let in did not begin after all."""
        if let_in is not None and let_in.breaker is not None:
            let_in.breaker.withdraw(let_in.generation)

    def hold_back(self, verb: str, now: Instant) -> PluginError | None:
        """The error a write would meet now, without beginning one; None when it may go out."""
        if not self.enabled:
            return Rejected(f"{self.connector} is switched off", "DISABLED")
        free_at = self._write_free_at(now, Priority.FIRST if verb == "place_bid" else Priority.CHANGE)
        if free_at > now:
            self._count_limited()
            return self._limited(now, free_at)
        breaker = self.breakers.get(WRITE)
        free_at = breaker.peek(now) if breaker is not None else 0
        if free_at:
            self.counts.broken += 1
            return Rejected(self._open_text(WRITE, free_at - now), "CIRCUIT_OPEN")
        return None

    def changes_from(self, now: Instant) -> Instant:
        """The instant before which a change that may raise spend would be held back; at most `now` when none is."""
        if not self.enabled:
            return Instant(now + 60 * SECOND)
        breaker = self.breakers.get(WRITE)
        held = breaker.peek(now) if breaker is not None else 0
        return Instant(max(self._write_free_at(now, Priority.CHANGE), held))

    # -- requests -----------------------------------------------------------------------------------------------

    async def request(self) -> None:
        """Count one request that is about to leave, waiting a little for a burst to pass. Raises Held."""
        mine = work.get()
        priority = Priority.READ if mine is None else Priority(mine.priority)
        limiter = self.limiter
        if limiter is not None:
            await self._take(limiter, priority, mine)
        now = self.clock.now()
        self.counts.requests += 1
        if mine is not None:
            mine.sent += 1
        if priority is Priority.READ:
            self._last_read = now

    async def _take(self, limiter: Limiter, priority: Priority, mine: Work | None) -> None:
        moving = self.clock.speed > 0
        now = begin = self.clock.now()
        while free_at := limiter.take(now, priority, burst=moving):
            fits = limiter.window_free_at(now, priority) <= now
            if not fits or not moving or free_at - begin > BURST_PATIENCE:
                self._count_limited()
                held = self._limited(now, free_at)
                if mine is not None:
                    mine.held = held
                raise held
            await self.clock.sleep_until(Instant(free_at))
            now = self.clock.now()
        if limiter.crossed(now):
            self._tell(
                "quota",
                {
                    "connector": self.connector,
                    "used": limiter.used(now),
                    "limit": limiter.limit.calls,
                    "window_s": limiter.limit.window_s,
                },
            )

    # -- what is to be seen --------------------------------------------------------------------------------------

    @property
    def circuit(self) -> Circuit:
        """The worse of the two states."""
        return max((each.state for each in self.breakers.values()), default=Circuit.CLOSED)

    def latency_ms(self) -> tuple[float, float, float] | None:
        """Median, 95th and 99th percentile of the newest calls' wall time in milliseconds; None before the first."""
        if not self._durations:
            return None
        ordered = sorted(self._durations)
        last = len(ordered) - 1
        p50, p95, p99 = (round(ordered[-(-last * percent // 100)] * 1_000, 3) for percent in (50, 95, 99))
        return p50, p95, p99

    def count_retry(self) -> None:
        """A read is asked again."""
        self.counts.retries += 1
        self._observe(self.connector, "retry")

    # -- inside -------------------------------------------------------------------------------------------------

    def _check_enabled(self, verb: Verb) -> None:
        if self.enabled:
            return
        text = f"{self.connector} is switched off; nothing was sent"
        raise Rejected(text, "DISABLED") if verb.writes else Unsupported(text)

    def _check_waits(self, now: Instant, verb: Verb, priority: Priority, is_cut: bool) -> None:
        if is_cut:
            free_at = 0  # the vendor may refuse a stop of spending, but it is asked; our own count still binds
        elif verb.writes:
            free_at = max(self._waits[WRITE].left_alone_until(now), self.hints.free_at(now, now - USUAL_GAP, 0))
        else:
            free_at = self._read_free_at(now) if priority is Priority.READ else self._waits[READ].left_alone_until(now)
        if self.limiter is not None:
            free_at = max(free_at, self.limiter.window_free_at(now, priority))
        if free_at > now:
            self._count_limited()
            raise self._limited(now, free_at)

    def _write_free_at(self, now: Instant, priority: Priority) -> int:
        free_at = max(self._waits[WRITE].left_alone_until(now), self.hints.free_at(now, now - USUAL_GAP, 0))
        return free_at if self.limiter is None else max(free_at, self.limiter.window_free_at(now, priority))

    def _read_free_at(self, now: Instant) -> int:
        limiter = self.limiter
        self._last_read = min(self._last_read, now)  # a clock that was put back holds no read
        gap = USUAL_GAP if limiter is None else limiter.window // limiter.room(Priority.READ)
        free_at = max(self._waits[READ].left_alone_until(now), self.hints.free_at(now, self._last_read, gap))
        if limiter is None:
            return free_at
        used = limiter.used(now) / limiter.room(Priority.READ)
        return max(free_at, self._last_read + spacing(gap, used, READS_PACED_FROM, 1.0))

    def _limited(self, now: Instant, free_at: int) -> Held:
        limiter = self.limiter
        wait = (free_at - now) / SECOND
        text = f"{self.connector}: nothing was sent; the next call may go out in {wait:.1f} s"
        if limiter is not None:
            allowed = limiter.limit
            text += f" ({limiter.used(now)} of {allowed.calls} calls in {allowed.window_s:g} s are used)"
        return Held(text, free_at)

    def _broken(self, verb: Verb, wait: int) -> PluginError:
        self.counts.broken += 1
        text = self._open_text(WRITE if verb.writes else READ, wait)
        return Rejected(text, "CIRCUIT_OPEN") if verb.writes else Temporary(text)

    def _open_text(self, kind: str, wait: int) -> str:
        text = f"{self.connector} failed again and again, so nothing is sent to it for {max(wait, 0) / SECOND:.0f} s"
        last = self._last_failure[kind]
        return f"{text}; the last failure was {last}" if last else text

    def _count_limited(self) -> None:
        self.counts.rate_limited += 1
        self._observe(self.connector, "rate_limited")

    def _on_change(self, state: Circuit) -> None:
        self.closed = self.circuit is Circuit.CLOSED
        self._observe(self.connector, "circuit")

    def _note_duration(self, seconds: float) -> None:
        if len(self._durations) < LATENCIES:
            self._durations.append(seconds)
            return
        self._durations[self._next_duration] = seconds
        self._next_duration = (self._next_duration + 1) % LATENCIES


def rank(verb: Verb, args: tuple[object, ...]) -> tuple[Priority, bool]:
    """How urgent a call is, and whether all it does is to cut spend."""
    if not verb.writes:
        return (Priority.CHANGE if verb.name == "reconcile" else Priority.READ), False
    items = args[0] if args else ()
    intents = items if isinstance(items, list | tuple) else ()
    if intents and all(isinstance(each, Intent) and not each.raises_spend for each in intents):
        return Priority.FIRST, True
    if verb.name == IntentKind.PLACE_BID.value:
        return Priority.FIRST, False
    return Priority.CHANGE, False


def is_failure(verb: Verb, answer: object) -> bool:
    """Whether an answer says that the other side does not work; a clear no says that it does."""
    match answer:
        case Rejected():
            return answer.reason in NOT_SENT
        case Temporary() | UnknownOutcome() | Bug():
            return True
        case PluginError():
            return False
    if verb.writes and isinstance(answer, list | tuple):
        return any(
            isinstance(each, Receipt) and (each.outcome is Outcome.UNKNOWN or each.reason in NOT_SENT)
            for each in answer
        )
    return False
