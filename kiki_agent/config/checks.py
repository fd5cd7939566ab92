"""What single settings cannot know: rules over several of them, each a finding with the key to change."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kiki_agent.config.known_names import KNOWN_NAMES
from kiki_agent.config.layers import variable
from kiki_agent.config.schema import is_secret
from kiki_agent.config.settings import ConnectorSettings, Mode, Settings
from kiki_agent.model.money import micros_from_text

MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Conflict:
    """A rule that is broken: the key to point at, and what to do."""

    path: tuple[str, ...]
    message: str


def conflicts(settings: Settings, given: set[str]) -> Iterator[Conflict]:
    """Every broken rule. `given` holds the dotted keys somebody set, as opposed to defaults."""
    yield from _listener(settings)
    yield from _timing(settings)
    yield from _instances(settings)
    yield from _worth(settings)
    if settings.mode is Mode.LIVE:
        yield from _live(settings, given)


def is_loopback(host: str) -> bool:
    """True when only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _worth(settings: Settings) -> Iterator[Conflict]:
    least, most = settings.shield.min_ltv, settings.shield.max_ltv
    if least is not None and most is not None and micros_from_text(least) > micros_from_text(most):
        yield Conflict(("shield", "min_ltv"), f"found {least}, expected at most shield.max_ltv ({most})")


def _listener(settings: Settings) -> Iterator[Conflict]:
    http = settings.http
    token = http.token.get_secret_value() if http.token is not None else None
    if token is None and http.token_file is None and not is_loopback(http.host):
        yield Conflict(
            ("http", "host"),
            f"found {http.host!r}, which other machines can reach, without http.token; expected 127.0.0.1, or a token "
            f"(looked for http.token in the file and in {variable(('http', 'token'))})",
        )
    if token is not None and len(token) < MIN_TOKEN_LENGTH:
        yield Conflict(
            ("http", "token"), f"found {len(token)} characters, expected a secret text of at least {MIN_TOKEN_LENGTH}"
        )
    ports = http.compat_ports
    if len(set(ports)) != len(ports) or http.port in ports:
        yield Conflict(("http", "compat_ports"), "expected ports that differ from each other and from http.port")


def _timing(settings: Settings) -> Iterator[Conflict]:
    bidding = settings.bidding
    if bidding.deadline_s > bidding.interval_s:
        yield Conflict(
            ("bidding", "deadline_s"),
            f"found {bidding.deadline_s:g}, expected at most bidding.interval_s ({bidding.interval_s:g})",
        )
    if settings.value.min_samples > settings.value.history:
        yield Conflict(
            ("value", "min_samples"),
            f"found {settings.value.min_samples}, expected at most value.history ({settings.value.history})",
        )


def _instances(settings: Settings) -> Iterator[Conflict]:
    owners: dict[str, str] = {}
    tables: dict[str, Iterable[str]] = {
        "connector": settings.connector,
        "crm": settings.crm,
        "notifier": settings.notifier,
    }
    for kind, instances in tables.items():
        for instance in instances:
            if not (instance.isascii() and instance.replace("_", "a").isalnum() and instance == instance.lower()):
                message = "expected an id of lower-case letters, digits and underscores"
                yield Conflict((kind, instance), message)
            elif "__" in instance or instance.startswith("_") or instance.endswith("_"):
                message = "expected an id without double, leading or trailing underscores, which variables need"
                yield Conflict((kind, instance), message)
            if instance in owners:
                message = f"found an id that [{owners[instance]}.{instance}] has already; ids are unique over all kinds"
                yield Conflict((kind, instance), message)
            owners.setdefault(instance, kind)
    for instance, connector in settings.connector.items():
        yield from _caps(instance, connector)


def _caps(instance: str, connector: ConnectorSettings) -> Iterator[Conflict]:
    if connector.kind == "basic" and connector.window_cap is not None:
        yield Conflict(
            ("connector", instance, "window_cap"),
            'found a cap, but a basic connector has no window; remove it or set kind = "smart"',
        )
    if connector.daily_cap is None or connector.window_cap is None:
        return
    if micros_from_text(connector.window_cap) > micros_from_text(connector.daily_cap):
        yield Conflict(
            ("connector", instance, "window_cap"),
            f"found {connector.window_cap}, expected at most daily_cap ({connector.daily_cap})",
        )


def _live(settings: Settings, given: set[str]) -> Iterator[Conflict]:
    allow = ("plugins", "allow")
    if "plugins.allow" not in given:
        yield Conflict(
            allow, f"missing: live mode runs only plugins named there (looked in the file and in {variable(allow)})"
        )
    active = {instance: connector for instance, connector in settings.connector.items() if connector.enabled}
    if not active:
        yield Conflict(("connector",), "missing: live mode needs at least one [connector.<id>] table that is enabled")
    for instance, connector in active.items():
        for cap in ("daily_cap", "window_cap") if connector.kind == "smart" else ("daily_cap",):
            if getattr(connector, cap) is None:
                capped = ("connector", instance, cap)
                yield Conflict(
                    capped,
                    f"missing: in live mode no connector acts without a cap; expected an amount (looked in the file "
                    f"and in {variable(capped)})",
                )
        if not any(_credential(("connector", instance, key), value) for key, value in connector.options.items()):
            path = ("connector", instance)
            known = [
                name
                for name, (plugin, key) in KNOWN_NAMES.items()
                if plugin == connector.plugin and is_secret((*path, key))
            ]
            yield Conflict(
                path,
                f"no credentials for live mode: expected a token, key, secret or password (looked in the file and in "
                f"{' and '.join((*known, variable((*path, '...'))))})",
            )


def _credential(path: tuple[str, ...], value: object) -> bool:
    if isinstance(value, dict):
        return any(_credential((*path, str(key)), inner) for key, inner in value.items())
    return is_secret(path) and value not in (None, "")
