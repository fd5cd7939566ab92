"""The Google Ads connector as the agent runs it, in front of its stand-in, with a record of every byte between them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from kiki_google_ads.connector import GoogleAdsConnector
from kiki_google_ads.sandbox import GoogleAdsSandbox
from kiki_google_ads.sandbox_account import Event

from kiki_agent.config import Settings
from kiki_agent.hooks.context import ContextFactory
from kiki_agent.hooks.conversion import Conversion
from kiki_agent.hooks.http import InProcessHttp
from kiki_agent.hooks.http_aiohttp import AiohttpHttp
from kiki_agent.hooks.manager import Plugins
from kiki_agent.model import DAY, SECOND, Campaign, DayWindow, Instant, Intent, IntentKind, intent_key, parse_iso
from kiki_agent.runtime.clock import SimClock
from kiki_agent.sandbox import Change, Desk, EffectsLog, Fault, Faults, Market, SandboxServer, SandboxService

from .recording import Exchange, Recorder

NOW = parse_iso("2026-06-01T12:00:00Z")
ROOT = "https://googleads.test"
ID, SECRET = "client-canary-4410", "canary-4410"
"""The stand-in's credentials are made of the secret, which is looked for in every text."""
ACTION = "987654321"
WINDOW = DayWindow("2026-05-25", "2026-06-01")
EVERYTHING = {0: "TARGET_ROAS", 1: "MAXIMIZE_CONVERSION_VALUE", 4: "PORTFOLIO_VALUE", 5: "PORTFOLIO_SPEND",
              10: "PORTFOLIO_TOGETHER", 11: "PORTFOLIO_TOGETHER"}  # fmt: skip
"""With the stand-in's own layout (2 and 3 and 12 portfolios, 6 and 7 ceilings, 8 by hand, 9 left to Google) every
strategy there is."""
STEPS = {"USD": 10_000, "JPY": 1_000_000, "KWD": 1_000}
Answer = tuple[int, Mapping[str, str], bytes]


