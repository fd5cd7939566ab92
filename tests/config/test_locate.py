"""Lines of keys: every way TOML can write a key, and a property over generated files."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki_agent.config.locate import key_lines

EXAMPLE = '''# a comment with [brackets] and = signs
a = 1
"quoted key" . 'other # key' = "x # not a comment"

[table] # after a header
text = """
[not.a.table]
b = 2
"""
literal = \'\'\'it's [fine]\'\'\'
after = true
many = [
    1, # one
    { x = "]", y = [2, 3] },
]
[deep . "er"]
z = 2026-01-31T12:00:00Z
[[list]]
one = 1
[list.inner]
two = 2
[[list]]
one = "\\" ] #"
last = 1'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 2),
        (("quoted key",), 3),
        (("quoted key", "other # key"), 3),
        (("table",), 5),
        (("table", "text"), 6),
        (("table", "literal"), 10),
        (("table", "after"), 11),
        (("table", "many"), 12),
        (("table", "many", "0"), 13),
        (("table", "many", "1", "y"), 14),
        (("table", "many", "1", "y", "1"), 14),
        (("deep", "er"), 16),
        (("deep", "er", "z"), 17),
        (("list", "0", "one"), 19),
        (("list", "0", "inner", "two"), 21),
        (("list", "1"), 22),
        (("list", "1", "one"), 23),
        (("list", "1", "last"), 24),
    ],
)
def test_finds_the_line_of(path: tuple[str, ...], line: int) -> None:
    assert key_lines(EXAMPLE)[path] == line


def test_knows_no_keys_that_are_not_there() -> None:
    assert ("b",) not in key_lines(EXAMPLE)
    assert ("table", "b") not in key_lines(EXAMPLE)
    assert key_lines("") == {}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_counts_lines_whatever_ends_them(newline: str) -> None:
    assert key_lines(newline.join(["a = 1", "", "[b]", "c = 2"])) == {("a",): 1, ("b",): 3, ("b", "c"): 4}


KEYS = st.text(st.sampled_from("ab-_ .#=[]{}\"'\\é"), min_size=1, max_size=5)
SCALARS = st.one_of(st.integers(-9, 9), st.booleans(), st.text(st.sampled_from("a #[]{},=\"'\\\n"), max_size=8))
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3))
TABLES = st.dictionaries(KEYS, st.one_of(VALUES, st.dictionaries(KEYS, VALUES, max_size=3)), max_size=5)


@given(TABLES)
def test_every_key_stands_on_the_line_it_was_written_on(tables: dict[str, Any]) -> None:
    lines, expected = [], {}
    for key, value in sorted(tables.items(), key=lambda item: isinstance(item[1], dict)):
        if not isinstance(value, dict):
            lines.append(f"{json.dumps(key)} = {_toml(value)}")
            expected[(key,)] = len(lines)
            continue
        lines += ["# comment = 1", f"[{json.dumps(key)}]"]
        expected[(key,)] = len(lines)
        for inner, leaf in value.items():
            lines.append(f"{json.dumps(inner)} = {_toml(leaf)}")
            expected[(key, inner)] = len(lines)
    text = "\n".join(lines)
    assert tomllib.loads(text) == tables
    found = key_lines(text)
    assert {path: found[path] for path in expected} == expected


def _toml(value: object) -> str:
    return json.dumps(value)
