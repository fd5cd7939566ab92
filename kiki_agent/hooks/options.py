"""Tables `[connector.<id>]`, `[crm.<id>]` and `[notifier.<id>]`: which class serves each, and are its keys right?"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from kiki_agent.config import ConnectorSettings, InstanceSettings, Mode, RateLimitSettings, variables_of
from kiki_agent.errors import Finding
from kiki_agent.hooks.api import Offer
from kiki_agent.hooks.discovery import Plugin, describe_error
from kiki_agent.hooks.instance import Instance, Quarantine
from kiki_agent.hooks.specs import VERBS, is_marked
from kiki_agent.runtime.limiter import RateLimit

Locate = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Planned:
    """One table, its instance to be, and what to make it from; no offer when it is off or set aside."""

    instance: Instance
    offer: Offer | None = None
    config: BaseModel | None = None


def plan(
    tables: Mapping[str, Mapping[str, InstanceSettings]],
    plugins: Sequence[Plugin],
    findings: list[Finding],
    locate: Locate,
    mode: str = "",
) -> list[Planned]:
    """Match every table with a class and validate its keys; everything wrong is added to `findings`."""
    planned: list[Planned] = []
    homes: dict[str, str] = {}
    for kind, table in tables.items():
        for instance_id, settings in table.items():
            if instance_id in homes:
                text = f"the id is taken by [{homes[instance_id]}.{instance_id}]; ids are unique over all kinds"
                findings.append(_finding(locate, f"{kind}.{instance_id}", text))
                continue
            homes[instance_id] = kind
            planned.append(_plan_one(kind, instance_id, settings, plugins, findings, locate, mode))
    return planned


def _plan_one(
    kind: str,
    instance_id: str,
    settings: InstanceSettings,
    plugins: Sequence[Plugin],
    findings: list[Finding],
    locate: Locate,
    mode: str,
) -> Planned:
    platform = settings.platform if isinstance(settings, ConnectorSettings) else ""
    instance = Instance(instance_id, kind, settings.plugin, platform=platform)
    if not settings.enabled:
        instance.state = "off"
        return Planned(instance)
    found = [(plugin, offer) for plugin in plugins for offer in plugin.offers]
    match = next(
        ((plugin, offer) for plugin, offer in found if (offer.kind, offer.name) == (kind, settings.plugin)), None
    )
    if match is None:
        _say_missing(instance, plugins, [offer.name for _, offer in found if offer.kind == kind], findings, locate)
        return Planned(instance)
    plugin, offer = match
    instance.plugin, instance.version, instance.rate_limit = plugin.name, plugin.version, offer.rate_limit
    if isinstance(settings, ConnectorSettings):
        try:
            instance.rate_limit = merged_limit(offer.rate_limit, settings.rate_limit)
        except ValueError as error:
            findings.append(_finding(locate, f"{kind}.{instance_id}.rate_limit", str(error)))
            return Planned(instance)
    if mode in (Mode.DRY_RUN, Mode.LIVE):
        secrets = [name for name, field in offer.config.model_fields.items() if field.annotation is SecretStr]
        instance.credentials = _variables((kind, instance_id), settings.plugin, secrets)
    instance.declared = tuple(name for name in VERBS[kind] if is_marked(offer.implementation, name))
    try:
        config = _strict(offer.config).model_validate(settings.options, context={"mode": mode})
    except ValidationError as error:
        findings += _findings((kind, instance_id), settings.plugin, error, offer.config, locate)
        return Planned(instance)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        text = f"the config model of plugin {plugin.name} broke on {instance_id}: {describe_error(error)}"
        instance.set_aside(Quarantine.CONSTRUCT, text)
        return Planned(instance)
    return Planned(instance, offer, config)


def merged_limit(stated: RateLimit | None, given: RateLimitSettings) -> RateLimit | None:
    """The limit in force: what was given, else what the plugin states. Raises ValueError for half a limit."""
    calls = given.calls if given.calls is not None else stated.calls if stated is not None else None
    window_s = given.window_s if given.window_s is not None else stated.window_s if stated is not None else None
    if calls is None and window_s is None and given.burst is None:
        return None
    if calls is None or window_s is None:
        raise ValueError("expected calls and window_s, because the plugin states no limit that could be changed")
    own_burst = stated.burst if stated is not None else None
    return RateLimit(calls, window_s, given.burst if given.burst is not None else own_burst)


def _say_missing(
    instance: Instance, plugins: Sequence[Plugin], known: list[str], findings: list[Finding], locate: Locate
) -> None:
    """Nobody offers the class: a mistake in the table, unless the plugin that would offer it failed to load."""
    broken = [plugin for plugin in plugins if plugin.state == "quarantined"]
    if broken:
        errors = "; ".join(plugin.error for plugin in broken)
        instance.plugin = next((plugin.name for plugin in broken if plugin.name == instance.class_name), "")
        instance.set_aside(Quarantine.MISSING, f"no {instance.kind} {instance.class_name!r} is loaded: {errors}")
        return
    off = [plugin.name for plugin in plugins if plugin.state == "off"]
    text = (
        f"no allowed plugin offers a {instance.kind} {instance.class_name!r}{_did_you_mean(instance.class_name, known)}"
    )
    text += f"; offered are {', '.join(sorted(known)) or 'none'}"
    if off:
        text += f"; installed but not in plugins.allow: {', '.join(off)}"
    findings.append(_finding(locate, f"{instance.kind}.{instance.id}.plugin", text))


def _strict(model: type[BaseModel]) -> type[BaseModel]:
    """The model itself if it says what happens to unknown keys, else a subclass that refuses them."""
    if model.model_config.get("extra") is not None:
        return model
    namespace = {"model_config": ConfigDict(extra="forbid"), "__module__": model.__module__, "__doc__": model.__doc__}
    strict: type[BaseModel] = type(model.__name__, (model,), namespace)
    return strict


def _variables(table: tuple[str, str], plugin: str, keys: Iterable[str]) -> str:
    """Keys of a table, each with the variables that set it."""
    return ", ".join(f"{key} ({' or '.join(variables_of((*table, key), plugin))})" for key in keys)


def _findings(
    path: tuple[str, str], plugin: str, error: ValidationError, model: type[BaseModel], locate: Locate
) -> list[Finding]:
    """One finding per mistake; the values found are left out, for they may be secrets."""
    found: list[Finding] = []
    table = ".".join(path)
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        parts = [str(part) for part in detail["loc"]]
        key = ".".join([table, *parts])
        text = detail["msg"]
        if detail["type"] == "extra_forbidden":
            text = f"unknown key{_did_you_mean(parts[-1], list(model.model_fields)) if len(parts) == 1 else ''}"
            text += f"; known are {', '.join(model.model_fields) or 'none'}" if len(parts) == 1 else ""
        elif detail["type"] == "missing":
            text = f"is required; in the environment {_variables(path, plugin, parts[:1])}"
        elif detail["type"] == "value_error" and not parts:
            text = text.removeprefix("Value error, ")
            named = [key for key in model.model_fields if key in re.findall(r"\w+", text)]
            text += f"; in the environment {_variables(path, plugin, named)}" if named else ""
        found.append(_finding(locate, key, text))
    return found


def _finding(locate: Locate, key: str, text: str) -> Finding:
    return Finding(locate(key), key, text)


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
