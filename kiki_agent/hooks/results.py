"""Is that what was asked for? Answers of plugins are checked in type and count before anyone believes them.

A float where micros belong, a receipt for another intent or a campaign of another connector would travel into the
books; here it becomes a `Bug` of the plugin that answered.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from operator import attrgetter
from typing import Final

from kiki_agent.hooks.capabilities import Capabilities
from kiki_agent.hooks.edit import AUTHORS, LEVERS, LONGEST_THROUGH, AccountEdit
from kiki_agent.model import (
    Campaign,
    Customer,
    CustomerPage,
    PerformanceReport,
    PerformanceRow,
    Receipt,
    SpendReport,
    SpendRow,
)

Check = Callable[[object, tuple[object, ...], str], str]
"""(answer, arguments of the call, instance id) -> what is wrong with it, empty when nothing is."""


def check_for(verb: str) -> Check:
    """The check of a verb's answer; verbs without one answer nothing."""
    return _CHECKS.get(verb, _nothing)


class _Shape:
    """The field types of a flat dataclass, compared fast: one tuple comparison in the usual case."""

    def __init__(self, cls: type, *, skip: frozenset[str] = frozenset()) -> None:
        hints = typing.get_type_hints(cls)
        names = [item.name for item in dataclasses.fields(cls) if item.name not in skip]
        self.cls = cls
        self.names = names
        self.allowed = [_plain(hints[name]) for name in names]
        self.usual = tuple(kinds[0] for kinds in self.allowed)
        self.values = attrgetter(*names)

    def problem(self, value: object) -> str:
        """What is wrong with a value that should have this shape."""
        if type(value) is not self.cls and not isinstance(value, self.cls):
            return f"{_name(value)} where {self.cls.__name__} belongs"
        values = self.values(value)
        if tuple(map(type, values)) == self.usual:
            return ""
        for name, item, kinds in zip(self.names, values, self.allowed, strict=True):
            if (isinstance(item, bool) and bool not in kinds) or not isinstance(item, kinds):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                return f"{self.cls.__name__}.{name} is {_name(item)}, not {wanted}"
        return ""


def _plain(hint: object) -> tuple[type, ...]:
    """The run-time classes of a type hint: `int | None`, `NewType`, enums and plain classes."""
    if isinstance(hint, typing.NewType):
        return _plain(hint.__supertype__)
    members = typing.get_args(hint)
    if members and typing.get_origin(hint) is not tuple:
        return tuple(kind for member in members for kind in _plain(member))
    origin = typing.get_origin(hint) or hint
    if not isinstance(origin, type):
        raise TypeError(f"no run-time class for {hint!r}")
    return (origin,)


def _name(value: object) -> str:
    return value.__class__.__name__ if not isinstance(value, Enum) else str(value)


_CAPABILITIES = _Shape(Capabilities)
_CAMPAIGN = _Shape(Campaign)
_RECEIPT = _Shape(Receipt)
_PERFORMANCE = _Shape(PerformanceReport)
_PERFORMANCE_ROW = _Shape(PerformanceRow)
_SPEND = _Shape(SpendReport)
_SPEND_ROW = _Shape(SpendRow)
_EDIT = _Shape(AccountEdit)
_PAGE = _Shape(CustomerPage)
_CUSTOMER = _Shape(Customer)


def _nothing(answer: object, args: tuple[object, ...], instance_id: str) -> str:
    return "" if answer is None else f"{_name(answer)} where nothing belongs"


def _each(shape: _Shape, rows: Sequence[object]) -> str:
    for index, row in enumerate(rows):
        problem = shape.problem(row)
        if problem:
            return f"row {index}: {problem}"
    return ""


def _sequence(answer: object, of: str) -> str:
    return "" if isinstance(answer, list | tuple) else f"{_name(answer)} where a list of {of} belongs"


def _capabilities(answer: object, args: tuple[object, ...], instance_id: str) -> str:
    return _CAPABILITIES.problem(answer)


def _campaigns(answer: object, args: tuple[object, ...], instance_id: str) -> str:
    problem = _sequence(answer, "Campaign")
    if problem:
        return problem
    assert isinstance(answer, list | tuple)
    problem = _each(_CAMPAIGN, answer)
    if problem:
        return problem
    seen: set[str] = set()
    for campaign in answer:
        if campaign.connector != instance_id:
            return f"campaign {campaign.campaign_id[:60]!r} claims connector {campaign.connector[:60]!r}"
        if campaign.campaign_id in seen:
            return f"campaign {campaign.campaign_id[:60]!r} twice"
        seen.add(campaign.campaign_id)
    return ""


def _performance(answer: object, args: tuple[object, ...], instance_id: str) -> str:
    problem = _PERFORMANCE.problem(answer)
    if problem:
        return problem
    assert isinstance(answer, PerformanceReport)
    if answer.cursor is not None and len(args) > 1 and answer.cursor == args[1]:
        return "the cursor it was given, which would page for ever"
    return _each(_PERFORMANCE_ROW, answer.rows)


def _spend(answer: object, args: tuple[object, ...], instance_id: str) -> str:
    problem = _SPEND.problem(answer)
    if problem:
        return problem
    assert isinstance(answer, SpendReport)
    return _each(_SPEND_ROW, answer.rows)


def _edits(answer: object, args: tuple[object, ...], instance_id: str) -> str:
    problem = _sequence(answer, "AccountEdit")
    if problem:
        return problem
    assert isinstance(answer, list | tuple)
    problem = _each(_EDIT, answer)
    if problem:
        return problem
    for index, edit in enumerate(answer):
        if edit.lever not in LEVERS or edit.made_by not in AUTHORS:
            return f"row {index}: {edit.lever[:20]!r} by {edit.made_by[:20]!r} is not what the hook knows"
        if len(edit.through) > LONGEST_THROUGH or "@" in edit.through:
            return f"row {index}: `through` is the name of a program, and no address"
    return ""


def _customers(answer: object, args: tuple[object, ...], instance_id: str) -> str:
    problem = _PAGE.problem(answer)
    if problem:
        return problem
    assert isinstance(answer, CustomerPage)
    if answer.more and args and answer.cursor == args[0]:
        return "more customers and the cursor it was given, which would page for ever"
    return _each(_CUSTOMER, answer.customers)


def _receipts(answer: object, args: tuple[object, ...], instance_id: str) -> str:
    """One receipt per intent or conversion, in order, each with its key."""
    problem = _sequence(answer, "Receipt")
    if problem:
        return problem
    assert isinstance(answer, list | tuple)
    asked = args[0]
    assert isinstance(asked, Sequence)
    if len(answer) != len(asked):
        return f"{len(answer)} receipts for {len(asked)} items"
    problem = _each(_RECEIPT, answer)
    if problem:
        return problem
    for index, (receipt, item) in enumerate(zip(answer, asked, strict=True)):
        if receipt.key != item.key:
            return f"row {index}: a receipt for key {receipt.key[:60]!r} where {item.key!r} was asked"
    return ""


_CHECKS: Final[Mapping[str, Check]] = {
    "capabilities": _capabilities,
    "fetch_campaigns": _campaigns,
    "fetch_performance": _performance,
    "fetch_spend": _spend,
    "fetch_edits": _edits,
    "fetch_customers": _customers,
    "set_budget": _receipts,
    "place_bid": _receipts,
    "adjust_bid": _receipts,
    "set_status": _receipts,
    "reconcile": _receipts,
    "upload_conversions": _receipts,
}
