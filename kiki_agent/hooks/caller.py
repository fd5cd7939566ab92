"""The only caller of plugin code: each call a task it owns, with a deadline, and what goes wrong stays with its plugin.

A call that passes its deadline is cancelled; one that ignores this for a short grace is abandoned, its instance is
quarantined as `stuck`, and whoever waited learns that a write has an unknown outcome or that a read has to come again.
Callers see nothing but subclasses of `PluginError`. A waiter that goes away does not stop a call under way: a request
that may have reached a vendor is finished by its own deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from kiki_agent.errors import (
    AuthExpired,
    Bug,
    PluginError,
    RateLimited,
    Rejected,
    Temporary,
    UnknownOutcome,
    Unsupported,
)
from kiki_agent.hooks.guard import NOT_SENT, Held, Pass, rank
from kiki_agent.hooks.instance import Hook, Instance, Quarantine
from kiki_agent.hooks.results import check_for
from kiki_agent.hooks.tasks import Work, work
from kiki_agent.model import SECOND, Instant
from kiki_agent.runtime.tasks import cancel_all

Observer = Callable[[str, str, float, str], None]
"""(instance id, verb, wall seconds, outcome): `ok` or the name of the error class. For metrics."""

GRACE_S: Final = 0.5
"""Wall seconds between the cancellation of a call and its abandonment."""
MAX_RUNNING: Final = 32
"""Calls one instance may have under way; a slow vendor must not pile up the whole agent's work."""
MAX_WAITING: Final = 256
"""Calls that may wait for one of these places, within their deadlines."""
RETRY_PAUSE_S: Final = 0.25
"""Wall seconds before a read is asked again; doubled each time, and up to as much again by chance."""


