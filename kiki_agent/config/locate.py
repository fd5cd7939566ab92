"""Where in a TOML file each key stands; tomllib reads values and keeps no lines.

A scanner for text that tomllib has already accepted: it follows keys and steps over values, and checks nothing.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right

Path = tuple[str, ...]

_BARE_END = " \t=.]}\n\r"
_VALUE_END = ",]}#\n\r"


def key_lines(text: str) -> dict[Path, int]:
    """Line, from 1, of every key and table header; array items have their index as last part.

    A table that no header names stands where its first key stands.
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._starts = [0] + [index + 1 for index, letter in enumerate(text) if letter == "\n"]
        self._items: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip_blank():
            if self.text.startswith("[[", self.at):
                self.at += 2
                table = self._item(self._key(()))
                self._after("]]")
            elif self._peek() == "[":
                self.at += 1
                table = self._inside_items(self._key(()))
                self._note(table)
                self._after("]")
            else:
                self._pair(table)
        return self.lines

    def _pair(self, table: Path) -> None:
        path = self._key(table)
        self._note(path)
        self._after("=")
        self._value(path)

    def _note(self, path: Path) -> None:
        line = bisect_right(self._starts, self.at)
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _item(self, path: Path) -> Path:
        """The path of the next table of an array of tables."""
        path = self._inside_items(path[:-1]) + path[-1:]
        count = self._items.get(path, -1) + 1
        self._items[path] = count
        self._note((*path, str(count)))
        return (*path, str(count))

    def _inside_items(self, path: Path) -> Path:
        """A header below an array of tables means the last table of that array."""
        inside: Path = ()
        for part in path:
            inside = (*inside, part)
            if inside in self._items:
                inside = (*inside, str(self._items[inside]))
        return inside

    def _key(self, table: Path) -> Path:
        path = table
        while True:
            self._skip_spaces()
            path = (*path, self._key_part())
            self._skip_spaces()
            if self._peek() != ".":
                return path
            self.at += 1

    def _key_part(self) -> str:
        start = self.at
        if self._peek() in "\"'":
            self._skip_string()
            part = tomllib.loads(f"k = {self.text[start : self.at]}")["k"]
            return str(part)
        while self._peek() not in _BARE_END:
            self.at += 1
        return self.text[start : self.at]

    def _value(self, path: Path) -> None:
        self._skip_spaces()
        letter = self._peek()
        if letter in "\"'":
            self._skip_string()
        elif letter == "[":
            self._array(path)
        elif letter == "{":
            self._inline_table(path)
        else:
            while self._peek() not in _VALUE_END:
                self.at += 1

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while self._skip_blank() and self._peek() != "]":
            item = (*path, str(index))
            self._note(item)
            self._value(item)
            self._skip_blank()
            if self._peek() == ",":
                self.at += 1
            index += 1
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while self._skip_blank() and self._peek() != "}":
            self._pair(path)
            self._skip_blank()
            if self._peek() == ",":
                self.at += 1
        self.at += 1

    def _skip_string(self) -> None:
        quote = self._peek()
        long = self.text.startswith(quote * 3, self.at)
        end = quote * 3 if long else quote
        self.at += len(end)
        while self.at < len(self.text) and not self.text.startswith(end, self.at):
            self.at += 2 if quote == '"' and self._peek() == "\\" else 1
        self.at += len(end)
        while long and self._peek() == quote:  # up to two quotes may stand right before the closing three
            self.at += 1

    def _skip_spaces(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1

    def _skip_blank(self) -> bool:
        """Steps over white space and comments; False at the end of the text."""
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter in " \t\r\n":
                self.at += 1
            elif letter == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return True
        return False

    def _after(self, mark: str) -> None:
        self._skip_spaces()
        self.at += len(mark)

    def _peek(self) -> str:
        """The letter here; a line end after the last one."""
        return self.text[self.at] if self.at < len(self.text) else "\n"
