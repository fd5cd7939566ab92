"""`kiki-agent status` and `kiki-agent kill-switch`: the running agent, asked over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from kiki_agent.cli.agent_client import AgentClient
from kiki_agent.cli.failure import CommandError
from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json, emit_pairs, emit_table
from kiki_agent.governor.kill import file_in_the_way


@click.command()
@click.option("--alive", is_flag=True, help="Only ask whether it answers, ready or not.")
@common
def status(options: Options, alive: bool) -> int:
    """Ask the running agent how it is.

    Ends with 0 when it is ready, with 1 when it is not or does not answer. With --alive it ends with 0 also when the
    agent is not ready: a health check that restarts on 1 would not cure an agent that holds its spending.
    """
    client = AgentClient(options.load().settings)
    if alive:
        return _alive(client, as_json=options.json)
    ready = client.get("/ready")
    body = client.get("/status").body
    well = ready.status == 200
    if options.json:
        emit_json({"address": client.address, "ready": well, "reason": _reason(ready.body), "status": body})
        return 0 if well else 1
    emit(f"Ready at {client.address}." if well else f"Not ready at {client.address}: {_reason(ready.body)}")
    _show(body)
    return 0 if well else 1


@click.command("kill-switch")
@click.argument("position", type=click.Choice(["on", "off"]))
@click.option("--reason", required=True, help="Why; it is written into the ledger.")
@common
def kill_switch(options: Options, position: Literal["on", "off"], reason: str) -> int:
    """Stop all spending of the running agent, or allow it.

    Ends with 1 when campaigns run on at a platform that a stop does not reach.
    """
    settings = options.load().settings
    file = file_in_the_way(Path(settings.store.folder))
    if position == "off" and file is not None:
        raise CommandError(f"the file {file} still stops all spending; remove it, then allow spending again")
    client = AgentClient(settings)
    answer = client.post("/admin/kill-switch", {"on": position == "on", "reason": reason})
    if answer.body.get("on") is not (position == "on"):
        raise CommandError(f"the agent at {client.address} did not turn the switch {position}; see kiki-agent status")
    missed = [each for each in answer.body.get("platforms", []) if position == "on" and not each["reached"]]
    if options.json:
        emit_json(answer.body)
    elif position == "off":
        emit("Spending is allowed again.")
    else:
        stopped = "Spending is stopped" if not missed else "Spending is stopped, but not everywhere"
        kept = answer.body.get("recorded") is not False
        emit(f"{stopped}." if kept else f"{stopped}. This could not be written down: a restart forgets it.")
        for each in missed:
            campaigns = "campaign runs" if each["running"] == 1 else "campaigns run"
            emit(f"  {each['connector']} is not stopped, because {each['why_not']}.")
            emit(f"    {each['running']} {campaigns} there. To stop it: {each['what_to_do']}.")
    return 1 if any(each["running"] for each in missed) else 0


def _alive(client: AgentClient, *, as_json: bool) -> int:
    """Whether the event loop turns; raises CommandError when nobody answers."""
    client.get("/healthz")
    if as_json:
        emit_json({"address": client.address, "alive": True})
    else:
        emit(f"Alive at {client.address}.")
    return 0


def _reason(body: dict[str, Any]) -> str | None:
    reason = body.get("reason") or body.get("detail")
    return str(reason) if reason else None


def _show(body: dict[str, Any]) -> None:
    """Plain values as pairs, lists of objects as tables; whatever the agent tells, in its order."""
    plain = {name: _short(value) for name, value in body.items() if not isinstance(value, (dict, list))}
    emit("")
    emit_pairs(plain)
    for name, value in body.items():
        if isinstance(value, dict) and value:
            emit(f"\n{name}")
            emit_pairs({f"  {inner}": _short(item) for inner, item in value.items()})
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            emit(f"\n{name}")
            header = [key for key, item in value[0].items() if not isinstance(item, (dict, list))]
            emit_table(header, [[_short(row.get(key)) for key in header] for row in value])


def _short(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
