"""What the page shows of the governor: levels, what waits for a person, what others changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from kiki_agent.accounts import Lever
from kiki_agent.governor.changes import Change, net
from kiki_agent.governor.levels import Level
from kiki_agent.governor.suggestions import Suggestion
from kiki_agent.model import Platform, decimal_text, iso
from kiki_agent.web import words
from kiki_agent.web.services import Services
from kiki_agent.web.shapes import overview as shapes

Namer = Callable[[str, str], str]
SHOWN = 8
_LEVELS = {
    Level.WATCH: "only watched",
    Level.SUGGEST: "changes are suggested",
    Level.ACT_LIMITED: "acts within a limit",
    Level.ACT: "acts",
}
_UNITS: dict[Lever, Literal["per day", "per click", ""]] = {
    Lever.BUDGET: "per day",
    Lever.BID: "per click",
    Lever.STATUS: "",
}


async def governor_state(services: Services, name: Namer) -> shapes.GovernorState | None:
    """The state of the governor; None while there is none."""
    governor = services.governor
    if governor is None:
        return None
    waiting = sorted(governor.desk.open.values(), key=lambda each: (each.made_at, each.subject), reverse=True)
    edits, total = await governor.desk.edits_of_others(5, 0)
    currency = services.settings.currency
    return shapes.GovernorState(
        levels=[_level(services, connector) for connector in governor.connectors],
        suggestions=[_suggestion(each, currency, name) for each in waiting[:SHOWN]],
        suggestions_open=len(waiting),
        external=[
            shapes.ExternalNote(
                at=iso(each.at),
                what=f"{_lever(each.lever)} of {name(each.connector, each.campaign_id)}",
                before=_value(each.lever, each.before, currency),
                after=_value(each.lever, each.after, currency),
            )
            for each in edits
        ],
        external_total=total,
        left_alone=len(governor.holds.all()),
    )


def governor_needs(services: Services) -> list[shapes.NeedItem]:
    """What of it a person should look at."""
    governor = services.governor
    if governor is None:
        return []
    found = []
    for connector in governor.connectors:
        reason = governor.frozen(connector)
        if reason is not None:
            label = Platform.parse(services.settings.connector[connector].platform).label
            found.append(
                shapes.NeedItem(
                    id=f"frozen-{connector}",
                    severity="bad",
                    title=f"{label} is frozen",
                    text=f"{reason}. It spends nothing until you thaw it: kiki-agent autonomy thaw {connector}.",
                )
            )
    waiting = len(governor.desk.open)
    if waiting:
        many = "One suggestion waits" if waiting == 1 else f"{waiting} suggestions wait"
        text = "Approve or decline below; what the account has moved past goes away by itself."
        found.append(shapes.NeedItem(id="suggestions", severity="attention", title=f"{many} for you", text=text))
    return found


def _level(services: Services, connector: str) -> shapes.LevelItem:
    assert services.governor is not None
    level = services.governor.standing(connector).level
    label = Platform.parse(services.settings.connector[connector].platform).label
    return shapes.LevelItem(
        connector=connector,
        label=label,
        level=level.value,
        words=_LEVELS[level],
        frozen=services.governor.frozen(connector),
    )


def _suggestion(each: Suggestion, currency: str, name: Namer) -> shapes.SuggestionNote:
    if not each.changes:  # a raise of an allocation
        return shapes.SuggestionNote(
            id=each.suggestion_id,
            what=each.why,
            why=words.why(each.held_by),
            changes=[],
            unit="",
            raises=True,
            made_at=iso(each.made_at),
            expires_at=iso(each.expires_at),
        )
    first, more = each.changes[0], len(each.changes) - 1
    raises = net(each.changes) > 0 or any(change.raises for change in each.changes if change.kind != "set_budget")
    if each.kind == "shift":
        last = each.changes[-1]
        taken = sum(change.before - change.after for change in each.changes if not change.raises)
        what = f"Move {decimal_text(taken, currency)} {currency} a day from {first.connector} to {last.connector}"
        changes: list[shapes.Change] = []
    else:
        what = f"Change the {_lever(first.lever)} of {name(first.connector, first.campaign_id)}"
        what += f" and {more} more" if more else ""
        changes = [_change(first, currency)]
    return shapes.SuggestionNote(
        id=each.suggestion_id,
        what=what,
        why=words.why(each.why),
        changes=changes,
        unit=_UNITS[first.lever] if each.kind == "change" else "per day",
        raises=raises or each.kind == "shift",
        made_at=iso(each.made_at),
        expires_at=iso(each.expires_at),
    )


def _change(each: Change, currency: str) -> shapes.Change:
    return shapes.Change(
        name="", before=_value(each.lever, each.before, currency), after=_value(each.lever, each.after, currency)
    )


def _value(lever: Lever, value: int, currency: str) -> str:
    if lever is Lever.STATUS:
        return "running" if value else "paused"
    return decimal_text(value, currency)


def _lever(lever: Lever) -> str:
    return {Lever.BUDGET: "budget", Lever.BID: "bid", Lever.STATUS: "status"}[lever]
