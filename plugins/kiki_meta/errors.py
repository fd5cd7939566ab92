"""Meta's errors and ours. Most come with status 400, throttling too, so the code in the body decides."""

from __future__ import annotations

from typing import Any

import msgspec

from kiki_agent import HttpAnswer
from kiki_agent.errors import AuthExpired, Outdated, PluginError, RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.model import HOUR, MINUTE, SECOND, Instant

THROTTLED = frozenset({4, 17, 32, 613, *range(80_000, 80_015)})
"""Application, user, page and business-use-case limits (rate limiting page)."""
TRANSIENT = frozenset({1, 2})
"""Meta's own trouble."""
NO_ACCESS = frozenset({10, 102, 190, *range(200, 300)})
OUTDATED = frozenset({2635})
PATIENCE = 5 * MINUTE
"""Wait when Meta does not say how long."""
EDITED_TOO_OFTEN = 1_487_632
"""Subcode of code 17 after too many budget changes of one ad set within an hour; our reading."""


class GraphError(msgspec.Struct):
    """What went wrong, as every error of the Graph API says it."""

    message: str = ""
    type: str = ""
    code: int = 0
    error_subcode: int = 0
    is_transient: bool = False
    error_user_msg: str = ""


class _Envelope(msgspec.Struct):
    error: GraphError


def error_of(answer: HttpAnswer) -> GraphError | None:
    """The error in an answer; None when it carries none."""
    try:
        return msgspec.json.decode(answer.body, type=_Envelope).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def meaning(answer: HttpAnswer, version: str, now: Instant, *, write: bool) -> PluginError:
    """What an answer that is no success means."""
    error = error_of(answer)
    if error is None:
        text = f"Meta answered {answer.status} with {len(answer.body)} bytes that are no error of its API"
        if answer.status == 429:
            return RateLimited(text, answer.retry_at(now) or Instant(now + PATIENCE))
        if answer.status in (401, 403):
            return AuthExpired(text)
        if answer.status == 404:
            return Outdated(f"there is nothing at version {version} of Meta's API; set api_version to a current one")
        if 400 <= answer.status < 500:
            return Rejected(text, f"HTTP_{answer.status}")
        return UnknownOutcome(text) if write else Temporary(text)
    text = f"Meta answered {answer.status} code {error.code}/{error.error_subcode}: {error.message[:200]}"
    if error.code in THROTTLED or answer.status == 429:
        return RateLimited(text, retry_at(answer, error, now))
    if error.code in OUTDATED or ("version" in error.message.lower() and error.code == 2635):
        return Outdated(f"Meta does not speak API version {version} any more; set api_version to a current one")
    if error.code in NO_ACCESS:
        return AuthExpired(text)
    if error.is_transient or error.code in TRANSIENT or answer.status >= 500:
        return UnknownOutcome(text) if write else Temporary(text)
    if (error.code, error.error_subcode) == (100, 33) and not write:
        return Temporary(text)
    return Rejected(text, f"META_{error.code}" + (f"_{error.error_subcode}" if error.error_subcode else ""))


def retry_at(answer: HttpAnswer, error: GraphError, now: Instant) -> Instant:
    """When Meta lets us in again: what its usage headers say, an hour after too many edits, else five minutes."""
    if error.error_subcode == EDITED_TOO_OFTEN:
        return Instant(now + HOUR)
    wait = usage_of(answer)[1]
    header = answer.retry_at(now)
    return Instant(max(now + wait if wait else now + PATIENCE, header or 0))


def usage_of(answer: HttpAnswer) -> tuple[float, int]:
    """The highest share of any quota in use (1.0 = all of it), and microseconds until access is given again.

    The business header counts minutes, the account header seconds (rate limiting page).
    """
    shares: list[float] = [0.0]
    wait = 0
    for uses in _json(answer, "x-business-use-case-usage").values():
        for use in uses if isinstance(uses, list) else ():
            if isinstance(use, dict):
                shares += [_number(use.get(name)) for name in ("call_count", "total_cputime", "total_time")]
                wait = max(wait, round(_number(use.get("estimated_time_to_regain_access")) * MINUTE))
    account = _json(answer, "x-ad-account-usage")
    shares.append(_number(account.get("acc_id_util_pct")))
    if shares[-1] >= 100:
        wait = max(wait, round(_number(account.get("reset_time_duration")) * SECOND))
    insights = _json(answer, "x-fb-ads-insights-throttle")
    shares += [_number(insights.get(name)) for name in ("app_id_util_pct", "acc_id_util_pct")]
    app = _json(answer, "x-app-usage")
    shares += [_number(app.get(name)) for name in ("call_count", "total_cputime", "total_time")]
    return max(shares) / 100, wait


def _json(answer: HttpAnswer, header: str) -> dict[str, Any]:
    text = answer.headers.get(header, "")
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text.encode())
    except (msgspec.MsgspecError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 100_000:
        return 0.0
    return float(value)
