"""Backups of the record, and the way back from one: making, proving, keeping and restoring copies of the database.

A backup is three files: the database, its known head, and a note that names it and says when it was last proved whole;
the note comes last, so what has none is no backup. A restore carries orders to stop, levels, holds and money of the
present into the older record, so that it makes nobody bolder. Never here: whether money may move, HTTP.
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
from kiki_agent.recovery.carrying import Ground, carry_over, leave_to_carry
from kiki_agent.recovery.loops import BackupLoop, RestoredHold
from kiki_agent.recovery.restoring import Restored, restore, unfinished_restore
from kiki_agent.recovery.service import Backups
from kiki_agent.recovery.standing import Standing, read_standing

__all__ = [
    "Backup",
    "BackupLoop",
    "Backups",
    "Ground",
    "Reason",
    "Restored",
    "RestoredHold",
    "Standing",
    "carry_over",
    "find_backup",
    "keep_before_migration",
    "leave_to_carry",
    "list_backups",
    "make_backup",
    "prune",
    "read_standing",
    "restore",
    "unfinished_restore",
    "verify_backup",
]
