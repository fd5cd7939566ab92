"""What a stop did and did not do, platform by platform, in the words of the page and of the interface."""

from __future__ import annotations

from kiki_agent.model import Platform
from kiki_agent.web.sentence import Unstopped, campaigns
from kiki_agent.web.services import Services
from kiki_agent.web.shapes.health import StopReach


def reach_of(services: Services) -> list[StopReach]:
    """Every platform, and whether a stop goes out there; empty while nobody can say."""
    if services.governor is None:
        return []
    return [
        StopReach(
            connector=each.connector,
            platform=Platform.parse(services.settings.connector[each.connector].platform).value,
            reached=not each.why_not,
            running=each.running,
            why_not=each.why_not or None,
            what_to_do=each.what_to_do or None,
        )
        for each in services.governor.reach.all()
    ]


def unstopped(services: Services) -> tuple[Unstopped, ...]:
    """Platforms where campaigns run on while the switch is on."""
    if services.governor is None or services.shield is None or not services.shield.killed:
        return ()
    return tuple(
        Unstopped(
            each.connector,
            Platform.parse(services.settings.connector[each.connector].platform).label,
            each.running,
            each.why_not,
            each.what_to_do,
        )
        for each in services.governor.reach.all()
        if each.missed
    )


def sentence_of(on: bool, reach: list[StopReach]) -> str:
    """What is stopped and what is not."""
    missed = [each for each in reach if not each.reached]
    if not on:
        text = "Spending is allowed."
        return f"{text} A stop would not reach {_names(missed)}: see why_not." if missed else text
    parts = []
    reached = [each for each in reach if each.reached]
    if reached:
        running = sum(each.running for each in reached)
        names = _names(reached)
        if running:
            many = "1 running campaign is" if running == 1 else f"{running} running campaigns are"
            parts.append(f"{names}: {many} being paused.")
        else:
            parts.append(f"{names}: stopped, no campaign runs.")
    elif not reach:
        parts.append("Nothing that raises spend is sent.")
    parts += [
        f"{each.connector}: not stopped, because {each.why_not}."
        + (f" {campaigns(each.running)} on there." if each.running else "")
        + f" To stop it: {each.what_to_do}."
        for each in missed
    ]
    return " ".join(parts)


def _names(found: list[StopReach]) -> str:
    return ", ".join(each.connector for each in found)
