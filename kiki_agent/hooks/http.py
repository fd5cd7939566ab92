"""HTTP as plugins see it: one request, one bounded answer, errors that say whether the request can have arrived.

Two ways behind one protocol: `AiohttpHttp` (sockets, in `http_aiohttp.py`) and `InProcessHttp` (the same bytes handed
to a function). Texts of errors name method, host and path, never a query, a header or a body: there live secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote, urlencode

import msgspec

from kiki_agent.errors import Temporary
from kiki_agent.model.time import DAY, SECOND, Instant

if TYPE_CHECKING:
    from kiki_agent.runtime.clock import Clock

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""No vendor answer the agent asks for is larger; a longer one is cut off and counts as garbled."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class NoAnswer(Temporary):
    """No usable answer: refused, broken, too slow or too long.

    `sent` is False only when the request certainly never left; a write with `sent` True has an unknown outcome.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back, whatever its status; judging it is the plugin's trade."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; repeated ones joined by a comma."""
    body: bytes

    def json(self) -> object:
        """The body as JSON values. Raises Temporary when it is none; for a write that means an unknown outcome."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            size = len(self.body)
            raise Temporary(f"the answer with status {self.status} is not JSON ({size} bytes)") from None

    def retry_at(self, now: Instant) -> Instant | None:
        """When `Retry-After` allows the next request; None without a readable one."""
        return retry_at(self.headers.get("retry-after"), now)


class HttpClient(Protocol):
    """Sends one request and returns its answer; redirects are answers too and are not followed."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10,
    ) -> HttpAnswer:
        """Ask once. `url` is absolute and percent-encoded, `params` are encoded here.

        Raises NoAnswer when there is none, ValueError when the request itself is malformed.
        """
        ...

    async def close(self) -> None:
        """Let go of all connections."""


def retry_at(value: str | None, now: Instant) -> Instant | None:
    """The instant a `Retry-After` header names (RFC 9110, 10.2.3: seconds, or an HTTP date), at most a day ahead.

    None for an absent or unreadable value; an instant in the past becomes `now`.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        wait = int(text[:9]) * SECOND
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):  # the latter for a time zone of many digits
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        wait = (moment - _EPOCH) // timedelta(microseconds=1) - now
    return Instant(now + min(max(wait, 0), DAY))


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request, the same for every way of sending it."""

    method: str
    origin: str
    """Scheme and authority, `https://host:port`."""
    target: str
    """Path and query as they stand in the request line."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def place(self) -> str:
        """Method, host and path: what an error may show."""
        authority = self.origin.partition("://")[2].rpartition("@")[2]
        return f"{self.method} {authority}{self.target.partition('?')[0]}"


def prepare(
    method: str, url: str, headers: Mapping[str, str] | None, params: Mapping[str, str] | None, body: bytes | None
) -> Request:
    """Check a request and put its parts together. Raises ValueError, without showing what may be secret."""
    if not (method.isascii() and method.isalpha()):
        raise ValueError("an HTTP method consists of letters")
    scheme, mark, rest = url.partition("://")
    if not mark or scheme not in ("http", "https"):
        raise ValueError("a URL begins with http:// or https://")
    if not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
        raise ValueError("a URL is ASCII without blanks: percent-encode its path")
    rest = rest.partition("#")[0]
    cut = min((index for index in (rest.find("/"), rest.find("?")) if index >= 0), default=len(rest))
    authority, target = rest[:cut], rest[cut:]
    if not authority:
        raise ValueError("a URL names a host")
    if not target.startswith("/"):
        target = "/" + target
    if params:
        joint = "&" if "?" in target else "?"
        target = f"{target}{joint}{urlencode(params, quote_via=quote)}"
    return Request(method.upper(), f"{scheme}://{authority}", target, _checked_headers(headers), body or b"")


def _checked_headers(headers: Mapping[str, str] | None) -> Mapping[str, str]:
    if not headers:
        return _NO_HEADERS
    for name, value in headers.items():
        if not name or not name.isascii() or any(char in "\r\n\0: " for char in name):
            raise ValueError("a header name is ASCII without blanks and colons")
        if any(char in "\r\n\0" for char in value):
            raise ValueError(f"the value of header {name!r} holds a line break")
    return headers


Handler = Callable[[str, str, Mapping[str, str], bytes, Instant], tuple[int, Mapping[str, str], bytes]]
"""(method, path with query, lower-case headers, body, now) -> (status, headers, body); pure request handling."""


class InProcessHttp:
    """Hands requests to a function instead of a socket: for backtests, where vendor and agent share one simulated time.

    The handler sees the bytes a server would see, except what HTTP itself adds on the way (Host, User-Agent ...).
    """

    def __init__(self, handler: Handler, clock: Clock) -> None:
        self._handler = handler
        self._clock = clock

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10,
    ) -> HttpAnswer:
        """As `HttpClient.request`; a handler that raises is a service that broke the connection."""
        request = prepare(method, url, headers, params, body)
        lowered = {name.lower(): value for name, value in request.headers.items()}
        try:
            status, answered, data = self._handler(
                request.method, request.target, lowered, request.body, self._clock.now()
            )
        except NoAnswer:
            raise
        except Exception as error:
            raise NoAnswer(f"{request.place}: broken connection ({type(error).__name__})", sent=True) from error
        if len(data) > MAX_ANSWER_BYTES:
            raise NoAnswer(f"{request.place}: the answer is longer than {MAX_ANSWER_BYTES} bytes", sent=True)
        return HttpAnswer(status, {name.lower(): value for name, value in answered.items()}, data)

    async def close(self) -> None:
        """Nothing is held."""
