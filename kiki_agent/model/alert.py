"""Something a person should know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kiki_agent.model.time import Instant


class Severity(StrEnum):
    """How much it matters."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


@dataclass(frozen=True, slots=True)
class Alert:
    """One message to the client."""

    notification_id: str
    severity: Severity
    title: str
    message: str
    at: Instant
    metadata: Mapping[str, str] = field(default_factory=dict)
