"""The generic vendor API in front of the market: a request in, an answer out, no sockets and no clock.

One service speaks for all six platforms and for the shop's CRM. It is strict the way good platforms are: unknown
fields, wrong types, amounts below the minimum or off the step are refused; a batch answers 200 and says per operation
what became of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec

from kiki_agent.hooks.api import SandboxOffer
from kiki_agent.model import DAY, MINUTE, Instant, iso, parse_iso
from kiki_agent.sandbox import layout as at
from kiki_agent.sandbox import wire
from kiki_agent.sandbox.desk import THEMES, Answer, Desk, VendorApi
from kiki_agent.sandbox.draw import CENT, MIN_BID, MIN_BUDGET, PLATFORMS
from kiki_agent.sandbox.effects import PLACEMENT, Effect, EffectsLog
from kiki_agent.sandbox.faults import AnswerLost, Fault, Faults
from kiki_agent.sandbox.market import Market, platform_index
from kiki_agent.sandbox.tokens import Tokens

T = TypeVar("T")

CLIENT_ID, CLIENT_SECRET = "sandbox", "sandbox"
"""Credentials where nothing else is said: in process, where there is no one to keep out."""
FIRST_CAMPAIGN = 100_001
MAX_BUDGET = 1_000_000 * 100 * CENT
REQUESTS_PER_MINUTE = 600
LOOKBACK_DAYS = 100

_JSON = {"content-type": "application/json"}


class _Batch(Protocol):
    @property
    def operations(
        self,
    ) -> (
        list[wire.BidOperation] | list[wire.BudgetOperation] | list[wire.StateOperation] | list[wire.PlacementOperation]
    ): ...


_WRITES: dict[str, tuple[str, int, msgspec.json.Decoder[_Batch]]] = {
    "bids": ("adjust_bid", MIN_BID, msgspec.json.Decoder(wire.BidBatch)),
    "budgets": ("set_budget", MIN_BUDGET, msgspec.json.Decoder(wire.BudgetBatch)),
    "status": ("set_status", 0, msgspec.json.Decoder(wire.StateBatch)),
    "placements": (PLACEMENT, CENT, msgspec.json.Decoder(wire.PlacementBatch)),
}
_ROWS = {"adjust_bid": at.BID, "set_budget": at.BUDGET, "set_status": at.ACTIVE}


class Refusal(Exception):
    """A request that gets an error answer."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class SandboxService:
    """Request handling over one market."""

    def __init__(
        self,
        market: Market,
        effects_log: EffectsLog | None = None,
        faults: Faults | None = None,
        *,
        client_id: str = CLIENT_ID,
        client_secret: str = CLIENT_SECRET,
        requests_per_minute: int = REQUESTS_PER_MINUTE,
        nonce: str = "",
        vendors: Sequence[SandboxOffer] = (),
    ) -> None:
        self.market = market
        self.effects = effects_log if effects_log is not None else EffectsLog()
        self.faults = faults if faults is not None else Faults()
        self.nonce = nonce
        self.requests_per_minute = requests_per_minute
        self.tokens = Tokens(client_id, client_secret)
        self._encode = msgspec.json.Encoder().encode
        self._grant = msgspec.json.Decoder(wire.Grant)
        self._minute: dict[str, tuple[int, int]] = {}
        self._ids = [str(FIRST_CAMPAIGN + index) for index in range(market.size)]
        self._names = [_name(market, index) for index in range(market.size)]
        self.vendors: dict[str, VendorApi] = {
            offer.name: offer.load()(Desk(market, self.effects, self.faults, offer.platform, client_id, client_secret))
            for offer in vendors
        }
        """Vendors' own APIs by the first part of their paths."""

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: Instant) -> Answer:
        """Answer one request. `path` includes the query, `headers` have lower-case names.

        Raises AnswerLost when the request was done but its answer must never arrive.
        """
        try:
            return self._handle(method, path, headers, body, now)
        except Refusal as refusal:
            error = {"error": {"code": refusal.code, "message": refusal.message}}
            return refusal.status, {**_JSON, **refusal.headers}, self._encode(error)

    def _handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: Instant) -> Answer:
        self.market.advance_to(now)
        route, _, query = path.partition("?")
        if route == "/v1/health":
            return self._ok({"status": "ok", "now": iso(now), "nonce": self.nonce})
        mount, _, rest = path[1:].partition("/")
        vendor = self.vendors.get(mount)
        if vendor is not None:
            return vendor.handle(method, f"/{rest}", headers, body, now)
        fault = self.faults.next(route)
        if fault is Fault.ERROR:
            raise Refusal(500, "INTERNAL", "something broke on our side")
        if fault is Fault.GARBAGE:
            return 200, {"content-type": "text/html"}, b"<html><body>Just a moment...</body></html>"
        if fault is Fault.THROTTLED:
            raise Refusal(429, "RATE_LIMITED", "too many requests", {"retry-after": "30"})
        answer = self._route(method, route, query, headers, body, now, failed=fault is Fault.FAILED)
        if fault is Fault.LOST:
            raise AnswerLost(f"{method} {route} was processed, its answer is lost")
        return answer

    def _route(
        self,
        method: str,
        route: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        now: Instant,
        *,
        failed: bool,
    ) -> Answer:
        if route == "/token":
            _require(method, "POST")
            return self._token(body, now)
        if not self.tokens.valid(headers.get("authorization", ""), now):
            raise Refusal(401, "UNAUTHENTICATED", "the access token is absent, wrong or expired")
        parts = route.split("/")
        if len(parts) == 3 and parts[1] == "v1" and parts[2] == "customers":
            place, verb = -1, "customers"
        elif len(parts) == 4 and parts[1] == "v1":
            try:
                place, verb = platform_index(parts[2]), parts[3]
            except KeyError:
                raise Refusal(404, "NOT_FOUND", f"there is no platform {parts[2][:40]!r}") from None
        else:
            raise Refusal(404, "NOT_FOUND", "there is nothing at this path")
        self._throttle(parts[2], now)
        if verb in _WRITES:
            _require(method, "POST")
            return self._write(place, verb, body, now, failed=failed)
        reader = _READERS.get(verb)
        if reader is None or (verb == "customers") != (place < 0):
            raise Refusal(404, "NOT_FOUND", "there is nothing at this path")
        _require(method, "GET")
        if failed:
            return self._ok({"error": {"code": "TRY_LATER", "message": "the report could not be made"}})
        allowed, read = reader
        return self._ok(read(self, place, _arguments(query, allowed), now))

    def _token(self, body: bytes, now: Instant) -> Answer:
        grant = _decoded(self._grant, body)
        issued = self.tokens.issue(grant.client_id, grant.client_secret, now)
        if issued is None:
            raise Refusal(401, "INVALID_CLIENT", "client_id or client_secret is wrong")
        return self._ok({"access_token": issued[0], "token_type": "bearer", "expires_in": issued[1]})

    def _throttle(self, name: str, now: Instant) -> None:
        minute = now // MINUTE
        seen, count = self._minute.get(name, (minute, 0))
        count = count + 1 if seen == minute else 1
        self._minute[name] = (minute, count)
        if count > self.requests_per_minute:
            wait = -(-((minute + 1) * MINUTE - now) // 1_000_000)
            raise Refusal(429, "RATE_LIMITED", "too many requests in this minute", {"retry-after": str(wait)})

    def _write(self, place: int, verb: str, body: bytes, now: Instant, *, failed: bool) -> Answer:
        kind, minimum, decoder = _WRITES[verb]
        batch = _decoded(decoder, body)
        results: list[wire.ResultItem] = []
        effects: list[Effect] = []
        for operation in batch.operations:
            problem = ("TRY_LATER", "the change was not made") if failed else self._problem(place, operation, minimum)
            if problem is not None:
                results.append(wire.ResultItem(operation.client_ref, "ERROR", code=problem[0], message=problem[1]))
                continue
            campaign = int(operation.campaign) - FIRST_CAMPAIGN
            level = operation.level
            before = 0 if kind == PLACEMENT else self.market.set_level(_ROWS[kind], campaign, level)
            number = self.effects.count + len(effects) + 1
            name = PLATFORMS[place].name
            effect = Effect(number, operation.client_ref, name, campaign, kind, before, level, now)
            effects.append(effect)
            results.append(wire.ResultItem(operation.client_ref, "OK", effect_id=effect.effect_id))
        self.effects.append(effects)
        return self._ok({"results": results})

    def _problem(self, place: int, operation: wire.Operation, minimum: int) -> tuple[str, str] | None:
        """Why an operation is refused: code and message."""
        if not self._has(place, operation.campaign):
            return "NOT_FOUND", f"no campaign {operation.campaign[:20]!r} in this account"
        if isinstance(operation, wire.StateOperation):
            return None
        level = operation.level
        if level < minimum:
            return "BELOW_MINIMUM", f"at least {wire.amount(minimum)}"
        if level > MAX_BUDGET:
            return "ABOVE_MAXIMUM", f"at most {wire.amount(MAX_BUDGET)}"
        if level % CENT:
            return "BAD_STEP", f"a multiple of {wire.amount(CENT)}"
        return None

    def _has(self, place: int, campaign: str) -> bool:
        first, last = self.market.span(place)
        if len(campaign) > 12 or not (campaign.isascii() and campaign.isdecimal()):
            return False
        return first <= int(campaign) - FIRST_CAMPAIGN < last and campaign[0] != "0"

    def _campaigns(self, place: int, arguments: Mapping[str, str], now: Instant) -> object:
        first, last = self.market.span(place)
        offset = first + _number(arguments, "page_token", 0, last - first)
        upto = min(last, offset + _number(arguments, "page_size", 100, 500, least=1))
        control = self.market.control[:, offset:upto].T.tolist()
        items = [
            wire.CampaignItem(
                id=self._ids[offset + index],
                name=self._names[offset + index],
                state="ENABLED" if row[at.ACTIVE] else "PAUSED",
                daily_budget=wire.amount(row[at.BUDGET]),
                max_cpc=wire.amount(row[at.BID]),
                currency=wire.CURRENCY,
                cpc_step=wire.amount(CENT),
                min_cpc=wire.amount(MIN_BID),
                budget_step=wire.amount(CENT),
                min_daily_budget=wire.amount(MIN_BUDGET),
            )
            for index, row in enumerate(control)
        ]
        return {"campaigns": items, "next_page_token": str(upto - first) if upto < last else ""}

    def _performance(self, place: int, arguments: Mapping[str, str], now: Instant) -> object:
        data, as_of = self.market.report(place, now)
        first, last = _days(arguments, wire.day_of(as_of))
        offset = _number(arguments, "cursor", 0, 10**9)
        ids = self._ids[slice(*self.market.span(place))]
        rows = []
        for day in range(first, last + 1):
            text = wire.day_text(day)
            for index, cells in enumerate(data[:, day % at.RING_DAYS, :].T.tolist()):
                if cells[at.IMPRESSIONS] or cells[at.SPEND]:
                    rows.append((ids[index], text, cells))
        page = [
            wire.PerformanceItem(
                campaign,
                text,
                cells[at.IMPRESSIONS],
                cells[at.CLICKS],
                cells[at.CONVERSIONS],
                wire.amount(cells[at.SPEND]),
                wire.amount(cells[at.REVENUE]),
            )
            for campaign, text, cells in rows[offset : offset + wire.MAX_ROWS]
        ]
        more = offset + len(page) < len(rows)
        return {
            "rows": page,
            "as_of": iso(as_of),
            "final_before": wire.day_text(wire.day_of(as_of) - at.WINDOW_DAYS + 3),
            "next_cursor": str(offset + len(page)) if more else None,
        }

    def _spend(self, place: int, arguments: Mapping[str, str], now: Instant) -> object:
        if "since" not in arguments:
            raise Refusal(400, "INVALID_ARGUMENT", "since is missing")
        try:
            since = parse_iso(arguments["since"])
        except ValueError:
            raise Refusal(400, "INVALID_ARGUMENT", "since is not an instant such as 2026-01-31T00:00:00Z") from None
        as_of = self.market.now
        today = wire.day_of(as_of)
        start, end = self.market.span(place)
        spend = self.market.days[at.SPEND]
        rows = []
        for day in range(max(wire.day_of(since), today - LOOKBACK_DAYS, self._first_day()), today + 1):
            text = wire.day_text(day)
            for index, cost in enumerate(spend[day % at.RING_DAYS, start:end].tolist(), start):
                rows.append(wire.SpendItem(self._ids[index], text, wire.amount(cost)))
        return {"rows": rows, "as_of": iso(as_of)}

    def _effects(self, place: int, arguments: Mapping[str, str], now: Instant) -> object:
        keys = [key for key in arguments.get("keys", "").split(",") if key]
        if not 1 <= len(keys) <= MAX_KEYS:
            raise Refusal(400, "INVALID_ARGUMENT", f"keys names 1 to {MAX_KEYS} client references")
        name = PLATFORMS[place].name
        found = [
            {
                "client_ref": effect.key,
                "effect_id": effect.effect_id,
                "campaign": self._ids[effect.campaign],
                "kind": effect.kind,
                "at": iso(effect.at),
            }
            for key in dict.fromkeys(keys)
            for effect in self.effects.find(key)
            if effect.platform == name
        ]
        return {"effects": found}

    def _customers(self, place: int, arguments: Mapping[str, str], now: Instant) -> object:
        limit = _number(arguments, "page_size", 500, wire.MAX_ROWS, least=1)
        people, position, more = self.market.customers(_number(arguments, "cursor", 0, 10**15), limit)
        items = [
            wire.CustomerItem(
                person.customer_id,
                PLATFORMS[person.platform].name,
                iso(person.acquired_at),
                person.purchases,
                wire.amount(person.revenue_micros),
                iso(person.last_purchase_at),
                iso(person.updated_at),
            )
            for person in people
        ]
        return {"customers": items, "cursor": str(position), "more": more}

    def _first_day(self) -> int:
        return wire.day_of(int(self.market.counters[at.BEGIN]) * at.STEP)

    def _ok(self, value: object) -> Answer:
        return 200, _JSON, self._encode(value)


MAX_KEYS = 200

_READERS = {
    "campaigns": (frozenset({"page_token", "page_size"}), SandboxService._campaigns),
    "performance": (frozenset({"first_day", "last_day", "cursor"}), SandboxService._performance),
    "spend": (frozenset({"since"}), SandboxService._spend),
    "effects": (frozenset({"keys"}), SandboxService._effects),
    "customers": (frozenset({"cursor", "page_size"}), SandboxService._customers),
}


def _name(market: Market, index: int) -> str:
    place = int(market.homes[index])
    number = index - market.span(place)[0]
    return f"{THEMES[(number + place * 2) % len(THEMES)]} {number // len(THEMES) + 1}"


def _require(method: str, wanted: str) -> None:
    if method != wanted:
        raise Refusal(405, "METHOD_NOT_ALLOWED", f"use {wanted}", {"allow": wanted})


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "INVALID_ARGUMENT", str(error)) from None


