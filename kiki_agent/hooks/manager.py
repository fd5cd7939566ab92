"""All plugins of a running agent: found, checked, configured, made into instances, described and closed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pluggy

from kiki_agent.config import InstanceSettings, Mode, Settings
from kiki_agent.errors import ConfigError, KikiError, PluginError
from kiki_agent.hooks import discovery, options
from kiki_agent.hooks.caller import Caller, Observer
from kiki_agent.hooks.context import PluginContext
from kiki_agent.hooks.discovery import Plugin, describe_error
from kiki_agent.hooks.guard import Guard
from kiki_agent.hooks.instance import Hook, Instance, Quarantine
from kiki_agent.hooks.options import Planned
from kiki_agent.hooks.specs import PROJECT, SPECS, VERBS
from kiki_agent.hooks.tasks import Work, install, work
from kiki_agent.runtime.log import get_logger

_log = get_logger("plugins")

MakeContext = Callable[[Instance, Any], PluginContext[Any]]
"""(instance, its validated settings) -> what the instance gets; see `context.ContextFactory`."""
MakeGuard = Callable[[Instance], Guard | None]
"""Instance -> the limits and breakers its calls run into; None for none."""


class Plugins:
    """The plugins of one agent. Make it with `load`, call through `caller`, end it with `close`."""

    def __init__(self, plugins: Sequence[Plugin], instances: dict[str, Instance], caller: Caller) -> None:
        self.plugins = tuple(plugins)
        """Everything found, also what is not allowed."""
        self.instances = instances
        """One per configuration table, in the order connectors, CRM sources, notifiers."""
        self.caller = caller
        self._undo: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    async def load(
        cls,
        settings: Settings,
        *,
        make_context: MakeContext | None,
        make_guard: MakeGuard = lambda instance: None,
        simulated: bool | None = None,
        observe: Observer | None = None,
        locate: Callable[[str], str] = lambda key: "config.toml",
        points: Sequence[EntryPoint] | None = None,
    ) -> Plugins:
        """Find, import, check and instantiate what the settings name.

        `make_context` None checks everything but makes no instance (for `kiki-agent check` and `plugins list`).
        `simulated` defaults to the backtest mode; `locate` says where a dotted key of the configuration stands;
        `points` replaces the installed entry points in tests.
        Raises ConfigError with every finding about `[plugins]` and all instance tables at once. A plugin that breaks
        is quarantined and does not raise.
        """
        folder = Path(settings.plugins.folder) if settings.plugins.folder is not None else None
        plugins = discovery.find(discovery.installed() if points is None else points, folder)
        allow = settings.plugins.allow
        findings = discovery.check_names(plugins, allow, folder, locate)
        ambiguous = {name for name in allow if sum(plugin.name == name for plugin in plugins) > 1}
        discovery.load(plugins, [name for name in allow if name not in ambiguous])
        tables: dict[str, Mapping[str, InstanceSettings]] = {
            "connector": settings.connector,
            "crm": settings.crm,
            "notifier": settings.notifier,
        }
        planned = options.plan(tables, plugins, findings, locate, settings.mode.value)
        if findings:
            raise ConfigError(findings)
        instances = {plan.instance.id: plan.instance for plan in planned}
        caller = Caller(instances, simulated=settings.mode is Mode.BACKTEST if simulated is None else simulated)
        caller.observe = observe
        loaded = cls(plugins, instances, caller)
        if make_context is not None:
            loaded._loop = asyncio.get_running_loop()
            loaded._undo = install(loaded._loop)
            registries = {kind: _registry(kind) for kind in SPECS}
            for plan in planned:
                if plan.instance.state == "ok":
                    plan.instance.guard = make_guard(plan.instance)
                    await _bring_up(plan, make_context, registries[plan.instance.kind])
        return loaded

    def describe(self) -> list[dict[str, object]]:
        """Every instance, then every plugin without one: what `GET /api/v1/plugins` and `plugins list` show."""
        used = {instance.plugin for instance in self.instances.values()}
        return [
            *(instance.describe() for instance in self.instances.values()),
            *(plugin.describe() for plugin in self.plugins if plugin.name not in used or plugin.state == "quarantined"),
        ]

    def blame(self) -> str | None:
        """Which plugin is at work this instant, None when none is; safe to ask from a watchdog's thread."""
        task = asyncio.current_task(self._loop) if self._loop is not None else None
        found = self.caller.blame(task)
        if found is None:
            found = next(filter(None, (instance.tasks.blame(task) for instance in self.instances.values())), None)
        return found

    async def close(self, seconds: float = 3.0, grace_seconds: float = 0.5) -> list[str]:
        """Let calls finish for at most `seconds`, close every instance, end all its tasks; names of what would not end.

        Stragglers are abandoned; nothing here waits for them longer than the grace.
        """
        await self.caller.drain(seconds)
        stubborn = await self.caller.end(grace_seconds)
        await asyncio.gather(*(self._say_goodbye(instance, seconds) for instance in self.instances.values()))
        for instance in self.instances.values():
            stubborn += await instance.tasks.close(grace_seconds)
            if instance.context is not None:
                await instance.context.http.close()
        stubborn += [name for name in await self.caller.end(grace_seconds) if name not in stubborn]
        if stubborn:
            _log.warning("plugin_stragglers", f"abandoned at the end: {', '.join(stubborn)}", stragglers=stubborn)
        if self._undo is not None:
            self._undo()
            self._undo = None
        return stubborn

    async def _say_goodbye(self, instance: Instance, seconds: float) -> None:
        if instance.state != "ok" or "close" not in instance.hooks:
            return
        try:
            await self.caller.to(instance.id, "close", deadline_s=seconds)
        except PluginError as error:
            instance.log.warning("plugin_close_failed", f"{instance.id} did not close cleanly: {error}")


