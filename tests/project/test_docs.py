"""Documentation and code say the same: settings, commands, hooks, links."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kiki_agent.cli.root import COMMANDS, root
from kiki_agent.config.schema import Setting, settings

DOCS = Path(__file__).parents[2] / "docs"
COMMON_OPTIONS = {"--config", "--set", "--json", "--verbose", "--help"}


def _table_rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("| `") and line.count("|") >= 5:
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def _default(setting: Setting) -> str:
    if setting.required:
        return "required"
    if setting.default is None:
        return "-"
    if isinstance(setting.default, float):
        return f"`{setting.default:g}`"
    return f"`{json.dumps(setting.default)}`"


def test_every_setting_is_documented_as_it_is() -> None:
    rows = {row[0].strip("`"): row for row in _table_rows((DOCS / "configuration.md").read_text()) if "." in row[0]}
    documented = {key: row[1:3] for key, row in rows.items()}
    known = {setting.key: [setting.expected, _default(setting)] for setting in settings() if "." in setting.key}
    assert documented == known


def test_every_general_setting_is_documented_as_it_is() -> None:
    section = (DOCS / "configuration.md").read_text().partition("## General")[2].partition("\n## ")[0]
    documented = {row[0].strip("`"): row[1:3] for row in _table_rows(section)}
    assert documented == {each.key: [each.expected, _default(each)] for each in settings() if "." not in each.key}


def test_every_setting_is_explained() -> None:
    rows = list(_table_rows((DOCS / "configuration.md").read_text()))
    known = {f"`{setting.key}`" for setting in settings()}
    assert [row[0] for row in rows if row[0] in known and len(row[3]) < 15] == []


def _commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


ALL_COMMANDS = dict(_commands(root, "kiki-agent"))


def _section(name: str) -> str:
    text = (DOCS / "commands.md").read_text()
    return text.partition(f"## `{name}`\n")[2].partition("\n## ")[0]


def test_commands_and_sections_are_the_same() -> None:
    headings = re.findall(r"^## `(.+)`$", (DOCS / "commands.md").read_text(), re.MULTILINE)
    assert headings == sorted(headings, key=headings.index)
    assert set(headings) == set(ALL_COMMANDS)


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_option_is_documented_and_has_the_common_ones(name: str) -> None:
    options = {
        max(parameter.opts, key=len) for parameter in ALL_COMMANDS[name].params if isinstance(parameter, click.Option)
    }
    assert options >= COMMON_OPTIONS - {"--help"}
    assert [option for option in sorted(options - COMMON_OPTIONS) if option not in _section(name)] == []


def test_the_list_in_help_repeats_what_the_commands_say_of_themselves() -> None:
    context = click.Context(root)
    for name, (_, _, words) in COMMANDS.items():
        command = root.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(limit=200) == words


def test_every_hook_is_documented() -> None:
    from kiki_agent.hooks.specs import VERBS

    text = (DOCS / "plugins.md").read_text()
    verbs = {verb for verbs in VERBS.values() for verb in verbs}
    assert verbs
    assert [verb for verb in sorted(verbs) if f"`{verb}" not in text] == []


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_inside_the_project_resolve(project_files: list[Path]) -> None:
    broken = []
    for file in (file for file in project_files if file.suffix == ".md"):
        for link in LINK.findall(re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL)):
            path, _, anchor = link.partition("#")
            if "://" in link or link.startswith("mailto:"):
                continue
            target = (file.parent / path).resolve() if path else file
            if not target.exists():
                broken.append(f"{file.name}: {link}")
            elif anchor and anchor not in {
                _anchor(heading) for heading in re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            }:
                broken.append(f"{file.name}: {link} (no such heading)")
    assert broken == []
