"""The hooks: every verb the core may ask of a plugin, with arguments, answer, deadline and whether it writes.

A class implements the verbs it offers as `async def` methods marked `@hookimpl`; none is obligatory. A method may take
fewer arguments than its verb has, so a plugin written for an older version keeps working when a verb grows one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import pluggy

if TYPE_CHECKING:
    from kiki_agent.hooks.capabilities import Capabilities
    from kiki_agent.hooks.conversion import Conversion
    from kiki_agent.hooks.edit import AccountEdit
    from kiki_agent.model import (
        Alert,
        Campaign,
        CustomerPage,
        DayWindow,
        Instant,
        Intent,
        PerformanceReport,
        Receipt,
        SpendReport,
    )

API_VERSION: Final = (1, 1)
"""(major, minor). The minor grows with every addition, the major with anything that breaks a plugin."""

PROJECT: Final = "kiki_agent"
"""The name pluggy marks belong to, and the entry point group plugins are found in."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

_F = TypeVar("_F", bound=Callable[..., object])


def _verb(*, deadline_s: float, writes: bool = False) -> Callable[[_F], _F]:
    """Mark a specification with what the caller has to know about it."""

    def mark(function: _F) -> _F:
        setattr(function, "_kiki_verb", (writes, deadline_s))  # noqa: B010 - a function has no such declared attribute
        return hookspec(function)

    return mark


class ConnectorSpec(Protocol):
    """One ad account: reads what the platform states, writes what the core decided."""

    @_verb(deadline_s=10)
    async def check(self) -> None:
        """Prove that address and credentials work, without changing anything."""

    @_verb(deadline_s=10)
    async def capabilities(self) -> Capabilities:
        """State the account's currency, time zone and limits."""
        ...

    @_verb(deadline_s=30)
    async def fetch_campaigns(self) -> Sequence[Campaign]:
        """Every campaign of the account, with budget, bid and status as they stand now."""
        ...

    @_verb(deadline_s=60)
    async def fetch_performance(self, window: DayWindow, cursor: str | None) -> PerformanceReport:
        """One page of daily rows for account days `window`; `cursor` is None first, then the last page's."""
        ...

    @_verb(deadline_s=30)
    async def fetch_spend(self, since: Instant) -> SpendReport:
        """Spend so far of every account day that touches `since` or later, one row per campaign and day."""
        ...

    @_verb(writes=True, deadline_s=30)
    async def set_budget(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Set daily budgets to `after` micros."""
        ...

    @_verb(writes=True, deadline_s=10)
    async def place_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Place single bids of `after` micros."""
        ...

    @_verb(writes=True, deadline_s=30)
    async def adjust_bid(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Set the bid level of campaigns to `after` micros."""
        ...

    @_verb(writes=True, deadline_s=30)
    async def set_status(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Pause (`after` 0) or activate (`after` 1) campaigns."""
        ...

    @_verb(deadline_s=60)
    async def reconcile(self, intents: Sequence[Intent]) -> Sequence[Receipt]:
        """Settle by reading back: accepted = it is there, rejected = it is not and cannot come, else unknown."""
        ...

    @_verb(deadline_s=30)
    async def fetch_edits(self, since: Instant) -> Sequence[AccountEdit]:
        """What the platform's change history lists since then, whoever made it; for platforms that keep one."""
        ...

    @_verb(writes=True, deadline_s=60)
    async def upload_conversions(self, conversions: Sequence[Conversion]) -> Sequence[Receipt]:
        """Report conversions with their value to the platform."""
        ...

    @_verb(deadline_s=3)
    async def close(self) -> None:
        """Let go of everything; the last call an instance gets."""


class CrmSpec(Protocol):
    """One source of customers and what they bought."""

    @_verb(deadline_s=10)
    async def check(self) -> None:
        """Prove that address and credentials work, without changing anything."""

    @_verb(deadline_s=60)
    async def fetch_customers(self, cursor: str) -> CustomerPage:
        """Customers changed since `cursor` (empty = all), a page at a time."""
        ...

    @_verb(deadline_s=3)
    async def close(self) -> None:
        """Let go of everything; the last call an instance gets."""


class NotifierSpec(Protocol):
    """One way to reach a person."""

    @_verb(deadline_s=10)
    async def check(self) -> None:
        """Prove that address and credentials work, without sending anything a person sees."""

    @_verb(writes=True, deadline_s=15)
    async def notify(self, alert: Alert) -> None:
        """Deliver one alert; returning means the service accepted it."""

    @_verb(deadline_s=3)
    async def close(self) -> None:
        """Let go of everything; the last call an instance gets."""


SPECS: Final[Mapping[str, type]] = MappingProxyType(
    {"connector": ConnectorSpec, "crm": CrmSpec, "notifier": NotifierSpec}
)
"""Specification class by kind of instance; the kinds are also the names of the configuration tables."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One hook as the caller sees it."""

    kind: str
    name: str
    arguments: tuple[str, ...]
    writes: bool
    """True when a call that was cut off may still have changed something outside."""
    deadline_s: float
    """Wall seconds a call may take unless the caller says otherwise."""
    signature: str
    summary: str


def _verbs_of(kind: str, spec: type) -> Mapping[str, Verb]:
    found: dict[str, Verb] = {}
    for name, function in vars(spec).items():
        marked = getattr(function, "_kiki_verb", None)
        if marked is None:
            continue
        writes, deadline_s = marked
        signature = inspect.signature(function)
        parameters = [str(one) for one in signature.parameters.values() if one.name != "self"]
        text = f"{name}({', '.join(parameters)}) -> {signature.return_annotation}".replace("'", "")
        arguments = tuple(one for one in signature.parameters if one != "self")
        summary = inspect.getdoc(function) or ""
        found[name] = Verb(kind, name, arguments, writes, deadline_s, text, summary)
    return MappingProxyType(found)


VERBS: Final[Mapping[str, Mapping[str, Verb]]] = MappingProxyType(
    {kind: _verbs_of(kind, spec) for kind, spec in SPECS.items()}
)
"""Verbs by kind and name, in the order they are written above."""


def is_marked(cls: type, name: str) -> bool:
    """Whether a class marks its method `name` with `@hookimpl`."""
    return hasattr(inspect.getattr_static(cls, name, None), f"{PROJECT}_impl")


def describe_api() -> str:
    """All specifications as stable text: the thing that may not change unless `API_VERSION` moves."""
    lines = [f"kiki_agent plugin API {API_VERSION[0]}.{API_VERSION[1]}"]
    for kind, verbs in VERBS.items():
        lines += ["", f"[{kind}]"]
        for verb in verbs.values():
            lines.append(f"{verb.signature}  # {'write' if verb.writes else 'read'}, {verb.deadline_s:g} s")
    return "\n".join(lines) + "\n"
