"""Finding plugins: installed packages by entry point, one-file plugins by folder; only what is allowed is imported."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from kiki_agent.errors import Finding
from kiki_agent.hooks.api import Offer, PluginApi, SandboxOffer
from kiki_agent.hooks.instance import Quarantine
from kiki_agent.hooks.specs import PROJECT
from kiki_agent.runtime.log import get_logger

_log = get_logger("plugins")


@dataclass(slots=True)
class Plugin:
    """One plugin that was found, whether or not it may run."""

    name: str
    """What `plugins.allow` calls it: the entry point's name or the file's without `.py`."""
    source: str
    """`package` or `file`."""
    version: str
    load: Callable[[], object]
    """Imports the module; nothing of the plugin runs before."""
    state: str = "off"
    """`off` until allowed, then `ok` or `quarantined`."""
    quarantine: Quarantine | None = None
    error: str = ""
    offers: tuple[Offer, ...] = ()
    sandboxes: tuple[SandboxOffer, ...] = ()

    def set_aside(self, why: Quarantine, error: str) -> None:
        """Quarantine the plugin: nothing it offers can be used."""
        _log.error("plugin_quarantined", error, plugin=self.name, state=why.value)
        self.state, self.quarantine, self.error, self.offers, self.sandboxes = "quarantined", why, error, (), ()

    def describe(self) -> dict[str, object]:
        """An entry of `GET /api/v1/plugins` for a plugin without an instance."""
        return {
            "name": self.name,
            "kind": "plugin",
            "class": "",
            "plugin": self.name,
            "version": self.version,
            "platform": "",
            "state": self.state,
            "quarantine": self.quarantine.value if self.quarantine else None,
            "error": self.error,
            "hooks": [],
            "bugs": 0,
            "last_bug": "",
            "leaked_tasks": 0,
        }


def installed() -> Sequence[EntryPoint]:
    """Entry points of the group `kiki_agent` in this environment."""
    return tuple(entry_points(group=PROJECT))


def find(points: Iterable[EntryPoint], folder: Path | None) -> list[Plugin]:
    """Everything that could be loaded, by name; nothing is imported. A folder that is absent holds nothing."""
    found = [_packaged(point) for point in points]
    if folder is not None and folder.is_dir():
        found += [_one_file(path) for path in folder.glob("*.py") if not path.name.startswith(("_", "."))]
    return sorted(found, key=lambda plugin: (plugin.name, plugin.source))


def check_names(
    plugins: Sequence[Plugin], allow: Sequence[str], folder: Path | None, locate: Callable[[str], str]
) -> list[Finding]:
    """What is wrong with `[plugins]`: names nobody has, names two plugins have, a folder that is not there."""
    findings: list[Finding] = []
    if folder is not None and not folder.is_dir():
        findings.append(Finding(locate("plugins.folder"), "plugins.folder", f"{str(folder)!r} is not a folder"))
    names = [plugin.name for plugin in plugins]
    for name in dict.fromkeys(allow):
        count = names.count(name)
        if count == 1:
            continue
        if count:
            text = f"{count} plugins are called {name!r}; rename or uninstall all but one"
        else:
            text = f"no plugin is called {name!r}{_did_you_mean(name, names)}; found are {', '.join(names) or 'none'}"
        findings.append(Finding(locate("plugins.allow"), "plugins.allow", text))
    return findings


def load(plugins: Sequence[Plugin], allow: Sequence[str]) -> None:
    """Import what is allowed and let it register; what fails is set aside and the others go on."""
    taken: dict[tuple[str, str], str] = {}
    for plugin in plugins:
        if plugin.name in allow:
            _load_one(plugin, taken)


def _load_one(plugin: Plugin, taken: dict[tuple[str, str], str]) -> None:
    plugin.state = "ok"
    try:
        module = plugin.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also sys.exit: whatever a plugin does while it loads stays its own affair
        plugin.set_aside(Quarantine.IMPORT, f"plugin {plugin.name} failed to import: {describe_error(error)}")
        return
    register = getattr(module, "register", None)
    if not callable(register):
        plugin.set_aside(Quarantine.REGISTER, f"plugin {plugin.name} has no function register(api)")
        return
    api = PluginApi(plugin.name)
    try:
        register(api)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        plugin.set_aside(Quarantine.REGISTER, f"plugin {plugin.name} failed to register: {describe_error(error)}")
        return
    for offer in api.offers:
        owner = taken.get((offer.kind, offer.name))
        if owner is not None:
            text = f"plugin {plugin.name} offers {offer.kind} {offer.name!r}, which plugin {owner} offers already"
            plugin.set_aside(Quarantine.REGISTER, text)
            return
    taken |= {(offer.kind, offer.name): plugin.name for offer in api.offers}
    plugin.offers = tuple(api.offers)
    plugin.sandboxes = tuple(api.sandboxes)


def describe_error(error: BaseException) -> str:
    """An error of a plugin in one line: class, text and the innermost place in its code."""
    try:
        text = str(error)[:300]
    except Exception:
        text = "(its text cannot be read)"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace is not None else ""
    return f"{type(error).__name__}: {text}{place}"


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _packaged(point: EntryPoint) -> Plugin:
    version = point.dist.version if point.dist is not None else ""
    return Plugin(point.name, "package", version, point.load)


def _one_file(path: Path) -> Plugin:
    return Plugin(path.stem, "file", "", lambda: _import_file(path))


def _import_file(path: Path) -> ModuleType:
    """Import one file under a name of its own; a failed import leaves nothing behind."""
    name = f"kiki_agent_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path.name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
