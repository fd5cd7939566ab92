"""`kiki-agent check`: everything that must be right before an agent can start, looked at without starting one."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from kiki_agent.cli.failure import FAILED, MISUSED
from kiki_agent.cli.options import Options, common
from kiki_agent.cli.output import emit, emit_json, emit_table, silence_log
from kiki_agent.config import HttpSettings, Loaded, Mode, Settings
from kiki_agent.errors import ConfigError, PluginError, StoreError, Unsupported

if TYPE_CHECKING:
    from kiki_agent.hooks.manager import Plugins


@dataclass(frozen=True, slots=True)
class Checked:
    """One thing that was looked at."""

    check: str
    state: Literal["ok", "failed", "skipped"]
    detail: str


@click.command()
@common
def check(options: Options) -> int:
    """Say whether an agent could start, and everything that is in the way.

    Looks at the configuration, the plugins and their tables, the database, the port, and, except in the demo, whether
    each platform answers, and whether its account is kept in the configured money and days. Changes nothing. Ends with
    0 when all is well, with 2 when the configuration is wrong, with 1 when something else is.
    """
    silence_log()
    try:
        loaded = options.load()
    except ConfigError as error:
        rows = list(_findings("configuration", error))
        code = MISUSED
    else:
        rows = [Checked("configuration", "ok", f"read from {loaded.file}")]
        plugin_rows, code = asyncio.run(look_at_plugins(loaded))
        rows += [
            *plugin_rows,
            *_database(loaded.settings),
            *_token(loaded.settings.http),
            look_at_port(loaded.settings),
        ]
        if code == 0 and any(row.state == "failed" for row in rows):
            code = FAILED
    if options.json:
        emit_json({"ok": code == 0, "checks": [asdict(row) for row in rows]})
        return code
    emit_table(("check", "state", "detail"), [(row.check, row.state, row.detail) for row in rows])
    failed = sum(row.state == "failed" for row in rows)
    emit("")
    emit("An agent can start." if code == 0 else f"An agent cannot start: {failed} of {len(rows)} checks failed.")
    return code


def _findings(name: str, error: ConfigError) -> Iterator[Checked]:
    for finding in error.findings:
        yield Checked(name, "failed", str(finding))


async def look_at_plugins(loaded: Loaded, *, online: bool = True) -> tuple[list[Checked], int]:
    """Plugins, their instances, and, when `online`, the platforms behind them; the exit code these lead to."""
    from kiki_agent.hooks.context import ContextFactory
    from kiki_agent.hooks.http_aiohttp import AiohttpHttp
    from kiki_agent.hooks.manager import Plugins
    from kiki_agent.runtime.clock import SystemClock

    asks_platforms = online and loaded.settings.mode in (Mode.DRY_RUN, Mode.LIVE)
    factory = ContextFactory(SystemClock(), lambda _: AiohttpHttp()) if asks_platforms else None
    try:
        plugins = await Plugins.load(loaded.settings, make_context=factory, locate=loaded.locate)
    except ConfigError as error:
        return list(_findings("plugins", error)), MISUSED
    rows = []
    for plugin in plugins.plugins:
        state: Literal["ok", "failed", "skipped"] = "ok" if plugin.state == "ok" else "skipped"
        detail = f"{plugin.source} {plugin.version}".strip() if plugin.state == "ok" else "not allowed by plugins.allow"
        if plugin.state == "quarantined":
            state, detail = "failed", plugin.error
        rows.append(Checked(f"plugin {plugin.name}", state, detail))
    try:
        answers: dict[str, object | PluginError] = {}
        for kind in ("connector", "crm", "notifier") if asks_platforms else ():
            answers |= await plugins.caller.fan(kind, "check")
        stated = await _stated(plugins, answers) if asks_platforms else {}
        for instance in plugins.instances.values():
            name = f"{instance.kind} {instance.id}"
            answer = answers.get(instance.id)
            if instance.state == "off":
                rows.append(Checked(name, "skipped", "switched off (enabled = false)"))
            elif instance.state == "quarantined" or isinstance(answer, PluginError):
                rows.append(Checked(name, "failed", str(answer) if answer is not None else instance.error))
            elif asks_platforms:
                rows.append(_account(loaded.settings, name, instance.id, stated.get(instance.id)))
            else:
                rows.append(
                    Checked(
                        name, "ok", f"configured; not asked, as {loaded.settings.mode} mode brings its own platforms"
                    )
                )
    finally:
        await plugins.close()
    return rows, 0


async def _stated(plugins: Plugins, answers: Mapping[str, object]) -> dict[str, object]:
    """What the platforms that answer say of their accounts."""
    stated: dict[str, object] = {}
    for instance in plugins.instances.values():
        if instance.kind != "connector" or instance.state != "ok" or isinstance(answers.get(instance.id), PluginError):
            continue
        try:
            stated[instance.id] = await plugins.caller.to(instance.id, "capabilities")
        except Unsupported:
            continue
        except PluginError as error:
            stated[instance.id] = error
    return stated


def _account(settings: Settings, name: str, connector: str, stated: object) -> Checked:
    """Whether a platform that answers keeps the account in the money and the days that are configured."""
    from kiki_agent.accounts import Account, mismatch
    from kiki_agent.hooks.capabilities import Capabilities

    if isinstance(stated, PluginError):
        return Checked(name, "failed", f"answers, but its account cannot be read: {stated}")
    if not isinstance(stated, Capabilities):
        return Checked(name, "ok", "answers")
    table = settings.connector[connector]
    account = Account(connector, table.platform, table.timezone or settings.timezone, settings.currency)
    problem = mismatch(account, stated.currency, stated.timezone)
    if problem:
        return Checked(name, "failed", problem)
    return Checked(name, "ok", f"answers; the account is in {stated.currency}, its days are those of {stated.timezone}")


def _database(settings: Settings) -> Iterator[Checked]:
    from kiki_agent.store.lock import LockFile
    from kiki_agent.store.schema import lock_path, status

    path = settings.database
    if not path.exists():
        yield _folder(path.parent)
        return
    try:
        states = status(path)
        wrong = [each for each in states if each.state in ("changed", "unknown")]
        pending = [each for each in states if each.state == "pending"]
        if wrong:
            said = ", ".join(f"{each.version:04} {each.name} is {each.state}" for each in wrong)
            yield Checked("database", "failed", f"{path}: {said}")
        else:
            said = f"migrations to apply at the start: {len(pending)}" if pending else "schema is up to date"
            yield Checked("database", "ok", f"{path}: {said}")
        LockFile.take(lock_path(path)).release()
        yield Checked("database lock", "ok", "no other agent uses the database")
    except StoreError as error:
        yield Checked("database", "failed", str(error))


def _folder(folder: Path) -> Checked:
    """A database that does not exist yet: could it be made?"""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Checked("database", "ok", f"{folder} will be filled at the first start")
    return Checked("database", "failed", f"{folder} cannot be made: {nearest} is not a folder that may be written to")


def _token(http: HttpSettings) -> Iterator[Checked]:
    """The file of the access token, where one is in use; it is not made here."""
    from kiki_agent.config import read_token

    if http.token is not None or http.token_file is None:
        return
    try:
        known = read_token(http) is not None
    except ConfigError as error:
        yield from _findings("token", error)
        return
    yield Checked("token", "ok", f"{http.token_file} {'holds it' if known else 'will be made at the first start'}")


def look_at_port(settings: Settings) -> Checked:
    """Whether the ports can be listened on."""
    host, port = settings.http.host, settings.http.port
    taken = []
    for number in (port, *settings.http.compat_ports):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), number, type=socket.SOCK_STREAM)[
                0
            ]
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
        except OSError as error:
            taken.append(f"{host}:{number} cannot be listened on: {error.strerror or error}")
    if taken:
        return Checked("port", "failed", "; ".join(taken))
    return Checked("port", "ok", f"{host}:{port} is free" if port else f"a free port of {host} will be taken")
