"""Shapes of backups, restores and the exported ledger."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kiki_agent.web.shapes.base import Answer, Given, Ident, Seconds


class BackupItem(Answer):
    """One backup."""

    backup_id: str
    created_at: str
    reason: Literal["daily", "manual", "migration"]
    size_bytes: int
    sha256: str
    seq: int = Field(description="Number of the last entry of its ledger.")
    head_hash: str
    verified: bool = Field(description="Its bytes and both its chains were found whole when it was last looked at.")
    verified_at: str | None
    problem: str | None


class BackupsAnswer(Answer):
    """All backups, newest first, and how the making of them goes."""

    items: list[BackupItem]
    total: int
    folder: str
    making: str | None = Field(description="The backup that is being made now.")
    progress: float | None = Field(description="Share done of it, 0 to 1.")
    age_s: Seconds | None = Field(description="Since the newest backup that is whole; null when there is none.")
    failure: str | None = Field(description="Why the last one was not made or is not whole.")


class BackupBegun(Answer):
    """A backup that is being made."""

    backup_id: str


class RestoreBody(Given):
    """Put a backup in place of the database."""

    confirm: Ident = Field(description="The name of the backup once more.")


class RestoreAnswer(Answer):
    """What was put in place; the agent starts on it next, and waits for its platforms before it spends."""

    backup_id: str
    seq: int
    head_hash: str
    epoch: int
    lost_entries: int | None = Field(description="Entries known to be newer than the backup; null when unknown.")
    replaced: list[str] = Field(description="Where the replaced files are kept.")
    unknown: str | None = Field(
        description="Why it is not known what stood before: then a live agent starts stopped. Null when it is."
    )
    carried: list[str] = Field(description="What of the present the agent takes over, a sentence each.")


class ExportQuery(Given):
    """In which form."""

    format: Literal["jsonl", "csv"] = "jsonl"
