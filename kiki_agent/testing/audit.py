"""A ledger against what the platforms say: nothing lost, nothing twice, nothing above a cap, no money made."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kiki_agent.ledger import verify_file
from kiki_agent.model import Instant, iso, local_day
from kiki_agent.sandbox.draw import PLATFORMS

Effect = Mapping[str, Any]
"""One line of a sandbox's log of effects."""
SPAN = 600_000_000
"""Microseconds of the sliding window, as `shield.window_s` says by default."""


@dataclass
class Audit:
    """Counts of one comparison, and a sentence for each violation."""

    intents: int = 0
    effects: int = 0
    keyless: int = 0
    """Of the effects, those at vendors that have no field for our key."""
    budgets: int = 0
    """Of the effects, those that set a budget."""
    accepted: int = 0
    unknown: int = 0
    """Intents that are shown as unknown."""
    pending: int = 0
    """Intents that were journaled and have no receipt: what a kill between journal and confirm leaves."""
    lost: int = 0
    """Accepted in the ledger, without an effect at the platform."""
    double: int = 0
    """Effects beyond the first of one intent."""
    foreign: int = 0
    """Effects that no intent meant, or whose intent is on record as refused."""
    over_cap_micros: int = 0
    """Most micros by which spent and reserved passed a cap when something was permitted."""
    over_total_micros: int = 0
    """Most micros by which the sum of budgets at the platforms passed what it was at first."""
    orders: int = 0
    """What a person asked for: approved suggestions, and roll backs."""
    disorders: int = 0
    """Orders with more changes than were asked for, of one suggestion more than one, or approvals without any."""
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing at all is wrong."""
        return not self.problems

    def merge(self, other: Audit) -> None:
        """Keep the worst of two audits of one life, and all problems."""
        for name in ("lost", "double", "foreign", "over_cap_micros", "over_total_micros", "disorders"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        for name in ("intents", "effects", "keyless", "budgets", "accepted", "unknown", "pending", "orders"):
            setattr(self, name, getattr(other, name))
        self.problems += [each for each in other.problems if each not in self.problems]


def audit(
    database: Path,
    effects: Sequence[Effect],
    caps: Mapping[str, tuple[int, int]],
    campaigns: int,
) -> Audit:
    """Compare a database that no agent is writing to with the platforms' log of effects.

    `caps` are (daily, window) micros by connector; `campaigns` is the size of the market.
    """
    found = Audit(
        effects=len(effects),
        keyless=sum(not each["key"] for each in effects),
        budgets=sum(each["kind"] == "set_budget" for each in effects),
    )
    checked = verify_file(database, database.with_suffix(".head"))
    if not checked.ok:
        found.problems.append(f"the chain is broken: {checked.problem}")
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        intents = _intents(connection, campaigns)
        compare_effects(intents, effects, found)
        check_permits(connection, caps, found)
        _check_days(connection, caps, found)
        check_orders(connection, found)
    check_budgets(effects, found)
    return found


def open_intents(database: Path) -> int:
    """How many intents have no outcome yet; may be asked while an agent works."""
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        row = connection.execute("SELECT count(*) FROM intents WHERE state IN ('pending', 'unknown')").fetchone()
    return int(row[0])


def name_open_intents(database: Path, before: Instant) -> list[str]:
    """A phrase for each intent from before an instant without an outcome: what, where, how it stands, since when."""
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT kind, connector, state, outcome_reason, sent_at FROM intents"
            " WHERE state IN ('pending', 'unknown') AND sent_at < ?",
            (before,),
        ).fetchall()
    return [f"{kind} at {place}: {state} {why} since {iso(at)}" for kind, place, state, why, at in rows]


# -- effects and intents --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meant:
    """One intent as the ledger has it, and where it acts."""

    key: str
    platform: str
    kind: str
    place: int
    """The market's number of the campaign; of the first one that shares the budget."""
    after: int
    state: str


def _intents(connection: sqlite3.Connection, campaigns: int) -> list[Meant]:
    """All intents in the order in which they were journaled."""
    places, homes = _places(connection, campaigns)
    rows = connection.execute(
        "SELECT i.key, i.connector, i.kind, i.campaign_id, i.after, i.state FROM intents i"
        " JOIN (SELECT json_extract(body, '$.key') AS key, seq FROM ledger_entries WHERE kind = 'intent') l"
        " ON l.key = i.key ORDER BY l.seq"
    ).fetchall()
    found = []
    for key, connector, kind, campaign, after, state in rows:
        home = homes.get((connector, campaign), campaign) if kind == "set_budget" else campaign
        platform, place = places[connector, home]
        found.append(Meant(key, platform, kind, place, after, state))
    return found


