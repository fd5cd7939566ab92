"""The first sentence of the page, and what needs a person: pure rules over facts, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kiki_agent.model import MINUTE, Instant, iso
from kiki_agent.web.shapes.overview import NeedItem, StatusLine

MANY_PERIODS = 3
"""A platform that gave no report for this many periods is called silent."""


@dataclass(frozen=True, slots=True)
class PlatformFact:
    """What the rules look at, per connector."""

    connector: str
    label: str
    quarantined: str | None
    """The error that put it aside."""
    lost: str | None
    """Why it cannot be read at present."""
    has_cap: bool
    overshoot: str | None
    """Amount above the cap, ready to read."""
    spend_as_of: Instant | None
    silent_for: int
    """Microseconds since it last answered with a report, however far behind the figures in it are."""


@dataclass(frozen=True, slots=True)
class AlertFact:
    """An alert of today that is worth a look."""

    notification_id: str
    critical: bool
    title: str
    message: str
    at: Instant


@dataclass(frozen=True, slots=True)
class Unstopped:
    """A platform the kill switch does not reach."""

    connector: str
    label: str
    running: int
    why: str
    what_to_do: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the first sentence depends on."""

    now: Instant
    starting: str | None
    hold: str | None
    frozen: tuple[str, ...]
    """Essential loops that are faulted."""
    troubled: tuple[tuple[str, str], ...]
    """Other faulted loops, with their last error."""
    killed: bool
    kill_reason: str | None
    killed_at: Instant | None
    platforms: tuple[PlatformFact, ...]
    alerts: tuple[AlertFact, ...]
    unknown: tuple[tuple[str, int], ...]
    """Platform label and number of changes whose outcome is unknown for more than five minutes."""
    spend_period: int
    """How often spend is read, microseconds."""
    unstopped: tuple[Unstopped, ...] = ()
    """Platforms a stop does not reach though campaigns run there."""


def needs(facts: Facts) -> list[NeedItem]:
    """What a person should look at, the gravest first."""
    found: list[NeedItem] = []
    if facts.killed:
        found.append(
            NeedItem(
                id="stop",
                severity="stopped",
                title="Spending is stopped",
                text=f"Reason given: {facts.kill_reason or 'none'}. It stays so until you turn it back on.",
                since=None if facts.killed_at is None else iso(facts.killed_at),
            )
        )
        found += [
            NeedItem(
                id=f"unstopped-{each.connector}",
                severity="stopped",
                title=f"{each.label} is not stopped",
                text=f"{campaigns(each.running)} on there: {each.why}. To stop it: {each.what_to_do}.",
            )
            for each in facts.unstopped
        ]
    if facts.hold:
        found.append(
            NeedItem(
                id="hold",
                severity="bad",
                title="The agent holds still to be safe",
                text=f"{facts.hold[:1].upper()}{facts.hold[1:]}. Nothing that raises spend is sent until it is cured.",
            )
        )
    found += [
        NeedItem(
            id=f"frozen-{name}",
            severity="bad",
            title=f"“{name}” does not run",
            text="It must run for money to be safe, so nothing that raises spend is sent until it works again.",
        )
        for name in facts.frozen
    ]
    found += _platform_needs(facts)
    for name, error in facts.troubled:
        found.append(
            NeedItem(id=f"loop-{name}", severity="attention", title=f"“{name}” keeps failing", text=error[:300])
        )
    for label, count in facts.unknown:
        changes = "1 change" if count == 1 else f"{count} changes"
        found.append(
            NeedItem(
                id=f"unknown-{label}",
                severity="attention",
                title=f"{label} did not say whether {changes} took effect",
                text="The agent keeps reading back and tries nothing twice. If this stays, look at the account there.",
            )
        )
    for alert in facts.alerts:
        found.append(
            NeedItem(
                id=alert.notification_id,
                severity="bad" if alert.critical else "attention",
                title=alert.title,
                text=alert.message,
                since=iso(alert.at),
            )
        )
    return sorted(found, key=lambda item: ("stopped", "bad", "attention").index(item.severity))


def campaigns(running: int) -> str:
    """How many campaigns run, as the beginning of a sentence."""
    return "1 campaign runs" if running == 1 else f"{running} campaigns run"


def _platform_needs(facts: Facts) -> list[NeedItem]:
    found: list[NeedItem] = []
    for each in facts.platforms:
        if each.quarantined is not None:
            found.append(
                NeedItem(
                    id=f"quarantine-{each.connector}",
                    severity="bad",
                    title=f"{each.label} was put aside",
                    text=f"Its connector failed: {each.quarantined[:300]}. The other platforms run on.",
                )
            )
        elif each.lost is not None:
            found.append(
                NeedItem(
                    id=f"lost-{each.connector}",
                    severity="bad",
                    title=f"{each.label} cannot be read",
                    text=f"{each.lost[:300].rstrip('.')}. It is tried again and again.",
                )
            )
        elif not each.has_cap:
            found.append(
                NeedItem(
                    id=f"cap-{each.connector}",
                    severity="attention",
                    title=f"{each.label} has no daily cap",
                    text=f"Without one it may spend nothing. Set daily_cap in [connector.{each.connector}].",
                )
            )
        elif each.silent_for > _long(facts):
            found.append(
                NeedItem(
                    id=f"old-{each.connector}",
                    severity="attention",
                    title=f"{each.label} has not reported for a while",
                    text="Until it does, it is taken to spend as before; bids its budgets or cap leave no room for"
                    " are lowered or paused.",
                    since=iso(Instant(facts.now - each.silent_for)),
                )
            )
        if each.overshoot is not None:
            found.append(
                NeedItem(
                    id=f"overshoot-{each.connector}",
                    severity="attention",
                    title=f"{each.label} spent {each.overshoot} more than its cap",
                    text="It is booked in full. Nothing more is permitted there until the day or window has passed.",
                )
            )
    return found


def status_line(facts: Facts, waiting: Sequence[NeedItem]) -> StatusLine:
    """One sentence: how it goes, and whether anybody is needed."""
    count = len(waiting)
    need = "1 thing needs you" if count == 1 else f"{count} things need you"
    if facts.starting is not None:
        lost = any(each.lost is not None for each in facts.platforms)
        also = f" {need}." if lost else ""
        return StatusLine(tone="bad" if lost else "starting", sentence=f"Starting: {facts.starting}.{also}")
    if facts.killed and facts.unstopped:
        where = ", ".join(each.label for each in facts.unstopped)
        return StatusLine(tone="bad", sentence=f"Stopped, but not {where}: campaigns run on there. {need}.")
    if facts.killed:
        return StatusLine(tone="stopped", sentence="Stopped. No bid and no budget is raised until you say so.")
    if facts.hold or facts.frozen:
        return StatusLine(tone="bad", sentence="On hold. Spending is not raised until this is cured.")
    if any(item.severity == "bad" for item in waiting):
        return StatusLine(tone="bad", sentence=f"Running, with a fault. {need}.")
    if count:
        return StatusLine(tone="attention", sentence=f"Running. {need}.")
    if not any(each.spend_as_of is not None for each in facts.platforms):
        return StatusLine(tone="starting", sentence="Reading your accounts. Nothing needs you.")
    return StatusLine(tone="good", sentence="On plan. Nothing needs you.")


def _long(facts: Facts) -> int:
    return max(MANY_PERIODS * facts.spend_period, 5 * MINUTE)
