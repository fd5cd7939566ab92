"""A call that failed as a whole, told for each change that was in it."""

from __future__ import annotations

from collections.abc import Sequence

from kiki_agent.errors import AuthExpired, Outdated, PluginError, RateLimited, Rejected, UnknownOutcome, Unsupported
from kiki_agent.model import Outcome, Receipt


def about(error: PluginError, keys: Sequence[str]) -> PluginError:
    """The same error, with the keys of the changes it leaves open."""
    return UnknownOutcome(str(error), tuple(keys)) if isinstance(error, UnknownOutcome) else error


def all_failed(error: PluginError, keys: Sequence[str]) -> dict[str, Receipt]:
    """Receipts of a call that failed as a whole, where another call of the same intents went well."""
    outcome, reason = _meaning(error)
    return {key: Receipt(key, outcome, reason) for key in keys}


def _meaning(error: PluginError) -> tuple[Outcome, str]:
    match error:
        case Rejected():
            return Outcome.REJECTED, error.reason
        case RateLimited():
            return Outcome.REJECTED, "RATE_LIMITED"
        case AuthExpired():
            return Outcome.REJECTED, "AUTH_EXPIRED"
        case Outdated():
            return Outcome.REJECTED, "API_VERSION"
        case Unsupported():
            return Outcome.REJECTED, "UNSUPPORTED"
    return Outcome.UNKNOWN, "NO_ANSWER"
