"""`kiki-agent consent` and `kiki-agent privacy`: what people allow and ask for, told to the running agent over HTTP."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from kiki_agent.cli.agent_client import AgentClient, Answer
from kiki_agent.cli.failure import CommandError
from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json, emit_table

_TYPES = ("marketing", "analytics", "targeting", "profiling", "data_sharing")
_CUSTOMER = click.argument("customer_id")
_TYPE = click.argument("consent_type", type=click.Choice(_TYPES))


@click.group()
def consent() -> None:
    """Look at what a person allows, and note what they say."""


@consent.command()
@_CUSTOMER
@common
def status(options: Options, customer_id: str) -> None:
    """Show what a person said, by purpose."""
    client = AgentClient(options.load().settings)
    answer = _body(client.get(f"/consent/status?customer_id={quote(customer_id, safe='')}"))
    if options.json:
        emit_json(answer)
        return
    header = ("purpose", "in force", "said", "source", "expires at", "consent")
    rows = []
    for kind in _TYPES:
        said = answer.get(kind)
        if said is None:
            rows.append((kind, "no", "nothing", "-", "-", "-"))
        else:
            rows.append(
                (
                    kind,
                    "yes" if said["in_force"] else "no",
                    said["status"],
                    said["source"],
                    said["expires_at"] or "-",
                    said["consent_id"],
                )
            )
    emit_table(header, rows)


@consent.command()
@_CUSTOMER
@_TYPE
@click.option("--expires-at", metavar="TIME", help="From then on it is no consent, as 2027-01-31T00:00:00Z.")
@click.option("--version", metavar="TEXT", help="Version of the text the person agreed to.")
@common
def grant(options: Options, customer_id: str, consent_type: str, expires_at: str | None, version: str | None) -> None:
    """Note that a person allows something, from now on."""
    body: dict[str, object] = {"customer_id": customer_id, "consent_type": consent_type}
    body |= {} if expires_at is None else {"expires_at": expires_at}
    body |= {} if version is None else {"version": version}
    _say(options, "grant", body)


@consent.command()
@_CUSTOMER
@_TYPE
@common
def revoke(options: Options, customer_id: str, consent_type: str) -> None:
    """Note that a person takes something back, from now on."""
    _say(options, "revoke", {"customer_id": customer_id, "consent_type": consent_type})


def _say(options: Options, verb: str, body: dict[str, object]) -> None:
    answer = _body(AgentClient(options.load().settings).post(f"/consent/{verb}", body))
    if options.json:
        emit_json(answer)
    else:
        emit(f"{body['consent_type']} is {answer['status']}: {answer['consent_id']}")


def _body(answer: Answer) -> dict[str, Any]:
    """What was answered; an agent that is not up yet, or cannot write, has answered nothing."""
    if answer.status == 503:
        raise CommandError(f"the agent cannot do this now: {answer.body.get('detail') or 'no reason given'}")
    return answer.body


@click.group()
def privacy() -> None:
    """Give a person everything that is known of them, or forget them."""


@privacy.command()
@_CUSTOMER
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A new file; default: standard output.")
@common
def export(options: Options, customer_id: str, output: Path | None) -> None:
    """Write everything that is known of a person as JSON."""
    client = AgentClient(options.load().settings)
    made = _body(client.post("/api/v1/privacy/requests", {"customer_id": customer_id, "request_type": "ACCESS"}))
    known = _body(client.get(f"/api/v1/privacy/requests/{made['request_id']}"))["export"]
    text = json.dumps(known, ensure_ascii=False, indent=2) + "\n"
    if output is None:
        emit(text.rstrip("\n"))
        return
    try:
        with open(output, "x", encoding="utf-8", opener=_only_owner) as file:
            file.write(text)
    except FileExistsError as error:
        raise CommandError(f"{output} exists; an export never overwrites a file") from error
    if options.json:
        emit_json({"request_id": made["request_id"], "output": str(output)})
    else:
        emit(f"{output}: everything that is known of this person, request {made['request_id']}")


def _only_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@privacy.command()
@_CUSTOMER
@click.option("--yes", is_flag=True, help="Do not ask; it cannot be undone.")
@common
def erase(options: Options, customer_id: str, yes: bool) -> None:
    """Forget a person for good."""
    if not yes:
        if options.json:
            raise CommandError("erasing cannot be undone; repeat it with --yes")
        click.confirm("This cannot be undone. Erase this person?", abort=True, err=True)
    client = AgentClient(options.load().settings)
    made = _body(client.post("/api/v1/privacy/requests", {"customer_id": customer_id, "request_type": "DELETION"}))
    if options.json:
        emit_json(made)
    else:
        emit(f"Erased: {made['notes']} (request {made['request_id']}).")
