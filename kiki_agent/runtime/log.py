"""Log lines: one JSON object (or one readable line) each on standard error, with secrets masked.

    log = get_logger("optimizer")
    log.info("budget_shifted", "Moved 20 % of Meta's budget to TikTok", platform="meta", micros=20_000_000)

Lines of libraries that use `logging` come out in the same form. A line below the level costs one comparison.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from typing import Literal, TextIO

import msgspec

from kiki_agent.model.time import Instant, iso
from kiki_agent.runtime.clock import SystemClock
from kiki_agent.runtime.secrets import mask, mask_text

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "text"]

SERVICE = "kiki-agent"
_RANK = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_encode = msgspec.json.Encoder(enc_hook=str).encode


class _Output:
    """Where lines go and in which form; one for the process."""

    def __init__(self) -> None:
        self.rank = _RANK["info"]
        self.format: Format = "json"
        self.stream: TextIO | None = None
        self.now: Callable[[], Instant] = SystemClock().now
        self.lost = 0
        """Lines that could not be written, because the stream was closed or full."""

    def write(self, level: str, component: str, event: str, message: str, fields: dict[str, object]) -> None:
        """Put out one line; never raises."""
        try:
            entry: dict[str, object] = {
                "timestamp": iso(self.now()),
                "level": level,
                "service": SERVICE,
                "component": component,
                "event": event,
                "message": mask_text(message),
            }
            masked = mask(fields)
            assert isinstance(masked, dict)
            entry.update((name if name not in entry else f"{name}_", item) for name, item in masked.items())
            line = _encode(entry).decode() if self.format == "json" else _readable(entry)
            (self.stream or sys.stderr).write(line + "\n")
        except Exception:  # a log line must never take down what it describes
            self.lost += 1


_output = _Output()


class Log:
    """Writes lines for one component. `event` is a stable name for machines, `message` a sentence for people."""

    __slots__ = ("component",)

    def __init__(self, component: str) -> None:
        self.component = component

    def debug(self, event: str, message: str = "", **fields: object) -> None:
        """For whoever looks for a fault in the agent."""
        if _output.rank <= 10:
            _output.write("debug", self.component, event, message, fields)

    def info(self, event: str, message: str = "", **fields: object) -> None:
        """What a person following along wants to know."""
        if _output.rank <= 20:
            _output.write("info", self.component, event, message, fields)

    def warning(self, event: str, message: str = "", **fields: object) -> None:
        """Something is not as it should be; the agent copes."""
        if _output.rank <= 30:
            _output.write("warning", self.component, event, message, fields)

    def error(self, event: str, message: str = "", *, error: BaseException | None = None, **fields: object) -> None:
        """Something failed. The traceback of `error` is added at level debug."""
        if error is not None:
            fields |= describe(error)
        _output.write("error", self.component, event, message, fields)

    def enabled_for(self, level: Level) -> bool:
        """Whether a line of this level would be written; for callers whose fields are costly."""
        return _output.rank <= _RANK[level]


def get_logger(component: str) -> Log:
    """The log of one component, named as in `/health` (`syncflow`, `store`, `plugin.meta` ...)."""
    return Log(component)


def configure(
    level: Level = "info",
    fmt: Format = "json",
    *,
    stream: TextIO | None = None,
    now: Callable[[], Instant] | None = None,
) -> None:
    """Set level, form, stream (standard error if None) and clock of all log lines, and take in lines of `logging`."""
    _output.rank = _RANK[level]
    _output.format = fmt
    _output.stream = stream
    _output.now = now or SystemClock().now
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(_Bridge())
    root.setLevel(_RANK["debug"] if level == "debug" else max(_RANK[level], _RANK["warning"]))


def lines_lost() -> int:
    """Lines that could not be written so far."""
    return _output.lost


def describe(error: BaseException) -> dict[str, object]:
    """An exception as log fields: its class, its text and, at level debug, its traceback."""
    fields: dict[str, object] = {"error": f"{type(error).__name__}: {error}"}
    if _output.rank <= 10:
        fields["traceback"] = "".join(traceback.format_exception(error))
    return fields


class _Bridge(logging.Handler):
    """Takes lines of `logging`, from libraries, into the same output."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= 40 else "warning" if record.levelno >= 30 else "info"
        if record.levelno < 20:
            level = "debug"
        fields: dict[str, object] = {}
        if record.exc_info and record.exc_info[1] is not None:
            fields = describe(record.exc_info[1])
        try:
            message = record.getMessage()
        except Exception:  # a library's bad format string is not our failure
            message = str(record.msg)
        _output.write(level, record.name, "library", message, fields)


def _readable(entry: dict[str, object]) -> str:
    shown = ("timestamp", "level", "service", "component", "event", "message")
    more = " ".join(f"{name}={_one_line(value)}" for name, value in entry.items() if name not in shown)
    clock = str(entry["timestamp"])[11:23]
    level = str(entry["level"]).upper()
    text = _one_line(entry["message"] or entry["event"])
    return f"{clock} {level:<7} {entry['component']}: {text}{' ' + more if more else ''}"


def _one_line(value: object) -> str:
    text = value if isinstance(value, str) else _encode(value).decode()
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
