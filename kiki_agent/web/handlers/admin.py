"""What a person may order: stop spending, run a cycle, restart, pause and resume loops."""

from __future__ import annotations

from typing import Literal

from aiohttp import web

from kiki_agent.model import Instant, iso
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.problem import Problem
from kiki_agent.web.services import need
from kiki_agent.web.shapes.base import Nothing
from kiki_agent.web.shapes.health import KillSwitchAnswer, KillSwitchBody, TaskAnswer


class KillSwitchNote:
    """Who turned the switch last, and when, as far as this process knows."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.at: Instant | None = None


def _switch(call: Call, on: bool) -> KillSwitchAnswer:
    note = call.house.kill_note
    return KillSwitchAnswer(on=on, reason=note.reason, at=None if note.at is None else iso(note.at))


async def kill_switch(call: Call, _: Nothing) -> web.Response:
    """Whether spending is stopped."""
    return answer(_switch(call, need(call.services.shield, "syncshield").killed))


async def turn_kill_switch(call: Call, body: KillSwitchBody) -> web.Response:
    """Stop all spending at once, or allow it again; doing so twice changes nothing."""
    services = call.services
    shield = need(services.shield, "syncshield")
    now = services.clock.now()
    reason = body.reason or ("stopped by a person" if body.on else "allowed again by a person")
    if shield.killed != body.on:
        await shield.kill(body.on, reason, now)
        call.house.kill_note.reason, call.house.kill_note.at = reason, now
        call.house.overview.forget()
        services.signals.publish("control", {"at": iso(now), "kill_switch": shield.killed, "reason": reason})
    return answer(_switch(call, shield.killed))


async def run_optimizer(call: Call, _: Nothing) -> web.Response:
    """Start a cycle of the optimizer now."""
    supervisor = need(call.services.supervisor, "the supervisor")
    if "optimizer" not in supervisor.health or not call.services.settings.optimizer.enabled:
        raise Problem(503, "the optimizer is switched off (optimizer.enabled)", "COMPONENT_OFF")
    if not supervisor.run_now("optimizer"):
        raise Problem(409, "the optimizer is running already, or paused", "NOT_WAITING")
    return answer(TaskAnswer(task="optimizer", requested="run"), 202)


async def restart(call: Call, _: Nothing) -> web.Response:
    """Forget a loop's failures and let it tick again soon."""
    return _order(call, "restart")


async def pause(call: Call, _: Nothing) -> web.Response:
    """Let a loop's due times pass."""
    return _order(call, "pause")


async def resume(call: Call, _: Nothing) -> web.Response:
    """Let a paused loop tick again."""
    return _order(call, "resume")


def _order(call: Call, verb: Literal["restart", "pause", "resume"]) -> web.Response:
    supervisor = need(call.services.supervisor, "the supervisor")
    name = call.part("name")
    if name not in supervisor.health:
        known = ", ".join(supervisor.health)
        raise Problem(404, f"there is no task {name!r}; known are {known}", "UNKNOWN_TASK")
    match verb:
        case "restart":
            supervisor.restart(name)
        case "pause":
            supervisor.pause(name)
        case "resume":
            supervisor.resume(name)
    call.house.overview.forget()
    return answer(TaskAnswer(task=name, requested=verb), 202)