class _Call:
    """One call under way."""

    __slots__ = (
        "answer", "args", "cut", "deadline_s", "hook", "instance", "let_in", "mine", "started", "task", "timer",
    )  # fmt: skip

    def __init__(
        self, instance: Instance, hook: Hook, args: tuple[object, ...], deadline_s: float, let_in: Pass | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.let_in = let_in
        self.mine = Work(instance.tasks, hook.label, 0 if instance.guard is None else rank(hook.verb, args)[0])
        self.instance = instance
        self.hook = hook
        self.args = args
        self.deadline_s = deadline_s
        self.cut = False
        self.started = loop.time()
        self.answer: asyncio.Future[object] = loop.create_future()
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Caller:
    """Calls verbs of instances; see the module's text for what it promises."""

    def __init__(
        self,
        instances: Mapping[str, Instance],
        *,
        simulated: bool = False,
        observe: Observer | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._instances = instances
        self.simulated = simulated
        """True: no wall deadlines and no task per call; a call runs within the tick that makes it."""
        self.observe = observe
        self._grace_s = grace_s
        self._running: dict[asyncio.Task[None], _Call] = {}
        self._stopping = False
        self._inline_label = ""

    async def to(self, instance_id: str, verb: str, *args: object, deadline_s: float | None = None) -> object:
        """Call one verb of one instance and return its checked answer; `deadline_s` is wall time.

        Raises subclasses of PluginError only: the plugin's own typed errors as they are, Unsupported when the instance
        does not offer the verb, Rejected(`QUARANTINED`) when it may not be called (nothing was sent), UnknownOutcome
        or Temporary when it was cut off in a write or a read, and Bug for everything else. What the instance's guard
        holds back was not sent either: RateLimited, Rejected(`CIRCUIT_OPEN`) for a write, Temporary for a read.
        """
        instance, hook = self._find(instance_id, verb, args)
        let_in = None if instance.guard is None else instance.guard.enter(hook.verb, args)
        if self.simulated:
            answer = await self._inline(instance, hook, args, let_in)
        else:
            answer = await self._start(instance, hook, args, deadline_s, let_in).answer
        if isinstance(answer, PluginError):
            raise answer
        return answer

    async def fan(
        self, kind: str, verb: str, *args: object, deadline_s: float | None = None
    ) -> dict[str, object | PluginError]:
        """Call a verb of every instance of a kind that offers it, all at once; never raises.

        Instance id -> answer or error, in the order of the configuration. Instances that are off or do not offer the
        verb are left out; quarantined ones answer with their error.
        """
        answers: dict[str, object | PluginError] = {}
        calls: list[tuple[str, _Call]] = []
        for instance in self._instances.values():
            if instance.kind != kind or instance.state == "off":
                continue
            answers[instance.id] = None
            try:
                _, hook = self._find(instance.id, verb, args)
                let_in = None if instance.guard is None else instance.guard.enter(hook.verb, args)
                if self.simulated:
                    answers[instance.id] = await self._inline(instance, hook, args, let_in)
                else:
                    calls.append((instance.id, self._start(instance, hook, args, deadline_s, let_in)))
            except Unsupported:
                del answers[instance.id]
            except PluginError as error:
                answers[instance.id] = error
        for instance_id, call in calls:
            answers[instance_id] = await call.answer
        return answers

    @property
    def running(self) -> list[str]:
        """Calls under way, `<instance>.<verb>`; abandoned ones stay until they end."""
        return [call.hook.label for call in self._running.values()]

    def blame(self, task: asyncio.Task[Any] | None) -> str | None:
        """Which call a task carries out, for a watchdog's thread; None when it carries out none."""
        if self._inline_label:
            return f"plugin {self._inline_label}"
        call = self._running.get(task) if task is not None else None
        return f"plugin {call.hook.label}" if call is not None else None

    async def drain(self, seconds: float) -> None:
        """Wait until no call is under way, at most `seconds` of wall time."""
        if self._running:
            await asyncio.wait(list(self._running), timeout=seconds)

    async def end(self, grace_seconds: float) -> list[str]:
        """Cancel all calls under way; names of those that refuse to end. Those that wait are answered: not sent."""
        self._stopping = True
        for instance in self._instances.values():
            while instance.waiting:
                call: _Call = instance.waiting.popleft()
                self._settle(call, _not_begun(call.hook, "the agent stops"))
        return await cancel_all(set(self._running), grace_seconds)

    def _find(self, instance_id: str, verb: str, args: tuple[object, ...]) -> tuple[Instance, Hook]:
        instance = self._instances.get(instance_id)
        if instance is None:
            raise Unsupported(f"there is no plugin instance {instance_id!r}")
        if instance.state == "off":
            raise Unsupported(f"{instance_id} is switched off in the configuration")
        if instance.state == "quarantined":
            why = instance.quarantine.value if instance.quarantine else "quarantined"
            raise Rejected(f"{instance_id} is quarantined ({why}): {instance.error}", "QUARANTINED")
        hook = instance.hooks.get(verb)
        if hook is None:
            raise Unsupported(f"{instance_id} (plugin {instance.plugin}) does not offer {verb}")
        if len(args) != len(hook.verb.arguments):
            expected = ", ".join(hook.verb.arguments) or "nothing"
            raise Unsupported(f"{verb} takes {expected}, not {len(args)} arguments")
        return instance, hook

    async def _inline(self, instance: Instance, hook: Hook, args: tuple[object, ...], let_in: Pass | None) -> object:
        """The cheap way for simulations: no task, no timer, the same judgement."""
        guard = instance.guard
        mine = Work(instance.tasks, hook.label, 0 if guard is None else rank(hook.verb, args)[0])
        token = work.set(mine)
        self._inline_label = hook.label
        answer: object = None
        try:
            answer = _judge(instance, hook, args, await hook.bind(args))
        except asyncio.CancelledError as error:
            answer = _as_plugin_error(instance, hook, error)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            answer = _as_plugin_error(instance, hook, error)
        finally:
            self._inline_label = ""
            work.reset(token)
            mine.finish()
            if guard is not None:
                answer = _honest(hook, args, mine, answer)
                guard.leave(let_in, hook.verb, answer, 0.0, 0.0)
        return answer

    def _start(
        self, instance: Instance, hook: Hook, args: tuple[object, ...], deadline_s: float | None, let_in: Pass | None
    ) -> _Call:
        call = _Call(instance, hook, args, hook.verb.deadline_s if deadline_s is None else deadline_s, let_in)
        if instance.running < MAX_RUNNING and not instance.waiting:
            self._begin(call)
        elif len(instance.waiting) >= MAX_WAITING:
            self._settle(call, _not_begun(hook, f"{instance.running} calls are under way already"))
        else:
            instance.waiting.append(call)
            call.timer = asyncio.get_running_loop().call_later(call.deadline_s, self._give_up, call)
        return call

    def _begin(self, call: _Call) -> None:
        loop = asyncio.get_running_loop()
        if call.timer is not None:
            call.timer.cancel()
        call.task = loop.create_task(self._run(call), name=f"plugin {call.hook.label}")
        call.instance.running += 1
        self._running[call.task] = call
        call.task.add_done_callback(self._ended)
        call.timer = loop.call_at(call.started + call.deadline_s, self._cut, call)

    def _give_up(self, call: _Call) -> None:
        """The deadline of a call has passed before its turn came."""
        call.instance.waiting.remove(call)
        running = call.instance.running
        self._settle(call, _not_begun(call.hook, f"{running} calls were under way for {call.deadline_s:g} s"))

    async def _run(self, call: _Call) -> None:
        instance, hook, mine = call.instance, call.hook, call.mine
        work.set(mine)
        try:
            answer = await self._attempts(call)
        except asyncio.CancelledError as error:
            task = call.task
            ended = call.cut or (task is not None and task.cancelling() > 0)
            answer = _cut_off(call) if ended else _as_plugin_error(instance, hook, error)
        except GeneratorExit:
            raise
        except BaseException as error:
            answer = _as_plugin_error(instance, hook, error)
        mine.finish()
        self._settle(call, answer)

    async def _attempts(self, call: _Call) -> object:
        """The answer; a read that fails for now is asked again after a pause, while there is time for that."""
        instance, hook, guard = call.instance, call.hook, call.instance.guard
        pause_s = RETRY_PAUSE_S
        left = 0 if guard is None or hook.verb.writes or guard.clock.speed <= 0 else guard.read_retries
        while True:
            try:
                return _judge(instance, hook, call.args, await hook.bind(call.args))
            except Temporary as error:
                if left <= 0 or guard is None or isinstance(error, RateLimited):
                    raise
                wait_s = pause_s * (1 + guard.chance())
                if asyncio.get_running_loop().time() + wait_s > call.started + call.deadline_s / 2:
                    raise
            left, pause_s = left - 1, pause_s * 2
            guard.count_retry()
            clock = guard.clock
            await clock.sleep_until(Instant(clock.now() + round(wait_s * SECOND * clock.speed)))

    def _settle(self, call: _Call, answer: object) -> None:
        if call.timer is not None:
            call.timer.cancel()
        seconds = asyncio.get_running_loop().time() - call.started
        guard, let_in = call.instance.guard, call.let_in
        if guard is not None and let_in is not None:
            call.let_in = None
            if call.task is None:
                guard.withdraw(let_in)
                let_in = None
            answer = _honest(call.hook, call.args, call.mine, answer)
            guard.leave(let_in, call.hook.verb, answer, seconds, call.mine.slowest_s)
        if not call.answer.done():
            call.answer.set_result(answer)
        if self.observe is not None:
            outcome = type(answer).__name__ if isinstance(answer, PluginError) else "ok"
            self.observe(call.instance.id, call.hook.verb.name, seconds, outcome)

    def _ended(self, task: asyncio.Task[None]) -> None:
        call = self._running.pop(task)
        call.instance.running -= 1
        if not call.answer.done():  # cancelled before its first step, or closed from within
            error = None if task.cancelled() else task.exception()
            self._settle(call, _cut_off(call) if error is None else _as_plugin_error(call.instance, call.hook, error))
        self._next(call.instance)

    def _next(self, instance: Instance) -> None:
        """A place is free: let those that wait begin, in their order."""
        while instance.waiting and instance.running < MAX_RUNNING and not self._stopping:
            call: _Call = instance.waiting.popleft()
            if instance.state == "ok":
                self._begin(call)
            else:
                self._settle(call, _not_begun(call.hook, f"{instance.id} was set aside"))

    def _cut(self, call: _Call) -> None:
        """The deadline has passed: cancel, and come back after the grace."""
        call.cut = True
        assert call.task is not None
        call.task.cancel()
        call.timer = asyncio.get_running_loop().call_later(self._grace_s, self._abandon, call)

    def _abandon(self, call: _Call) -> None:
        """It ignores its cancellation: set the instance aside and let nobody wait any longer."""
        text = f"{call.hook.label} ran past {call.deadline_s:g} s and ignored its cancellation"
        call.instance.set_aside(Quarantine.STUCK, text)
        self._settle(call, _cut_off(call))


def _judge(instance: Instance, hook: Hook, args: tuple[object, ...], answer: object) -> object:
    """The answer if it is what the verb promises, else a Bug."""
    try:
        problem = check_for(hook.verb.name)(answer, args, instance.id)
    except Exception as error:
        problem = f"something that raises {type(error).__name__} when it is looked at"
    if not problem:
        return answer
    return _bug(instance, f"{hook.label} (plugin {instance.plugin}) answered {problem}")


def _as_plugin_error(instance: Instance, hook: Hook, error: BaseException) -> PluginError:
    """A typed error as it is; anything else is the plugin's bug."""
    if isinstance(error, PluginError) and type(error) is not PluginError:
        if isinstance(error, Bug):
            instance.bugs += 1
            instance.last_bug = _text(error)
        if isinstance(error, AuthExpired) and instance.credentials:
            error.args = (f"{_text(error)}; set what is no longer valid of {instance.credentials}, and restart",)
        return error
    where = f"{hook.label} (plugin {instance.plugin})"
    if isinstance(error, SystemExit):
        bug = _bug(instance, f"{where} called sys.exit({error.code!r})")
    elif isinstance(error, asyncio.CancelledError):
        bug = _bug(instance, f"{where} cancelled itself")
    else:
        bug = _bug(instance, f"{where} raised {type(error).__name__}: {_text(error)}")
    bug.__cause__ = error
    return bug


def _bug(instance: Instance, text: str) -> Bug:
    instance.bugs += 1
    instance.last_bug = text
    return Bug(text)


def _text(error: BaseException) -> str:
    try:
        return str(error)[:300]
    except Exception:
        return "(its text cannot be read)"


def _not_begun(hook: Hook, why: str) -> PluginError:
    """A call that was never made."""
    text = f"{hook.label}: {why}; nothing was sent"
    return Rejected(text, "BUSY") if hook.verb.writes else Temporary(text)


def _honest(hook: Hook, args: tuple[object, ...], mine: Work, answer: object) -> object:
    """What a plugin makes of a request that was held back, put right.

    Refused as not sent, it was held back. But a batch that ends in RateLimited after requests of it left may be done
    in part, and then its outcome is unknown.
    """
    if mine.held is None or not hook.verb.writes:
        return answer
    if isinstance(answer, Rejected) and answer.reason in NOT_SENT:
        return mine.held
    if isinstance(answer, Held) and mine.sent and len(_keys(args)) > 1:
        text = f"{hook.label} was held back after {mine.sent} requests; what they changed is not known"
        return UnknownOutcome(text, _keys(args))
    return answer


def _keys(args: tuple[object, ...]) -> tuple[str, ...]:
    items = args[0] if args else ()
    return tuple(str(item.key) for item in items if hasattr(item, "key")) if isinstance(items, list | tuple) else ()


def _cut_off(call: _Call) -> PluginError:
    """What a call that did not come back means for money."""
    when = f"after {call.deadline_s:g} s" if call.cut else "because the agent stops"
    text = f"{call.hook.label} was cut off {when}"
    if not call.hook.verb.writes:
        return Temporary(text)
    return UnknownOutcome(f"{text}; whether it took effect is not known", _keys(call.args))