def _registry(kind: str) -> pluggy.PluginManager:
    registry = pluggy.PluginManager(PROJECT)
    registry.add_hookspecs(SPECS[kind])
    return registry


async def _bring_up(plan: Planned, make_context: MakeContext, registry: pluggy.PluginManager) -> None:
    """Make the instance, check its hooks, and set it aside if either fails."""
    instance, offer = plan.instance, plan.offer
    assert offer is not None
    assert plan.config is not None
    instance.context = make_context(instance, plan.config)
    token = work.set(Work(instance.tasks, f"{instance.id}.__init__"))
    try:
        made = offer.implementation(instance.context)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        text = f"plugin {instance.plugin} failed to make {instance.id}: {describe_error(error)}"
        instance.set_aside(Quarantine.CONSTRUCT, text)
        return
    finally:
        work.reset(token)
    try:
        instance.hooks = _hooks_of(instance, made, registry)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        text = str(error) if isinstance(error, _Refused) else describe_error(error)
        instance.set_aside(Quarantine.SIGNATURE, f"{instance.id} (plugin {instance.plugin}): {text}")


class _Refused(KikiError):
    """The hooks of an instance do not fit their specifications."""


def _hooks_of(instance: Instance, made: object, registry: pluggy.PluginManager) -> Mapping[str, Hook]:
    """The verbs an instance implements, after pluggy has checked them. Raises _Refused with every problem."""
    verbs = VERBS[instance.kind]
    try:
        registry.register(made, name=instance.id)
    except pluggy.PluginValidationError as error:
        text = " ".join(str(error).split())
        raise _Refused(text) from error
    problems: list[str] = []
    hooks: dict[str, Hook] = {}
    marked: set[str] = set()
    for hook_caller in registry.get_hookcallers(made) or ():
        for implementation in hook_caller.get_hookimpls():
            if implementation.plugin is not made:
                continue
            marked.add(implementation.function.__name__)
            verb = verbs.get(hook_caller.name)
            if verb is None:
                if not implementation.optionalhook:
                    problems.append(f"{hook_caller.name} is no hook of a {instance.kind}")
            elif implementation.wrapper or implementation.hookwrapper:
                problems.append(f"{verb.name} is a wrapper; hooks are called one by one")
            elif not inspect.iscoroutinefunction(implementation.function):
                problems.append(f"{verb.name} is a plain function; hooks are `async def`")
            else:
                hooks[verb.name] = _hook(instance, verb.name, implementation.function)
    unmarked = [name for name in verbs if name not in marked and hasattr(type(made), name)]
    problems += [f"{name} is named like a hook but not marked @hookimpl" for name in unmarked]
    if not hooks and not problems:
        problems.append(f"it implements no hook of a {instance.kind}")
    if problems:
        registry.unregister(made)
        raise _Refused("; ".join(problems))
    return {name: hooks[name] for name in verbs if name in hooks}


def _hook(instance: Instance, name: str, function: Callable[..., Any]) -> Hook:
    """How to hand the verb's arguments to a method that may take fewer, in another order, or with defaults."""
    verb = VERBS[instance.kind][name]
    positional: list[str] = []
    by_name: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in verb.arguments:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            by_name.append(parameter.name)
        else:
            positional.append(parameter.name)
    label = f"{instance.id}.{name}"
    if tuple(positional) == verb.arguments and not by_name:
        return Hook(verb, function, None, (), label)
    return Hook(
        verb,
        function,
        tuple(verb.arguments.index(argument) for argument in positional),
        tuple((argument, verb.arguments.index(argument)) for argument in by_name),
        label,
    )
