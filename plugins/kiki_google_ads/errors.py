"""Google's errors and ours: which ones mean wait, which mean no, which mean nobody knows.

Codes are `group.NAME` of `GoogleAdsFailure.errors[].errorCode`. What is not in the tables is a refusal, because Google
checks a request before it does anything; only its internal errors leave open what happened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kiki_agent import HttpAnswer
from kiki_agent.errors import AuthExpired, Outdated, PluginError, RateLimited, Rejected, Temporary, UnknownOutcome
from kiki_agent.model import DAY, SECOND, Instant


class CostMissing(Temporary):
    """A report counts clicks and leaves out what they cost: not booked as nothing, so that it frees no budget."""


WAIT = frozenset(
    {
        "quotaError.RESOURCE_EXHAUSTED",
        "quotaError.RESOURCE_TEMPORARILY_EXHAUSTED",
        "quotaError.EXCESSIVE_SHORT_TERM_QUERY_RESOURCE_CONSUMPTION",
        "quotaError.EXCESSIVE_LONG_TERM_QUERY_RESOURCE_CONSUMPTION",
    }
)
UNCLEAR = "internalError."
"""Google's own trouble: a read may be asked again, a write may or may not have happened."""
LATER = frozenset(
    {
        "databaseError.CONCURRENT_MODIFICATION",
        "databaseError.DATA_CONSTRAINT_VIOLATION",
        "requestError.RPC_DEADLINE_TOO_SHORT",
        "requestError.INVALID_PAGE_TOKEN",
        "requestError.EXPIRED_PAGE_TOKEN",
    }
)
"""Nothing was changed; the same request may work later."""
NO_ACCESS = ("authenticationError.", "authorizationError.", "headerError.", "quotaError.ACCESS_PROHIBITED",
             "requestError.DEVELOPER_TOKEN_PARAMETER_MISSING", "requestError.LOGIN_CUSTOMER_ID_PARAMETER_MISSING",
             "requestError.CLOUD_PROJECT_NOT_FOUND")  # fmt: skip
"""A person has to act: tokens, permissions, the manager account."""
EXPIRED = frozenset({"authenticationError.OAUTH_TOKEN_EXPIRED", "authenticationError.OAUTH_TOKEN_INVALID"})
"""Cured by a new access token."""
OUTDATED = frozenset({"requestError.UNSUPPORTED_VERSION"})
PATIENCE = 30 * SECOND
"""Wait when Google does not say how long."""

_CODE = re.compile(r"[A-Za-z]{1,60}\.[A-Z0-9_]{1,100}")
_WORD = re.compile(r"[A-Z_]{1,40}")


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
        """`group.NAME`; it goes on record, so nothing does that does not look like one."""
        code = next((f"{group}.{name}" for group, name in self.error_code.items()), "")
        return code if _CODE.fullmatch(code) else "UNSPECIFIED"

    @property
    def operation(self) -> int | None:
        """Index of the operation the error is about; None when it is about the whole request."""
        for step in self.location.field_path_elements if self.location is not None else ():
            if step.field_name in ("operations", "conversions", "conversion_adjustments", "conversionAdjustments"):
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
        return [error for failure in self._failures() if failure is not None for error in failure.errors]

    @property
    def legible(self) -> bool:
        """Whether every failure in it could be read."""
        return None not in self._failures()

    def _failures(self) -> list[Failure | None]:
        found: list[Failure | None] = []
        for detail in self.details:
            if str(detail.get("@type", "")).endswith("GoogleAdsFailure"):
                try:
                    found.append(msgspec.convert(detail, Failure))
                except msgspec.ValidationError:
                    found.append(None)
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


@dataclass(frozen=True, slots=True)
class Asked:
    """What an error is told about the request it answers."""

    version: str
    connector: str
    """Id of the instance, to name its setting."""
    now: Instant
    write: bool


def meaning(answer: HttpAnswer, asked: Asked) -> PluginError:
    """What an answer means whose status is not 200."""
    status = status_of(answer)
    return _foreign(answer, asked) if status is None else failed(status, answer, asked)


