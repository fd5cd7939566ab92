"""What a person may order: stop spending, run a cycle, restart, pause and resume loops."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from aiohttp import web

from kiki_agent.errors import StoreError
from kiki_agent.governor.kill import file_in_the_way
from kiki_agent.model import iso
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.problem import Problem
from kiki_agent.web.protocols import Shield
from kiki_agent.web.services import need
from kiki_agent.web.shapes.base import Nothing
from kiki_agent.web.shapes.health import KillSwitchAnswer, KillSwitchBody, TaskAnswer
from kiki_agent.web.stopping import reach_of, sentence_of


def _switch(call: Call, shield: Shield, recorded: bool = True) -> web.Response:
    reach = reach_of(call.services)
    return answer(
        KillSwitchAnswer(
            on=shield.killed,
            sentence=sentence_of(shield.killed, reach),
            reason=shield.kill_reason if shield.killed else None,
            at=None if shield.kill_at is None else iso(shield.kill_at),
            by=shield.kill_by or None,
            platforms=reach,
            recorded=recorded and call.services.stand_in is None,
        )
    )


async def kill_switch(call: Call, _: Nothing) -> web.Response:
    """Whether spending is stopped."""
    return _switch(call, need(call.services.shield, "syncshield"))


async def turn_kill_switch(call: Call, body: KillSwitchBody) -> web.Response:
    """Stop all spending at once, or allow it again; doing so twice changes nothing.

    A stop holds even when the database cannot take the note of it; allowing spend again needs the note, and that the
    file that stops spending is gone.
    """
    services = call.services
    shield = need(services.shield, "syncshield")
    file = None if body.on else file_in_the_way(Path(services.settings.store.folder))
    if file is not None:
        text = f"the file {file} still stops all spending; remove it, then allow spending again"
        raise Problem(409, text, "KILL_FILE")
    if shield.killed == body.on:
        return _switch(call, shield)
    if services.stand_in is not None and not body.on:
        raise Problem(
            503,
            f"spending is not allowed again until the disk is cured or until a backup is restored: {services.stand_in}",
            "SAFE_HOLD",
        )
    now = services.clock.now()
    recorded = True
    try:
        words = "stopped by a person" if body.on else "allowed by a person"
        await shield.kill(body.on, body.reason or words, now, "http")
    except StoreError:
        if not (body.on and shield.killed):
            raise
        recorded = False
    call.house.overview.forget()
    services.signals.publish("control", {"at": iso(now), "kill_switch": shield.killed, "reason": shield.kill_reason})
    return _switch(call, shield, recorded)


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