@dataclass
class Rig:
    """One account."""

    market: Market
    desk: Desk
    sandbox: GoogleAdsSandbox
    faults: Faults
    effects: EffectsLog
    clock: SimClock
    recorder: Recorder
    plugins: Plugins
    currency: str
    alter: list[Callable[[str, Answer], Answer]] = field(default_factory=list)

    def to(self, verb: str, *args: object) -> Awaitable[Any]:
        return self.plugins.caller.to("google", verb, *args)

    @property
    def connector(self) -> GoogleAdsConnector:
        made = getattr(self.plugins.instances["google"].hooks["check"].function, "__self__", None)
        assert isinstance(made, GoogleAdsConnector)
        return made

    async def campaigns(self) -> dict[int, Campaign]:
        """Campaigns by their place in the account."""
        return {int(each.campaign_id) - 20_000_001: each for each in await self.to("fetch_campaigns")}

    def intent(
        self,
        place: int,
        after: int,
        kind: IntentKind = IntentKind.ADJUST_BID,
        *,
        before: int = 0,
        ltv: int = 0,
        note: str = "",
        confidence: int = 0,
        cause: str = "",
    ) -> Intent:
        """A wanted change of a campaign, by its place."""
        name, at = str(20_000_001 + place), self.clock.now()
        key = intent_key("google", name, kind, at, f"{cause}{after}")
        return Intent(key, kind, "google", name, before, after, self.currency, "TEST", at, cause, ltv_micros=ltv,
                      note=note, confidence_permille=confidence)  # fmt: skip

    def conversion(self, number: int, value: int, *, order: str = "", click: str = "", basis: str = "") -> Conversion:
        """A conversion of yesterday."""
        at = Instant(NOW - DAY - DAY // 2)
        return Conversion(f"key-{number}", click or f"click-{number}", "Purchase", at, value, self.currency,
                          basis or "consent:c1", order or f"order-{number}")  # fmt: skip

    def answer(self, part: str, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """From now on answer requests for such paths with this, after the stand-in did what was asked."""
        given = {"content-type": "application/json; charset=UTF-8"} if headers is None else headers
        self.alter[:] = [lambda path, said: (status, given, body) if part in path else said]

    def change_answer(self, part: str, change: Callable[[Any], Any]) -> None:
        """From now on change the JSON that answers such paths."""

        def altered(path: str, said: Answer) -> Answer:
            if part not in path or said[0] != 200:
                return said
            return said[0], said[1], json.dumps(change(json.loads(said[2]))).encode()

        self.alter[:] = [altered]

    def by_somebody(self, place: int, kind: str, after: int, event: Event | None = None) -> None:
        """A change made by hand in the vendor's own screens."""
        self.desk.change([Change(place, kind, after)], self.clock.now())
        if event is not None:
            self.sandbox.account.note(event, self.clock.now())

    def expire(self) -> None:
        """Google takes back every token it gave, long before its time."""
        given = {each.headers.get("authorization", "") for each in self.recorder.exchanges}
        valid = self.desk.tokens.valid
        setattr(self.desk.tokens, "valid", lambda header, now: header not in given and valid(header, now))  # noqa: B010
        self.clock.instant = Instant(self.clock.instant + SECOND)

    def asked(self, part: str) -> list[Any]:
        """Bodies of the requests whose path contains this."""
        return [each.asked for each in self.recorder.exchanges if part in each.path]


@dataclass
class _Vendor:
    """What the server of the sandbox asks of its service."""

    handle: Callable[[str, str, Mapping[str, str], bytes, Instant], Answer]


@asynccontextmanager
async def google(
    currency: str = "USD",
    *,
    strategies: Mapping[int, str] | None = None,
    dry_run: bool = False,
    campaigns: int = 84,
    socket: bool = False,
    **options: Any,
) -> AsyncIterator[Rig]:
    """The connector in front of 14 campaigns; `options` are settings of the table, or of the stand-in."""
    clock = SimClock(NOW)
    market = Market(7, NOW, campaigns, 2)
    faults, effects = Faults(), EffectsLog()
    desk = Desk(market, effects, faults, "google_ads", ID, SECRET)
    limits = {"requests_per_minute": 10_000_000, "operations_per_day": 10_000_000}
    own = {name: options.pop(name) for name in (*limits, "page_rows", "timezone") if name in options}
    sandbox = GoogleAdsSandbox(desk, currency=currency, strategies=strategies, **(limits | own))
    alter: list[Callable[[str, Answer], Answer]] = []

    def handle(method: str, path: str, headers: Mapping[str, str], body: bytes, now: Instant) -> Answer:
        market.advance_to(now)
        said = sandbox.handle(method, path, headers, body, now)
        for change in alter:
            said = change(path, said)
        return said

    server = SandboxServer(clock.now, cast("SandboxService", _Vendor(handle))) if socket else None
    if server is not None:
        await server.start()
    root = ROOT if server is None else server.base_url
    recorder = Recorder(InProcessHttp(handle, clock) if server is None else AiohttpHttp())
    table = {
        "plugin": "google_ads",
        "platform": "google_ads",
        "daily_cap": "1000000",
        "base_url": root,
        "token_url": f"{root}/token",
        "customer_id": "123-456-7890",
        "client_id": ID,
        "client_secret": SECRET,
        "refresh_token": f"refresh-{SECRET}",
        "developer_token": f"developer-{SECRET}",
        "conversion_action": ACTION,
    }
    settings = Settings.model_validate(
        {"mode": "demo", "plugins": {"allow": ["google_ads"]}, "connector": {"google": table | options}}
    )
    factory = ContextFactory(clock=clock, make_http=lambda _: recorder, dry_run=dry_run)
    plugins = await Plugins.load(settings, make_context=factory, simulated=True)
    try:
        yield Rig(market, desk, sandbox, faults, effects, clock, recorder, plugins, currency, alter)
    finally:
        await plugins.close(seconds=1, grace_seconds=0.1)
        if server is not None:
            await server.close()


async def quiet(call: Awaitable[Any]) -> Any:
    """What a call answers, or the error it raises."""
    try:
        return await call
    except Exception as error:
        return error


async def every_verb(rig: Rig) -> None:
    """Each verb with every lever, signal and outcome the connector has a request for."""
    step = STEPS[rig.currency]
    place, set_budget, set_status = IntentKind.PLACE_BID, IntentKind.SET_BUDGET, IntentKind.SET_STATUS
    await rig.to("check")
    found = await rig.campaigns()
    await rig.to("fetch_spend", Instant(NOW - DAY))
    cursor = None
    while True:
        report = await rig.to("fetch_performance", WINDOW, cursor)
        cursor = report.cursor
        if cursor is None:
            break
    budgets = [rig.intent(each, 30 * 10**6, set_budget, before=found[each].daily_budget_micros) for each in (0, 2, 6)]
    await rig.to("set_budget", [*budgets, rig.intent(1, step + 1, set_budget)])
    await rig.to("adjust_bid", [rig.intent(each, 2 * step * 100) for each in found])
    levels = [rig.intent(each, 3 * step * 100, ltv=1200 * 10**6) for each in found]
    await rig.to("adjust_bid", levels)
    await rig.to("place_bid", [rig.intent(each, 150 * 10**6, place, ltv=1200 * 10**6, note="worth it", confidence=870)
                               for each in found])  # fmt: skip
    await rig.to("set_status", [rig.intent(each, 0, set_status, before=1) for each in (0, 3)])
    await rig.to("set_status", [rig.intent(each, 1, set_status, before=0) for each in (0, 3)])
    await rig.to("reconcile", [*budgets, *levels])
    uploads = [rig.conversion(1, 12_340_000), rig.conversion(2, 5 * 10**6, click="gbraid:abcdef"),
               rig.conversion(3, 0, click="wbraid:abcdef", basis="not_personal")]  # fmt: skip
    await rig.to("upload_conversions", uploads)
    await rig.to("upload_conversions", [rig.conversion(1, 20_340_000), rig.conversion(4, 10**6)])
    await rig.connector.changes(Instant(NOW - DAY))


async def every_fault(rig: Rig) -> None:
    """Reads, a change and an upload under each way a request can go wrong, and an expired token."""
    for fault in Fault:
        for verb, args, path in (
            ("fetch_campaigns", (), ":search"),
            ("fetch_spend", (Instant(NOW - DAY),), ":searchStream"),
            ("set_budget", ([rig.intent(1, 40 * 10**6, IntentKind.SET_BUDGET, cause=fault.value)],), "campaignBudgets"),
            ("upload_conversions", ([rig.conversion(50, 10**6)],), ":uploadClick"),
        ):
            rig.faults.order(fault, path=path)
            await quiet(rig.to(verb, *args))
    rig.expire()
    await rig.to("fetch_spend", Instant(NOW - DAY))


async def drive() -> list[Rig]:
    """Everything the connector can send: every strategy in every currency, dry runs, small pages, faults."""
    rigs = []
    for currency in STEPS:
        async with google(currency, strategies=EVERYTHING) as rig:
            await every_verb(rig)
        rigs.append(rig)
    async with google(dry_run=True, strategies=EVERYTHING, login_customer_id="999-888-7777") as rig:
        await every_verb(rig)
    rigs.append(rig)
    async with google(page_rows=5) as rig:
        await every_verb(rig)
        await every_fault(rig)
    rigs.append(rig)
    async with google(api_version="v15") as rig:
        await quiet(rig.to("fetch_campaigns"))
    rigs.append(rig)
    return rigs


def exchanges_of(rigs: Sequence[Rig]) -> list[Exchange]:
    """All but tokens, which are another service's, and the one request to an ended version."""
    every = [each for rig in rigs for each in rig.recorder.exchanges]
    return [each for each in every if each.path != "/token" and not each.path.startswith("/v15/")]