def _places(
    connection: sqlite3.Connection, campaigns: int
) -> tuple[dict[tuple[str, str], tuple[str, int]], dict[tuple[str, str], str]]:
    """Campaign -> (platform, market's number of it), and campaign -> the first one it shares its budget with.

    The market numbers its campaigns platform by platform; an account's ids count in the same order.
    """
    firsts, first = {}, 0
    for index, each in enumerate(PLATFORMS):
        firsts[each.name] = first
        first += campaigns // len(PLATFORMS) + (index < campaigns % len(PLATFORMS))
    accounts: dict[str, list[tuple[int, str, str, str]]] = defaultdict(list)
    for connector, campaign, platform, budget in connection.execute(
        "SELECT connector, campaign_id, platform, budget_id FROM account_campaigns"
    ):
        accounts[connector].append((int(campaign), campaign, platform, budget))
    places: dict[tuple[str, str], tuple[str, int]] = {}
    homes: dict[tuple[str, str], str] = {}
    for connector, rows in accounts.items():
        groups: dict[str, str] = {}
        for rank, (_, campaign, platform, budget) in enumerate(sorted(rows)):
            places[connector, campaign] = (platform, firsts[platform] + rank)
            if budget:
                homes[connector, campaign] = groups.setdefault(budget, campaign)
    return places, homes


def compare_effects(intents: Sequence[Meant], effects: Sequence[Effect], found: Audit) -> None:
    """Count what is lost, double or foreign. Effects with a key belong to it; the others are told by what they did."""
    found.intents = len(intents)
    states = Counter(each.state for each in intents)
    found.accepted, found.unknown, found.pending = states["accepted"], states["unknown"], states["pending"]
    keyed = {str(each["platform"]) for each in effects if each["key"]}
    _compare_keys([each for each in intents if each.platform in keyed], effects, found)
    _compare_order([each for each in intents if each.platform not in keyed], effects, keyed, found)


def _compare_keys(intents: Sequence[Meant], effects: Sequence[Effect], found: Audit) -> None:
    seen = Counter(str(each["key"]) for each in effects if each["key"])
    states = {each.key: each.state for each in intents}
    for key, times in seen.items():
        if times > 1:
            found.double += times - 1
            found.problems.append(f"intent {key} has {times} effects")
        if key not in states:
            found.foreign += 1
            found.problems.append(f"an effect has key {key}, which no intent has")
        elif states[key] == "rejected":
            found.foreign += 1
            found.problems.append(f"intent {key} is on record as refused and has an effect")
    for key, state in states.items():
        if state == "accepted" and not seen[key]:
            found.lost += 1
            found.problems.append(f"intent {key} is accepted and has no effect")


def _compare_order(intents: Sequence[Meant], effects: Sequence[Effect], keyed: set[str], found: Audit) -> None:
    """Platforms that keep no key of ours: the effects of one lever of one campaign, in order, are its intents'."""
    meant: dict[tuple[str, str, int], list[Meant]] = defaultdict(list)
    for intent in intents:
        lever = "adjust_bid" if intent.kind == "place_bid" else intent.kind
        meant[intent.platform, lever, intent.place].append(intent)
    done: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for effect in effects:
        if effect["platform"] not in keyed:
            done[effect["platform"], effect["kind"], effect["campaign"]].append(effect["after"])
    for place in sorted(meant.keys() | done.keys()):
        _walk(place, meant[place], done[place], found)


def _walk(place: tuple[str, str, int], intents: Sequence[Meant], done: Sequence[int], found: Audit) -> None:
    """Accepted intents took the next effect; unknown ones may have; refused ones have none."""
    at = 0
    where = f"{place[1]} of campaign {place[2]} at {place[0]}"
    for number, intent in enumerate(intents):
        if intent.state == "rejected":
            continue
        if at < len(done) and done[at] == intent.after:
            at += 1
            while at < len(done) and done[at] == intent.after and not _meant_again(intents, number, intent.after):
                at += 1
                found.double += 1
                found.problems.append(f"intent {intent.key} ({where}) has more than one effect")
        elif intent.state == "accepted":
            found.lost += 1
            found.problems.append(f"intent {intent.key} ({where}, {intent.after}) is accepted and has no effect")
    for value in done[at:]:
        found.foreign += 1
        found.problems.append(f"{where} was set to {value}, which no intent meant")


def _meant_again(intents: Sequence[Meant], number: int, after: int) -> bool:
    """Whether the next intent that can have an effect means the same value."""
    following = next((each for each in intents[number + 1 :] if each.state != "rejected"), None)
    return following is not None and following.after == after


# -- caps -----------------------------------------------------------------------------------------------------------


