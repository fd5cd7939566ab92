"""What a command ends with when it fails: one sentence on standard error, and an exit code that means something."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import click

FAILED = 1
MISUSED = 2
"""Wrong configuration or wrong use of a command."""
ALREADY_RUNNING = 75
"""Another agent holds the database (EX_TEMPFAIL of sysexits.h: try later)."""


class CommandError(Exception):
    """A command could not do what was asked; the text is one sentence for the user."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure in the form that is printed."""

    code: str
    message: str
    exit_code: int
    findings: list[dict[str, str]] = field(default_factory=list)

    def text(self) -> str:
        """For people."""
        lines = [f"kiki-agent: {self.message}" + (":" if self.findings else "")]
        lines += [f"  {finding['place']}: {finding['key']}: {finding['message']}" for finding in self.findings]
        return "\n".join(lines)

    def json(self) -> str:
        """For programs: `{"error": {"code", "message", "exit_code", "findings"?}}`."""
        body: dict[str, object] = {"code": self.code, "message": self.message, "exit_code": self.exit_code}
        if self.findings:
            body["findings"] = self.findings
        return json.dumps({"error": body}, ensure_ascii=False)


def report(error: Exception, *, as_json: bool, with_traceback: bool) -> int:
    """Prints a failure to standard error and returns its exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    failure = _failure(error)
    if with_traceback:
        import traceback

        click.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    click.echo(failure.json() if as_json else failure.text(), err=True)
    return failure.exit_code


def _failure(error: Exception) -> Failure:
    if isinstance(error, CommandError):
        return Failure("misused" if error.exit_code == MISUSED else "failed", str(error), error.exit_code)
    if isinstance(error, click.ClickException):
        hint = f" (kiki-agent {_words(error)}--help)" if isinstance(error, click.UsageError) else ""
        said = " ".join(error.format_message().split())  # click lists choices on lines of their own
        return Failure("usage", f"{said.rstrip('.')}{hint}", MISUSED)
    from kiki_agent.errors import ConfigError, Fault, KikiError, StoreError

    if isinstance(error, ConfigError):
        findings = [
            {"place": finding.place, "key": finding.key, "message": finding.message} for finding in error.findings
        ]
        count = f"{len(findings)} finding" + ("s" if len(findings) != 1 else "")
        return Failure("config", f"what was configured or given cannot be used ({count})", MISUSED, findings)
    if isinstance(error, StoreError) and _is_already_running(error):
        return Failure("already_running", str(error), ALREADY_RUNNING)
    if isinstance(error, Fault):
        return Failure("fault", f"spending is stopped: {error}", FAILED)
    if isinstance(error, KikiError):
        return Failure("failed", str(error), FAILED)
    if isinstance(error, OSError) and error.filename is not None:
        return Failure("failed", f"{error.filename}: {error.strerror}", FAILED)
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return Failure("defect", f"unexpected {what} (a defect of kiki-agent; -v shows where)", FAILED)


def _is_already_running(error: Exception) -> bool:
    from kiki_agent.store import AlreadyRunning

    return isinstance(error, AlreadyRunning)


def _words(error: click.UsageError) -> str:
    path = error.ctx.command_path.split()[1:] if error.ctx is not None else []
    return "".join(f"{word} " for word in path)
