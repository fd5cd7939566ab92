"""What a person asks to change, and how it is stored: without fractions, as the ledger wants it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kiki_agent.errors import KikiError
from kiki_agent.model import SECOND


class Unusable(KikiError):
    """A change that makes no sense; `field` says which part of it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


Parts = Mapping[str, float | int | None]
"""Parts of a setting by their names; None takes an earlier change of one back."""


@dataclass(frozen=True, slots=True)
class ConnectorChange:
    """What a person wants of one connector; a key that is absent stays, None takes an earlier change back."""

    max_budget_micros: Mapping[str, int | None] = field(default_factory=dict)
    """Empty, or `{"max_budget_micros": ...}`: most that may be spent within the window."""
    enabled: Mapping[str, bool | None] = field(default_factory=dict)
    rate_limit: Mapping[str, Parts | None] = field(default_factory=dict)
    """Empty, or `{"rate_limit": {calls, window_s, burst}}` with the parts to change; None takes a part back."""
    circuit: Mapping[str, Parts | None] = field(default_factory=dict)
    """The same with failure_threshold, slow_call_ms, slow_batch_ms, reset_timeout_s, half_open_successes."""
    close_circuit: bool = False
    """Close the circuit now; not remembered."""


@dataclass(frozen=True, slots=True)
class RulesChange:
    """What a person wants for all connectors; a key that is absent stays, None takes an earlier change back."""

    rules: Parts = field(default_factory=dict)
    multipliers: Mapping[str, float | None] | None = field(default_factory=dict)
    """By platform; None takes all of them back."""
    counts: Mapping[str, int | None] = field(default_factory=dict)
    """max_history, min_samples."""


def changed(before: Mapping[str, int], parts: Parts) -> dict[str, int] | None:
    """What is stored after parts were changed and others taken back; None when nothing is left."""
    given = {_stored_name(name): value for name, value in parts.items()}
    kept = {name: value for name, value in before.items() if name not in given}
    return kept | to_ints({name: value for name, value in parts.items() if value is not None}) or None


def to_ints(values: Mapping[str, float | int]) -> dict[str, int]:
    """Seconds as microseconds: what is stored and hashed holds no fractions."""
    return {
        _stored_name(name): round(value * SECOND if name.endswith("_s") else value) for name, value in values.items()
    }


def _stored_name(name: str) -> str:
    return name.removesuffix("_s") + "_us" if name.endswith("_s") else name


def from_ints(values: Mapping[str, int]) -> dict[str, float | int]:
    """Microseconds as seconds again."""
    return {
        name.removesuffix("_us") + "_s" if name.endswith("_us") else name: value / SECOND
        if name.endswith("_us")
        else value
        for name, value in values.items()
    }