def check_permits(
    connection: sqlite3.Connection, caps: Mapping[str, tuple[int, int]], found: Audit, *, timezone: str = "UTC"
) -> None:
    """Walk the ledger: at no permit may spent and reserved have passed the cap of the day or of the window.

    Independent of the shield's own books: only entries count, in their order. Reported spend counts in the day.
    """
    reserved: dict[str, dict[str, int]] = defaultdict(dict)
    placed: Counter[tuple[str, str]] = Counter()
    reported: dict[tuple[str, str], int] = {}
    window: dict[str, list[tuple[int, int]]] = defaultdict(list)
    last_day: dict[str, str] = {}
    for at, kind, text in connection.execute(
        "SELECT at, kind, body FROM ledger_entries WHERE kind IN ('permit', 'spend', 'lease') ORDER BY seq"
    ):
        body = json.loads(text)
        connector = body["connector"]
        daily, most = caps.get(connector, (0, 0))
        day = max(body.get("day") or local_day(Instant(at), timezone), last_day.get(connector, ""))
        last_day[connector] = day
        if kind == "spend":
            reported[connector, body["day"]] = body["reported_micros"]
            continue
        if kind == "lease":
            _over(found, body["lease_micros"] - daily, f"the lease of {connector} on {day}")
            continue
        open_ones = reserved[connector]
        if body["state"] == "reserved":
            open_ones[body["reservation_id"]] = body["amount_micros"]
            held = sum(open_ones.values())
            spent = placed[connector, day] + reported.get((connector, day), 0)
            _over(found, held + spent - daily, f"{connector} on {day}, permit {body['reservation_id']}")
            inside = sum(micros for when, micros in window[connector] if when > at - SPAN)
            _over(found, held + inside - most, f"the window of {connector}, permit {body['reservation_id']}")
        else:
            open_ones.pop(body["reservation_id"], None)
            placed[connector, day] += body["spent_micros"]
            if body["spent_micros"]:
                window[connector] = [each for each in window[connector] if each[0] > at - SPAN]
                window[connector].append((at, body["spent_micros"]))


def _over(found: Audit, micros: int, where: str) -> None:
    if micros > 0:
        found.over_cap_micros = max(found.over_cap_micros, micros)
        found.problems.append(f"{micros} micros were permitted above the cap: {where}")


def _check_days(connection: sqlite3.Connection, caps: Mapping[str, tuple[int, int]], found: Audit) -> None:
    """The rows of the present: what is reserved is what open reservations say, and placed money fits its cap."""
    for connector, day, placed, reserved in connection.execute(
        "SELECT connector, day, placed_micros, reserved_micros FROM spend_days d"
        " WHERE day = (SELECT max(day) FROM spend_days WHERE connector = d.connector)"
    ):
        held = connection.execute(
            "SELECT coalesce(sum(amount_micros), 0) FROM reservations WHERE connector = ? AND state = 'reserved'",
            (connector,),
        ).fetchone()[0]
        if held != reserved:
            found.problems.append(f"{connector} on {day}: {reserved} micros reserved, open reservations say {held}")
        _over(found, placed + reserved - caps.get(connector, (0, 0))[0], f"the row of {connector} on {day}")


# -- budgets --------------------------------------------------------------------------------------------------------


def check_budgets(effects: Sequence[Effect], found: Audit) -> None:
    """A shift makes no money: after no single effect is the sum of budgets above what it was at first (M4)."""
    budgets = [each for each in effects if each["kind"] == "set_budget"]
    first: dict[tuple[str, int], int] = {}
    for each in budgets:
        first.setdefault((each["platform"], each["campaign"]), each["before"])
    now = dict(first)
    for each in budgets:
        place = (each["platform"], each["campaign"])
        if now[place] != each["before"]:
            found.problems.append(f"budget of {place} was {now[place]}, effect {each['n']} says {each['before']}")
        now[place] = each["after"]
        over = sum(now.values()) - sum(first.values())
        if over > 0:
            found.over_total_micros = max(found.over_total_micros, over)
            found.problems.append(f"effect {each['n']} put the sum of budgets {over} micros above the first one")


# -- orders of people -----------------------------------------------------------------------------------------------


def check_orders(connection: sqlite3.Connection, found: Audit) -> None:
    """What was approved is ordered once, and no order makes more changes than a person asked for."""
    found.orders = connection.execute("SELECT count(*) FROM orders").fetchone()[0]
    twice = connection.execute(
        "SELECT o.order_id || ' makes ' || count(*) || ' changes instead of ' || json_array_length(o.changes)"
        " FROM orders o JOIN intents i ON i.cause = o.order_id AND i.state IN ('accepted', 'unknown', 'pending')"
        " GROUP BY o.order_id HAVING count(*) > json_array_length(o.changes)"
    ).fetchall()
    again = connection.execute(
        "SELECT subject || ' was ordered ' || count(*) || ' times' FROM orders WHERE kind = 'suggestion'"
        " GROUP BY subject HAVING count(*) > 1"
    ).fetchall()
    forgotten = connection.execute(
        "SELECT suggestion_id || ' was approved and is not ordered' FROM suggestions"
        " WHERE state = 'approved' AND kind = 'change' AND suggestion_id NOT IN (SELECT subject FROM orders)"
    ).fetchall()
    sentences = [f"order {row[0]}" for row in twice] + [f"suggestion {row[0]}" for row in again + forgotten]
    found.disorders = len(sentences)
    found.problems += sentences