def failed(status: Status, answer: HttpAnswer, asked: Asked) -> PluginError:
    """What an error means that Google states, also under a status of 200."""
    errors = status.errors()
    word = status.status if _WORD.fullmatch(status.status) else f"HTTP_{answer.status}"
    codes = [error.code for error in errors] or [word]
    text = f"Google Ads answered {answer.status} {codes[0]}: {errors[0].message if errors else status.message}"
    if any(code in OUTDATED for code in codes) or (answer.status == 404 and not errors):
        return outdated(asked)
    if any(code in WAIT for code in codes) or answer.status == 429 or _told_to_wait(answer, asked):
        return RateLimited(text, retry_at(answer, errors, asked.now))
    if any(code.startswith(NO_ACCESS) for code in codes) or answer.status in (401, 403):
        return AuthExpired(text)
    if any(code.startswith(UNCLEAR) for code in codes) or answer.status >= 500 or answer.status in (200, 408):
        return UnknownOutcome(text) if asked.write else Temporary(text)
    if any(code in LATER for code in codes):
        return Rejected(text, codes[0]) if asked.write else Temporary(text)
    return Rejected(text, codes[0])


def retry_at(answer: HttpAnswer, errors: list[GoogleError], now: Instant) -> Instant:
    """When Google allows the next request: the longest of what it says, else half a minute."""
    waits = [_seconds(each.details.quota_error_details.retry_delay) for each in errors
             if each.details is not None and each.details.quota_error_details is not None]  # fmt: skip
    header = answer.retry_at(now)
    asked = [now + min(wait, DAY) for wait in waits if wait] + ([header] if header is not None else [])
    return Instant(max(asked, default=now + PATIENCE))


def outdated(asked: Asked) -> Outdated:
    """The configured version is over; never to be read as a campaign that is gone."""
    setting = f"connector.{asked.connector}.api_version"
    return Outdated(f"API version {asked.version} is not accepted by Google Ads: set {setting} to a current one")


ILLEGIBLE = "PARTIAL_FAILURE"
"""Code of operations about which a partial failure says nothing that can be read: made or not, nobody knows."""


def by_operation(status: Status | None, count: int) -> Mapping[int, str]:
    """Index of each failed operation -> code, out of a `partialFailureError`; an error about all of it fails all.

    Where several errors name one operation, one that leaves open what happened counts before a refusal.
    """
    if status is None:
        return {}
    codes: dict[int, str] = {}
    legible = status.legible and bool(status.errors())
    for error in status.errors():
        index = error.operation
        if index is not None and index >= count:
            legible = False
            continue
        for each in range(count) if index is None else (index,):
            if each not in codes or is_unclear(error.code):
                codes[each] = error.code
    if not legible:
        for each in range(count):
            codes.setdefault(each, ILLEGIBLE)
    return codes


def is_unclear(code: str) -> bool:
    """Whether a code leaves open if the operation was made."""
    return code.startswith(UNCLEAR) or code == ILLEGIBLE


def _foreign(answer: HttpAnswer, asked: Asked) -> PluginError:
    """An answer that is not Google's JSON: a proxy, a page, or nothing."""
    text = f"Google Ads answered {answer.status} with {len(answer.body)} bytes that are no error of its API"
    if answer.status == 404:
        return outdated(asked)
    if answer.status == 429 or _told_to_wait(answer, asked):
        return RateLimited(text, answer.retry_at(asked.now) or Instant(asked.now + PATIENCE))
    if answer.status in (401, 403):
        return AuthExpired(text)
    if 400 <= answer.status < 500 and answer.status != 408:
        return Rejected(text, f"HTTP_{answer.status}")
    return UnknownOutcome(text) if asked.write else Temporary(text)


def _told_to_wait(answer: HttpAnswer, asked: Asked) -> bool:
    """Whether a read is told when to come back; a change under the same answer may have been made."""
    return not asked.write and answer.status == 503 and answer.retry_at(asked.now) is not None


def _seconds(text: str) -> int:
    """Microseconds of a protobuf duration such as `37s` or `1.5s`; 0 when it is none."""
    number = text.removesuffix("s")
    if not number.replace(".", "", 1).isdecimal() or not number.isascii() or len(number) > 12:
        return 0
    return round(float(number) * SECOND)
