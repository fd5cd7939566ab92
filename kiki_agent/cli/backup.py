"""`kiki-agent backup` and `kiki-agent restore`: copies of the record, and the way back from one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kiki_agent.cli.failure import FAILED, CommandError
from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json, emit_table, progress
from kiki_agent.config import Mode

if TYPE_CHECKING:
    from kiki_agent.recovery import Backup


@click.command()
@click.option("--list", "listing", is_flag=True, help="List the backups instead of making one.")
@click.option("--verify", "proving", is_flag=True, help="Prove NAME again instead, or all backups.")
@click.argument("name", required=False, metavar="[NAME]")
@common
def backup(options: Options, listing: bool, proving: bool, name: str | None) -> int:
    """Copy the record, prove the copy, and say where it is.

    Works while an agent runs. Ends with 1 when a backup is not whole.
    """
    if listing and proving:
        raise click.UsageError("--list and --verify are asked for one at a time")
    if name is not None and not proving:
        raise click.UsageError("a name goes with --verify")
    if listing:
        return _list(options)
    return _verify(options, name) if proving else _make(options)


@click.command()
@click.argument("backup", metavar="NAME|PATH")
@common
def restore(options: Options, backup: str) -> None:
    """Put a backup back in place; refused while an agent runs.

    The replaced files are kept beside it. The next agent spends nothing before every platform has told what was spent
    since the backup was made.
    """
    from kiki_agent.recovery import restore as put_back
    from kiki_agent.recovery.backups import NAME, database_of
    from kiki_agent.runtime.clock import SystemClock

    settings = options.load().settings
    source = database_of(settings.backup_folder, backup) if NAME.fullmatch(backup) else Path(backup)
    with progress(f"restoring {source.stem}") as on_progress:
        done = put_back(
            settings.database,
            settings.ledger_head,
            source,
            client_id=settings.client_id,
            now=SystemClock().now(),
            on_progress=on_progress,
        )
    if options.json:
        emit_json(asdict(done))
        return
    emit(f"{done.database}: restored from {done.backup}, {done.seq} entries, head {done.head_hash}")
    if done.lost_entries:
        emit(f"{done.lost_entries} entries were written after that backup; they are in what was replaced.")
    for path in done.replaced:
        emit(f"kept: {path}")
    for sentence in done.carried:
        emit(f"carried over: {sentence}")
    if done.unknown:
        emit(f"What stood before is not known for certain: {done.unknown}.")
        if settings.mode is Mode.LIVE:
            emit(
                "The next agent therefore starts with the kill switch on and every platform at watch, and permits"
                " nothing before the account days of now have ended (docs/recovery.md)."
            )
    emit("The next agent waits until every platform has told what was spent, and spends nothing before.")


def _make(options: Options) -> int:
    from kiki_agent.recovery import Reason, make_backup
    from kiki_agent.recovery.backups import new_name
    from kiki_agent.runtime.clock import SystemClock

    settings = options.load().settings
    now, folder = SystemClock().now(), settings.backup_folder
    name = new_name(folder, settings.database.stem, Reason.MANUAL, now)
    with progress(f"backup {name}") as on_progress:
        made = make_backup(
            settings.database,
            folder,
            name,
            Reason.MANUAL,
            now,
            known_head=settings.ledger_head,
            on_progress=on_progress,
        )
    if options.json:
        emit_json({"folder": str(folder), **_as_json(made)})
    elif made.problem:
        emit(f"{folder / name}.db: not whole, not to be relied on: {made.problem}")
    else:
        emit(f"{folder / name}.db: {made.size_bytes} bytes, {made.seq} entries, head {made.head_hash}; proved whole")
    return FAILED if made.problem else 0


def _list(options: Options) -> int:
    from kiki_agent.model import iso
    from kiki_agent.recovery import list_backups

    settings = options.load().settings
    found = list_backups(settings.backup_folder, settings.database.stem)
    if options.json:
        emit_json({"folder": str(settings.backup_folder), "backups": [_as_json(each) for each in found]})
        return 0
    if not found:
        emit(f"There is no backup of {settings.database.name} in {settings.backup_folder}; make one: kiki-agent backup")
        return 0
    emit(f"folder: {settings.backup_folder}")
    rows = [
        (
            each.name,
            f"{each.size_bytes / 1e6:.1f} MB",
            each.seq,
            "no: " + each.problem if each.verified_at is None else iso(each.verified_at)[:19],
        )
        for each in found
    ]
    emit_table(("backup", "size", "entries", "found whole"), rows)
    return 0


def _verify(options: Options, name: str | None) -> int:
    from kiki_agent.recovery import list_backups, verify_backup
    from kiki_agent.runtime.clock import SystemClock

    settings = options.load().settings
    folder = settings.backup_folder
    names = [name] if name is not None else [each.name for each in list_backups(folder, settings.database.stem)]
    if not names:
        raise CommandError(f"there is no backup of {settings.database.name} in {folder} to verify")
    found = []
    with progress(f"{len(names)} backups") as on_progress:
        for number, each in enumerate(names):
            on_progress(number / len(names))
            found.append(verify_backup(folder, each, SystemClock().now()))
    bad = [each for each in found if each.problem]
    if options.json:
        emit_json({"folder": str(folder), "ok": not bad, "backups": [_as_json(each) for each in found]})
    else:
        for one in found:
            emit(f"{one.name}: {one.problem or f'whole, {one.seq} entries, head {one.head_hash}'}")
    return FAILED if bad else 0


def _as_json(backup: Backup) -> dict[str, object]:
    from kiki_agent.model import iso

    verified = backup.verified_at
    return {
        **asdict(backup),
        "made_at": iso(backup.made_at),
        "verified_at": None if verified is None else iso(verified),
        "verified": verified is not None,
    }
