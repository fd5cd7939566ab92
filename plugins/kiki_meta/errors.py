"""Meta's errors and ours. Most come with status 400, throttling too, so the code in the body decides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from kiki_agent import HttpAnswer
from kiki_agent.errors import AuthExpired, Outdated, PluginError, RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.model import MINUTE, SECOND, Instant

THROTTLED = frozenset({4, 17, 32, 613, *range(80_000, 80_015)})
"""Application, user, page and business-use-case limits (rate limiting page)."""
TRANSIENT = frozenset({1, 2})
"""Meta's own trouble."""
NO_ACCESS = frozenset({10, 102, 190, *range(200, 300)})
OUTDATED = frozenset({12, 2635})
UNKNOWN_PATH = 2500
"""Our paths are fixed, so a path Meta does not know is a version it does not know."""
PATIENCE = 5 * MINUTE
"""Wait when Meta does not say how long."""
EDITED_TOO_OFTEN = frozenset({1_487_632, 1_487_633})
"""Subcodes, with code 17 or 613, after more than four budget changes of one ad set within an hour. One ad set is closed
by them, not the account: others must not wait for it. Our reading: the rate limiting page names only the code."""
TOO_MUCH_DATA = (1, 99)
"""Code and subcode of a report that is too big to be made while the client waits."""

_TOKEN = re.compile(r"\bEAA[A-Za-z0-9]{12,}")
"""What Meta's access tokens look like; its texts quote the one they refuse."""
MAX_TEXT = 200
SHORTEST_SECRET = 6
"""Anything shorter stands in plain words too, and protects nothing."""


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


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who asked: what an error's text names, and what it must never show."""

    instance: str
    version: str
    secrets: tuple[str, ...]

    def shown(self, text: str) -> str:
        """Meta's words, without our secrets and not too many."""
        for secret in self.secrets:
            if len(secret) >= SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return _TOKEN.sub("***", text)[:MAX_TEXT]

    def outdated(self) -> Outdated:
        """The version in the settings is no longer spoken, or not yet."""
        return Outdated(
            f"API version {self.version} is not accepted by Meta: set connector.{self.instance}.api_version to a"
            " current one"
        )


def error_of(answer: HttpAnswer) -> GraphError | None:
    """The error in an answer; None when it carries none."""
    if b'"error"' not in answer.body:
        return None
    try:
        return msgspec.json.decode(answer.body, type=_Envelope).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def meaning(answer: HttpAnswer, speaker: Speaker, now: Instant, *, write: bool) -> PluginError:
    """What an answer that is no success means."""
    error = error_of(answer)
    if error is None:
        return _bare(answer, speaker, now, write=write)
    text = f"Meta answered {answer.status} code {error.code}/{error.error_subcode}: {speaker.shown(error.message)}"
    if error.error_subcode in EDITED_TOO_OFTEN:
        return Rejected(text, "BUDGET_EDITED_TOO_OFTEN")
    if error.code in THROTTLED or answer.status == 429:
        return RateLimited(text, retry_at(answer, now))
    if error.code in OUTDATED or (error.code == UNKNOWN_PATH and "path" in error.message.lower()):
        return speaker.outdated()
    if error.code in NO_ACCESS or answer.status == 401 or (error.code == UNKNOWN_PATH and "token" in error.message):
        return AuthExpired(text)
    if (error.code, error.error_subcode) == TOO_MUCH_DATA and not write:
        return Rejected(text, "TOO_MUCH_DATA")
    if error.is_transient or error.code in TRANSIENT or answer.status >= 500:
        return UnknownOutcome(text) if write else Temporary(text)
    return Rejected(text, f"META_{error.code}" + (f"_{error.error_subcode}" if error.error_subcode else ""))


def _bare(answer: HttpAnswer, speaker: Speaker, now: Instant, *, write: bool) -> PluginError:
    """An answer without an error of the Graph API: a proxy's, a page, or nothing at all."""
    text = f"Meta answered {answer.status} with {len(answer.body)} bytes that are no error of its API"
    if answer.status == 429 or (answer.status == 503 and "retry-after" in answer.headers and not write):
        return RateLimited(text, retry_at(answer, now))
    if answer.status in (401, 403):
        return AuthExpired(text)
    if answer.status in (404, 410):
        return speaker.outdated()
    if 400 <= answer.status < 500:
        return Rejected(text, f"HTTP_{answer.status}")
    return UnknownOutcome(text) if write else Temporary(text)


def retry_at(answer: HttpAnswer, now: Instant) -> Instant:
    """When Meta lets us in again: what its usage headers or Retry-After say, else in five minutes."""
    wait = usage_of(answer)[1]
    header = answer.retry_at(now)
    if not wait and header is not None:
        return header
    return Instant(max(now + (wait or PATIENCE), header or 0))


BUSINESS, ACCOUNT = "x-business-use-case-usage", "x-ad-account-usage"
INSIGHTS, APP = "x-fb-ads-insights-throttle", "x-app-usage"
USAGE_HEADERS = frozenset({BUSINESS, ACCOUNT, INSIGHTS, APP})


def usage_of(answer: HttpAnswer) -> tuple[float, int]:
    """The highest share of any quota in use (1.0 = all of it), and microseconds until access is given again.

    The business header counts minutes, the account header seconds (rate limiting page).
    """
    shares: list[float] = [0.0]
    wait = 0
    for uses in _json(answer, BUSINESS).values():
        for use in uses if isinstance(uses, list) else ():
            if isinstance(use, dict):
                shares += [_number(use.get(name)) for name in ("call_count", "total_cputime", "total_time")]
                wait = max(wait, round(_number(use.get("estimated_time_to_regain_access")) * MINUTE))
    account = _json(answer, ACCOUNT)
    shares.append(_number(account.get("acc_id_util_pct")))
    if shares[-1] >= 100:
        wait = max(wait, round(_number(account.get("reset_time_duration")) * SECOND))
    insights = _json(answer, INSIGHTS)
    shares += [_number(insights.get(name)) for name in ("app_id_util_pct", "acc_id_util_pct")]
    app = _json(answer, APP)
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
