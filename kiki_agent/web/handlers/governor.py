"""What people decide about the agent: how far it may go, what it suggested, which levers it leaves alone, roll back."""

from __future__ import annotations

from typing import Literal

from aiohttp import web

from kiki_agent.accounts import Lever
from kiki_agent.errors import Denied
from kiki_agent.governor import Governor, Level, links
from kiki_agent.governor.changes import Change
from kiki_agent.governor.holds import Hold
from kiki_agent.governor.orders import Order
from kiki_agent.governor.rules import rule_of
from kiki_agent.governor.suggestions import Suggestion
from kiki_agent.model import Platform, day_bounds, decimal_text, iso
from kiki_agent.web import decisions, link_page
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.problem import Problem, of_refusal
from kiki_agent.web.services import need
from kiki_agent.web.shapes import governor as shapes
from kiki_agent.web.shapes.base import Nothing
from kiki_agent.web.shapes.records import Paging

PERSON = "http"
"""Who decided, until accounts exist."""
_BAD_LINK = (
    "This link decides nothing",
    ["It was not given out by this agent, or it has expired. A new one: kiki-agent approvals link."],
    "",
    403,
)


def _governor(call: Call) -> Governor:
    return need(call.services.governor, "the governor")


# -- the ladder ---------------------------------------------------------------------------------------------------


async def levels(call: Call, _: Nothing) -> web.Response:
    """Every connector with its level."""
    items = [_level(call, connector) for connector in _governor(call).connectors]
    return answer(shapes.AutonomyAnswer(items=items, total=len(items)))


async def set_level(call: Call, body: shapes.AutonomyBody) -> web.Response:
    """Set how far the agent may go at a connector."""
    connector = call.part("connector")
    permille = None if body.limit is None else max(1, round(body.limit * 1_000))
    await _governor(call).set_level(
        connector, Level(body.level), PERSON, body.reason, call.services.clock.now(), limit_permille=permille
    )
    call.house.overview.forget()
    return answer(_level(call, connector))


async def thaw(call: Call, body: shapes.ReasonBody) -> web.Response:
    """Let a connector that an anomaly froze spend again; its level stays as it is."""
    connector = call.part("connector")
    governor = _governor(call)
    if connector not in governor.connectors:
        raise Problem(404, f"there is no connector {connector!r}", "NOT_FOUND")
    await governor.thaw(connector, body.reason, call.services.clock.now())
    call.house.overview.forget()
    return answer(_level(call, connector))


def _level(call: Call, connector: str) -> shapes.AutonomyItem:
    governor = _governor(call)
    standing = governor.standing(connector)
    platform = Platform.parse(call.services.settings.connector[connector].platform)
    return shapes.AutonomyItem(
        connector=connector,
        platform=platform.value,
        level=standing.level.value,
        limit=standing.limit_permille / 1_000,
        set_by=standing.set_by,
        reason=standing.reason,
        at=iso(standing.at) if standing.at else None,
        frozen=governor.frozen(connector),
        left_alone=sum(hold.connector == connector for hold in governor.holds.all()),
        platform_rule=rule_of(platform).source,
    )


# -- suggestions --------------------------------------------------------------------------------------------------


async def suggestions(call: Call, query: shapes.SuggestionsQuery) -> web.Response:
    """What the agent would do, newest first."""
    found, total = await _governor(call).desk.list_suggestions(query.state, query.limit, query.offset)
    items = [_suggestion(call, each) for each in found]
    return answer(shapes.SuggestionsAnswer(items=items, total=total, currency=call.services.settings.currency))


async def approve(call: Call, body: shapes.CommentBody) -> web.Response:
    """Do what was suggested."""
    return await _decide(call, call.part("id"), "approve", PERSON, body.comment)


async def decline(call: Call, body: shapes.CommentBody) -> web.Response:
    """Do not do it."""
    return await _decide(call, call.part("id"), "decline", PERSON, body.comment)


async def _decide(call: Call, name: str, verb: links.Verb, by: str, comment: str) -> web.Response:
    decided, order, sentence = await _decided(call, name, verb, by, comment)
    return answer(
        shapes.DecidedAnswer(
            suggestion=_suggestion(call, decided), order=None if order is None else _order(order), sentence=sentence
        )
    )


async def _decided(
    call: Call, name: str, verb: links.Verb, by: str, comment: str
) -> tuple[Suggestion, Order | None, str]:
    desk, now = _governor(call).desk, call.services.clock.now()
    order: Order | None = None
    if verb == "approve":
        decided, order = await desk.approve(name, by, comment, now)
    else:
        decided = await desk.decline(name, by, comment, now)
    supervisor = call.services.supervisor
    begun = bool(desk.approved_shifts) and supervisor is not None and supervisor.run_now("optimizer")
    call.house.overview.forget()
    return decided, order, decisions.outcome_of(decided, order, begun)


async def link(call: Call, body: shapes.LinkBody) -> web.Response:
    """A signed link that decides one suggestion once."""
    services = call.services
    found = await _governor(call).desk.find(call.part("id"))
    if found.state != "open":
        raise Problem(409, f"suggestion {found.suggestion_id} was {found.state} already", "CONFLICT")
    key = need(services.approval_key, "the key of links")
    token = links.sign(key, found.suggestion_id, body.verb, found.expires_at)
    return answer(shapes.LinkAnswer(path=f"/approvals/{token}", verb=body.verb, expires_at=iso(found.expires_at)))


