"""Every error the agent raises on purpose, and what each one means for money.

The class decides what happens next: a `ConfigError` ends the start, a `PluginError` stays inside one plugin,
`Denied` is an ordinary answer of the shield, and a `Fault` stops spending.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AuthExpired",
    "Bug",
    "ConfigError",
    "Denied",
    "Fault",
    "Finding",
    "KikiError",
    "Outdated",
    "PluginError",
    "RateLimited",
    "Rejected",
    "StoreError",
    "Temporary",
    "UnknownOutcome",
    "Unsupported",
]


class KikiError(Exception):
    """Root of all errors raised on purpose; its text is one sentence a user can act on."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong in the configuration: where it stands, what was found, what was expected."""

    place: str
    """File and line (`config.toml:12`), environment variable or flag."""
    key: str
    """Dotted key, for example `optimizer.interval_s`."""
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.message}"


class ConfigError(KikiError):
    """The configuration cannot be used; carries every finding at once. Exit code 2."""

    def __init__(self, findings: list[Finding] | tuple[Finding, ...]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


class PluginError(KikiError):
    """A plugin, or the outside service behind it, did not do what was asked."""


class Temporary(PluginError):
    """Try again later: a time-out of a read, a 5xx, a broken connection, a garbled answer to a read."""


class RateLimited(Temporary):
    """The vendor asks for patience."""

    def __init__(self, message: str, retry_at: int) -> None:
        super().__init__(message)
        self.retry_at = retry_at
        """Instant (microseconds since 1970, UTC) before which no call of this kind may go out."""


class AuthExpired(PluginError):
    """Credentials no longer work; a person or a token refresh has to act."""


class Outdated(PluginError):
    """The vendor no longer speaks the configured version of its API; only a person can settle that."""


class Rejected(PluginError):
    """The vendor understood and refused; repeating the same request is useless."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnknownOutcome(PluginError):
    """A write may or may not have taken effect; only a read-back may settle it, never a blind retry."""

    def __init__(self, message: str, keys: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.keys = keys


class Unsupported(PluginError):
    """The plugin does not offer this verb."""


class Bug(PluginError):
    """The plugin broke its contract: wrong type, raised something untyped, exited, hung."""


class Denied(KikiError):
    """The shield refuses to let money move."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason
        """Stable code, for example `BUDGET_EXCEEDED`, `KILL_SWITCH`, `SAFE_HOLD`."""


class StoreError(KikiError):
    """The database could not be read or written."""


class Fault(KikiError):
    """Something that must never happen did; spending stops until a person looks."""
