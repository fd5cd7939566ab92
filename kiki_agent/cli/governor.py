"""`autonomy`, `approvals`, `levers` and `rollback`: what people decide about the running agent, over HTTP."""

from __future__ import annotations

from typing import Any

import click

from kiki_agent.cli.agent_client import AgentClient
from kiki_agent.cli.failure import CommandError
from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json, emit_table

LEVELS = ("watch", "suggest", "act_limited", "act")
LEVERS = ("budget", "bid", "status")


def _ask(options: Options, path: str, body: dict[str, object] | None = None) -> dict[str, Any]:
    client = AgentClient(options.load().settings)
    answer = client.get(path) if body is None else client.post(path, body)
    if answer.status == 503:
        raise CommandError(f"the agent at {client.address} cannot say now: {answer.body.get('detail', 'not ready')}")
    return answer.body


# -- the ladder ---------------------------------------------------------------------------------------------------


@click.group()
def autonomy() -> None:
    """See and set how far the agent may act at each platform."""


@autonomy.command("show")
@common
def autonomy_show(options: Options) -> None:
    """Every platform with its level."""
    body = _ask(options, "/api/v1/autonomy")
    if options.json:
        emit_json(body)
        return
    rows = [
        [each["connector"], each["level"], each["set_by"], each["frozen"] or "-", each["left_alone"]]
        for each in body["items"]
    ]
    emit_table(["connector", "level", "set by", "frozen", "left alone"], rows)


@autonomy.command("set")
@click.argument("connector")
@click.argument("level", type=click.Choice(LEVELS))
@click.option("--reason", required=True, help="Why; it is written into the ledger.")
@click.option("--limit", type=float, help="For act_limited: net change of 24 hours as a share, such as 0.2.")
@common
def autonomy_set(options: Options, connector: str, level: str, reason: str, limit: float | None) -> None:
    """Set the level of one platform."""
    given: dict[str, object] = {"level": level, "reason": reason}
    if limit is not None:
        given["limit"] = limit
    body = _ask(options, f"/api/v1/autonomy/{connector}", given)
    if options.json:
        emit_json(body)
    else:
        emit(f"{connector}: {body['level']}.")


@autonomy.command("thaw")
@click.argument("connector")
@click.option("--reason", required=True, help="What explains the anomaly; it is written into the ledger.")
@common
def autonomy_thaw(options: Options, connector: str, reason: str) -> None:
    """Let a platform that an anomaly froze spend again."""
    body = _ask(options, f"/api/v1/autonomy/{connector}/thaw", {"reason": reason})
    if options.json:
        emit_json(body)
    else:
        emit(f"{connector} may spend again, at level {body['level']}.")


# -- suggestions --------------------------------------------------------------------------------------------------


@click.group()
def approvals() -> None:
    """See, approve and decline what the agent suggests."""


@approvals.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are decided or over.")
@common
def approvals_list(options: Options, everything: bool) -> None:
    """What the agent would do."""
    body = _ask(options, "/api/v1/suggestions?limit=500" + ("" if everything else "&state=open"))
    if options.json:
        emit_json(body)
        return
    if not body["items"]:
        emit("Nothing waits for a decision." if not everything else "There are no suggestions.")
        return
    rows = [
        [each["suggestion_id"], each["state"], each["connector"], _what(each), each["why"]] for each in body["items"]
    ]
    emit_table(["id", "state", "connector", "what", "why"], rows)


def _what(each: dict[str, Any]) -> str:
    wish = each["allocation"]
    if wish is not None:
        return f"allocation of {wish['campaign_id']} {wish['before']} -> {wish['after']} {wish['currency']}"
    first, more = each["changes"][0], len(each["changes"]) - 1
    also = f" and {more} more" if more else ""
    return f"{first['lever']} of {first['campaign_id']} {first['before']} -> {first['after']}{also}"


@approvals.command("approve")
@click.argument("suggestion_id")
@click.option("--comment", default="", help="What to say to it.")
@common
def approvals_approve(options: Options, suggestion_id: str, comment: str) -> int:
    """Do what was suggested.

    Ends with 1 when not all of it could be done.
    """
    body = _ask(options, f"/api/v1/suggestions/{suggestion_id}/approve", {"comment": comment})
    order = body["order"]
    well = order is None or order["state"] in ("done", "open")
    if options.json:
        emit_json(body)
    else:
        emit(body["sentence"])
    return 0 if well else 1