def _arguments(query: str, allowed: frozenset[str]) -> dict[str, str]:
    if not query:
        return {}
    arguments: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed or name in arguments:
            raise Refusal(400, "INVALID_ARGUMENT", f"parameter {name[:40]!r} is unknown or given twice")
        arguments[name] = value
    return arguments


def _number(arguments: Mapping[str, str], name: str, default: int, most: int, *, least: int = 0) -> int:
    text = arguments.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 15 or not least <= int(text) <= most:
        raise Refusal(400, "INVALID_ARGUMENT", f"{name} is not a number from {least} to {most}")
    return int(text)


def _days(arguments: Mapping[str, str], newest: int) -> tuple[int, int]:
    """First and last day of a report, not before what is kept and not after what it covers."""
    try:
        first, last = wire.day_number(arguments["first_day"]), wire.day_number(arguments["last_day"])
    except KeyError as error:
        raise Refusal(400, "INVALID_ARGUMENT", f"{error.args[0]} is missing") from None
    except ValueError:
        raise Refusal(400, "INVALID_ARGUMENT", "first_day and last_day are dates such as 2026-01-31") from None
    if first > last:
        raise Refusal(400, "INVALID_ARGUMENT", "first_day is after last_day")
    return max(first, newest - LOOKBACK_DAYS), min(last, newest)


assert DAY == at.STEPS_PER_DAY * at.STEP
