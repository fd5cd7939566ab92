"""Google's errors and ours: which ones mean wait, which mean no, which mean nobody knows.

Codes are `group.NAME` of `GoogleAdsFailure.errors[].errorCode`. What is not in the tables is a refusal, because Google
checks a request before it does anything; only its internal errors leave open what happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kiki_agent import HttpAnswer
from kiki_agent.errors import AuthExpired, Outdated, PluginError, RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.model import SECOND, Instant

WAIT = frozenset({"quotaError.RESOURCE_EXHAUSTED", "quotaError.RESOURCE_TEMPORARILY_EXHAUSTED"})
UNCLEAR = frozenset(
    {
        "internalError.INTERNAL_ERROR",
        "internalError.TRANSIENT_ERROR",
        "internalError.DEADLINE_EXCEEDED",
        "internalError.ERROR_CODE_NOT_PUBLISHED",
    }
)
"""Google's own trouble: a read may be asked again, a write may or may not have happened."""
LATER = frozenset({"databaseError.CONCURRENT_MODIFICATION", "databaseError.DATA_CONSTRAINT_VIOLATION"})
"""Nothing was changed; the same request may work later."""
NO_ACCESS = ("authenticationError.", "authorizationError.", "quotaError.ACCESS_PROHIBITED")
EXPIRED = frozenset({"authenticationError.OAUTH_TOKEN_EXPIRED", "authenticationError.OAUTH_TOKEN_INVALID"})
"""Cured by a new access token."""
OUTDATED = frozenset({"requestError.UNSUPPORTED_VERSION"})
PATIENCE = 30 * SECOND
"""Wait when Google does not say how long."""


class Where(msgspec.Struct, rename="camel"):
    """One step on the way to the field that is wrong."""

    field_name: str = ""
    index: int | str | None = None


class Location(msgspec.Struct, rename="camel"):
    """The way to the field that is wrong."""

    field_path_elements: list[Where] = []


class QuotaDetails(msgspec.Struct, rename="camel"):
    """How long to wait."""

    retry_delay: str = ""


class Details(msgspec.Struct, rename="camel"):
    """More about an error."""

    quota_error_details: QuotaDetails | None = None


class GoogleError(msgspec.Struct, rename="camel"):
    """One error of a failure."""

    error_code: dict[str, str] = {}
    message: str = ""
    location: Location | None = None
    details: Details | None = None

    @property
    def code(self) -> str:
        """`group.NAME`."""
        return next((f"{group}.{name}" for group, name in self.error_code.items()), "UNSPECIFIED")

    @property
    def operation(self) -> int | None:
        """Index of the operation the error is about; None when it is about the whole request."""
        for step in self.location.field_path_elements if self.location is not None else ():
            if step.field_name in ("operations", "conversions"):
                return int(step.index) if step.index is not None and str(step.index).isdecimal() else 0
        return None


class Failure(msgspec.Struct, rename="camel"):
    """`GoogleAdsFailure`."""

    errors: list[GoogleError] = []


class Status(msgspec.Struct, rename="camel"):
    """`google.rpc.Status`."""

    code: int | str = 0
    message: str = ""
    status: str = ""
    details: list[dict[str, Any]] = []

    def errors(self) -> list[GoogleError]:
        """All errors in it, whatever else stands beside them."""
        found: list[GoogleError] = []
        for detail in self.details:
            if str(detail.get("@type", "")).endswith("GoogleAdsFailure"):
                try:
                    found += msgspec.convert(detail, Failure).errors
                except msgspec.ValidationError:
                    continue
        return found


class _Envelope(msgspec.Struct):
    error: Status


def status_of(answer: HttpAnswer) -> Status | None:
    """The error an answer carries, also in the array a stream wraps it in; None when it is none of Google's."""
    for shape in (_Envelope, list[_Envelope]):
        try:
            found = msgspec.json.decode(answer.body, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(found, list):
            return found[0].error if found else None
        if isinstance(found, _Envelope):
            return found.error
    return None


def is_expired(answer: HttpAnswer) -> bool:
    """Whether a new access token would help."""
    status = status_of(answer)
    codes = {error.code for error in status.errors()} if status is not None else set()
    return answer.status == 401 and (not codes or bool(codes & EXPIRED))


def meaning(answer: HttpAnswer, version: str, now: Instant, *, write: bool) -> PluginError:
    """What an answer that is not a success means."""
    status = status_of(answer)
    if status is None:
        return _foreign(answer, version, now, write=write)
    errors = status.errors()
    codes = [error.code for error in errors] or [status.status or f"HTTP_{answer.status}"]
    text = f"Google Ads answered {answer.status} {codes[0]}: {(errors[0].message if errors else status.message)[:200]}"
    if any(code in OUTDATED for code in codes):
        return outdated(version)
    if any(code in WAIT for code in codes) or answer.status == 429:
        return RateLimited(text, retry_at(answer, errors, now))
    if any(code.startswith(NO_ACCESS) for code in codes) or answer.status in (401, 403):
        return AuthExpired(text)
    if any(code in UNCLEAR for code in codes) or answer.status >= 500:
        return UnknownOutcome(text) if write else Temporary(text)
    if any(code in LATER for code in codes):
        return Rejected(text, codes[0]) if write else Temporary(text)
    return Rejected(text, codes[0])


def retry_at(answer: HttpAnswer, errors: list[GoogleError], now: Instant) -> Instant:
    """When Google allows the next request: the longest of what it says, else half a minute."""
    waits = [_seconds(each.details.quota_error_details.retry_delay) for each in errors
             if each.details is not None and each.details.quota_error_details is not None]  # fmt: skip
    header = answer.retry_at(now)
    asked = [now + wait for wait in waits if wait] + ([header] if header is not None else [])
    return Instant(max(asked, default=now + PATIENCE))


def outdated(version: str) -> Outdated:
    """The configured version is over."""
    return Outdated(f"Google Ads does not speak API version {version} any more; set api_version to a current one")


def by_operation(status: Status | None, count: int) -> Mapping[int, str]:
    """Index of each failed operation -> code, out of a `partialFailureError`; an error about all of it fails all."""
    if status is None:
        return {}
    failed: dict[int, str] = {}
    for error in status.errors():
        index = error.operation
        for each in range(count) if index is None else (index,):
            failed.setdefault(each, error.code)
    if not failed and (status.code or status.message):
        return dict.fromkeys(range(count), "PARTIAL_FAILURE")
    return failed


def _foreign(answer: HttpAnswer, version: str, now: Instant, *, write: bool) -> PluginError:
    """An answer that is not Google's JSON: a proxy, a page, or nothing."""
    text = f"Google Ads answered {answer.status} with {len(answer.body)} bytes that are no error of its API"
    if answer.status == 404:
        return outdated(version)
    if answer.status == 429:
        return RateLimited(text, answer.retry_at(now) or Instant(now + PATIENCE))
    if answer.status in (401, 403):
        return AuthExpired(text)
    if 400 <= answer.status < 500:
        return Rejected(text, f"HTTP_{answer.status}")
    return UnknownOutcome(text) if write else Temporary(text)


def _seconds(text: str) -> int:
    """Microseconds of a protobuf duration such as `37s` or `1.5s`; 0 when it is none."""
    number = text.removesuffix("s")
    if not number.replace(".", "", 1).isdecimal() or not number.isascii() or len(number) > 12:
        return 0
    return round(float(number) * SECOND)
