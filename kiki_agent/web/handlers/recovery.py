"""Backups, the way back from one, and the ledger as text: also while the database cannot be trusted or opened."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiohttp import web

from kiki_agent.errors import StoreError
from kiki_agent.ledger import file_chunks
from kiki_agent.model import iso
from kiki_agent.recovery import Backup, Reason
from kiki_agent.recovery.service import Busy
from kiki_agent.store import AlreadyRunning
from kiki_agent.web.endpoint import Call, answer
from kiki_agent.web.problem import FieldProblem, Problem
from kiki_agent.web.services import need
from kiki_agent.web.shapes.base import Nothing
from kiki_agent.web.shapes.recovery import (
    BackupBegun,
    BackupItem,
    BackupsAnswer,
    ExportQuery,
    RestoreAnswer,
    RestoreBody,
)

_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv"}


async def backups(call: Call, _: Nothing) -> web.Response:
    """Every backup, newest first."""
    services = call.services
    kept = need(services.backups, "the backups")
    items = [_item(each) for each in await kept.listed()]
    making = kept.making
    return answer(
        BackupsAnswer(
            items=items,
            total=len(items),
            folder=str(kept.folder),
            making=making,
            progress=None if making is None else round(kept.progress, 3),
            age_s=kept.age_s(services.clock.now()),
            failure=kept.failure,
        )
    )


async def begin(call: Call, _: Nothing) -> web.Response:
    """Begin a backup; the list says when it is done and whether it is whole."""
    kept = need(call.services.backups, "the backups")
    try:
        return answer(BackupBegun(backup_id=kept.begin(Reason.MANUAL)), 202)
    except Busy as busy:
        raise Problem(409, str(busy), "BUSY") from busy


async def verify(call: Call, _: Nothing) -> web.Response:
    """Hash a backup's bytes and both its chains again."""
    kept = need(call.services.backups, "the backups")
    return answer(_item(await kept.verify(await _known(call))))


async def restore(call: Call, body: RestoreBody) -> web.Response:
    """Put a backup in place of a database that cannot be trusted, and start again on it.

    An agent whose record is sound refuses: it is stopped first, and `kiki-agent restore` does it.
    """
    services = call.services
    name = await _known(call)
    if body.confirm != name:
        message = f"must repeat the name of the backup, {name}"
        raise Problem(422, f"confirm: {message}", fields=[FieldProblem("confirm", message)])
    restorer = need(services.restorer, "the way back")
    try:
        done = await restorer(name)
    except (Busy, AlreadyRunning) as error:
        raise Problem(409, str(error), "NOT_IN_RECOVERY") from error
    call.house.overview.forget()
    return answer(
        RestoreAnswer(
            backup_id=done.backup,
            seq=done.seq,
            head_hash=done.head_hash,
            epoch=done.epoch,
            lost_entries=done.lost_entries,
            replaced=done.replaced,
            unknown=done.unknown,
            carried=done.carried,
        )
    )


async def export(call: Call, query: ExportQuery) -> web.StreamResponse:
    """Every entry of the ledger, oldest first, as one JSON object a line or as CSV.

    Of a damaged database every entry up to the first unreadable one comes, and then the answer breaks off unfinished.
    """
    path = need(call.services.backups, "the record").database
    pieces = file_chunks(path, query.format)
    first = await asyncio.to_thread(_next, pieces)
    response = web.StreamResponse(
        headers={
            "Content-Type": _TYPES[query.format],
            "Content-Disposition": f'attachment; filename="ledger.{query.format}"',
        }
    )
    await response.prepare(call.request)
    try:
        while first is not None:
            await response.write(first[0].encode())
            first = await asyncio.to_thread(_next, pieces)
        await response.write_eof()
    except StoreError:
        if call.request.transport is not None:  # no end of the body: whoever reads knows that it is not all
            call.request.transport.abort()
    except ConnectionError:
        pass
    finally:
        await asyncio.to_thread(pieces.close)
    return response


async def _known(call: Call) -> str:
    """The backup the path names. 404 when there is none."""
    name = call.part("id")
    kept = need(call.services.backups, "the backups")
    if not any(each.name == name for each in await kept.listed()):
        raise Problem(404, f"there is no backup {name!r}; GET /admin/backups lists them", "UNKNOWN_BACKUP")
    return name


def _next(pieces: Iterator[tuple[str, int]]) -> tuple[str, int] | None:
    return next(pieces, None)


def _item(backup: Backup) -> BackupItem:
    return BackupItem(
        backup_id=backup.name,
        created_at=iso(backup.made_at),
        reason=Reason(backup.reason).value,
        size_bytes=backup.size_bytes,
        sha256=backup.sha256,
        seq=backup.seq,
        head_hash=backup.head_hash,
        verified=backup.verified_at is not None,
        verified_at=None if backup.verified_at is None else iso(backup.verified_at),
        problem=backup.problem or None,
    )
