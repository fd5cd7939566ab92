"""Backups of the record, and the way back from one: making, proving, keeping and restoring copies of the database.

A backup is three files: the database, its known head, and a note that names it and says when it was last proved whole;
the note comes last, so what has none is no backup. Never here: what rows mean, whether money may move, HTTP.
"""

from kiki_agent.recovery.backups import (
    Backup,
    Reason,
    find_backup,
    keep_before_migration,
    list_backups,
    make_backup,
    prune,
    verify_backup,
)
from kiki_agent.recovery.loops import BackupLoop, RestoredHold
from kiki_agent.recovery.restoring import Restored, restore, unfinished_restore
from kiki_agent.recovery.service import Backups

__all__ = [
    "Backup",
    "BackupLoop",
    "Backups",
    "Reason",
    "Restored",
    "RestoredHold",
    "find_backup",
    "keep_before_migration",
    "list_backups",
    "make_backup",
    "prune",
    "restore",
    "unfinished_restore",
    "verify_backup",
]