async def open_link(call: Call, _: Nothing) -> web.Response:
    """Show what a link is about. Looking decides nothing: programs open links too."""
    allowed = _pass(call)
    if allowed is None:
        return link_page.render(*_BAD_LINK)
    found = await _governor(call).desk.find(allowed.suggestion_id)
    if found.state != "open":
        return link_page.render(f"This suggestion was {found.state} already.", [], "")
    question = f"{allowed.verb.capitalize()} this?"
    return link_page.render(question, decisions.lines_of(call.services, found, call.house.overview.name), allowed.verb)


async def use_link(call: Call, _: Nothing) -> web.Response:
    """Decide by a link."""
    allowed = _pass(call)
    if allowed is None:
        return link_page.render(*_BAD_LINK)
    try:
        decided = await _decided(call, allowed.suggestion_id, allowed.verb, "link", "")
    except Denied as denied:
        return link_page.render("Not decided", [f"{denied}."], "", of_refusal(denied).status)
    return link_page.render(decided[2], [], "")


def _pass(call: Call) -> links.Pass | None:
    key = need(call.services.approval_key, "the key of links")
    return links.read(key, call.part("token"), call.services.clock.now())


# -- levers -------------------------------------------------------------------------------------------------------


async def external(call: Call, query: Paging) -> web.Response:
    """Changes somebody else made at the platforms."""
    found, total = await _governor(call).desk.edits_of_others(query.limit, query.offset)
    items = [
        shapes.ExternalItem(
            connector=each.connector,
            campaign_id=each.campaign_id,
            lever=each.lever.value,
            before=_value(call, each.lever, each.before),
            after=_value(call, each.lever, each.after),
            source=each.source,
            through=each.through,
            made_at=None if each.made_at is None else iso(each.made_at),
            at=iso(each.at),
        )
        for each in found
    ]
    return answer(shapes.ExternalAnswer(items=items, total=total))


async def holds(call: Call, query: Paging) -> web.Response:
    """Levers that are left alone."""
    found = _governor(call).holds.all()
    part = found[query.offset : query.offset + query.limit]
    return answer(shapes.HoldsAnswer(items=[_hold(call, each) for each in part], total=len(found)))


async def pin(call: Call, body: shapes.LeverBody) -> web.Response:
    """Leave a lever as it stands until it is unpinned."""
    now = call.services.clock.now()
    hold = await _governor(call).pin(body.connector, body.campaign_id, Lever(body.lever), PERSON, now)
    return answer(_hold(call, hold))


async def unpin(call: Call, body: shapes.LeverBody) -> web.Response:
    """Let the agent set a lever again."""
    now = call.services.clock.now()
    hold = await _governor(call).unpin(body.connector, body.campaign_id, Lever(body.lever), PERSON, now)
    return answer(_hold(call, hold))


def _hold(call: Call, hold: Hold) -> shapes.HoldItem:
    return shapes.HoldItem(
        connector=hold.connector,
        campaign_id=hold.campaign_id,
        lever=hold.lever.value,
        value=_value(call, hold.lever, hold.value),
        source=hold.source,
        since=iso(hold.since),
        until=None if hold.until is None else iso(hold.until),
    )


# -- roll back ----------------------------------------------------------------------------------------------------


async def roll_back(call: Call, body: shapes.RollbackBody) -> web.Response:
    """Put changes back to what stood before them, where nobody has moved them since."""
    desk, services = _governor(call).desk, call.services
    scope: Literal["change", "batch", "day"]
    given: tuple[str | int, ...]
    if body.day is not None:
        scope, given = "day", day_bounds(body.day, services.settings.timezone)
    else:
        scope, given = ("change", (body.change or "",)) if body.change is not None else ("batch", (body.batch or "",))
    order: Order | None = None
    if body.preview:
        plan = await desk.plan_rollback(scope, given)
    else:
        plan, order = await desk.roll_back(scope, given, PERSON, services.clock.now())
        call.house.overview.forget()
    refused = [
        shapes.RefusedItem.model_validate({"change": _changes(call, [each])[0], "reason": why})
        for each, why in plan.refused
    ]
    return answer(
        shapes.RollbackAnswer(
            preview=body.preview,
            found=plan.found,
            changes=_changes(call, plan.changes),
            refused=refused,
            order=None if order is None else _order(order),
        )
    )


# -- in the words of the interface --------------------------------------------------------------------------------


def _suggestion(call: Call, each: Suggestion) -> shapes.SuggestionItem:
    return shapes.SuggestionItem(
        suggestion_id=each.suggestion_id,
        kind=each.kind,
        connector=each.connector,
        why=each.why,
        held_by=each.held_by,
        changes=_changes(call, each.changes),
        allocation=decisions.allocation_of(each),
        made_at=iso(each.made_at),
        expires_at=iso(each.expires_at),
        state=each.state,
        decided_by=each.decided_by,
        decided_at=None if each.decided_at is None else iso(each.decided_at),
        note=each.note,
    )


def _changes(call: Call, changes: tuple[Change, ...] | list[Change]) -> list[shapes.ChangeItem]:
    return [
        shapes.ChangeItem(
            connector=each.connector,
            campaign_id=each.campaign_id,
            lever=each.lever.value,
            before=_value(call, each.lever, each.before),
            after=_value(call, each.lever, each.after),
        )
        for each in changes
    ]


def _value(call: Call, lever: Lever, value: int) -> str:
    if lever is Lever.STATUS:
        return "active" if value else "paused"
    return decimal_text(value, call.services.settings.currency)


def _order(order: Order) -> shapes.OrderItem:
    return shapes.OrderItem(order_id=order.order_id, state=order.state, note=order.note)