@approvals.command("decline")
@click.argument("suggestion_id")
@click.option("--comment", default="", help="What to say to it.")
@common
def approvals_decline(options: Options, suggestion_id: str, comment: str) -> None:
    """Do not do it."""
    body = _ask(options, f"/api/v1/suggestions/{suggestion_id}/decline", {"comment": comment})
    if options.json:
        emit_json(body)
    else:
        emit(body["sentence"])


@approvals.command("link")
@click.argument("suggestion_id")
@click.option("--decline", is_flag=True, help="A link that declines; without it, one that approves.")
@common
def approvals_link(options: Options, suggestion_id: str, decline: bool) -> None:
    """A signed link that decides one suggestion once."""
    verb = "decline" if decline else "approve"
    body = _ask(options, f"/api/v1/suggestions/{suggestion_id}/link", {"verb": verb})
    if options.json:
        emit_json(body)
    else:
        emit(
            f"{AgentClient(options.load().settings).address}{body['path']}\nIt works once, until {body['expires_at']}."
        )


# -- levers -------------------------------------------------------------------------------------------------------


@click.group()
def levers() -> None:
    """See and say which budgets, bids and campaigns the agent leaves alone."""


@levers.command("list")
@common
def levers_list(options: Options) -> None:
    """What is left alone, and until when."""
    body = _ask(options, "/api/v1/levers?limit=500")
    if options.json:
        emit_json(body)
        return
    if not body["items"]:
        emit("Nothing is left alone.")
        return
    header = ["connector", "campaign_id", "lever", "value", "source", "until"]
    emit_table(header, [[each[name] or "unpinned" for name in header] for each in body["items"]])


@levers.command("pin")
@click.argument("connector")
@click.argument("campaign_id")
@click.argument("lever", type=click.Choice(LEVERS))
@common
def levers_pin(options: Options, connector: str, campaign_id: str, lever: str) -> None:
    """Leave a lever as it stands until it is unpinned."""
    _lever(options, "pin", connector, campaign_id, lever)


@levers.command("unpin")
@click.argument("connector")
@click.argument("campaign_id")
@click.argument("lever", type=click.Choice(LEVERS))
@common
def levers_unpin(options: Options, connector: str, campaign_id: str, lever: str) -> None:
    """Let the agent set a lever again."""
    _lever(options, "unpin", connector, campaign_id, lever)


def _lever(options: Options, verb: str, connector: str, campaign_id: str, lever: str) -> None:
    given: dict[str, object] = {"connector": connector, "campaign_id": campaign_id, "lever": lever}
    body = _ask(options, f"/api/v1/levers/{verb}", given)
    if options.json:
        emit_json(body)
    else:
        now = f"stays at {body['value']}" if verb == "pin" else "is the agent's again"
        emit(f"{lever} of {connector}/{campaign_id} {now}.")


# -- roll back ----------------------------------------------------------------------------------------------------


@click.command()
@click.option("--change", help="Key of one change.")
@click.option("--batch", help="Id of a shift or an order.")
@click.option("--day", help="A day such as 2026-01-31, in the agent's time zone.")
@click.option("--preview", is_flag=True, help="Only say what would be put back.")
@common
def rollback(options: Options, change: str | None, batch: str | None, day: str | None, preview: bool) -> int:
    """Put back a change, a batch or a day, where nobody has moved it since.

    Ends with 1 when not all of it could be put back.
    """
    asked = {"change": change, "batch": batch, "day": day}
    given: dict[str, object] = {name: value for name, value in asked.items() if value is not None}
    if len(given) != 1:
        raise click.UsageError("exactly one of --change, --batch and --day must be given")
    body = _ask(options, "/api/v1/rollback", given | {"preview": preview})
    order = body["order"]
    well = not body["refused"] and (order is None or order["state"] in ("done", "open"))
    if options.json:
        emit_json(body)
        return 0 if well else 1
    header = ["connector", "campaign_id", "lever", "before", "after"]
    rows = [[each[name] for name in header] + ["-"] for each in body["changes"]]
    rows += [[each["change"][name] for name in header] + [each["reason"]] for each in body["refused"]]
    emit_table(["connector", "campaign_id", "lever", "now", "back to", "left as it is"], rows)
    if order is not None:
        emit(f"\nOrder {order['order_id']} is {order['state']}. {order['note']}".rstrip())
    return 0 if well else 1
