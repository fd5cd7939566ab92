"""Edits of others and pins: their rows, and how people are told."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from kiki_agent.accounts import Lever, OutsideEdit
from kiki_agent.governor.holds import Hold, erase_hold, write_hold
from kiki_agent.ledger import Ledger
from kiki_agent.model import Instant, decimal_text

Source = Literal["person", "vendor", "tool", "unknown", "outside"]


@dataclass(frozen=True, slots=True)
class SeenEdit:
    """An edit of somebody else, as read back from the record."""

    connector: str
    campaign_id: str
    lever: Lever
    before: int
    after: int
    source: Source
    """`person`, `vendor`, `tool` or `unknown` as the platform's history says; `outside` where it says nothing."""
    at: Instant
    """When it was seen."""
    through: str = ""
    """The program it was made with, in the platform's word."""
    made_at: Instant | None = None
    """When it was made, by the platform's history."""


def write_edits(
    connection: sqlite3.Connection, ledger: Ledger, edits: Sequence[OutsideEdit], made: Sequence[Hold]
) -> None:
    """The record of edits, one ledger entry each, and the holds they lead to."""
    for edit, hold in zip(edits, made, strict=True):
        connection.execute(
            "INSERT INTO external_edits (connector, campaign_id, entity, lever, before, after, source, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                edit.connector,
                edit.campaign_id,
                edit.entity,
                edit.lever.value,
                edit.before,
                edit.after,
                edit.source,
                edit.at,
            ),
        )
        body = {
            "connector": edit.connector,
            "campaign_id": edit.campaign_id,
            "entity": edit.entity,
            "lever": edit.lever.value,
            "before": edit.before,
            "after": edit.after,
            "source": edit.source,
            "left_alone_until": hold.until,
        }
        ledger.append(connection, edit.at, "external", body)
        write_hold(connection, hold)


def write_pin(connection: sqlite3.Connection, ledger: Ledger, hold: Hold, by: str, now: Instant) -> None:
    """A lever is left alone from now on."""
    write_hold(connection, hold)
    _enter(connection, ledger, hold, True, by, now)


def write_unpin(connection: sqlite3.Connection, ledger: Ledger, hold: Hold, by: str, now: Instant) -> None:
    """A lever is the agent's again."""
    erase_hold(connection, hold.key)
    _enter(connection, ledger, hold, False, by, now)


def _enter(connection: sqlite3.Connection, ledger: Ledger, hold: Hold, on: bool, by: str, now: Instant) -> None:
    body = {
        "control": "lever_hold",
        "on": on,
        "connector": hold.connector,
        "entity": hold.entity,
        "lever": hold.lever.value,
        "value": hold.value,
        "source": hold.source,
        "by": by,
    }
    ledger.append(connection, now, "control", body)


def read_edits(connection: sqlite3.Connection, limit: int, offset: int) -> tuple[list[SeenEdit], int]:
    """Edits of others, newest first, and how many there are in all."""
    total = connection.execute("SELECT count(*) FROM external_edits").fetchone()[0]
    rows = connection.execute(
        "SELECT connector, campaign_id, lever, before, after, source, at, through, made_at FROM external_edits"
        " ORDER BY id DESC LIMIT ? OFFSET ?",
        (limit, offset),
    ).fetchall()
    found = [SeenEdit(row[0], row[1], Lever(row[2]), row[3], row[4], row[5], Instant(row[6]), *row[7:]) for row in rows]
    return found, total


def news_of(edits: Sequence[OutsideEdit], currency: str, cap: int | None, step: Fraction) -> tuple[str, str, str]:
    """Severity, title and message for edits of one connector, whose day has a cap.

    A budget above the cap is told as critical, one raised by more than `step` (the agent's own largest, as a share of
    what stood) as a warning: a person may have slipped a digit, and the agent does not set it back.
    """
    alarms = [_alarm(each, cap, step) for each in edits]
    severity = next((each for each in ("CRITICAL", "WARNING") if each in alarms), "INFO")
    first = edits[alarms.index(severity)]
    many = f"the {first.lever.value} of {first.campaign_id}" if len(edits) == 1 else f"{len(edits)} levers"
    title = f"{first.connector}: somebody else changed {many}"
    also = " and others" if len(edits) > 1 else ""
    text = f"{_words(first, currency)}{also}; the agent leaves that alone."
    if severity == "CRITICAL":
        text += (
            f" That is above the platform's cap of a day, {decimal_text(cap or 0, currency)}, which holds all the same."
        )
    elif severity == "WARNING":
        text += " That is an unusual raise: is it what was meant?"
    return severity, title, text


def _alarm(edit: OutsideEdit, cap: int | None, step: Fraction) -> str:
    if edit.lever is not Lever.BUDGET or edit.after <= edit.before:
        return "INFO"
    if cap is not None and edit.after > cap:
        return "CRITICAL"
    return "WARNING" if edit.after - edit.before > edit.before * step else "INFO"


def _words(edit: OutsideEdit, currency: str) -> str:
    if edit.lever is Lever.STATUS:
        return f"{edit.campaign_id} was {'resumed' if edit.after else 'paused'}"
    amounts = f"{decimal_text(edit.before, currency)} to {decimal_text(edit.after, currency)}"
    return f"{edit.lever.value} of {edit.campaign_id} went from {amounts}"
